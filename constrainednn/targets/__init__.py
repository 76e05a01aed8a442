"""Targets: sets that a model's values should fill, and the image of a model."""
