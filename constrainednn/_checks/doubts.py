"""What can be solved, but probably not as it is meant."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._checks.trial_evaluation import traced
from constrainednn._common.batched import in_blocks
from constrainednn._common.memory import equations_of
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.objective import label_of
from constrainednn._problem.problem import Problem
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.spheres import Normal
from constrainednn.models.networks import MLP
from constrainednn.models.pieces import Pieces
from constrainednn.models.projection.transform import Projected
from constrainednn.targets.image import OTHER_USE, model_inputs

# In lengths of the interval.
FURTHER = 1e6
# Few of the units that are spread over standard normal inputs bend beyond this.
_REACH = 4.0
# Primitives that piecewise linear functions are made of.
_KINKS = frozenset(("max", "min", "abs", "select_n"))


def doubts(problem: Problem, constraint: Constraint, model: PyTree, train: Draw) -> list[str]:
    """Sentences about what is probably not meant."""
    found = _out_of_reach(problem, constraint, train)
    label = label_of(constraint)
    if jnp.result_type(float) == jnp.float32:
        given = getattr(constraint.over, "points", None), getattr(constraint.over, "rows", None)
        rounded = "points" if _holds_float64(given) else ""
        if inspect.isfunction(constraint.residual):
            used = inspect.getclosurevars(constraint.residual)
            rounded = rounded or ", ".join(
                name
                for name, value in {**used.globals, **used.nonlocals}.items()
                if _holds_float64(value)
            )
        if rounded:
            found.append(
                f"{label}: float64 numbers ({rounded}) are rounded to float32. Write "
                "jax.config.update('jax_enable_x64', True) before the first array."
            )
    returned = traced(label, constraint.residual, model, train.points).dtype
    if returned != jnp.result_type(float):
        found.append(
            f"{label}: the residual returns {returned} numbers, points are {jnp.result_type(float)}"
            ": it cannot be solved beyond their rounding. Leave out the cast, astype or dtype=."
        )
    if _bends_without_curvature(constraint, model, train):
        found.append(
            f"{label}: the residual uses second derivatives, but the model is piecewise linear "
            "(relu?), so they are zero everywhere. Use a smooth activation such as jnp.tanh."
        )
    return found


def _out_of_reach(problem: Problem, constraint: Constraint, train: Draw) -> list[str]:
    """A sentence where a network bends far from where its points are."""
    recipe, inputs = problem.model, model_inputs(train.points)
    if not isinstance(recipe, MLP) or recipe.depth == 0 or not isinstance(inputs, np.ndarray):
        return []
    # Of another seed, the places are others of the same size.
    recipe = recipe.spread_over(problem.places(key=jax.random.key(0)))
    label, size = label_of(constraint), recipe.in_size
    if recipe.over is None:
        kind = "numbers" if size == "scalar" else f"points of {size} coordinates"
        return [
            f"{label}: the network takes {kind}, and no two that differ are among the points of "
            "the constraints, so its units are spread over standard normal inputs. Write over= of "
            "cx.MLP with the domain of what it is called with."
        ]
    if not isinstance(recipe.over, Normal) or isinstance(constraint.over, Normal):
        return []
    reach = float(np.abs(inputs).max(initial=0.0))
    if inputs.dtype.kind != "f" or inputs.shape[1:] not in ((), (recipe.in_size,)):
        return []
    if not reach > _REACH:
        return []
    return [
        f"{label}: points reach {reach:.3g}, but the units of cx.MLP are spread over standard "
        "normal inputs. Leave out over=, or write the domain of the points."
    ]


def uneven(sizes: dict[str, float]) -> str:
    """A sentence where one constraint hides another.

    What is at rounding beside it holds already.
    """
    top = max(sizes, key=lambda name: sizes[name])
    seen = {name: size for name, size in sizes.items() if size > 1e-13 * sizes[top]}
    low = min(seen, key=lambda name: sizes[name], default=top)
    if not sizes[top] > 1e8 * sizes[low]:
        return ""
    return (
        f"constraint {top!r} has a residual of {sizes[top]:.1e} before training, constraint "
        f"{low!r} one of {sizes[low]:.1e}, weights included: the first hides the second. Divide "
        "each residual by its unit, or set weight=."
    )


def _holds_float64(value: Any) -> bool:
    return any(getattr(leaf, "dtype", None) == np.float64 for leaf in jax.tree.leaves(value))


class _Curved(eqx.Module):
    """The model plus a parabola around a point: same value and slope there, other curvature."""

    model: PyTree
    centre: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.model(x) + 0.5 * jnp.sum((x - self.centre) ** 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _bends_without_curvature(constraint: Constraint, model: PyTree, train: Draw) -> bool:
    """True if the residual changes with the model's curvature and the model has none."""
    if isinstance(model, Pieces):
        return False  # polynomials, whatever the first guess is
    some = jax.tree.map(lambda leaf: leaf[:16], train.points)
    inputs = model_inputs(some)
    if not (callable(model) and isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f"):
        return False
    try:
        behind = model
        while isinstance(behind, Projected):  # whose steps have kinks that the values do not show
            behind = behind.model
        program = jax.make_jaxpr(behind)(inputs[0]).jaxpr
        if _KINKS.isdisjoint(item.primitive.name for item in equations_of(program)):
            return False  # no kink, so no piecewise linear model; saves two compilations
        curvature = in_blocks(eqx.Partial(_curvature, model), inputs, once=True)
        if curvature.any():
            return False
        changed = eqx.Partial(_change_with_curvature, constraint.residual, model)
        change = in_blocks(changed, some, once=True)
    except OTHER_USE:
        return False
    return bool(np.abs(change).max() > 1e-3)


def _curvature(model: PyTree, x: jax.Array) -> jax.Array:
    direction = jnp.ones_like(x)
    slope = lambda x: jax.jvp(model, (x,), (direction,))[1]  # noqa: E731
    return jax.jvp(slope, (x,), (direction,))[1]


def _change_with_curvature(residual: Callable, model: PyTree, x: PyTree) -> jax.Array:
    curved = _Curved(model, model_inputs(x))
    return jnp.ravel(residual(curved, x) - residual(model, x))
