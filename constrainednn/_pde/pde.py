"""The statement of an equation in space and time."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_function
from constrainednn._pde.arguments import (
    as_mesh,
    as_sides,
    as_space,
    as_start,
    as_time,
    as_widths,
)
from constrainednn._pde.conditions import (
    FlatStart,
    JumpResidual,
    LocalEquation,
    SeamResidual,
    StartResidual,
    at_side,
)
from constrainednn._pde.elements.discretisation import Equations
from constrainednn._pde.elements.germ import LocalResidual, local_residual, unabridged
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn._pde.well_posed import (
    check_conditions,
    check_direction,
    check_order,
    warn_of_corners,
)
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Box, Interval, Segment
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadValueError, ProblemError
from constrainednn.models.space_time import stack_windows

# Highest derivatives of an equation by time and by space.
_HIGHEST = (2, 4)
# Names of the other constraints.
_RESERVED = "start", "left", "right", "periodic", "jumps"
# Points at which it is tried which derivatives a residual sees.
_TRIED = 384
# Training points of a model that is trained: of the equation, and of each condition.
_POINTS = 2000, 200


def pde(
    residual: Callable[[Any, Array], Any],
    *,
    over: Interval,
    time: tuple[float, float],
    start: Callable[[Array], PyTree],
    boundary: Callable[..., Any] | Mapping[str, Callable[..., Any]] | str,
    model: PyTree = None,
    mesh: Sequence[float] | None = None,
    width: tuple[int, int] = (12, 18),
    reference: Callable[[Array], PyTree] | None = None,
) -> Problem:
    """State an equation in time and one space coordinate; its points are p = (t, x).

    `solve` marches from `time[0]` to `time[1]`. In each window the model is a polynomial on each of
    some elements; rows of the residual, the start and the boundary are minimised in least squares,
    and windows and elements are as small as the residual at monitor points demands (`tolerance` of
    `solve`, relative to the size of u; 1e-10 by default). The residual may be any function that
    sees u and its derivatives at its point: `cx.partial(u, 1, order=2)(p)`, `u(p) ** 2`.

    Args:
        residual: `residual(u, p)` of the model and a point of shape (2,), zero where the equation
            holds. Derivatives by time up to order 2, by space up to order 4.
        over: The interval of space.
        time: Start and end.
        start: From a place x to u at the start: a number, an array or a pytree of them. For an
            equation of order two in time the pair (u, du/dt).
        boundary: A condition `condition(u, p)` that is zero at both ends of the interval;
            or one for each, `{"left": ..., "right": ...}`; or "periodic". With a third argument
            it gets the outward normal, -1 at the left end and 1 at the right one.
        model: None for elements. Or a model to be trained on the same statement, such as
            `cx.RandomFeatures(2, "scalar")`, with a method of `solve`.
        mesh: Ends of the elements to begin with, for a start with a kink or a layer; by default
            four of equal length.
        width: Number of polynomials in time and in space on each element.
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
    as_function(residual, "residual of pde", "lambda u, p: ...")
    space, span = as_space(over), as_time(time)
    sides = as_sides(boundary)
    edges, shape = as_mesh(mesh, space), as_widths(width)
    name = _name_of(residual)
    value = as_start(start, space)
    box = Box((span[0], space[0]), (span[1], space[1]))
    local, unravel = _local(residual, name, value, start, box)
    order, components = max(1, local.order(0)), len(local.highest)
    ends = {
        side: _condition(condition, side, unravel, start, order, box)
        for side, condition in (sides or {}).items()
    }
    periodic = sides is None
    k = max([local.order(1), 1, *(item.order(1) + 1 for item in ends.values())])
    equations = Equations(local, (ends.get("left"), ends.get("right")), periodic, k)
    check_order(equations, name)
    check_conditions(equations, name)
    seam = SeamResidual(space[1], space[1] - space[0], k)
    begin = FlatStart(start, order)
    if model is not None:
        return _trained(residual, name, model, begin, sides, seam, box, reference)
    scheme = SpaceTimeScheme(equations, begin, unravel, span, edges, shape)
    begun = scheme.begun(shape[1], 1e-3)
    check_direction(equations, begun, span, name)
    c = np.zeros((len(begun.S), *shape, components))
    c[:, 0] = np.sqrt(2) * begun.S[:, 0]
    warn_of_corners(equations, begun, span[0], c)
    held = functools.partial(Constraint, sampler=GaussQuadrature())
    measured = lambda item: LocalEquation(unabridged(item, _HIGHEST))  # noqa: E731
    constraints = [
        held(measured(local), over=box, name=name),
        held(StartResidual(begin), over=_side(box, "start"), name="start"),
    ]
    if periodic:
        constraints.append(held(seam, over=_side(box, "left"), name="periodic"))
    for side, item in ends.items():
        constraints.append(held(measured(item), over=_side(box, side), name=side))
    constraints.append(held(JumpResidual(), over=box, name="jumps"))
    guess = stack_windows(span, [begun.edges], [c], order=order, smooth=k, unravel=unravel)
    return Problem(constraints, guess, trainable=_coefficients, reference=reference, scheme=scheme)


