"""What is refused before a march in the plane: statements that cannot determine u."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from constrainednn._common.messages import counted
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.evolving.scheme import FACES
from constrainednn._pde.evolving.start import states_at
from constrainednn._pde.stationary.constants import dependence
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn.domains.boxes import Box
from constrainednn.errors import ProblemError

# A slope by the highest derivatives is taken for zero below this share of the largest.
_SMALL = 1e-9
# Points at which the direction of time, and what comes in at a side, are looked at.
_TRIED = 64
# An equation with derivatives by time whose matrix is worse than this is solved for none of them.
_SINGULAR = 1e8
# A wave with less than this share of the largest speed stays: rounding moves a double speed by more
# than that of others.
_STILL = 1e-6


def check_determined(equations: Equations, start: Callable, box: Box, name: str) -> None:
    """Refuse statements with too few or too many equations or conditions.

    Raises:
        ProblemError: Saying which, see the functions below.
    """
    check_order(equations, name)
    check_sides(equations, name)
    check_constants(equations, box, name)
    check_inflow(equations, start, box, name)


def check_order(equations: Equations, name: str) -> None:
    """Refuse what a march cannot determine.

    Raises:
        ProblemError: If equations and components differ in number, or nothing evolves.
    """
    d, found = len(equations.smooth), equations.interior
    if found.equations != d:
        raise ProblemError(
            f"{name} returns {found.equations} numbers, and start gives u {d}: as many equations "
            "as components are needed."
        )
    if found.order(0) == 0:
        raise ProblemError(
            f"{name} has no derivative by time, cx.partial(u, 0)(p). For an equation in space "
            "alone leave out time= and start=."
        )
    orders = [highest[0] for highest in found.highest]
    if len({order for order in orders if order}) > 1:
        raise ProblemError(
            f"{name} has derivatives by time of different orders, {orders} for the components of "
            "u: write those of order two as two equations of order one each."
        )


def check_constants(equations: Equations, box: Box, name: str) -> None:
    """Refuse components of which nothing but slopes in space is seen, such as a pressure.

    Raises:
        ProblemError: Naming them.
    """
    d = len(equations.smooth)
    rng, free = np.random.default_rng(7), np.ones(d, bool)
    for item in (equations.interior, *equations.faces[2:]):
        if item is not None:
            points = rng.uniform(box.low, box.high, (_TRIED, 3))
            free &= ~dependence(item, points, values=True).any(axis=0)
    free &= np.array([highest[0] for highest in equations.interior.highest]) == 0
    if free.any():
        which = f"u[{int(np.argmax(free))}]" if d > 1 else "u"
        raise ProblemError(
            f"{name} and boundary= see {which} by its slopes in space alone, so that any function "
            "of time may be added to it. Give its value on a part of a side, such as that of a "
            "pressure where a flow leaves."
        )


def check_sides(equations: Equations, name: str) -> None:
    """Refuse sides with more or fewer conditions than derivatives of even order need.

    Raises:
        ProblemError: Naming the side, with both numbers.
    """
    for number, side in enumerate(FACES):
        if number < 2:
            continue
        orders = [a[number // 2] for a in equations.interior.highest]
        needed, item = sum(k // 2 for k in orders if k % 2 == 0), equations.faces[number]
        given, odd = 0 if item is None else item.equations, any(k % 2 for k in orders)
        if given < needed or (given > needed and not odd):
            raise ProblemError(
                f"{name} needs {counted(needed, 'condition')} at {side!r}, half the order of its "
                f"derivatives across that side, and boundary states {given}."
            )


def check_inflow(equations: Equations, start: Callable, box: Box, name: str) -> None:
    """Refuse sides at which more waves of a system of order one come in than conditions say.

    With A the slopes by the derivatives by time and B those by the ones across a side, outwards,
    each negative eigenvalue of A^-1 B is the speed of a wave that comes in. What it brings is not
    known, and polynomials would go on as they do inside.

    Raises:
        ProblemError: Naming the side, with both numbers.

    Source:
        Kreiss and Lorenz, Initial-Boundary Value Problems (1989), chapter 7.
    """
    interior = equations.interior
    if max(map(sum, interior.orders)) > 1:
        return
    for number, side in enumerate(FACES):
        if number < 2:
            continue
        axis, end = divmod(number, 2)
        p = np.random.default_rng(number).uniform(box.low, box.high, (_TRIED, 3))
        p[:, axis] = (box.low, box.high)[end][axis]
        needed, item = _coming_in(interior, start, p, axis, 2 * end - 1), equations.faces[number]
        given = 0 if item is None else item.equations
        if given < needed:
            raise ProblemError(
                f"{name} needs {counted(needed, 'condition')} at {side!r}, one for each wave "
                f"that comes in, and boundary states {given}. A side where all go out has none."
            )


def _coming_in(
    interior: LocalResidual, start: Callable, p: Float[np.ndarray, "n 3"], axis: int, sign: int
) -> int:
    """How many waves come in across a side, at the point where they are most."""
    first = tuple(np.eye(3, dtype=int)[axis].tolist())
    if first not in interior.orders:
        return 0
    v = np.zeros((len(p), len(interior.orders), len(interior.highest)))
    if (0, 0, 0) in interior.orders:
        v[:, interior.orders.index((0, 0, 0))] = states_at(start, p)[:, 0]
    G = interior.linearised(v, p)[1]
    G = G[np.isfinite(G).all(axis=(1, 2, 3))]
    G = G[np.linalg.cond(G[:, :, interior.orders.index((1, 0, 0))]) < _SINGULAR]
    if not len(G):
        return 0
    A, B = (G[:, :, interior.orders.index(a)] for a in ((1, 0, 0), first))
    inverse = np.linalg.inv(A)
    speeds = np.linalg.eigvals(sign * inverse @ B)
    size = max(
        float(np.abs(inverse @ G[:, :, index]).max())
        for index, a in enumerate(interior.orders)
        if sum(a[1:]) == 1
    )
    waves = np.abs(speeds.imag) <= _STILL * size
    return int(((speeds.real < -_STILL * size) & waves).sum(axis=1).max(initial=0))


def check_direction(interior: LocalResidual, start: Callable, box: Box, name: str) -> None:
    """Refuse one equation of order two in space that does not go on from its start.

    With a the slope by the highest derivative by time and B those by the second ones in space,
    -B / a must have no negative eigenvalue: else the heat equation runs backwards, or the equation
    is elliptic in time and place.

    Raises:
        ProblemError: Saying so.
    """
    orders = interior.orders
    second = [(0, 2, 0), (0, 1, 1), (0, 0, 2)]
    if len(interior.highest) != 1 or max(sum(a[1:]) for a in orders) != 2:
        return
    p = np.random.default_rng(6).uniform(box.low, box.high, (_TRIED, 3))
    p[:, 0] = box.low[0]
    # Of the start its value alone: coefficients seldom depend on its slopes.
    v = np.zeros((_TRIED, len(orders), 1))
    if (0, 0, 0) in orders:
        v[:, orders.index((0, 0, 0))] = states_at(start, p)[:, 0]
    G = interior.linearised(v, p)[1][:, 0, :, 0]
    slope = lambda a: G[:, orders.index(a)] if a in orders else np.zeros(len(G))  # noqa: E731
    by_time = slope((interior.order(0), 0, 0))
    xx, xy, yy = map(slope, second)
    B = np.stack([np.stack([xx, xy / 2], axis=1), np.stack([xy / 2, yy], axis=1)], axis=1)
    sound = np.isfinite(G).all(axis=1) & (by_time != 0)
    least = np.linalg.eigvalsh(-(B / by_time[:, None, None])[sound])[:, 0]
    size = np.abs(B / by_time[:, None, None])[sound].max(initial=0.0)
    if len(least) and least.max() < -_SMALL * size:
        what = "runs the heat equation backwards in time"
        if interior.order(0) == 2:
            what = "is elliptic in time and space, so that its solution is no march"
        raise ProblemError(
            f"{name} {what}: small changes of the start grow without limit. Is a sign wrong?"
        )
