"""Whether an equation in space and time can be solved forwards from its start."""

import numpy as np

from constrainednn._pde.elements.basis import Table
from constrainednn._pde.elements.discretisation import Equations, Span, derivatives_of_u, points_of
from constrainednn._pde.elements.mesh import State
from constrainednn.errors import ProblemError


def check_order(equations: Equations, name: str) -> None:
    """Refuse components without a derivative by time, or of another order than the others.

    Raises:
        ProblemError: Naming them.
    """
    orders = [highest[0] for highest in equations.interior.highest]
    if min(orders) == 0:
        which = f"component {orders.index(0)} of u" if len(orders) > 1 else "u"
        raise ProblemError(
            f"{name} has no derivative of {which} by time, coordinate 0 of its point: there is "
            "nothing to march. For an equation in space alone use cx.bvp."
        )
    if len(set(orders)) > 1:
        raise ProblemError(
            f"{name} has derivatives by time of different orders, {orders} for the components of "
            "u: write those of order two as two equations of order one each."
        )
    d = len(orders)
    if equations.interior.equations != d:
        raise ProblemError(
            f"{name} returns {equations.interior.equations} numbers for a u of {d}: as many "
            "equations as components are needed."
        )


def check_conditions(equations: Equations, name: str) -> None:
    """Refuse more or fewer conditions at the ends than the equation needs.

    A component with derivatives by space up to order m needs m conditions in all; a periodic
    interval needs none.

    Raises:
        ProblemError: With both numbers.
    """
    if equations.periodic:
        return
    orders = [highest[1] for highest in equations.interior.highest]
    given = sum(item.equations for item in equations.ends if item is not None)
    if given != sum(orders):
        what = "their highest derivatives" if len(orders) > 1 else "its highest derivative"
        raise ProblemError(
            f"{name} needs {sum(orders)} conditions at the ends, the order of {what} by x, and "
            f"boundary states {given}. One end alone is stated by "
            'boundary={"left": condition}, no condition by boundary={}.'
        )


def check_direction(equations: Equations, start: State, t: float, name: str) -> None:
    """Refuse what grows without limit: the heat equation backwards, and its kind.

    With one component the sign of the highest even derivative by x tells, where the start is.

    Raises:
        ProblemError: If it is that of an ill-posed equation.
    """
    interior = equations.interior
    order, m = equations.order, interior.order(1)
    if len(interior.highest) > 1 or m % 2 or m == 0 or (0, m) not in interior.orders:
        return
    Kx = start.S.shape[2]
    s = np.linspace(-0.9, 0.9, 5)
    table = Table.of(np.array([-1.0]), s, (6, Kx), (order, m))
    c = np.zeros((len(start.S), 6, Kx, 1))
    c[:, 0] = np.sqrt(2) * start.S[:, 0]
    v = derivatives_of_u(c, table, interior, 1.0, start.lengths)
    p = points_of(table, Span(t, 1.0), start.edges)
    G = interior.linearised(v.reshape(-1, *v.shape[3:]), p.reshape(-1, 2))[1][:, 0, :, 0]
    by_time, by_space = (G[:, interior.orders.index(a)] for a in ((order, 0), (0, m)))
    with np.errstate(divide="ignore", invalid="ignore"):
        # u_t = a D^m u grows without limit where a (-1)^(m / 2) > 0, u_tt likewise.
        growth = np.nan_to_num(-by_space / by_time) * (-1) ** (m // 2)
    worst = int(np.argmax(growth))
    if growth[worst] > 1e-8 * np.abs(growth).max() and growth[worst] > 0:
        x = p.reshape(-1, 2)[worst, 1]
        raise ProblemError(
            f"{name} is ill-posed forwards in time: at x = {x:.3g} its derivative of order {m} by "
            "x has the sign of the heat equation backwards, whose shortest waves grow without "
            "limit. Turn the sign, or write it in the time that is left."
        )
