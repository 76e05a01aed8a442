"""Domains: probability measures to draw points from, and samplers that fill the unit cube."""

from constrainednn.domains.base import AbstractDomain, Mapped, Product
from constrainednn.domains.boundaries import BoxBoundary, Segment, Segments
from constrainednn.domains.boxes import Box, Boxes, Interval
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.regions.base import AbstractShape, Region
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.domains.regions.level_set import LevelSet
from constrainednn.domains.regions.polygon import Polygon
from constrainednn.domains.regions.simple import Ball, HalfSpace
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.domains.samplers.base import AbstractSampler, Draw
from constrainednn.domains.samplers.grids import GaussQuadrature, Grid
from constrainednn.domains.samplers.random import Independent, LatinHypercube, Sobol
from constrainednn.domains.spheres import Normal, Sphere

__all__ = [
    "AbstractDomain",
    "AbstractSampler",
    "AbstractShape",
    "Adaptive",
    "Ball",
    "Box",
    "BoxBoundary",
    "Boxes",
    "Data",
    "Draw",
    "GaussQuadrature",
    "Grid",
    "HalfSpace",
    "Independent",
    "Interval",
    "LatinHypercube",
    "LevelSet",
    "Mapped",
    "Normal",
    "Points",
    "Polygon",
    "Product",
    "Region",
    "RegionBoundary",
    "Segment",
    "Segments",
    "Sobol",
    "Sphere",
]
