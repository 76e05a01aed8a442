"""Residuals and their derivatives are finite."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key, PyTree

from constrainednn._checks.trial_evaluation import some_points
from constrainednn._common.batched import BLOCK, flat_value, in_blocks
from constrainednn._common.random_keys import numpy_generator
from constrainednn._gap.residuals import residuals_at
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.objective import label_of
from constrainednn._problem.problem import Problem
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import ProblemError
from constrainednn.models.recipes import trainable_mask

# Entries of a Jacobian that are held at once: 128 MB.
_ENTRIES = 2**24


def check_finite(constraint: Constraint, model: PyTree, train: Draw) -> np.ndarray:
    """Evaluate on all training points and refuse NaN or infinity.

    Raises:
        ProblemError: With the count, indices and coordinates of the first five.
    """
    try:
        r = residuals_at(constraint.residual, model, train.points)
    except jax.errors.UnexpectedTracerError:
        raise ProblemError(
            f"{label_of(constraint)}: a traced value was kept outside of the function and "
            "used later. Return what you need; keep no array in globals or objects."
        ) from None
    bad = np.flatnonzero(~np.isfinite(r).all(axis=1))
    if bad.size:
        where = some_points(train.points, bad)
        which = "all" if bad.size == len(r) else f"{bad.size} of {len(r)}"
        at = f"{which} training points, first at {where}" if len(r) > 1 else where
        hint = ""
        if r.dtype == np.float32:
            hint = " In float64 it may be finite: jax.config.update('jax_enable_x64', True)."
        raise ProblemError(
            f"{label_of(constraint)}: the residual is NaN or infinite at {at}. "
            "Check it for division by zero, logarithms and roots "
            f"there.{hint}"
        )
    return r


def check_gradient(
    problem: Problem, constraint: Constraint, model: PyTree, train: Draw, *, thorough: bool
) -> None:
    """Refuse a residual that does not depend on what is trained, or whose gradient is NaN.

    Args:
        problem: The problem, for what is trained.
        constraint: The constraint to look at.
        model: The ready model.
        train: Its training points.
        thorough: Differentiate in reverse mode, point by point, which also finds gradients that
            are NaN although the derivative along any direction is finite. Otherwise one
            directional derivative, which compiles faster.
    """
    params, static = eqx.partition(model, trainable_mask(model, problem.trainable))
    count = len(train)
    look = _gradients if thorough else _directional
    # Random, since a direction that is special (all ones, say) may be one that nothing depends on.
    direction = _random_like(params, key=jax.random.key(0))
    size = BLOCK
    if thorough:  # a row of numbers a parameter for each entry of the residual
        one = jax.tree.map(lambda leaf: leaf[0], train.points)
        rows = jax.eval_shape(eqx.Partial(flat_value, eqx.Partial(constraint.residual, model)), one)
        entries = rows.size * sum(leaf.size for leaf in jax.tree.leaves(params))
        size = max(1, min(BLOCK, _ENTRIES // max(entries, 1)))
    fn = eqx.Partial(look, constraint.residual, params, static, direction)
    slopes = in_blocks(fn, train.points, once=True, size=size).reshape(count, -1)
    label = label_of(constraint)
    bad = np.flatnonzero(~np.isfinite(slopes).all(axis=1))
    if bad.size:
        raise ProblemError(
            f"{label}: the residual is finite but its gradient is NaN or infinite at {bad.size} of "
            f"{count} training points, first at {some_points(train.points, bad)}. "
            "Roots and norms at zero do that, and jnp.where does not hide it: make the argument "
            "safe first, e.g. jnp.sqrt(jnp.where(s > 0, s, 1.0)) inside jnp.where(s > 0, ..., 0.0)."
        )
    if not slopes.any():
        r = residuals_at(constraint.residual, model, train.points)
        if np.abs(r).max() > 100 * np.finfo(r.dtype).eps:
            raise ProblemError(
                f"{label} does not depend on the trained parameters: its derivative is zero at all "
                f"{count} training points, with an RMS residual of {np.sqrt(np.mean(r**2)):.3g}. "
                "Does it use its first argument, the model?"
            )


def _gradients(residual: Callable, params: PyTree, static: PyTree, _: PyTree, x: PyTree) -> Any:
    def entries(params: PyTree) -> jax.Array:
        return jnp.ravel(residual(eqx.combine(params, static), x))

    rows = jax.tree.leaves(jax.jacrev(entries)(params))
    return sum(jnp.abs(leaf).reshape(leaf.shape[0], -1).sum(axis=1) for leaf in rows)


def _directional(
    residual: Callable, params: PyTree, static: PyTree, direction: PyTree, x: PyTree
) -> jax.Array:
    def entries(params: PyTree) -> jax.Array:
        return jnp.ravel(residual(eqx.combine(params, static), x))

    return jax.jvp(entries, (params,), (direction,))[1]


def _random_like(params: PyTree, *, key: Key[jax.Array, ""]) -> PyTree:
    generator = numpy_generator(key)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype), params
    )
