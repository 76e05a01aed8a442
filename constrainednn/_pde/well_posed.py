"""Whether an equation in space and time can be solved forwards from its start."""

import contextlib
import warnings

import numpy as np
import scipy.linalg
from jaxtyping import Float

from constrainednn._common.messages import counted
from constrainednn._pde.elements.basis import Table, derivatives
from constrainednn._pde.elements.discretisation import (
    Equations,
    Span,
    derivatives_of_u,
    points_of,
    unit_of_condition,
)
from constrainednn._pde.elements.germ import Orders
from constrainednn._pde.elements.mesh import State
from constrainednn.errors import ProblemError, ProblemWarning

# The start may miss a condition at an end by this share of u.
_CORNER = 1e-3
# Roots beyond so many times the wave number are infinite, and those that grow or decay by less than
# this share of their size do neither.
_FAR, _TILT = 1e4, 1e-3


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
            f"{name} needs {counted(sum(orders), 'condition')} at the ends, the order of {what} by "
            f"x, and boundary states {given}. One end alone is stated by "
            'boundary={"left": condition}, no condition by boundary={}.'
        )


def warn_of_corners(equations: Equations, start: State, t: float, c: np.ndarray) -> None:
    """Warn where the start misses a condition at an end: the corner is a singularity."""
    if equations.periodic:
        return
    found = []
    # Its derivative by time is not known there, and what needs it is not judged.
    for side, condition in enumerate(equations.ends):
        if condition is None or condition.order(0):
            continue
        ends = derivatives((2.0 * side - 1,), start.S.shape[2], condition.order(1))
        one = Table(np.array([-1.0]), np.zeros(1), derivatives((-1.0,), c.shape[1], 0), ends)
        element = slice(-1, None) if side else slice(0, 1)
        v = derivatives_of_u(c[element], one, condition, 1.0, start.lengths[element])[0, :, 0]
        p = np.array([[t, start.edges[-side]]])
        r, G = condition.linearised(v, p)
        length = start.edges[-1] - start.edges[0]
        r = float(np.abs(r * unit_of_condition(condition, G, 1.0, length)).max())
        share = r / max(start.size, np.abs(v).max(initial=0.0), np.finfo(float).tiny)
        found.append((share, ("left", "right")[side], r))
    share, name, r = max(found, default=(0.0, "", 0.0))
    if share > _CORNER:
        warnings.warn(
            f"the start misses the condition at the {name} end by {r:.2g}, in units of u: near "
            "that corner the solution is singular, and elements and windows become small.",
            ProblemWarning,
            stacklevel=5,
        )


def check_direction(
    equations: Equations, start: State, time: tuple[float, float], name: str
) -> None:
    """Refuse what grows without limit: the heat equation backwards, and its kind.

    The equation with its coefficients frozen at places of the start, and at three times, has
    solutions exp(lambda t + i k x); where the real part of lambda grows with k it is ill-posed.

    Raises:
        ProblemError: If it is.
    """
    interior, order = equations.interior, equations.order
    table = Table.of(np.array([-1.0]), np.linspace(-0.9, 0.9, 7), (6, start.S.shape[2]), (2, 4))
    c = np.zeros((len(start.S), 6, *start.S.shape[2:]))
    c[:, 0] = np.sqrt(2) * start.S[:, 0]
    v = derivatives_of_u(c, table, interior, 1.0, start.lengths)
    for t in (time[0], (time[0] + time[1]) / 2, time[1]):
        p = points_of(table, Span(t, 1.0), start.edges).reshape(-1, 2)
        G = interior.linearised(v.reshape(-1, *v.shape[3:]), p)[1]
        k = 1e3 * 2 * np.pi / (start.edges[-1] - start.edges[0])
        rates = np.stack([_fastest(G, interior.orders, order, wave) for wave in (k, 10 * k)])
        growth, size = rates[:, :, 0], rates[:, :, 1]
        bad = (growth[1] > 2 * growth[0]) & (growth[1] > 1e-5 * size[1]) & (growth[0] > 0)
        if bad.any():
            x = p[np.argmax(bad), 1]
            raise ProblemError(
                f"{name} is ill-posed forwards in time: at t = {t:.3g}, x = {x:.3g} its shortest "
                "waves grow without limit, as those of the heat equation backwards do. Turn the "
                "sign, or write it in the time that is left."
            )


