"""The statement of an equation in space alone."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_arrays, as_count
from constrainednn._common.messages import in_plain_words
from constrainednn._fitting.observations import data_constraints, refuse_without
from constrainednn._pde.arguments import takes
from constrainednn._pde.conditions import (
    JumpResidual,
    LocalEquation,
    OfNumber,
    WithNormal,
    WithNormalField,
)
from constrainednn._pde.elements.germ import LocalResidual, local_residual, unabridged
from constrainednn._pde.stationary.constants import dependence, with_constants
from constrainednn._pde.stationary.determined.characteristics import check_characteristics
from constrainednn._pde.stationary.determined.counts import (
    check_evolution,
    check_order,
    check_sides,
    check_total,
)
from constrainednn._pde.stationary.determined.everywhere import check_everywhere
from constrainednn._pde.stationary.determined.types import check_type
from constrainednn._pde.stationary.discretisation import Equations, gauss_cube, tables
from constrainednn._pde.stationary.fitting.places import refuse_beyond
from constrainednn._pde.stationary.fitting.scheme import FittedStationaryScheme
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.region import (
    Region,
    as_conditions,
    as_first_mesh,
    as_region,
    over_at,
)
from constrainednn._pde.stationary.scheme import StationaryScheme
from constrainednn._pieces.mesh import places
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.problem import Problem
from constrainednn.domains.boundaries import Segment
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadValueError, ProblemError
from constrainednn.models.space import SpacePieces

# The highest derivative that elements have.
_HIGHEST = 4
# Points at which it is tried which derivatives a residual sees.
_TRIED = 384
# Polynomials in each coordinate: by default, at least and at most.
_WIDTH, _LEAST, _MOST = 16, 6, 32


def stationary(
    residual: Callable[[Any, Array], Any],
    *,
    name: str,
    over: Interval | AbstractShape,
    boundary: Any,
    args: PyTree,
    data: Any,
    guess: Any,
    mesh: Any,
    width: Any,
    reference: Callable[[Array], PyTree] | None,
) -> Problem:
    """An equation in space alone, for elements; arguments as those of `pde`."""
    region = as_region(over)
    conditions, arguments = as_conditions(boundary, region), Arguments(args)
    observed = data_constraints(data)
    refuse_without(arguments, observed, "args")
    refuse_beyond(observed, region)
    width = as_count(_WIDTH if width is None else width, "width of pde", least=_LEAST, most=_MOST)
    first, start = as_first_mesh(mesh, region), _as_guess(guess, region)
    unravel = ravel_pytree(start(jnp.asarray(_middle(region))))[1]
    c = _projected(start, first, width, region)
    unknowns = jnp.asarray(arguments.start, jnp.result_type(float))
    arguments = TracedArguments(arguments)
    seen = functools.partial(
        _seen, unravel=unravel, start=start, given=(arguments, unknowns), region=region
    )
    interior = seen(residual, name, region.some_points(_TRIED))
    equations = _equations(interior, conditions, region, seen)
    check_order(equations, name)
    check_sides(equations, region, name)
    check_total(equations, region, name)
    check_evolution(equations, region, name)
    check_type(equations, region, name)
    check_everywhere(equations, region, name)
    check_characteristics(equations, region, name)
    faces = (item for item in equations.faces if item is not None)
    every = interior, *faces, *(item for _, item in equations.at_points)
    low, high = (tuple(map(tuple, corner.tolist())) for corner in (first.low, first.high))
    linear = all(_linear(item, region) for item in every)
    scheme = StationaryScheme(
        equations, linear, unravel, arguments, low, high, width, region.scalar, region.curved
    )
    return Problem(
        [*_constraints(equations, name, over, region), *observed],
        scheme.stacked(first, c, width),
        trainable=_trainable,
        reference=reference,
        scheme=FittedStationaryScheme(arguments, scheme) if arguments.unknowns else scheme,
    )


def _equations(
    interior: LocalResidual,
    conditions: Mapping[str | tuple[float, ...], Callable],
    region: Region,
    seen: Callable[..., LocalResidual],
) -> Equations:
    """What must hold within, on the sides and at points."""
    faces: list[LocalResidual | None] = [None] * len(region.sides)
    at_points = []
    on_sides, points_see = (np.zeros(len(interior.highest), bool) for _ in range(2))
    for side, condition in conditions.items():
        if isinstance(side, str):
            points = region.some_points_along(side, _TRIED)
            fn = with_normal(condition, region, side)
            found = seen(fn, f"the condition at {side!r}", points)
            faces[region.sides.index(side)] = found
            on_sides |= dependence(found, points, values=True).any(axis=0)
        else:
            points = np.tile(np.array([side]), (_TRIED, 1))
            found = seen(condition, f"the condition at {side}", points)
            at_points.append((side, found))
            points_see |= dependence(found, points, values=True).any(axis=0)
    equations = Equations(interior, tuple(faces), tuple(at_points))
    return with_constants(equations, region.some_points(_TRIED), on_sides, points_see)


def _constraints(
    equations: Equations, name: str, over: Interval | AbstractShape, region: Region
) -> list[Constraint]:
    """What must hold of a model on elements."""

    def held(residual: Callable, place: Any, name: str) -> Constraint:
        ruled = isinstance(place, (Interval, Box, Segment))  # for the points that are tried
        sampler = GaussQuadrature() if ruled else None
        return Constraint(residual, over=place, sampler=sampler, name=name)

    highest = (_HIGHEST,) * region.dim
    measured = lambda item: LocalEquation(unabridged(item, highest))  # noqa: E731
    found = [held(measured(equations.interior), over, name)]
    conditions = [*zip(region.sides, equations.faces, strict=True), *equations.at_points]
    for side, item in conditions:
        if item is not None:
            label, place = over_at(side, region)
            found.append(held(measured(item), place, label))
    shared = None if region.curved is None else region.curved.shape
    return [*found, held(JumpResidual(shared), over, "jumps")]


def with_normal(
    condition: Callable, region: Region, side: str | tuple[float, ...]
) -> Callable[[Any, Any], Any]:
    """A condition of the model and a point of one side."""
    if not isinstance(side, str) or not takes(condition, 3):
        return condition
    if region.curved is not None:
        return WithNormalField(condition, region.curved.boundary[side])
    axis, end = divmod(region.sides.index(side), 2)
    normal = np.zeros(region.dim)
    normal[axis] = 2.0 * end - 1
    return WithNormal(condition, float(normal[0]) if region.scalar else tuple(normal.tolist()))


def _as_guess(guess: Any, region: Region) -> Callable[[Array], PyTree]:
    """A first u as a function of a point of shape (dim,); zero if none is given."""
    guess = 0.0 if guess is None else guess
    if not callable(guess):
        value = as_arrays(guess, "guess of pde")
        return lambda x: value
    fn = (lambda x: guess(x[0])) if region.scalar else guess
    try:
        jax.eval_shape(fn, jax.ShapeDtypeStruct((region.dim,), jnp.result_type(float)))
    except Exception as error:
        shape = () if region.scalar else (region.dim,)
        raise BadValueError(
            f"guess of pde is a value, or a function of a place of shape {shape}: "
            f"{in_plain_words(error)}."
        ) from error
    value = as_arrays(fn(jnp.asarray(_middle(region))), "what guess of pde returns")
    entries = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])
    if not entries.size or not np.isfinite(entries).all():
        raise BadValueError("guess of pde is empty, NaN or infinite in the middle of over=.")
    return fn


def _middle(region: Region) -> Float[np.ndarray, " dim"]:
    return (region.parts.low[0] + region.parts.high[0]) / 2


def _flat_values(start: Callable, p: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n d"]:
    flat = lambda x: ravel_pytree(jax.tree.map(jnp.asarray, start(x)))[0].astype(float)  # noqa: E731
    return np.asarray(jax.vmap(flat)(jnp.asarray(p)), float)


def _projected(
    start: Callable, mesh: Mesh, width: int, region: Region
) -> Float[np.ndarray, "N n d"]:
    """Coefficients of the guess on elements."""
    dim = region.dim
    s, weights = gauss_cube(width, dim)
    p = places(mesh.low, mesh.high, s)
    values = _flat_values(start, p.reshape(-1, dim)).reshape(*p.shape[:2], -1)
    bad = ~np.isfinite(values).all(axis=2)
    if bad.any():
        raise BadValueError(f"guess of pde is NaN or infinite at {p[bad][0].tolist()}.")
    table = tables(s, width, ((0,) * dim,))[0] * weights[:, None] * 2**dim
    return np.einsum("mk,nmd->nkd", table, values)


def _seen(
    fn: Callable,
    name: str,
    points: Float[np.ndarray, "n dim"],
    *,
    unravel: Callable[[Array], PyTree],
    start: Callable,
    given: tuple[TracedArguments, Float[Array, " q"]],
    region: Region,
) -> LocalResidual:
    """A residual by the derivatives that it sees."""
    fn = OfNumber(fn) if region.scalar else fn
    highest = (_HIGHEST,) * region.dim
    values = _flat_values(start, points)
    try:
        return local_residual(fn, unravel, points, values, highest, name, *given)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(
            f"{name} fails at a single point x, for a u like guess= (by default a number): "
            f"{in_plain_words(error)}."
        ) from error


def _linear(residual: LocalResidual, region: Region) -> bool:
    """Whether the derivative by what it sees is the same for any u."""
    rng, d = np.random.default_rng(3), len(residual.highest)
    points = np.tile(region.some_points(64), (2, 1))
    v = rng.normal(size=(128, len(residual.orders), d)) * 10.0 ** rng.integers(-2, 3, (128, 1, 1))
    G = residual.linearised(v, points)[1]
    return bool(np.array_equal(G[:64], G[64:], equal_nan=True))


def _trainable(u: SpacePieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.coefficients, u.parameters
