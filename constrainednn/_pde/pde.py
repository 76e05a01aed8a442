"""The statement of an equation in space and time."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_function
from constrainednn._fitting.observations import data_constraints, refuse_without
from constrainednn._pde.arguments import (
    as_invariants,
    as_mesh,
    as_sides,
    as_space,
    as_start,
    as_time,
    as_widths,
    refuse_with_model,
    takes,
)
from constrainednn._pde.conditions import (
    FlatStart,
    JumpResidual,
    LocalEquation,
    SeamResidual,
    StartResidual,
    at_side,
    side_of,
)
from constrainednn._pde.conserved import drifts
from constrainednn._pde.elements.discretisation import Equations
from constrainednn._pde.elements.germ import LocalResidual, unabridged
from constrainednn._pde.evolving.seen import condition_seen, equation_seen
from constrainednn._pde.evolving.statement import in_the_plane
from constrainednn._pde.fitted import FittedSpaceTimeScheme
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn._pde.stationary.statement import stationary
from constrainednn._pde.stationary.trained import refuse_with_time, trained_in_space
from constrainednn._pde.trained import Stated, TrainedField, trained
from constrainednn._pde.well_posed import (
    check_conditions,
    check_direction,
    check_ends,
    check_order,
    warn_of_corners,
)
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.problem import Problem
from constrainednn._problem.unknowns import is_unknown
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.finite import Data
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadValueError
from constrainednn.models.space_time import SpaceTimePieces

# Highest derivatives of an equation by time and by space.
_HIGHEST = (2, 4)
# Names of the other constraints.
_RESERVED = "start", "left", "right", "bottom", "top", "periodic", "jumps"


def pde(
    residual: Callable[[Any, Array], Any],
    *,
    over: Interval | AbstractShape,
    time: tuple[float, float] | None = None,
    start: Callable[..., PyTree] | None = None,
    boundary: Callable[..., Any] | Mapping[Any, Callable[..., Any]] | str,
    args: PyTree = None,
    data: Data | Constraint | Sequence[Data | Constraint] | None = None,
    invariants: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
    model: PyTree = None,
    guess: PyTree | Callable[[Array], PyTree] = None,
    mesh: Sequence[Any] | np.ndarray | None = None,
    width: int | tuple[int, int] | None = None,
    reference: Callable[[Array], PyTree] | None = None,
) -> Problem:
    """State an equation in time and space, with points p = (t, x) or (t, x, y), or in space alone.

    With `time=`, `solve` marches from `time[0]` to `time[1]`. In each window the model is a
    polynomial on each of some elements; rows of the residual, the start and the boundary are
    minimised in least squares, and windows and elements are as small as the residual at monitor
    points demands (`tolerance` of `solve`, relative to the size of u; 1e-10 by default). The
    residual may be any function that sees u and its derivatives at its point:
    `cx.partial(u, 1, order=2)(p)`, `u(p) ** 2`.

    In a rectangle with `time=` points are (t, x, y), and so are the elements of a window.

    Without `time=` points are places, of shape () in an interval and (2,) in a rectangle. All
    elements are solved together, and those with large residuals are divided.

    Args:
        residual: `residual(u, p)` of the model and a point of shape (2,) or (3,), zero where the
            equation holds. Derivatives by time up to order 2, by space up to order 4.
        over: The interval or rectangle of space; without `time=` also a region of the plane, such
            as `Box([-1, -1], [1, 1]) - cx.domains.Ball(2)`, with sides `over.boundary.names`. For a
            model that is trained a box or a region in any dimension.
        time: Start and end; None for an equation in space alone.
        start: From a place x to u at the start: a number, an array or a pytree of them. For an
            equation of order two in time (u, du/dt). With a second argument it gets `args`.
        boundary: A condition `condition(u, p)` that is zero at both ends of the interval;
            or one for each, `{"left": ..., "right": ...}`; or "periodic". With a third argument
            it gets the outward normal, -1 at the left end and 1 at the right one. In the
            plane the sides are "left", "right", "bottom" and "top" by their normals, of shape (2,);
            without `time=`, a point such as `(0.0, 1.0)` may have a condition, too.
        args: Numbers of the equation, which all residuals find in `u.args`. Floats in it become
            arrays, so that other values need no compilation. An `Unknown` is estimated from `data`.
        data: What unknowns are estimated from: `Data((p, u))` with n points and
            values, or constraints over `Data` with your own `residual(u, row)`. Every row counts
            equally (of a model that is trained, every constraint), times the weight of its
            constraint, an inverse variance.
        invariants: Densities `density(u, p)`, such as that of an energy, whose integral over space
            should keep its initial value. They are not trained on: their drift is reported as a
            separate gap, and measures the error without a reference.
        model: None for elements. Or a model to be trained on the same statement, such as
            `cx.RandomFeatures(cx.Box((0, -1), (1, 1)), "scalar")`, with a method of `solve`.
        guess: Without `time=`, a value of u or a function of a place: Newton's method begins there,
            and u has that shape. By default the number zero.
        mesh: Ends of the elements to begin with, for a start with a kink or a layer; by default
            four of equal length. Of a rectangle the ends along each coordinate.
        width: Number of polynomials in time and in space on each element, (12, 18) by default;
            in a rectangle in each coordinate, 10 by default; without `time=` likewise, 16.
        reference: A known solution, called like the model.

    Returns:
        A problem with a constraint each for the equation, the start, every part of the boundary
        and, for elements, the jumps between them. `solve` returns a solution that is a function of
        p.

    Raises:
        ProblemError: If the residual sees other derivatives or looks away from its point, if the
            conditions are more or fewer than the equation needs, or if it is ill-posed.
        ValueError, TypeError: If an argument cannot be right, naming it.

    Source:
        Least-squares spectral elements: Proot and Gerritsma, J. Sci. Comput. 17 (2002) 285;
        marching in windows: Dong and Li, CMAME 387 (2021) 114129. How the residual's derivatives
        are found: docs/pde.
    """
    name, args = _name_of(residual), jax.tree.map(_traced, args, is_leaf=is_unknown)
    if model is not None:
        refuse_with_model(invariants=invariants, guess=guess, mesh=mesh, width=width)
    if time is None:
        refuse_with_time(start=start, invariants=invariants)
        shared = {"over": over, "boundary": boundary, "args": args, "reference": reference}
        if model is not None:
            return trained_in_space(residual, model, data=data, name=name, **shared)
        shared |= {"data": data, "guess": guess, "mesh": mesh, "width": width}
        return stationary(residual, name=name, **shared)
    if start is None:
        raise BadValueError("start= is missing: an equation with time= begins with u at the start.")
    if guess is not None:
        raise BadValueError("guess= is for equations without time=: that of time is start=.")
    state = in_the_plane if isinstance(over, AbstractShape) else _in_time
    return state(
        residual,
        name=name,
        over=over,
        time=time,
        start=start,
        boundary=boundary,
        args=args,
        data=data,
        invariants=invariants,
        model=model,
        mesh=mesh,
        width=width,
        reference=reference,
    )


def _in_time(
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
    """An equation that is marched; arguments as those of `pde`."""
    space, span, sides = as_space(over), as_time(time), as_sides(boundary)
    edges, shape = as_mesh(mesh, space), as_widths((12, 18) if width is None else width)
    arguments, observed = Arguments(args), data_constraints(data)
    refuse_without(arguments, observed, "args")
    unknowns = jnp.asarray(arguments.start, jnp.result_type(float))
    value = as_start(start, *space, arguments(unknowns))
    begin = FlatStart(start, 1, takes(start, 2), TracedArguments(arguments), unknowns)
    box = Box((span[0], space[0]), (span[1], space[1]))
    local, unravel = equation_seen(residual, name, value, begin, box, _HIGHEST)
    begin = dataclasses.replace(begin, order=max(1, local.order(0)))
    seen_at = functools.partial(condition_seen, unravel=unravel, start=begin, highest=_HIGHEST)
    over_side = functools.partial(side_of, box)
    ends = {
        side: seen_at(
            at_side(condition, side), f"the condition at the {side} end", over=over_side(side)
        )
        for side, condition in (sides or {}).items()
    }
    periodic = sides is None
    k = max([local.order(1), 1, *(item.order(1) + 1 for item in ends.values())])
    equations = Equations(local, (ends.get("left"), ends.get("right")), periodic, k)
    check_order(equations, name)
    check_conditions(equations, name)
    seam = SeamResidual(space[1], space[1] - space[0], k)
    seen = {label: seen_at(fn, label, over=box) for label, fn in as_invariants(invariants).items()}
    scheme = SpaceTimeScheme(equations, begin, unravel, span, edges, shape)
    if model is not None:
        stated = [Stated("start", StartResidual(begin), side_of(box, "start"))]
        for side, condition in ({"periodic": seam} if periodic else sides or {}).items():
            stated.append(Stated(side, at_side(condition, side), side_of(box, side)))
        shared = {"args": args, "name": name, "observed": observed, "reference": reference}
        # With unknown numbers pieces would be fitted, and for each set of them.
        beside = None if arguments.unknowns else TrainedField(scheme)
        return trained(residual, model, stated, over=box, scheme=beside, **shared)
    return Problem(
        [*_constraints(scheme, name, ends, seam, box), *drifts(seen, box), *observed],
        _guess(scheme, name),
        trainable=_trainable,
        reference=reference,
        scheme=FittedSpaceTimeScheme(begin.arguments, scheme) if arguments.unknowns else scheme,
    )


def _guess(scheme: SpaceTimeScheme, name: str) -> SpaceTimePieces:
    """The start at all times; refused or warned of where the equation does not go on from it."""
    begun = scheme.begun(scheme.shape[1], 1e-3)
    check_direction(scheme.equations, begun, scheme.time, name)
    check_ends(scheme.equations, begun, scheme.time, name)
    pieces, c = scheme.level(begun)
    warn_of_corners(scheme.equations, begun, scheme.time[0], c)
    return pieces


def _constraints(
    scheme: SpaceTimeScheme,
    name: str,
    ends: dict[str, LocalResidual],
    seam: SeamResidual,
    box: Box,
) -> list[Constraint]:
    """What must hold of a model in pieces."""
    held = functools.partial(Constraint, sampler=GaussQuadrature())
    measured = lambda item: LocalEquation(unabridged(item, _HIGHEST))  # noqa: E731
    found = [
        held(measured(scheme.equations.interior), over=box, name=name),
        held(StartResidual(scheme.start), over=side_of(box, "start"), name="start"),
    ]
    if scheme.equations.periodic:
        found.append(held(seam, over=side_of(box, "left"), name="periodic"))
    for side, item in ends.items():
        found.append(held(measured(item), over=side_of(box, side), name=side))
    return [*found, held(JumpResidual(), over=box, name="jumps")]


def _traced(leaf: Any) -> Any:
    """Floats as arrays, whose values programs do not hold."""
    return jnp.asarray(leaf) if isinstance(leaf, (float, np.floating, np.ndarray)) else leaf


def _name_of(residual: Callable) -> str:
    as_function(residual, "residual of pde", "lambda u, p: ...")
    name = getattr(residual, "__name__", type(residual).__name__)
    # Names of constraints must differ.
    return "equation" if name == "<lambda>" or name in _RESERVED else name


def _trainable(u: SpaceTimePieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.coefficients, u.parameters
