"""The statement of `pde` for a model that is trained, on points drawn over the domain."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from constrainednn._pde.conditions import (
    FlatStart,
    SeamResidual,
    StartResidual,
    WithArguments,
    at_side,
    side_of,
)
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Box
from constrainednn.models.recipes import is_recipe, trainable_mask

# Training points of the equation, and of each condition, at least; and for each parameter.
_POINTS, _FOR_EACH = (2000, 200), (4, 0.5)


def trained(
    residual: Callable[[Any, Array], Any],
    model: PyTree,
    *,
    args: PyTree,
    name: str,
    begin: FlatStart,
    sides: dict[str, Callable[..., Any]] | None,
    seam: SeamResidual,
    box: Box,
    observed: list[Constraint],
    reference: Callable[[Array], PyTree] | None,
) -> Problem:
    """The same constraints as for elements, but for jumps."""
    built = model(key=jax.random.key(0)) if is_recipe(model) else model
    trained_ones = eqx.filter(built, trainable_mask(built, None))
    count = sum(leaf.size for leaf in jax.tree.leaves(trained_ones))
    many, few = (
        max(least, round(share * count)) for least, share in zip(_POINTS, _FOR_EACH, strict=True)
    )
    constraints = [
        Constraint(residual, over=box, points=many, name=name),
        Constraint(StartResidual(begin), over=side_of(box, "start"), points=few, name="start"),
    ]
    for side, condition in ({"periodic": seam} if sides is None else sides).items():
        found = at_side(condition, side)
        constraints.append(Constraint(found, over=side_of(box, side), points=few, name=side))
    if args is not None:
        build = functools.partial(_built, model, args)
        model = build if is_recipe(model) else WithArguments(model, args)
    return Problem([*constraints, *observed], model, reference=reference)


def _built(recipe: Callable[..., PyTree], args: PyTree, *, key: Key[Array, ""]) -> WithArguments:
    return WithArguments(recipe(key=key), args)
