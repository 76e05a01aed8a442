"""Problems with closed forms for which the estimated error is compared with the true one.

Fields of one shape are told apart by `args`, so that they share what is compiled.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array
from scipy.optimize import root_scalar
from scipy.special import ellipj, ellipk, erf

import constrainednn as cx


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and its solution: the values at times, of shape (n, d)."""

    name: str
    problem: cx.Problem
    exact: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family:
    """Fields of one shape, `f(t, y, a)` with parameters `a`; a case names one of them."""

    fields: tuple[Callable, ...]
    order: int = 1

    def __call__(self, t, y, args):
        """Evaluate the field that `args` names."""
        index, a = args
        return lax.switch(index, self.fields, t, y, a)

    def case(self, field, a, y0, span, exact, note=""):
        """The initial value problem of one field."""
        a = np.append(np.asarray(a, float), np.zeros(3))[:3]
        d = np.size(y0) // self.order
        start = np.asarray(y0, float).reshape(self.order, d)
        args = (np.asarray(self.fields.index(field)), a)
        problem = cx.ivp(
            self, start[0] if self.order == 1 else tuple(start), span, args=args, order=self.order
        )
        values = ", ".join(f"{value:g}" for value in a)
        return Case(
            f"{field.__name__}({values}) from {span[0]:g} to {span[1]:g}{note}",
            problem,
            lambda t: np.reshape(exact(np.asarray(t)), (-1, len(t))).T,
        )


def linear(t, y, a):
    return a[0] * y + a[1] * jnp.sin(a[2] * t)


def modulated(t, y, a):
    return a[0] * y * jnp.cos(a[1] * t)


def logistic(t, y, a):
    return a[0] * y * (1 - y / a[1])


def cubic(t, y, a):
    return -a[0] * y**3 / 2


def tracking(t, y, a):
    return a[0] * (y - jnp.sin(a[1] * t)) + a[1] * jnp.cos(a[1] * t)


def tangent(t, y, a):
    return a[0] * (1 + y**2)


def bell(t, y, a):
    return -2 * a[0] * t * y


def logarithm(t, y, a):
    return a[0] * jnp.exp(-y)


def gompertz(t, y, a):
    return -a[0] * y * jnp.log(jnp.maximum(y, 1e-30))


def hill(t, y, a):
    return -2 * a[0] * t * y**2


SCALAR = Family(
    (linear, modulated, logistic, cubic, tracking, tangent, bell, logarithm, gompertz, hill)
)


def forced(a, y0):
    """Solution of y' = a0 y + a1 sin(a2 t)."""
    rate, height, w = a
    scale = height / (rate**2 + w**2)
    return lambda t: (
        (y0 + scale * w) * np.exp(rate * t) - scale * (rate * np.sin(w * t) + w * np.cos(w * t))
    )


def tracked(a, y0):
    return lambda t: np.sin(a[1] * t) + y0 * np.exp(a[0] * t)


