"""Nonlinear corrections to the error of a solution in pieces, by iteration.

Symbols as in `defect.py` and `error_equation.py`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from constrainednn._ode.linearised.defect import Equations, Missed, linearise, linearise_conditions
from constrainednn._ode.linearised.error_equation import (
    Conditions,
    ErrorEquation,
    between_ends,
    from_start,
)
from constrainednn._ode.linearised.sampled_solution import Path

# If rounding is amplified to this fraction of the solution, no estimate is possible.
_AMPLIFIED = 0.03
# Below this fraction of the solution the error equation is linear, if the field is smooth.
_LINEAR = 1e-10
# An estimate is reported if the last iteration changed it by less than this fraction, ...
_CURVED = 0.3
_ITERATIONS = 4  # ... of at most this many.


class ErrorProblem(NamedTuple):
    """A problem, its solution along a path, and the equation for the error."""

    equations: Equations
    path: Path
    equation: ErrorEquation
    missed: Missed
    conditions: Conditions | None


def solve_equation(
    equation: ErrorEquation, conditions: Conditions | None
) -> tuple[np.ndarray, np.ndarray]:
    """The error at the nodes and that of the parameters."""
    if conditions is None:
        return from_start(equation), np.zeros((0, equation.g.shape[-1]))
    return between_ends(equation, conditions)


def largest(e: np.ndarray) -> np.ndarray:
    """The largest norm in each piece."""
    return np.linalg.norm(e, axis=-1).max(axis=1)


def with_curvature(
    statement: ErrorProblem,
    first: tuple[np.ndarray, np.ndarray],
    hidden: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, " N"]]:
    """Add what f(u + e) - f(u) - f_y e does to the error.

    By iteration. The first iteration is usually a tiny correction; further ones distinguish an
    error whose first order happens to cancel from one that is too large to be estimated.

    Returns:
        The errors of state and parameters, and in which pieces the last iteration was a small
        correction or hidden by rounding.
    """
    e, dp = first
    trusted = np.zeros(len(e), bool)
    if np.maximum(largest(e), hidden).max() < _LINEAR:  # NaN is not
        return e, dp, np.ones(len(e), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_ITERATIONS):
            more = _second_order(statement, e, dp)
            change = first[0] + more[0] - e
            e, dp = first[0] + more[0], first[1] + more[1]
            trusted = largest(change) <= np.maximum(_CURVED * largest(e), hidden)
            # Neither an error nor amplified rounding as large as the solution can be trusted.
            trusted &= (largest(e) <= 1) & (hidden <= _AMPLIFIED)
            if trusted.all():
                break
    return e, dp, trusted


def _second_order(
    statement: ErrorProblem, e: np.ndarray, dp: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The correction of the error due to changes of the derivatives of f.

    f(u + e) - f(u) - f_y e is taken as half the change of f_y times e: for small e, a difference of
    f would be mostly rounding.
    """
    equations, path, equation, _, conditions = statement
    moved, p = path.Y + (e * path.size).reshape(path.Y.shape), path.p + dp
    _, _, A, B = linearise(equations.field, path.t, moved[:, 1:], p, path.size)
    g = ((A - equation.A) @ e[:, 1:, :, None])[..., 0] / 2 + (B - equation.B) @ dp / 2
    rhs = np.zeros(0)
    if conditions is not None and equations.conditions is not None:
        _, slopes = linearise_conditions(equations.conditions, path, moved, p)
        changes = zip(slopes, conditions[:3], (e[0, 0], e[-1, -1], dp), strict=True)
        rhs = -np.sum([(after - before) @ by / 2 for after, before, by in changes], axis=0)
        conditions = conditions._replace(rhs=_finite(rhs)[:, None])
    if not (g.any() or rhs.any()):  # a linear problem
        return np.zeros_like(e), np.zeros_like(dp)
    jumps = np.zeros((*equation.jumps.shape[:2], 1))
    bent = dataclasses.replace(equation, g=_finite(g)[..., None], jumps=jumps)
    E, more = solve_equation(bent, conditions)
    return E[..., 0], more[:, 0]


def _finite(v: np.ndarray) -> np.ndarray:
    """Clip to numbers whose squares do not overflow: if the field does, any huge value serves."""
    return np.clip(np.nan_to_num(v, nan=1e150), -1e150, 1e150)
