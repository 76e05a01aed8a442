"""Targets: sets that a model's values should fill, and the image of a model."""

from constrainednn.targets.image import Image
from constrainednn.targets.sets import AbstractTarget, Circle, RotationGroup

__all__ = ["AbstractTarget", "Circle", "Image", "RotationGroup"]