def scalar_cases():
    case = SCALAR.case
    for a, y0, span in (
        ((-1.0, 0.0, 1.0), 1.0, (0.0, 5.0)),
        ((-1.0, 0.0, 1.0), 1.0, (0.0, 40.0)),
        ((-1.0, 0.0, 1.0), 1.0, (0.0, -6.0)),
        ((-2.0, 1.0, 7.0), 0.5, (0.0, 20.0)),
        ((-50.0, 30.0, 2.0), 1.0, (0.0, 10.0)),
    ):
        yield case(linear, a, y0, span, forced(a, y0))
    for a, span in (((1.0, 1.0), (0.0, 20.0)), ((3.0, 2.0), (0.0, 9.0)), ((2.0, 5.0), (4.0, 0.0))):
        start = np.exp(a[0] / a[1] * np.sin(a[1] * span[0]))
        yield case(modulated, a, start, span, lambda t, a=a: np.exp(a[0] / a[1] * np.sin(a[1] * t)))
    for a, y0, span in (((1.0, 1.0), 0.01, (0.0, 12.0)), ((2.0, 20.0), 1.0, (0.0, 6.0))):
        yield case(
            logistic, a, y0, span,
            lambda t, a=a, y0=y0: a[1] / (1 + (a[1] / y0 - 1) * np.exp(-a[0] * t)),
        )  # fmt: skip
    for rate, span in ((1.0, (0.0, 20.0)), (100.0, (0.0, 20.0))):
        yield case(cubic, [rate], 1.0, span, lambda t, rate=rate: 1 / np.sqrt(1 + rate * t))
    for a, y0, span in (
        ((-1e3, 3.0), 0.0, (0.0, 10.0)),
        ((-1e3, 3.0), 1.0, (0.0, 5.0)),
        ((-1e6, 1.0), 0.0, (0.0, 10.0)),
        ((-1e6, 5.0), 1.0, (0.0, 3.0)),
        ((2.0, 1.0), 0.0, (0.0, 6.0)),
    ):
        yield case(tracking, a, y0, span, tracked(a, y0), f", {y0:g} off")
    yield case(tangent, [1.0], 0.0, (0.0, 1.4), np.tan)
    yield case(tangent, [1.0], 0.0, (0.0, 1.55), np.tan)
    for rate, span in ((1.0, (-3.0, 3.0)), (4.0, (-2.0, 2.0)), (1.0, (2.0, -2.0))):
        yield case(
            bell, [rate], np.exp(-rate * span[0] ** 2), span,
            lambda t, rate=rate: np.exp(-rate * t**2),
        )  # fmt: skip
    yield case(logarithm, [1.0], 0.0, (0.0, 30.0), lambda t: np.log(1 + t))
    yield case(
        gompertz, [0.7], 0.01, (0.0, 10.0), lambda t: np.exp(np.log(0.01) * np.exp(-0.7 * t))
    )
    for rate, span in ((25.0, (-2.0, 2.0)), (400.0, (-1.0, 1.0))):
        yield case(
            hill, [rate], 1 / (1 + rate * span[0] ** 2), span,
            lambda t, rate=rate: 1 / (1 + rate * t**2),
        )  # fmt: skip


def oscillator(t, y, a):
    return a[0] * jnp.stack([y[1], -y[0]])


def spiral(t, y, a):
    return jnp.stack([a[0] * y[0] - a[1] * y[1], a[1] * y[0] + a[0] * y[1]])


def hopf(t, y, a):
    room = a[0] * (1 - y[0] ** 2 - y[1] ** 2)
    return jnp.stack([room * y[0] - a[1] * y[1], a[1] * y[0] + room * y[1]])


def twisted(t, y, a):
    turn = 1 + a[0] * (y[0] ** 2 + y[1] ** 2)
    return turn * jnp.stack([-y[1], y[0]])


def slow_and_fast(t, y, a):
    """Eigenvalues -1 and -a0, mixed by a turn of 45 degrees."""
    plus, minus = -(1 + a[0]) / 2, (a[0] - 1) / 2
    return jnp.stack([plus * y[0] + minus * y[1], minus * y[0] + plus * y[1]])


def cascade(t, y, a):
    return jnp.stack([-a[0] * y[0], -a[1] * y[1] + a[2] * y[0] ** 2])


PLANE = Family((oscillator, spiral, hopf, twisted, slow_and_fast, cascade))


def plane_cases():
    case = PLANE.case
    for w, span in ((1.0, (0.0, 30.0)), (5.0, (0.0, 40.0)), (1.0, (10.0, 0.0))):
        start = np.cos(w * span[0]), -np.sin(w * span[0])
        yield case(
            oscillator, [w], start, span, lambda t, w=w: np.stack([np.cos(w * t), -np.sin(w * t)])
        )
    for a, end in (((-0.2, 3.0), 20.0), ((0.1, 2.0), 20.0)):
        yield case(
            spiral, a, (1.0, 0.0), (0.0, end),
            lambda t, a=a: np.exp(a[0] * t) * np.stack([np.cos(a[1] * t), np.sin(a[1] * t)]),
        )  # fmt: skip
    for a in ((1.0, 2.0), (10.0, 1.0)):
        yield case(
            hopf, a, (0.1, 0.0), (0.0, 12.0),
            lambda t, a=a: np.stack([np.cos(a[1] * t), np.sin(a[1] * t)])
            / np.sqrt(1 + 99 * np.exp(-2 * a[0] * t)),
        )  # fmt: skip
    yield case(
        twisted, [1.0], (1.0, 0.0), (0.0, 20.0), lambda t: np.stack([np.cos(2 * t), np.sin(2 * t)])
    )
    for fast in (30.0, 1e4):
        yield case(
            slow_and_fast, [fast], (1.0, 0.0), (0.0, 5.0),
            lambda t, fast=fast: np.stack(
                [np.exp(-t) + np.exp(-fast * t), np.exp(-t) - np.exp(-fast * t)]
            ) / 2,
        )  # fmt: skip
    yield case(
        cascade, (1.0, 0.5, 2.0), (2.0, 0.0), (0.0, 10.0),
        lambda t: np.stack([2 * np.exp(-t), 16 / 3 * (np.exp(-0.5 * t) - np.exp(-2 * t))]),
    )  # fmt: skip


