"""Comparison with a classical solver."""
