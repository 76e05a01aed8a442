"""How many equations and conditions on each side a stationary problem needs."""

import numpy as np

from constrainednn._common.messages import counted
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import Region
from constrainednn.errors import ProblemError

# Points at which the signs of slopes are looked at.
_TRIED = 64


def check_order(equations: Equations, name: str) -> None:
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


def check_sides(equations: Equations, region: Region, name: str) -> None:
    """Refuse sides with more or fewer conditions than an equation of even order needs.

    A component of order 2 m across a side needs m conditions there. Of an odd order, as for
    transport, it depends on the direction: see `check_characteristics`.

    Raises:
        ProblemError: Naming the side, with both numbers.
    """
    for number, face in enumerate(equations.faces):
        # Across a curve the highest order is that by any coordinate.
        curved = region.curved is not None
        orders = [max(a) if curved else a[number // 2] for a in equations.interior.highest]
        needed, given = (
            sum(k // 2 for k in orders if k % 2 == 0),
            0 if face is None else face.equations,
        )
        odd = any(k % 2 for k in orders)
        if given < needed or (given > needed and not odd):
            raise ProblemError(
                f"{name} needs {counted(needed, 'condition')} at {region.sides[number]!r}, half "
                f"the order of its derivatives across that side, and boundary states {given}."
            )


def check_total(equations: Equations, region: Region, name: str) -> None:
    """Refuse an interval with fewer conditions in all than derivatives.

    Conditions at points count; a component that is determined up to a constant needs one less. One
    equation of order one may need none, where its coefficient vanishes: see
    `check_characteristics`.

    Raises:
        ProblemError: With both numbers.
    """
    if region.dim > 1 or equations.smooth == (1,):
        return
    given = sum(0 if face is None else face.equations for face in equations.faces)
    given += sum(item.equations for _, item in equations.at_points)
    needed = sum(equations.smooth) - len(equations.free)
    if given < needed:
        raise ProblemError(
            f"{name} needs {counted(needed, 'condition')} at both ends together, the order of its "
            f"derivatives, and boundary states {given}."
        )


def check_evolution(equations: Equations, region: Region, name: str) -> None:
    """Refuse one equation like u_x = u_yy without a condition where its evolution begins.

    Of order one by one coordinate and two by the other, with slopes a and b: where a b < 0 it
    evolves along the first coordinate, where a b > 0 against it. Nothing is said where the sign
    changes.

    Raises:
        ProblemError: Naming the side.
    """
    interior = equations.interior
    if region.dim != 2 or region.curved is not None or len(interior.highest) > 1:
        return
    highest = interior.order(0), interior.order(1)
    axis, across = np.argmin(highest), np.argmax(highest)
    first, second = ([0, 0], [0, 0])
    first[axis], second[across] = 1, 2
    if sorted(highest) != [1, 2] or (1, 1) in interior.orders:
        return
    points = region.some_points(_TRIED)
    v = np.random.default_rng(8).normal(size=(_TRIED, len(interior.orders), 1))
    G = interior.linearised(v, points)[1][:, 0, :, 0]
    a, b = (G[:, interior.orders.index(tuple(order))] for order in (first, second))
    signs = np.sign(a * b)
    if not signs[0] or (signs != signs[0]).any():
        return
    begins = 2 * int(axis) + int(signs[0] > 0)
    if equations.faces[begins] is None:
        raise ProblemError(
            f"{name} evolves from the side {region.sides[begins]!r} on, as heat does in time, and "
            "boundary states no condition there. On the other side a condition would run it "
            "backwards."
        )
