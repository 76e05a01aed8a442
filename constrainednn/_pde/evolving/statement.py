"""The statement of an equation in time and the plane."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_count, as_function
from constrainednn._common.messages import shown
from constrainednn._fitting.observations import data_constraints, refuse_without
from constrainednn._pde.arguments import as_start, as_time, takes
from constrainednn._pde.conditions import FlatStart, JumpResidual, LocalEquation, WithNormal
from constrainednn._pde.elements.germ import LocalResidual, unabridged
from constrainednn._pde.evolving.scheme import FACES, PlaneTimeScheme
from constrainednn._pde.evolving.seen import condition_seen, equation_seen
from constrainednn._pde.evolving.start import GivenState, StartCondition
from constrainednn._pde.evolving.well_posed import check_determined, check_direction
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import SIDES, as_first_mesh, as_region
from constrainednn._pde.trained import Stated, trained
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Box
from constrainednn.domains.regions.faces import Flat
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.space import PlaneTimePieces

# Highest derivatives of an equation by time and by the coordinates of a place.
_HIGHEST = (2, 4, 4)
# Polynomials in each coordinate: by default, at least and at most.
_WIDTH, _LEAST, _MOST = 10, 6, 16
# Points at which residuals are tried before the solve, a power of three.
_FIRST_POINTS = 125


def in_the_plane(
    residual: Callable[[Any, Array], Any],
    *,
    name: str,
    over: Any,
    time: Any,
    start: Callable[..., PyTree],
    boundary: Any,
    args: PyTree,
    data: Any,
    invariants: Any,
    model: PyTree,
    mesh: Any,
    width: Any,
    reference: Callable[[Array], PyTree] | None,
) -> Problem:
    """An equation that is marched in the plane; arguments as those of `pde`."""
    _check_over(over)
    span, sides = as_time(time), _as_sides(boundary)
    arguments, observed = Arguments(args), data_constraints(data)
    refuse_without(arguments, observed, "args")
    unknowns = jnp.asarray(arguments.start, jnp.result_type(float))
    value = as_start(start, np.array(over.low), np.array(over.high), arguments(unknowns))
    begin = FlatStart(start, 1, takes(start, 2), TracedArguments(arguments), unknowns)
    box = Box((span[0], *over.low), (span[1], *over.high))
    interior, unravel = equation_seen(residual, name, value, begin, box, _HIGHEST)
    begin = dataclasses.replace(begin, order=max(1, interior.order(0)))
    conditions = {side: _at_side(fn, side) for side, fn in sides.items()}
    if model is not None:
        stated = [Stated("start", StartCondition(GivenState(begin), begin.order), face(box, 0))]
        stated += [Stated(k, fn, face(box, FACES.index(k))) for k, fn in conditions.items()]
        shared = {"args": args, "name": name, "reference": reference}
        return trained(residual, model, stated, over=box, observed=observed, **shared)
    if arguments.unknowns or data is not None or np.size(invariants):
        raise BadValueError(
            "data=, invariants= and a cx.Unknown in args are for equations over an interval. In a "
            "rectangle write a model that is trained, such as model=cx.MLP(...), for data=."
        )
    faces = _faces(begin, conditions, unravel, box)
    equations = Equations(interior, faces, ())
    check_determined(equations, GivenState(begin), box, name)
    first = as_first_mesh(mesh, as_region(over))
    every = [interior, *(item for item in faces if item is not None)]
    scheme = PlaneTimeScheme(
        equations,
        begin,
        all(_linear(item, box) for item in every),
        unravel,
        span,
        tuple(map(tuple, first.low.tolist())),
        tuple(map(tuple, first.high.tolist())),
        as_count(_WIDTH if width is None else width, "width of pde", least=_LEAST, most=_MOST),
    )
    check_direction(interior, GivenState(begin), box, name)
    return Problem(
        _constraints(scheme, name, box),
        scheme.kept(),
        trainable=_trainable,
        reference=reference,
        scheme=scheme,
    )


def _check_over(over: Any) -> None:
    if not isinstance(over, Box) or len(over.low) != 2:
        raise BadTypeError(
            "over of pde with time= must be an interval or a rectangle such as "
            f"cx.Box([0, 0], [1, 1]), got {shown(over)}. Other regions are for equations in space "
            "alone; in time use a cx.Problem with a constraint for each part."
        )


def face(box: Box, number: int) -> Flat:
    """A side of a box of (t, x, y): lower and upper ones of each coordinate in turn."""
    return box.boundary[box.boundary.names[number]]


def _as_sides(value: Any) -> dict[str, Callable[..., Any]]:
    if callable(value):
        return dict.fromkeys(SIDES, value)
    if not isinstance(value, Mapping) or not set(value) <= set(SIDES):
        names = ", ".join(map(repr, SIDES))
        raise BadValueError(
            f"boundary in a rectangle with time= must be a condition(u, p) for all sides or one "
            f"for each, {{{names}}}, got {shown(value)}. Periodic sides are for intervals."
        )
    for side, condition in value.items():
        as_function(condition, f"boundary at {side!r}", "lambda u, p: u(p)")
    return dict(value)


def _at_side(condition: Callable[..., Any], side: str) -> Callable[[Any, Any], Any]:
    """A condition of the model and a point; a normal has two components."""
    if not takes(condition, 3):
        return condition
    axis, end = divmod(SIDES.index(side), 2)
    normal = [0.0, 0.0]
    normal[axis] = 2.0 * end - 1
    return WithNormal(condition, tuple(normal))


def _faces(
    start: FlatStart,
    conditions: dict[str, Callable],
    unravel: Callable[[Array], PyTree],
    box: Box,
) -> tuple[LocalResidual | None, ...]:
    """Conditions on the sides of time and the plane, in the order of `FACES`."""
    seen = functools.partial(condition_seen, unravel=unravel, start=start, highest=_HIGHEST)
    found: list[LocalResidual | None] = [None] * len(FACES)
    first = StartCondition(GivenState(start), start.order)
    found[0] = seen(first, "the start", over=face(box, 0))
    for side, condition in conditions.items():
        number = FACES.index(side)
        found[number] = seen(condition, f"the condition at {side!r}", over=face(box, number))
    return tuple(found)


def _linear(residual: LocalResidual, box: Box) -> bool:
    """Whether the derivative by what it sees is the same for any u."""
    rng, d = np.random.default_rng(3), len(residual.highest)
    points = np.tile(rng.uniform(box.low, box.high, (64, 3)), (2, 1))
    v = rng.normal(size=(128, len(residual.orders), d)) * 10.0 ** rng.integers(-2, 3, (128, 1, 1))
    G = residual.linearised(v, points)[1]
    return bool(np.array_equal(G[:64], G[64:], equal_nan=True))


def _constraints(scheme: PlaneTimeScheme, name: str, box: Box) -> list[Constraint]:
    """What must hold of a model in pieces."""
    measured = lambda item: LocalEquation(unabridged(item, _HIGHEST))  # noqa: E731
    # A few points are tried; those of the rows are known when it is solved.
    held = functools.partial(Constraint, over=box, points=_FIRST_POINTS, sampler=GaussQuadrature())
    found = [held(measured(scheme.equations.interior), name=name)]
    for number, item in enumerate(scheme.equations.faces):
        if item is not None:
            over = face(box, number)
            found.append(Constraint(measured(item), over=over, name=FACES[number]))
    return [*found, held(JumpResidual(), name="jumps")]


def _trainable(u: PlaneTimePieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return (u.boxes.coefficients,)
