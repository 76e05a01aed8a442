"""What is refused before a march in the plane: statements that cannot determine u."""

from collections.abc import Callable

import numpy as np

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.evolving.scheme import FACES
from constrainednn._pde.evolving.start import states_at
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn.domains.boxes import Box
from constrainednn.errors import ProblemError

# A slope by the highest derivatives is taken for zero below this share of the largest.
_SMALL = 1e-9
# Points at which the direction of time is looked at.
_TRIED = 64


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
                f"{name} needs {needed} conditions at {side!r}, half the order of its derivatives "
                f"across that side, and boundary states {given}."
            )


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
