"""The loss at which a run ends, and what that means."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import PyTree

from constrainednn._gap.residuals import residuals_at
from constrainednn._problem.problem import Problem
from constrainednn.domains.samplers.base import Draw
from constrainednn.runs.history import Status

# An objective that has fallen by so many times its size before training has no minimum.
_FALLEN = 1e8


def least_loss(
    problem: Problem, model: PyTree, draws: Sequence[Draw], tolerance: float, unit: float
) -> float:
    """The loss at which a run ends: that of the tolerance, or one that no minimum explains."""
    if problem.objective is None:
        return (tolerance / unit) ** 2
    values = residuals_at(problem.objective.stated.residual, model, draws[-1].points)
    return -_FALLEN * max(float(np.abs(values).mean()), 1.0)


def reached(
    problem: Problem, loss: float, least: float, tolerance: float, step: int
) -> tuple[Status, str] | None:
    """How a run ends whose loss is at most `least`; None where it is not, or may go on."""
    if loss > least or math.isnan(loss):
        return None
    if problem.objective is not None:
        return Status.BLOW_UP, (
            f"objective {problem.objective.name!r} fell to {loss:.2g} by step {step}, "
            f"{_FALLEN:.0e} times its size before training: it seems to be unbounded below. Bound "
            "the model's values, by with_projection(inequalities=...) or with_output, or look for "
            "a missing constraint"
        )
    if not tolerance:
        return None
    return Status.CONVERGED, f"the root of the loss is below the tolerance {tolerance:g}"
