"""Models: recipes, networks, features, pieces, projections, and transforms of input and output."""

from constrainednn.models.networks import MLP, Linear
from constrainednn.models.pieces import Pieces
from constrainednn.models.projection.transform import Projected, with_projection
from constrainednn.models.random_features import FeatureNetwork, RandomFeatures
from constrainednn.models.recipes import AbstractRecipe, Frozen
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.models.transforms import PeriodicInput, with_input, with_output

__all__ = [
    "MLP",
    "AbstractRecipe",
    "FeatureNetwork",
    "Frozen",
    "Linear",
    "PeriodicInput",
    "Pieces",
    "PlaneTimePieces",
    "Projected",
    "RandomFeatures",
    "SpacePieces",
    "SpaceTimePieces",
    "with_input",
    "with_output",
    "with_projection",
]
