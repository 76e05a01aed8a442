"""The 25 classical non-stiff problems of DETEST, t from 0 to 20, each with a reference.

Fields of one size are told apart by `args`, so that they share what is compiled. C5 and class E
are stated as equations of second order there and here.

Source: Hull, Enright, Fellen and Sedgwick, Comparing Numerical Methods for Ordinary Differential
Equations, SIAM J. Numer. Anal. 9 (1972) 603, section 3.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.integrate import solve_ivp

SPAN = (0.0, 20.0)


def choice(*fields):
    """One field f(t, y, i) from several."""
    return lambda t, y, i: lax.switch(i, fields, t, y)


# A: single equations.


def negative_exponential(t, y):
    return -y


def riccati(t, y):
    return -(y**3) / 2


def oscillatory(t, y):
    return y * jnp.cos(t)


def logistic(t, y):
    return y / 4 * (1 - y / 20)


def spiral(t, y):
    return (y - t) / (y + t)


# B: small systems.


def conflict(t, y, args):
    met = y[0] * y[1]
    return jnp.stack([2 * (y[0] - met), -(y[1] - met)])


def linear_reaction(t, y):
    return jnp.stack([-y[0] + y[1], y[0] - 2 * y[1] + y[2], y[1] - y[2]])


def nonlinear_reaction(t, y):
    return jnp.stack([-y[0], y[0] - y[1] ** 2, y[1] ** 2])


def torus(t, y):
    r = jnp.hypot(y[0], y[1])
    return jnp.stack([-y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r])


def rigid_body(t, y):
    return jnp.stack([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]])


# C: moderate systems.


def linear(t, y, matrix):
    return matrix @ y


def chain(rates):
    """Decay from each to the next; the last one stays."""
    return np.diag([*-np.asarray(rates), 0.0]) + np.diag(rates, -1)


def second_difference(n):
    return -2.0 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)


def first_unit(n):
    return np.eye(n)[0]


GRAVITY, SUN = 2.95912208286, 1.00000597682
MASSES = np.array(
    [0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 1 / 360_000]
)
# Jupiter, Saturn, Uranus, Neptune, Pluto; rows are planets.
POSITIONS = np.array(
    [
        [3.42947415189, 3.35386959711, 1.35494901715],
        [6.64145542550, 5.97156957878, 2.18231499728],
        [11.2630437207, 14.6952576794, 6.27960525067],
        [-30.1552268759, 1.65699966404, 1.43785752721],
        [-21.1238353380, 28.4465098142, 15.3882659679],
    ]
)
VELOCITIES = np.array(
    [
        [-0.557160570446, 0.505696783289, 0.230578543901],
        [-0.415570776342, 0.365682722812, 0.169143213293],
        [-0.325325669158, 0.189706021964, 0.0877265322780],
        [-0.0240476254170, -0.287659532608, -0.117219543175],
        [-0.176860753121, -0.216393453025, -0.0148647893090],
    ]
)


def five_bodies(t, y, args):
    x, _ = y
    towards_sun = x / jnp.sum(x**2, axis=1, keepdims=True) ** 1.5
    between = x[None] - x[:, None]
    # The distance of a planet to itself: any number but zero, since what it divides is zero.
    squares = jnp.sum(between**2, axis=2, keepdims=True) + jnp.eye(5)[:, :, None]
    others = (1 - jnp.eye(5))[:, :, None] * (between / squares**1.5 - towards_sun[None])
    pulls = jnp.sum(MASSES[None, :, None] * others, axis=1)
    return GRAVITY * (pulls - (SUN + MASSES)[:, None] * towards_sun)


# D: orbits.


def orbit(t, y, args):
    cube = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return jnp.stack([y[2], y[3], -y[0] / cube, -y[1] / cube])


def kepler(eccentricity):
    """The orbit in closed form, but for Newton's method on Kepler's equation."""

    def exact(t):
        anomaly = t + eccentricity * np.sin(t)
        for _ in range(50):
            residual = anomaly - eccentricity * np.sin(anomaly) - t
            anomaly = anomaly - residual / (1 - eccentricity * np.cos(anomaly))
        cosine, sine = np.cos(anomaly), np.sin(anomaly)
        minor, rate = np.sqrt(1 - eccentricity**2), 1 / (1 - eccentricity * cosine)
        return np.stack(
            [cosine - eccentricity, minor * sine, -sine * rate, minor * cosine * rate], axis=1
        )

    return exact


# E: equations of higher order, here for a number y.


def bessel(t, y):
    return -(y[1] / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * y[0])


def van_der_pol(t, y):
    return (1 - y[0] ** 2) * y[1] - y[0]


def duffing(t, y):
    return y[0] ** 3 / 6 - y[0] + 2 * jnp.sin(2.78535 * t)


def falling_body(t, y):
    return 0.032 - 0.4 * y[1] ** 2


def pursuit(t, y):
    return jnp.sqrt(1 + y[1] ** 2) / (25 - t)


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem; `exact` maps n times to (n, d) values of the state, where that is known."""

    field: Callable
    y0: Any
    args: Any = None
    order: int = 1
    exact: Callable | None = None