def spring(t, y, a):
    return -a[0] * y[0] - a[1] * y[1]


def pendulum(t, y, a):
    return -jnp.sin(y[0])


def square(t, y, a):
    return 6 * y[0] ** 2


def duffing(t, y, a):
    return -a[0] * y[0] + 2 * a[1] * y[0] ** 3


SECOND = Family((spring, pendulum, square, duffing), order=2)


def second_order_cases():
    case = SECOND.case
    yield case(spring, [1.0, 0.0], (1.0, 0.0), (0.0, 30.0), np.cos)
    yield case(spring, [100.0, 0.0], (1.0, 0.0), (0.0, 10.0), lambda t: np.cos(10 * t))
    yield case(spring, [101.0, 2.0], (0.0, 10.0), (0.0, 4.0), lambda t: np.exp(-t) * np.sin(10 * t))
    yield case(
        spring, [1000.0, 1001.0], (1.0, -1.0), (0.0, 5.0), lambda t: np.exp(-t), ", overdamped"
    )
    k = np.sin(0.5)  # amplitude 1
    yield case(
        pendulum, [0.0], (1.0, 0.0), (0.0, 20.0),
        lambda t: 2 * np.arcsin(k * ellipj(t + ellipk(k**2), k**2)[0]),
    )  # fmt: skip
    yield case(square, [0.0], (1.0, -2.0), (0.0, 20.0), lambda t: (1 + t) ** -2.0)
    m = 0.7
    yield case(duffing, [1 + m, m], (0.0, 1.0), (0.0, 12.0), lambda t: ellipj(t, m)[0])


def rigid_body(t, y, a):
    return jnp.stack([y[1] * y[2], -y[0] * y[2], -a[0] * y[0] * y[1]])


def chain(t, y, a):
    return jnp.stack([-a[0] * y[0], a[0] * y[0] - a[1] * y[1], a[1] * y[1]])


SPACE = Family((rigid_body, chain))


def space_cases():
    m = 0.51
    yield SPACE.case(
        rigid_body, [m], (0.0, 1.0, 1.0), (0.0, 20.0), lambda t: np.stack(ellipj(t, m)[:3])
    )
    for fast in (2.0, 1e3):
        yield SPACE.case(
            chain, (fast, 1.0), (1.0, 0.0, 0.0), (0.0, 10.0),
            lambda t, fast=fast: decays(t, fast),
        )  # fmt: skip


def decays(t, k):
    """Amounts of A, B and C in A -> B -> C at rates k and one."""
    A, slow = np.exp(-k * t), np.exp(-t)
    # Those of C without cancellation.
    return np.stack([A, k / (1 - k) * (A - slow), (k * np.expm1(-t) - np.expm1(-k * t)) / (1 - k)])


# Boundary value problems y'' = g(x, y, y'), as systems; parameters are leaves of the functions.


def growth(x, y, a):
    return a[0] ** 2 * y[0]


def wave(x, y, a):
    return -(a[0] ** 2) * y[0]


def layer(x, y, a):
    return -y[1] / a[0]


def bratu(x, y, a):
    return -a[0] * jnp.exp(y[0])


def powers(x, y, a):
    return a[0] * jnp.abs(y[0]) ** a[1]


def forced_growth(x, y, a):
    return y[0] - (1 + a[0] ** 2) * jnp.sin(a[0] * x)


def runge(x, y, a):
    return -(4 * a[0] * x * y[1] + 2 * a[0] * y[0]) / (1 + a[0] * x**2)


def turning(x, y, a):
    return -x * y[1] / a[0]


def step_force(x, y, a):
    return jnp.where(x > a[0], 1.0, 0.0)


def kink_force(x, y, a):
    return jnp.abs(x - a[0])


def pulse_force(x, y, a):
    return jnp.where(jnp.abs(x - a[0]) < a[1], 1 / a[1], 0.0)


FORCES = (
    growth, wave, layer, bratu, powers, forced_growth, runge, turning,
    step_force, kink_force, pulse_force,
)  # fmt: skip


