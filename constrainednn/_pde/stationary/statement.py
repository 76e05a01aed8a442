"""The statement of an equation in space alone."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_arrays, as_count, as_function, as_reals
from constrainednn._common.messages import shown
from constrainednn._pde.arguments import takes
from constrainednn._pde.conditions import (
    JumpResidual,
    LocalEquation,
    OfNumber,
    WithNormal,
)
from constrainednn._pde.elements.germ import LocalResidual, local_residual, unabridged
from constrainednn._pde.stationary.discretisation import Equations, gauss_cube, tables
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.scheme import StationaryScheme
from constrainednn._pieces.mesh import places
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Box, Interval, Segment
from constrainednn.domains.finite import Points
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadTypeError, BadValueError, ProblemError
from constrainednn.models.space import SpacePieces

# The highest derivative that elements have, and the sides of an interval and a rectangle.
_HIGHEST, _SIDES = 4, ("left", "right", "bottom", "top")
# Points at which it is tried which derivatives a residual sees.
_TRIED = 384
# Polynomials in each coordinate: by default, at least and at most.
_WIDTH, _LEAST, _MOST = 16, 6, 32


class Region(NamedTuple):
    """An interval or a rectangle.

    Attributes:
        low: Lower corner.
        high: Upper corner.
        scalar: True if points are numbers.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    scalar: bool

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides, the lower and the upper one of each axis in turn."""
        return _SIDES[: 2 * len(self.low)]


def as_region(value: Any) -> Region:
    """The interval or rectangle that a stationary equation holds in."""
    if isinstance(value, Interval):
        return Region((value.low,), (value.high,), True)
    if isinstance(value, Box) and len(value.low) <= 2:
        return Region(value.low, value.high, False)
    raise BadTypeError(
        "over of pde without time= must be an interval or a rectangle, such as cx.Interval(0, 1) "
        f"or cx.Box([0, 0], [1, 1]), got {shown(value)}. More coordinates need model=."
    )


def as_conditions(value: Any, region: Region) -> dict[str | tuple[float, ...], Callable]:
    """The condition on each side, and at points, that have one."""
    if callable(value):
        return dict.fromkeys(region.sides, value)
    if not isinstance(value, Mapping):
        raise BadValueError(
            "boundary must be a condition(u, x) for all sides or one for each, "
            f"{{{', '.join(map(repr, region.sides))}}}, got {shown(value)}."
        )
    found = {}
    for side, condition in value.items():
        as_function(condition, f"boundary at {side!r}", "lambda u, x: u(x)")
        if isinstance(side, str):
            if side not in region.sides:
                names = ", ".join(map(repr, region.sides))
                raise BadValueError(f"boundary names {side!r}: there are {names}, and points.")
            found[side] = condition
            continue
        point = as_reals(side, "a point of boundary").astype(float).ravel()
        inside = (
            point.shape == (len(region.low),)
            and ((point >= region.low) & (point <= region.high)).all()
        )
        if not inside:
            raise BadValueError(f"boundary names the point {side}, which is not in {region[:2]}.")
        found[tuple(point.tolist())] = condition
    return found


def as_first_mesh(value: Any, region: Region) -> Mesh:
    """The elements to begin with: as square as they can be, two along the shorter side."""
    low, high = np.array(region.low), np.array(region.high)
    if value is None:
        counts = np.minimum(16, np.maximum(2, np.round(2 * (high - low) / (high - low).min())))
        ends = [np.linspace(a, b, int(n) + 1) for a, b, n in zip(low, high, counts, strict=True)]
    else:
        given = [value] if region.scalar else value
        if not isinstance(given, Sequence) or len(given) != len(low):
            raise BadValueError(
                "mesh must be the ends of the elements along each coordinate, such as "
                f"([0, 0.5, 1], [0, 0.1, 1]), got {shown(value)}."
            )
        ends = [as_reals(item, "mesh").astype(float) for item in given]
        for item, a, b in zip(ends, low, high, strict=True):
            good = item.ndim == 1 and len(item) > 1 and (np.diff(item) > 0).all()
            if not good or (item[0], item[-1]) != (a, b):
                raise BadValueError(
                    f"mesh must ascend from {a:g} to {b:g}, where over= begins and ends, got "
                    f"{shown(item.tolist())}."
                )
    grid = lambda parts: np.array(list(itertools.product(*parts)), float)  # noqa: E731
    return Mesh(grid([item[:-1] for item in ends]), grid([item[1:] for item in ends]))


def stationary(
    residual: Callable[[Any, Array], Any],
    *,
    name: str,
    over: Interval | Box,
    boundary: Any,
    args: PyTree,
    guess: Any,
    mesh: Any,
    width: Any,
    reference: Callable[[Array], PyTree] | None,
) -> Problem:
    """An equation in space alone, for elements; arguments as those of `pde`."""
    region = as_region(over)
    conditions, arguments = as_conditions(boundary, region), Arguments(args)
    if arguments.unknowns:
        raise BadValueError(
            "args holds a cx.Unknown: elements estimate unknowns of equations in time only. Train "
            "a model with model=cx.MLP(...), or use cx.bvp on an interval."
        )
    width = as_count(_WIDTH if width is None else width, "width of pde", least=_LEAST, most=_MOST)
    first, start = as_first_mesh(mesh, region), _as_guess(guess, region)
    unravel = ravel_pytree(start(jnp.asarray(_middle(region))))[1]
    c = _projected(start, first, width, region)
    seen = functools.partial(
        _seen, unravel=unravel, start=start, arguments=TracedArguments(arguments), region=region
    )
    interior = seen(residual, name, (region.low, region.high))
    faces, at_points = {}, []
    for side, condition in conditions.items():
        if isinstance(side, str):
            condition, ends = with_normal(condition, region, side), _ends_of(region, side)
            number = region.sides.index(side)
            faces[number] = seen(condition, f"the condition at {side!r}", ends)
        else:
            at_points.append((side, seen(condition, f"the condition at {side}", (side, side))))
    equations = Equations(
        interior, tuple(faces.get(n) for n in range(2 * len(region.low))), tuple(at_points)
    )
    _check_order(equations, name)
    every = interior, *faces.values(), *(item for _, item in at_points)
    low, high = (tuple(map(tuple, corner.tolist())) for corner in (first.low, first.high))
    linear = all(_linear(item, region) for item in every)
    arguments = TracedArguments(arguments)
    scheme = StationaryScheme(
        equations, linear, unravel, arguments, low, high, width, region.scalar
    )
    return Problem(
        _constraints(equations, name, over, region),
        scheme.stacked(first, c, width),
        trainable=_trainable,
        reference=reference,
        scheme=scheme,
    )


def _constraints(
    equations: Equations, name: str, over: Interval | Box, region: Region
) -> list[Constraint]:
    """What must hold of a model on elements."""
    held = functools.partial(Constraint, sampler=GaussQuadrature())
    highest = (_HIGHEST,) * len(region.low)
    measured = lambda item: LocalEquation(unabridged(item, highest))  # noqa: E731
    found = [held(measured(equations.interior), over=over, name=name)]
    conditions = [*zip(region.sides, equations.faces, strict=True), *equations.at_points]
    for side, item in conditions:
        if item is not None:
            label, place = over_at(side, region)
            make = Constraint if isinstance(place, Points) else held
            found.append(make(measured(item), over=place, name=label))
    return [*found, held(JumpResidual(), over=over, name="jumps")]


def over_at(side: str | tuple[float, ...], region: Region) -> tuple[str, Segment | Points]:
    """The name of a condition on a side or at a point, and where it holds."""
    if not isinstance(side, str):
        place = ", ".join(f"{x:g}" for x in side)
        return f"at {place if region.scalar else f'({place})'}", _single(side, region)
    ends = _ends_of(region, side)
    return side, _single(ends[0], region) if ends[0] == ends[1] else Segment(*ends)


def _single(point: tuple[float, ...], region: Region) -> Points:
    return Points(np.array(point if region.scalar else [point], float))


def with_normal(
    condition: Callable, region: Region, side: str | tuple[float, ...]
) -> Callable[[Any, Any], Any]:
    """A condition of the model and a point of one side."""
    if not isinstance(side, str) or not takes(condition, 3):
        return condition
    axis, end = divmod(region.sides.index(side), 2)
    normal = np.zeros(len(region.low))
    normal[axis] = 2.0 * end - 1
    return WithNormal(condition, float(normal[0]) if region.scalar else tuple(normal.tolist()))


def _ends_of(region: Region, side: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both corners of a side; one point twice in one dimension."""
    axis, end = divmod(region.sides.index(side), 2)
    corners = [list(region.low), list(region.high)]
    for corner in corners:
        corner[axis] = (region.low, region.high)[end][axis]
    first, last = map(tuple, corners)
    return first, last


