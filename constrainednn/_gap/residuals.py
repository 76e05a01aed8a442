"""Residuals at points, their size, and the size of their terms."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._common.random_keys import numpy_generator
from constrainednn._gap.tables import is_rounding
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.experiments import apart
from constrainednn._problem.objective import Value
from constrainednn._problem.problem import Problem
from constrainednn.domains.missing import Present
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadTypeError
from constrainednn.targets.image import OTHER_USE, model_inputs


def residuals_at(
    residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree
) -> Float[np.ndarray, "n entries"]:
    """Evaluate a residual at many points: the one place that reported numbers come from."""
    return in_blocks(eqx.Partial(flat_value, eqx.Partial(residual, model)), points)


def squares(r: Float[np.ndarray, "n entries"]) -> Float[np.ndarray, " n"]:
    """|r|^2 of each point, in double precision: squares of single ones soon leave their range."""
    return np.square(r, dtype=float).sum(axis=1)


def mean_square(r: Float[np.ndarray, "n entries"], points: Draw) -> float:
    """Mean of |r|^2 over weighted points: sum_i share_i |r_i|^2."""
    return float((points.weights * squares(r)).sum())


def root_mean_square(r: Float[np.ndarray, "..."]) -> float:
    """Root of the mean of squares, which themselves may leave the range of the numbers."""
    top = float(np.max(np.abs(r), initial=0.0))
    if not 0 < top < math.inf:
        return top
    power = math.frexp(top)[1]  # no digit changes
    return math.ldexp(float(np.sqrt(np.mean(np.ldexp(r, -power) ** 2))), power)


def loss_at(constraint: Constraint, model: PyTree, points: Draw, *, unit: float = 1.0) -> float:
    """Loss of one constraint on weighted points: weight * sum_i w_i |r_i / unit|^2.

    Of an objective, its mean.
    """
    if not len(points):
        return 0.0
    constraint, model = apart(constraint, model)
    r = residuals_at(constraint.residual, model, points.points)
    if isinstance(constraint.residual, Value):
        return float((points.weights * r[:, 0].astype(float)).sum()) / unit**2
    return constraint.weight * mean_square(r / unit if unit != 1 else r, points)


def observed_entries(constraint: Constraint, model: PyTree, points: Draw, entries: int) -> float:
    """Entries of a residual that were observed, on the average over the rows."""
    if not isinstance(constraint.residual, Present):
        return entries
    there = residuals_at(constraint.residual.observed, model, points.points)
    return entries * float(np.mean(there)) or math.nan


def monitor_loss(
    problem: Problem, model: PyTree, train: Sequence[Draw], monitor: Sequence[Draw | None]
) -> float:
    """Loss on monitor points, and on training points where a finite set has no others.

    All constraints count, so that it compares with the training loss. NaN where none has monitor
    points.
    """
    if all(points is None for points in monitor):
        return math.nan
    return sum(
        loss_at(item, model, fitted if watched is None else watched)
        for item, fitted, watched in zip(problem.statements, train, monitor, strict=True)
    )


def rounding_floor(
    constraint: Constraint, model: PyTree, held: Draw, r: Float[np.ndarray, "n entries"]
) -> float:
    """RMS change of the residual when every parameter changes in its last digits.

    A residual of this size is rounding, whatever its units: an absolute threshold would call a
    quantity in joules converged because it is small.
    """
    count = min(len(held), 1024)
    some = jax.tree.map(lambda leaf: leaf[:count], held.points)
    moved = residuals_at(constraint.residual, _nudged(model), some)
    return root_mean_square(moved - r[:count])


def _nudged(model: PyTree) -> PyTree:
    def nudge(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        step = 4 * float(jnp.finfo(leaf.dtype).eps)
        # On the host: a dozen small operations a leaf shape would each be compiled.
        signs = np.where(np.arange(leaf.size).reshape(leaf.shape) % 2 == 0, step, -step)
        return (np.asarray(leaf) * (1 + signs)).astype(leaf.dtype)

    return jax.tree.map(nudge, model)


def holds_already(
    problem: Problem, model: PyTree, train: Sequence[Draw], monitor: Sequence[Draw | None]
) -> bool:
    """True if every residual is at rounding on train and monitor points, before any training.

    Not where there is an objective, which is to be lowered all the same.
    """
    if problem.objective is not None:
        return False
    for constraint, *both in zip(problem.constraints, train, monitor, strict=True):
        for points in both:
            if points is None:
                continue
            r = residuals_at(constraint.residual, model, points.points)
            if not is_rounding(root_mean_square(r), rounding_floor(constraint, model, points, r)):
                return False
    return True


_POINTS = 256


def term_size(residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree) -> float:
    r"""RMS over points and entries of the terms that a residual is the sum of.

    About a point x0 the model u is replaced by (1 + e s_0) u(x0 + (1 + e s) (x - x0)), which
    changes its value there by the factor 1 + e s_0, and each derivative by one more for each time
    that it is along coordinate k, 1 + e s_k. What the residual changes by, over e, is the sum over
    the terms with these signs; with random signs its mean square is the sum of their squares. A
    residual that is far below has terms that cancel. One that is not is no solution, however
    small it is.

    Args:
        residual: The residual at one point.
        model: The model; NaN is returned if no part of it is called with a point of reals.
        points: Where to look; the first 256 of them.
    """
    some = jax.tree.map(lambda leaf: leaf[:_POINTS], points)
    x = model_inputs(some)
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "f"):
        return math.nan
    generator = numpy_generator(jax.random.key(0))
    signs = [generator.choice([-1.0, 1.0], shape).astype(x.dtype) for shape in (len(x), x.shape)]
    step = float(jnp.finfo(x.dtype).eps) ** (1 / 3)
    change = eqx.Partial(_change, residual, model, step)
    try:
        with np.errstate(all="ignore"):
            found = in_blocks(change, (some, *signs), once=True)
    except OTHER_USE:
        return math.nan
    found = found[np.isfinite(found).all(axis=1)]
    return float(np.sqrt(np.mean(found**2))) if len(found) else math.nan


def _change(
    residual: Callable, model: PyTree, step: float, at: tuple[PyTree, Array, Array]
) -> Array:
    point, sign, signs = at
    here = model_inputs(point)

    def stretched(step: Array, u: Any) -> Any:
        if not callable(u):
            return u

        def around(x: Array) -> PyTree[Array]:
            if jnp.shape(x) != here.shape:
                raise BadTypeError("called at a place that is not the point")
            value = u(here + (1 + step * signs) * (x - here))
            return jax.tree.map(lambda leaf: (1 + step * sign) * leaf, value)

        if hasattr(u, "args"):  # which residuals of equations ask for
            around.args = u.args  # type: ignore[attr-defined]
        return around

    def found(step: Array) -> Array:
        moved = jax.tree.map(functools.partial(stretched, step), model, is_leaf=callable)
        return flat_value(eqx.Partial(residual, moved), point)

    # Both at once: the program of a model may be long.
    changed, plain = jax.vmap(found)(jnp.asarray([step, 0.0], here.dtype))
    return (changed - plain) / step