class Forced(eqx.Module):
    """y1' = y2, y2' = one of the forces."""

    index: Array
    a: Array

    def __call__(self, x, y):
        return jnp.stack([y[1], lax.switch(self.index, FORCES, x, y, self.a)])


class Ends(eqx.Module):
    """Values at both ends."""

    left: Array
    right: Array

    def __call__(self, left, right):
        return jnp.stack([left[0] - self.left, right[0] - self.right])


def boundary_case(force, a, span, exact):
    a = np.append(np.asarray(a, float), np.zeros(2))[:2]
    ends = exact(np.asarray(span))
    problem = cx.bvp(
        Forced(jnp.asarray(FORCES.index(force)), jnp.asarray(a)),
        Ends(jnp.asarray(ends[0]), jnp.asarray(ends[1])),
        span,
        Line(jnp.asarray(span), jnp.asarray(ends)),
    )
    values = ", ".join(f"{value:g}" for value in a)
    return Case(f"bvp {force.__name__}({values})", problem, lambda x: exact(x)[:, None])


class Line(eqx.Module):
    """A straight line between the ends: the guess."""

    span: Array
    ends: Array

    def __call__(self, x):
        slope = (self.ends[1] - self.ends[0]) / (self.span[1] - self.span[0])
        return jnp.stack([self.ends[0] + slope * (x - self.span[0]), slope])


def boundary_cases():
    unit, both = (0.0, 1.0), (-1.0, 1.0)
    for rate in (10.0, 60.0):
        # Without overflow and without loss of digits.
        yield boundary_case(
            growth, [rate], unit,
            lambda x, rate=rate: np.exp(rate * (x - 1)) * np.expm1(-2 * rate * x)
            / np.expm1(-2 * rate),
        )  # fmt: skip
    for w in (2.0, 20.0):
        yield boundary_case(wave, [w], unit, lambda x, w=w: np.sin(w * x) / np.sin(w))
    for eps in (0.01,):
        yield boundary_case(
            layer, [eps], unit, lambda x, eps=eps: np.expm1(-x / eps) / np.expm1(-1 / eps)
        )
    for strength in (1.0, 3.0):
        theta = root_scalar(
            lambda q, s=strength: q - np.sqrt(2 * s) * np.cosh(q / 4), bracket=(0, 4), xtol=1e-15
        ).root
        yield boundary_case(
            bratu, [strength], unit,
            lambda x, q=theta: -2 * np.log(np.cosh((x - 0.5) * q / 2) / np.cosh(q / 4)),
        )  # fmt: skip
    yield boundary_case(powers, [1.5, 2.0], unit, lambda x: 4 / (1 + x) ** 2)
    yield boundary_case(powers, [2.0, 3.0], (0.0, 9.0), lambda x: 1 / (1 + x))
    yield boundary_case(forced_growth, [60.0], unit, lambda x: np.sin(60 * x))
    for rate in (25.0, 1e3):
        yield boundary_case(runge, [rate], both, lambda x, rate=rate: 1 / (1 + rate * x**2))
    for eps in (1e-3,):
        yield boundary_case(turning, [eps], both, lambda x, eps=eps: erf(x / np.sqrt(2 * eps)))


def smooth_cases():
    """Sixty problems."""
    return [
        *scalar_cases(), *plane_cases(), *second_order_cases(), *space_cases(), *boundary_cases()
    ]  # fmt: skip


# Fields that are not smooth; all start at y = 1 unless said.


def switched(t, y, a):
    return jnp.where(t > a[0], a[1], 0.0) - a[2] * y


def kinked(t, y, a):
    return jnp.abs(t - a[0]) + 0 * y


def ramp(t, y, a):
    return jnp.maximum(t - a[0], 0.0) ** a[1] + 0 * y


def pulse(t, y, a):
    return jnp.where(jnp.abs(t - a[0]) < a[1], 1 / (2 * a[1]), 0.0) - a[2] * y


def bump(t, y, a):
    return jnp.exp(-(((t - a[0]) / a[1]) ** 2)) / (a[1] * np.sqrt(np.pi)) + 0 * y


def doses(t, y, a):
    return jnp.where(jnp.mod(t, a[0]) < a[1], 1 / a[1], 0.0) - a[2] * y


def half_speed(t, y, a):
    return jnp.where(y < a[0], 1.0, a[1])


def magnitude(t, y, a):
    return a[0] - jnp.abs(y)