def _as_guess(guess: Any, region: Region) -> Callable[[Array], PyTree]:
    """A first u as a function of a point of shape (dim,); zero if none is given."""
    guess = 0.0 if guess is None else guess
    if not callable(guess):
        value = as_arrays(guess, "guess of pde")
        return lambda x: value
    fn = (lambda x: guess(x[0])) if region.scalar else guess
    value = as_arrays(fn(jnp.asarray(_middle(region))), "what guess of pde returns")
    entries = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])
    if not entries.size or not np.isfinite(entries).all():
        raise BadValueError("guess of pde is empty, NaN or infinite in the middle of over=.")
    return fn


def _middle(region: Region) -> Float[np.ndarray, " dim"]:
    return (np.array(region.low) + np.array(region.high)) / 2


def _flat_values(start: Callable, p: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n d"]:
    flat = lambda x: ravel_pytree(jax.tree.map(jnp.asarray, start(x)))[0].astype(float)  # noqa: E731
    return np.asarray(jax.vmap(flat)(jnp.asarray(p)), float)


def _projected(
    start: Callable, mesh: Mesh, width: int, region: Region
) -> Float[np.ndarray, "N n d"]:
    """Coefficients of the guess on elements."""
    dim = len(region.low)
    s, weights = gauss_cube(width, dim)
    p = places(mesh.low, mesh.high, s)
    values = _flat_values(start, p.reshape(-1, dim)).reshape(*p.shape[:2], -1)
    table = tables(s, width, ((0,) * dim,))[0] * weights[:, None] * 2**dim
    return np.einsum("mk,nmd->nkd", table, values)


def _seen(
    fn: Callable,
    name: str,
    between: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    unravel: Callable[[Array], PyTree],
    start: Callable,
    arguments: TracedArguments,
    region: Region,
) -> LocalResidual:
    """A residual by the derivatives that it sees."""
    points = np.random.default_rng(1).uniform(*between, (_TRIED, len(region.low)))
    fn = OfNumber(fn) if region.scalar else fn
    highest = (_HIGHEST,) * len(region.low)
    given = arguments, jnp.zeros(0, jnp.result_type(float))
    values = _flat_values(start, points)
    try:
        return local_residual(fn, unravel, points, values, highest, name, *given)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(
            f"{name} cannot be evaluated for a u like guess=, by default a number: {error}"
        ) from error


def _linear(residual: LocalResidual, region: Region) -> bool:
    """Whether the derivative by what it sees is the same for any u."""
    rng, d = np.random.default_rng(3), len(residual.highest)
    points = np.tile(rng.uniform(region.low, region.high, (64, len(region.low))), (2, 1))
    v = rng.normal(size=(128, len(residual.orders), d)) * 10.0 ** rng.integers(-2, 3, (128, 1, 1))
    G = residual.linearised(v, points)[1]
    return bool(np.array_equal(G[:64], G[64:], equal_nan=True))


def _check_order(equations: Equations, name: str) -> None:
    """Refuse what elements cannot determine.

    Raises:
        ProblemError: If equations and components differ in number, or nothing is differentiated.
    """
    d = len(equations.smooth)
    if equations.interior.equations != d:
        raise ProblemError(
            f"{name} returns {equations.interior.equations} numbers for a u of {d}: as many "
            "equations as components are needed. State the shape of u by guess=, such as "
            "guess=jnp.zeros(3)."
        )
    if not any(equations.smooth):
        raise ProblemError(f"{name} has no derivative of u: it is no differential equation.")


def _trainable(u: SpacePieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return (u.coefficients,)
