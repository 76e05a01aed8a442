"""Residuals of what is stated beside the equation: start, boundary, and what pieces must share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._pde.arguments import takes
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._problem.equation_arguments import TracedArguments
from constrainednn._problem.unknowns import Unknown, is_unknown
from constrainednn.domains.boundaries import Segment
from constrainednn.domains.boxes import Box
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.regions.boundary import RegionBoundary
from constrainednn.models.recipes import Frozen
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.operators.derivatives import partial

# Models that give their derivatives and jumps themselves.
IN_PIECES = SpaceTimePieces, SpacePieces, PlaneTimePieces


class WithArguments(eqx.Module):
    """A model beside the arguments of an equation; an `Unknown` among them is trained with it.

    Attributes:
        model: The model.
        given: The arguments; numbers that are known stay as they are.
    """

    model: Callable[[Any], PyTree]
    given: PyTree

    def __init__(self, model: Callable[[Any], PyTree], args: PyTree):
        self.model = model
        self.given = _each(lambda leaf: leaf if is_unknown(leaf) else Frozen(leaf), args)

    def __call__(self, p: Float[Array, "2"]) -> PyTree[Array]:
        """The value of the model."""
        return self.model(p)

    @property
    def args(self) -> PyTree:
        """The arguments with the present values of the unknowns."""
        return _each(lambda leaf: leaf.value, self.given)


def _args_of(u: Any, otherwise: PyTree) -> PyTree:
    """The arguments that a model holds, or those of a reference, which holds none."""
    found = None if isinstance(u, functools.partial) else getattr(u, "args", None)
    return otherwise if found is None else found


def _each(fn: Callable[[Any], Any], args: PyTree) -> PyTree:
    return jax.tree.map(fn, args, is_leaf=lambda node: isinstance(node, (Unknown, Frozen)))


class LocalEquation(eqx.Module):
    """A residual, of a model in pieces through the derivatives that it sees."""

    local: LocalResidual

    def __call__(self, u: Callable, p: Float[Array, "..."]) -> Float[Array, " e"]:
        """The residual at one point."""
        if not isinstance(u, IN_PIECES):  # such as a reference
            args = _args_of(u, self.local.arguments(self.local.unknowns))
            fn = self.local.fn.fn if isinstance(self.local.fn, OfNumber) else self.local.fn
            return flat(fn(WithArguments(u, args), p))
        v = u.derivatives(p, self.local.orders)
        return self.local.given(u.parameters).at(v, jnp.atleast_1d(p))


class FlatStart(eqx.Module):
    """The start as a vector for each derivative by time.

    Attributes:
        fn: From a place to the value, or to value and derivative for order two.
        order: Order in time.
        of_arguments: Whether it takes the arguments besides a place.
        arguments: From the unknowns of the equation to its arguments.
        unknowns: Their values.
    """

    fn: Callable[..., PyTree]
    order: int = eqx.field(static=True)
    of_arguments: bool = eqx.field(static=True)
    arguments: TracedArguments
    unknowns: Float[Array, " q"]

    def given(self, unknowns: Float[Array, " q"]) -> "FlatStart":
        """The same for other values of the unknowns."""
        return dataclasses.replace(self, unknowns=unknowns)

    def __call__(self, x: Float[Array, "*dim"]) -> Float[Array, "o d"]:
        """The state at one place, a number on an interval."""
        return self.at(x, self.arguments(self.unknowns))

    def at(self, x: Float[Array, "*dim"], args: PyTree) -> Float[Array, "o d"]:
        """The state at one place for other arguments."""
        value = self.fn(x, args) if self.of_arguments else self.fn(x)
        parts = (value,) if self.order == 1 else value
        dtype = jnp.result_type(float)
        return jnp.stack([flat(part).astype(dtype) for part in parts])


class StartResidual(eqx.Module):
    """What a model misses of the start: its value, for order two its derivative by time, too."""

    start: FlatStart

    def __call__(self, u: Any, p: Float[Array, "2"]) -> Float[Array, " n"]:
        """The difference at one point (t, x)."""
        found = u(p) if self.start.order == 1 else (u(p), partial(u, 0)(p))
        args = _args_of(u, self.start.arguments(self.start.unknowns))
        return flat(found) - self.start.at(p[1], args).ravel()


class SeamResidual(eqx.Module):
    """How far value and derivatives by x differ between the two ends of a periodic interval.

    In units of u: derivatives are multiplied by powers of the length of the interval, or of the
    elements at its ends.

    Attributes:
        right: The right end; the point lies at the left one.
        length: Of the interval.
        k: Number of derivatives, the value among them.
    """

    right: float
    length: float
    k: int = eqx.field(static=True)

    def __call__(self, u: Callable, p: Float[Array, "2"]) -> Float[Array, " n"]:
        """The differences at one time."""
        if isinstance(u, SpaceTimePieces):
            return u.seam(p[0])
        differences, fn = [], u
        for order in range(self.k):
            there = jnp.stack([p[0], jnp.asarray(self.right, p.dtype)])
            differences.append(self.length**order * (flat(fn(p)) - flat(fn(there))))
            fn = partial(fn, 1)
        return jnp.concatenate(differences)


class JumpResidual(eqx.Module):
    """Jumps of a model in pieces beside a point, in units of u.

    Attributes:
        region: Where there may be none, if not everywhere.
    """

    region: AbstractShape | None = None

    def __call__(self, u: Callable, p: Float[Array, "..."]) -> Float[Array, " n"]:
        """The jumps at the lower ends of the piece it lies in."""
        if isinstance(u, SpacePieces) and self.region is not None:
            region = self.region
            return u.jumps(p, lambda x: jnp.asarray(region.distance(x) < 0))
        return u.jumps(p) if isinstance(u, IN_PIECES) else jnp.zeros(1)


class WithNormal(eqx.Module):
    """A boundary residual of three arguments at one end or face, where the normal is known."""

    fn: Callable[[Any, Any, Any], Any]
    normal: float | tuple[float, ...]

    def __call__(self, u: Callable, p: Float[Array, "..."]) -> PyTree[Array]:
        """The residual at one point there."""
        return self.fn(u, p, jnp.asarray(self.normal, p.dtype))


class WithNormalField(eqx.Module):
    """A boundary residual of three arguments on a curve, where the normal depends on the point."""

    fn: Callable[[Any, Any, Any], Any]
    boundary: RegionBoundary

    def __call__(self, u: Callable, p: Float[Array, " dim"]) -> PyTree[Array]:
        """The residual at one point there."""
        return self.fn(u, p, self.boundary.normal(p))


class OfNumber(eqx.Module):
    """A residual at points that are numbers, as one at points of shape (1,)."""

    fn: Callable[[Any, Any], Any]

    def __call__(self, u: Callable, p: Float[Array, "1"]) -> PyTree[Array]:
        """The residual at one point."""
        return self.fn(AtNumber(u), p[0])


class AtNumber(eqx.Module):
    """A model of points of shape (1,), called with numbers."""

    u: Callable[[Any], PyTree]

    def __call__(self, x: Float[Array, ""]) -> PyTree[Array]:
        """The value of the model."""
        return self.u(jnp.reshape(x, (1,)))

    @property
    def args(self) -> PyTree:
        """The arguments of the equation."""
        return _args_of(self.u, None)


def at_side(condition: Callable[..., Any], side: str) -> Callable[[Any, Any], Any]:
    """A condition of the model and a point, at the left or the right end."""
    if takes(condition, 3):
        return WithNormal(condition, 1.0 if side == "right" else -1.0)
    return condition


def side_of(box: Box, name: str) -> Segment:
    """The start, or an end of space at all times; a seam is at the left end."""
    (t0, low), (t1, high) = box.low, box.high
    if name == "start":
        return Segment((t0, low), (t0, high))
    x = high if name == "right" else low
    return Segment((t0, x), (t1, x))


def flat(value: PyTree) -> Float[Array, " n"]:
    """The entries of a value as a vector."""
    return ravel_pytree(jax.tree.map(jnp.asarray, value))[0]