def triangle(t, y, a):
    return jnp.abs(jnp.mod(t, 2.0) - 1) + 0 * y


ROUGH = Family((switched, kinked, ramp, pulse, bump, doses, half_speed, magnitude, triangle))


def from_step(t, start, rate):
    """Response of y' = 1 - rate y to a unit step at `start`, from zero."""
    later = np.maximum(t - start, 0.0)
    return later if rate == 0 else -np.expm1(-rate * later) / rate


def rough_cases():
    """Thirty problems; spans are 10 long or less."""
    case = ROUGH.case
    span = (0.0, 10.0)
    for a in ((np.pi, 1.0, 1.0), (1e-3, 2.0, 1.0), (9.99, 5.0, 0.0), (2.0 / 3, 1.0, 30.0)):
        yield case(
            switched, a, 1.0, span,
            lambda t, a=a: np.exp(-a[2] * t) + a[1] * from_step(t, a[0], a[2]),
        )  # fmt: skip
    for c in (1 / np.pi, 7.7):
        yield case(
            kinked, [c], 1.0, span,
            lambda t, c=c: 1 + ((t - c) * np.abs(t - c) + c**2) / 2,
        )  # fmt: skip
    for c, power in ((1.1, 0.5), (np.e, 1.5), (np.e, 2.5)):
        yield case(
            ramp, (c, power), 1.0, span,
            lambda t, c=c, q=power + 1: 1 + np.maximum(t - c, 0) ** q / q,
        )  # fmt: skip
    for c, half, rate in (
        (3.3, 1.0, 0.5), (3.3, 0.1, 0.5), (6.1, 1e-2, 0.5), (0.77, 2e-3, 0.0), (5.0, 1e-3, 1.0),
    ):  # fmt: skip
        yield case(
            pulse, (c, half, rate), 1.0, span,
            lambda t, c=c, half=half, rate=rate: np.exp(-rate * t)
            + (from_step(t, c - half, rate) - from_step(t, c + half, rate)) / (2 * half),
        )  # fmt: skip
    for c, width in ((4.0, 1.0), (4.0, 0.1), (np.e, 1e-2), (np.e, 2e-3)):
        yield case(
            bump, (c, width), 1.0, span,
            lambda t, c=c, w=width: 1 + (erf((t - c) / w) + erf(c / w)) / 2,
        )  # fmt: skip
    for period, length, rate in ((2.0, 0.5, 1.0), (1.0, 0.05, 0.3), (2.5, 3e-3, 0.3)):
        yield case(
            doses, (period, length, rate), 1.0, span,
            lambda t, P=period, w=length, k=rate: np.exp(-k * t) + sum(
                from_step(t, i * P, k) - from_step(t, i * P + w, k)
                for i in range(int(10 / P) + 1)
            ) / w,
        )  # fmt: skip
    for level, slow in ((3.0, 0.5), (np.pi, 2.0)):
        yield case(
            half_speed, (level, slow), 1.0, span,
            lambda t, level=level, slow=slow: np.where(
                t < level - 1, 1 + t, level + slow * (t - level + 1)
            ),
        )  # fmt: skip
    cross = np.log(2)  # y' = 1 + y from y = -1/2
    yield case(
        magnitude, [1.0], -0.5, span,
        lambda t: np.where(t < cross, np.exp(t) / 2 - 1, -np.expm1(-np.maximum(t - cross, 0))),
    )  # fmt: skip
    yield case(
        triangle, [0.0], 1.0, span,
        lambda t: 1 + np.floor(t) / 2 + np.where(
            np.mod(t, 2) < 1, np.mod(t, 1) - np.mod(t, 1) ** 2 / 2, np.mod(t, 1) ** 2 / 2
        ),
    )  # fmt: skip
    unit = (0.0, 1.0)
    for c in (0.3, 1 / np.pi):
        yield boundary_case(step_force, [c], unit, lambda x, c=c: np.maximum(x - c, 0) ** 2 / 2)
    for c in (0.6,):
        yield boundary_case(kink_force, [c], unit, lambda x, c=c: np.abs(x - c) ** 3 / 6 + x)
    for c, half in ((0.4, 0.1), (0.4, 1e-3)):
        yield boundary_case(
            pulse_force, (c, half), unit,
            lambda x, c=c, h=half: (
                np.maximum(x - c + h, 0) ** 2 - np.maximum(x - c - h, 0) ** 2
            ) / (2 * h),
        )  # fmt: skip
