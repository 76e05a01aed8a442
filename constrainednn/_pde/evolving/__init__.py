"""Equations in time and two space coordinates."""