def _structure(value: PyTree) -> Callable[[Array], PyTree]:
    """From a vector to the structure of a value, in floating point."""
    to_float = lambda leaf: jnp.asarray(leaf, jnp.result_type(float))  # noqa: E731
    return ravel_pytree(jax.tree.map(to_float, value))[1]


def _local(
    residual: Callable, name: str, value: PyTree, start: Callable, box: Box
) -> tuple[LocalResidual, Callable[[Array], PyTree]]:
    """The equation by its derivatives, and how the value of u is put together.

    For an equation of order two the start is a pair of such values; which it is, the residual
    tells: it is of order two for one of them, and of order one for the whole.
    """
    pair = isinstance(value, tuple) and len(value) == 2
    failed, misfit = None, None
    for order, like in ((1, value), *([(2, value[0])] if pair else [])):
        unravel = _structure(like)
        p, values = _tried(box, start, order)
        try:
            local = local_residual(residual, unravel, p, values, _HIGHEST, name)
        except ProblemError:
            raise
        except Exception as error:  # noqa: BLE001  (the user's residual)
            failed = failed or error
            continue
        if local.order(0) <= 1 == order or local.order(0) == order:
            return local, unravel
        misfit = local.order(0)
    if misfit is not None:
        wanted = "order one in time: start must return u alone"
        if misfit == 2:
            wanted = "order two in time: start must return the pair (u, du/dt)"
        raise BadValueError(f"{name} is of {wanted}.")
    raise ProblemError(
        f"{name} cannot be evaluated for a u of the shape that start returns: {failed}"
    ) from failed


def _condition(
    condition: Callable,
    side: str,
    unravel: Callable[[Array], PyTree],
    start: Callable,
    order: int,
    box: Box,
) -> LocalResidual:
    """A condition at one end by the derivatives that it sees."""
    condition = at_side(condition, side)
    points, values = _tried(_side(box, side), start, order)
    name = f"the condition at the {side} end"
    try:
        return local_residual(condition, unravel, points, values, _HIGHEST, name)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(f"{name} cannot be evaluated: {error}") from error


def _tried(
    over: Box | Segment, start: Callable, order: int
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n d"]]:
    """Points, the same ones each time, and the values of the start at their places."""
    low, high = (over.low, over.high) if isinstance(over, Box) else (over.start, over.end)
    points = np.random.default_rng(1).uniform(low, high, (_TRIED, 2))
    values = jax.vmap(FlatStart(start, order))(jnp.asarray(points[:, 1]))[:, 0]
    return points, np.asarray(values, float)


def _trained(
    residual: Callable,
    name: str,
    model: PyTree,
    begin: FlatStart,
    sides: dict[str, Callable] | None,
    seam: SeamResidual,
    box: Box,
    reference: Callable | None,
) -> Problem:
    """The same statement for a model that is trained."""
    many, few = _POINTS
    constraints = [
        Constraint(residual, over=box, points=many, name=name),
        Constraint(StartResidual(begin), over=_side(box, "start"), points=few, name="start"),
    ]
    for side, condition in ({"periodic": seam} if sides is None else sides).items():
        residual = at_side(condition, side)
        constraints.append(Constraint(residual, over=_side(box, side), points=few, name=side))
    return Problem(constraints, model, reference=reference)


def _side(box: Box, name: str) -> Segment:
    """The start, or an end of space at all times; a seam is at the left end."""
    (t0, low), (t1, high) = box.low, box.high
    if name == "start":
        return Segment((t0, low), (t0, high))
    x = high if name == "right" else low
    return Segment((t0, x), (t1, x))


def _name_of(residual: Callable) -> str:
    name = getattr(residual, "__name__", type(residual).__name__)
    # Names of constraints must differ.
    return "equation" if name == "<lambda>" or name in _RESERVED else name


def _coefficients(u: Any) -> Any:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.coefficients
