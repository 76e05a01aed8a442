"""Equations in space and time, by spectral elements."""
