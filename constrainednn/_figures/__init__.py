"""Figures of a solution."""