def check_ends(equations: Equations, start: State, time: tuple[float, float], name: str) -> None:
    """Refuse conditions at the wrong end, as that of transport where it flows out.

    With coefficients frozen at an end and lambda large, u is a sum of exp(lambda t + mu x). As many
    conditions are needed at the left end as there are mu whose wave decays to the right of it, and
    likewise at the right one. Nothing is said where they are not as many as the equation has orders
    by x, as where a speed is zero, or where their number changes with time.

    Raises:
        ProblemError: Naming the end, with both numbers.

    Source:
        Kreiss and Lorenz, Initial-Boundary Value Problems (1989), chapters 7 and 8.
    """
    if equations.periodic:
        return
    interior, order = equations.interior, equations.order
    total = sum(highest[1] for highest in interior.highest)
    table = Table.of(np.array([-1.0]), np.array([-1.0, 1.0]), (6, start.S.shape[2]), (2, 4))
    c = np.zeros((len(start.S), 6, *start.S.shape[2:]))
    c[:, 0] = np.sqrt(2) * start.S[:, 0]
    v = derivatives_of_u(c, table, interior, 1.0, start.lengths)
    k = 1e3 * 2 * np.pi / (start.edges[-1] - start.edges[0])
    for side, end in enumerate(("left", "right")):
        times = np.array([time[0], (time[0] + time[1]) / 2, time[1]])
        p = np.stack([times, np.full(3, start.edges[-side])], axis=1)
        here = np.repeat(v[-side, 0, side][None], 3, axis=0)
        G = interior.linearised(here, p)[1]
        if not np.isfinite(G).all():
            continue
        rates = _fastest(G, interior.orders, order, k)[:, 1]
        pairs = zip(G, rates, strict=True)
        needed = {_decaying(own, interior.orders, rate, k, total, side) for own, rate in pairs}
        item = equations.ends[side]
        given = 0 if item is None else item.equations
        if needed == {-1} or len(needed) > 1 or given >= max(needed):
            continue
        raise ProblemError(
            f"{name} needs {counted(max(needed), 'condition')} at the {end} end, where so many of "
            f"its waves come in, and boundary states {given} there: what comes in would not be "
            "known. Move conditions from the other end, or turn a sign."
        )


def _decaying(
    G: Float[np.ndarray, "e a d"], orders: Orders, rate: float, k: float, total: int, side: int
) -> int:
    """Waves exp(mu x) that decay away from an end, for a large rate; -1 if they do not tell."""
    degree, d = max(b for _, b in orders), G.shape[2]
    if not rate or not degree:
        return -1
    A = np.zeros((degree + 1, d, d))
    for index, (a, b) in enumerate(orders):
        A[b] += G[:, index] * rate**a * k**b
    A /= np.abs(A).max(axis=(0, 2), keepdims=True).clip(np.finfo(float).tiny)
    n = degree * d
    left, right = np.eye(n, k=d), np.eye(n)
    left[-d:] = -np.concatenate(list(A[:-1]), axis=1)
    right[-d:, -d:] = A[-1]
    mu = np.asarray(scipy.linalg.eigvals(left, right), complex)
    mu = mu[np.isfinite(mu) & (np.abs(mu) < _FAR)]
    if len(mu) != total or (np.abs(np.real(mu)) < _TILT * np.abs(mu)).any():
        return -1
    return int((np.real(mu) < 0).sum() if side == 0 else (np.real(mu) > 0).sum())


def _fastest(
    G: Float[np.ndarray, "n e a d"], orders: Orders, order: int, k: float
) -> Float[np.ndarray, "n 2"]:
    """For waves exp(lambda t + i k x) the largest real part of lambda, and its largest size."""
    n, d = G.shape[0], G.shape[3]
    A = np.zeros((order + 1, n, d, d), complex)
    for index, (a, b) in enumerate(orders):
        A[a] += G[:, :, index] * (1j * k) ** b
    companion = np.zeros((n, order * d, order * d), complex)
    companion[:, : -d or None, d:] = np.eye((order - 1) * d)
    found = np.zeros((n, 2))
    for i in range(n):
        with contextlib.suppress(np.linalg.LinAlgError):
            lower = np.concatenate([A[a, i] for a in range(order)], axis=1)
            companion[i, -d:] = -np.linalg.solve(A[order, i], lower)
            rates = np.linalg.eigvals(companion[i])
            found[i] = rates.real.max(), np.abs(rates).max()
    return np.nan_to_num(found)
