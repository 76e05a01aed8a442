"""Targets: sets that a model's values should fill, and the image of a model."""

from constrainednn.targets.image import Image
from constrainednn.targets.sets import AbstractTarget, Circle, RotationGroup, Sphere
from constrainednn.targets.stated import Cloud, Manifold, Product

__all__ = [
    "AbstractTarget",
    "Circle",
    "Cloud",
    "Image",
    "Manifold",
    "Product",
    "RotationGroup",
    "Sphere",
]
