"""The statement of an equation in space alone for a model that is trained, in any dimension."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_function
from constrainednn._common.messages import shown
from constrainednn._fitting.observations import data_constraints
from constrainednn._pde.arguments import takes
from constrainednn._pde.stationary.region import as_conditions, as_region, over_at
from constrainednn._pde.stationary.statement import with_normal
from constrainednn._pde.trained import Stated, trained
from constrainednn._problem.problem import Problem
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boundaries import BoxBoundary
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.errors import BadValueError


class _WithFace(eqx.Module):
    """A condition of three arguments on the faces of a box: the normal is that of the nearest."""

    fn: Callable[[Any, Any, Any], Any]
    boundary: BoxBoundary

    def __call__(self, u: Callable, x: Float[Array, " dim"]) -> PyTree[Array]:
        """The residual at one point."""
        return self.fn(u, x, self.boundary.normal(x))


def trained_in_space(
    residual: Callable[[Any, Array], Any],
    model: PyTree,
    *,
    over: Interval | AbstractShape,
    boundary: Any,
    data: Any,
    args: PyTree,
    name: str,
    reference: Callable[[Array], PyTree] | None,
) -> Problem:
    """The same constraints as for elements, but for jumps; in more dimensions one for all faces."""
    if isinstance(over, Box) and len(over.low) > 2:
        if isinstance(boundary, Mapping):
            raise BadValueError(
                "boundary of a box in more than two dimensions is one condition(u, x) or "
                f"condition(u, x, n) for all faces, got {shown(boundary)}."
            )
        fn = as_function(boundary, "boundary", "lambda u, x: u(x)")
        fn = _WithFace(fn, over.boundary) if takes(fn, 3) else fn
        stated = [Stated("boundary", fn, over.boundary)]
    else:
        region = as_region(over, most=sys.maxsize)
        stated = [
            Stated(label, with_normal(fn, region, side), place)
            for side, fn in as_conditions(boundary, region).items()
            for label, place in [over_at(side, region)]
        ]
    shared = {"args": args, "name": name, "reference": reference}
    assert isinstance(over, AbstractDomain)
    return trained(residual, model, stated, over=over, observed=data_constraints(data), **shared)


def refuse_with_time(**given: Any) -> None:
    """Refuse arguments that an equation in space alone has not."""
    for name, value in given.items():
        if value is not None and np.size(value):
            raise BadValueError(f"{name}= is for equations in time: add time=, or leave it out.")
