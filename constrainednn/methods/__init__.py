"""Methods: how parameters move. They see residuals, never problems."""

from constrainednn.methods.augmented_lagrangian import AugmentedLagrangian
from constrainednn.methods.base import (
    AbstractLagrangian,
    AbstractMethod,
    AbstractResidual,
    FunctionResidual,
    StepInfo,
)
from constrainednn.methods.first_order import Optax
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.stages import Stage
from constrainednn.methods.variable_projection import VariableProjection

__all__ = [
    "AbstractLagrangian",
    "AbstractMethod",
    "AbstractResidual",
    "AugmentedLagrangian",
    "FunctionResidual",
    "LevenbergMarquardt",
    "Optax",
    "Stage",
    "StepInfo",
    "VariableProjection",
]
