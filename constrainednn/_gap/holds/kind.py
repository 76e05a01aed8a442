"""In which way a constraint holds, read off the problem: nobody declares it.

A projection in the model enforces a constraint if its residual is one of the functions of the
projection, as a program: the same operations on the model's value and the point.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, PyTree

from constrainednn._common.batched import in_blocks
from constrainednn._common.tables import number
from constrainednn._gap.holds.guarantee import Guarantee
from constrainednn.models.projection.transform import Projected
from constrainednn.models.transforms import _InputTransformed, _OutputTransformed
from constrainednn.operators.residual_terms import at_most, violation

# Kinds of constraints that a projection enforces.
ENFORCED = ("exact by construction", "to solver tolerance")


@dataclasses.dataclass(frozen=True)
class Holds:
    """In which way a constraint holds at points that nobody tried.

    Attributes:
        kind: "exact by construction" where a projection in closed form enforces this very
            function; "to solver tolerance" where one by iteration does; "with probability" where
            the guarantee is all that is known; "not known" where that is void.
        tolerance: The violation up to which a value has arrived at the set of an iteration.
        missed: Share of the held-out points at which it did not.
        violation: The largest violation of the set at a held-out point.
    """

    kind: Literal["exact by construction", "to solver tolerance", "with probability", "not known"]
    tolerance: float | None = None
    missed: float | None = None
    violation: float | None = None

    def line(self) -> str:
        """The same as a sentence; empty where the guarantee says it all."""
        if self.kind == "exact by construction":
            return "holds exactly by construction: a projection in closed form, up to rounding"
        if self.tolerance is None or self.missed is None or self.violation is None:
            return ""
        holds, got = "holds", "got there at all held-out points"
        if self.missed:
            holds = "is to hold"
            got = f"did not get there at {number(100 * self.missed)} % of the held-out points"
        return (
            f"{holds} to solver tolerance {self.tolerance:.2g}: the projection {got}, violation "
            f"{self.violation:.2g} at the worst"
        )


def how_it_holds(
    residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree, proved: Guarantee
) -> Holds:
    """Name the way in which a constraint holds.

    Args:
        residual: The residual of the constraint.
        model: The model, which may have a projection in it.
        points: The held-out points.
        proved: What they prove.
    """
    otherwise = Holds("not known" if proved.void else "with probability")
    found = _projection_in(model)
    if found is None or not proved.points or not is_enforced(residual, model, points):
        return otherwise
    inner, inwards, _ = found
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), points)
    left, before = in_blocks(eqx.Partial(_violations, inner, inwards), points)
    allowed = inner.projection.allowed(left.dtype)
    left, bound = np.where(np.isfinite(left), left, np.inf), np.full(len(left), allowed)
    closed = inner.projection.closed_form(inwards(x), inner.model(inwards(x)))
    if closed:  # up to rounding in the units of the constraint
        bound *= np.maximum(1.0, np.where(np.isfinite(before), before, 1.0))
    missed = float((left > bound).mean())
    if closed and not missed:  # equations that contradict each other miss
        return Holds("exact by construction")
    return Holds("to solver tolerance", allowed, missed, float(left.max()))


def is_enforced(residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree) -> bool:
    """True if a residual is, as a program, what a projection in the model enforces.

    Args:
        residual: The residual of a constraint.
        model: The model.
        points: Some of its points, for their shapes.
    """
    found = _projection_in(model)
    if found is None or not jax.tree.leaves(points):
        return False
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), points)
    return _enforced(residual, *found, x)


def _violations(inner: Projected, inwards: Callable, x: PyTree) -> tuple[Array, Array]:
    """Of the value of the projection, and of what it is given."""
    x = inwards(x)
    return inner.violation(x), inner.projection.violation(x, inner.model(x))


def _projection_in(model: PyTree) -> tuple[Projected, Callable, Callable] | None:
    """The projection of a model, with what is done to its points before and its values after."""
    inwards, outwards = (lambda x: x), (lambda x, y: y)
    while isinstance(model, (_InputTransformed, _OutputTransformed)):
        if isinstance(model, _InputTransformed):
            inwards = lambda x, fn=model.fn, before=inwards: fn(before(x))  # noqa: E731
        else:
            outwards = lambda x, y, fn=model.fn, after=outwards, at=inwards: after(  # noqa: E731
                x, fn(at(x), y)
            )
        model = model.model
    return (model, inwards, outwards) if type(model) is Projected else None


class _AnotherUse(BaseException):
    """A model was not called with the point itself. No `except Exception` catches it."""


def _enforced(
    residual: Callable, inner: Projected, inwards: Callable, outwards: Callable, x: PyTree
) -> bool:
    """True if a residual is a function of the projection, as traced programs."""
    y = jax.eval_shape(lambda x: inner.model(inwards(x)), x)

    def of_value(x: PyTree, y: Array) -> Any:
        def value(given: PyTree) -> PyTree:
            if given is not x:
                raise _AnotherUse
            return outwards(x, y)

        return residual(value, x)

    known: dict[Hashable, int] = {}
    try:
        stated = _program(of_value, x, y, known)
    except (_AnotherUse, AttributeError, TypeError):  # as of a residual with derivatives
        return False
    return any(stated == _program(form, x, y, known) for form in _forms(inner, inwards))


def _forms(inner: Projected, inwards: Callable) -> Iterator[Callable]:
    """The ways in which a residual may state what a projection enforces."""
    g, h = inner.projection.equalities.value, inner.projection.inequalities.value
    if g is not None:
        yield lambda x, y: g(inwards(x), y)
    if h is not None:
        yield lambda x, y: violation(h(inwards(x), y))
        yield lambda x, y: at_most(h(inwards(x), y), 0.0)
        yield lambda x, y: at_most(h(inwards(x), y), 0)
        yield lambda x, y: jnp.maximum(h(inwards(x), y), 0.0)
        yield lambda x, y: jax.nn.relu(h(inwards(x), y))


def _program(fn: Callable, x: PyTree, y: Any, known: dict[Hashable, int]) -> int:
    """The number of an expression: the same for the same operations, in whatever order.

    Args:
        fn: A function of a point and a value.
        x: A point, for its shapes.
        y: A value, for its shape.
        known: Numbers of the expressions seen so far; new ones are added.
    """
    traced = jax.make_jaxpr(lambda x, y: jnp.ravel(fn(x, y)))(x, y)
    numbered = lambda key: known.setdefault(key, len(known))  # noqa: E731
    of: dict[Any, int] = {}
    for place, var in enumerate(traced.jaxpr.invars):
        of[var] = numbered(("argument", place))
    for var, value in zip(traced.jaxpr.constvars, traced.consts, strict=True):
        array = np.asarray(value)
        of[var] = numbered(("array", array.tobytes(), array.shape, str(array.dtype)))
    number_of = lambda v: (  # noqa: E731
        numbered(("literal", repr(v.val), str(v.aval))) if isinstance(v, core.Literal) else of[v]
    )
    for equation in traced.jaxpr.eqns:
        what = equation.primitive.name, str(equation.params), *map(number_of, equation.invars)
        for place, var in enumerate(equation.outvars):
            of[var] = numbered((what, place))
    return number_of(traced.jaxpr.outvars[0])
