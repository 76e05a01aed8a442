"""Estimates of unknowns, with intervals."""
