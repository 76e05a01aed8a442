"""Projection of a model's values onto a set that constraints define, one point at a time."""
