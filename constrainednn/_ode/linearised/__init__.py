"""Equations linearised along a solution: steps for all elements, and the error of a solution."""
