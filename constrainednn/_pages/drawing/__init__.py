"""Plots as SVG, from arrays."""