def bessel_exact(t):
    x = t + 1
    y = np.sqrt(2 / (np.pi * x)) * np.sin(x)
    return np.stack([y, np.sqrt(2 / (np.pi * x)) * np.cos(x) - y / (2 * x)], axis=1)


A = choice(negative_exponential, riccati, oscillatory, logistic, spiral)
B = choice(linear_reaction, nonlinear_reaction, torus, rigid_body)
E = choice(bessel, van_der_pol, duffing, falling_body, pursuit)
CASES = {
    "A1": Case(A, 1.0, 0, exact=lambda t: np.exp(-t)[:, None]),
    "A2": Case(A, 1.0, 1, exact=lambda t: 1 / np.sqrt(1 + t)[:, None]),
    "A3": Case(A, 1.0, 2, exact=lambda t: np.exp(np.sin(t))[:, None]),
    "A4": Case(A, 1.0, 3, exact=lambda t: 20 / (1 + 19 * np.exp(-t / 4))[:, None]),
    "A5": Case(A, 4.0, 4),
    "B1": Case(conflict, np.array([1.0, 3.0])),
    "B2": Case(B, np.array([2.0, 0.0, 1.0]), 0),
    "B3": Case(B, np.array([1.0, 0.0, 0.0]), 1),
    "B4": Case(B, np.array([3.0, 0.0, 0.0]), 2),
    "B5": Case(B, np.array([0.0, 1.0, 1.0]), 3),
    "C1": Case(linear, first_unit(10), chain(np.ones(9))),
    "C2": Case(linear, first_unit(10), chain(np.arange(1.0, 10.0))),
    "C3": Case(linear, first_unit(10), second_difference(10)),
    "C4": Case(linear, first_unit(51), second_difference(51)),
    "C5": Case(five_bodies, (POSITIONS, VELOCITIES), order=2),
    **{
        f"D{i}": Case(orbit, np.array([1 - e, 0, 0, np.sqrt((1 + e) / (1 - e))]), exact=kepler(e))
        for i, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1)
    },
    "E1": Case(E, (0.6713967071418030, 0.09540051444747446), 0, order=2, exact=bessel_exact),
    "E2": Case(E, (2.0, 0.0), 1, order=2),
    "E3": Case(E, (0.0, 0.0), 2, order=2),
    "E4": Case(E, (30.0, 0.0), 3, order=2),
    "E5": Case(E, (0.0, 0.0), 4, order=2),
}


def arguments(case):
    """`args` as an array, so that problems of one field share what is compiled."""
    return None if case.args is None else jnp.asarray(case.args)


def reference(case, t):
    """The state at times `t`, (n, d): a closed form, or DOP853 at the edge of float64."""
    return case.exact(t) if case.exact else classical(case, t)


def classical(case, t):
    parts = [np.atleast_1d(part) for part in (case.y0 if case.order == 2 else (case.y0,))]
    shape, size = np.shape(parts[0]), parts[0].size
    # A number stays one: the fields of class E are stated for it.
    shape = shape if np.ndim(case.y0 if case.order == 1 else case.y0[0]) else ()

    @jax.jit
    def slope(t, flat, args):
        states = [row.reshape(shape) for row in flat.reshape(case.order, size)]
        top = case.field(t, states[0] if case.order == 1 else tuple(states), args)
        return jnp.concatenate([flat[size:], jnp.ravel(top)])

    args = arguments(case)
    start = np.concatenate([part.ravel() for part in parts])
    found = solve_ivp(
        lambda t, y: np.asarray(slope(t, y, args)),
        SPAN,
        start,
        method="DOP853",
        t_eval=t,
        rtol=1e-13,
        atol=1e-15,
    )
    assert found.success
    return found.y.T


def state_of(solution, case, t):
    """The computed state at times `t`, (n, d)."""
    parts = [solution(t)] + ([solution.derivative(t)] if case.order == 2 else [])
    return np.concatenate([np.asarray(part).reshape(len(t), -1) for part in parts], axis=1)


def error(found, known):
    """The largest over components of the relative L2 error.

    A component below a thousandth of the largest is measured against that thousandth. It matters in
    C4 alone, whose far components hardly leave zero: the reference has no digits of them.
    """
    size = np.linalg.norm(known, axis=0)
    size = np.maximum(size, 1e-3 * size.max())
    return float(np.max(np.linalg.norm(found - known, axis=0) / size))
