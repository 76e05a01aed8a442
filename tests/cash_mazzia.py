"""The linear problems 1 to 18 of the classical test set, with their solutions.

Each is eps y'' = f(x, y, y', eps) or like it, with y given at both ends; `args` is eps. Solutions
are (y, y') in NumPy, written so that nothing overflows for small eps.

Source: J. R. Cash and F. Mazzia, "Algorithms for the solution of two-point boundary value problems"
(test set and report, www.ma.ic.ac.uk/~jcash/BVP_software); the numbers are theirs.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from scipy.special import airy, airye, erf

pi = np.pi


@dataclasses.dataclass(frozen=True)
class Fixed:
    """End values that do not depend on eps."""

    ends: tuple[float, float]

    def __call__(self, eps, xp):
        return self.ends


@dataclasses.dataclass(frozen=True)
class Linear:
    """y'' = `second(x, y, y', eps)` with y = `ends(eps)` at the ends of `span`."""

    number: int
    span: tuple[float, float]
    second: Callable
    ends: Callable
    solution: Callable
    layers: tuple[float, ...]  # where the error is looked at more closely

    def field(self, x, y, args):
        return jnp.stack([y[1], self.second(x, y[0], y[1], args, jnp)])

    def conditions(self, left, right, args):
        a, b = self.ends(args, jnp)
        return jnp.stack([left[0] - a, right[0] - b])

    def __hash__(self):
        return self.number


def cosine(x):
    return np.cos(pi * x), -pi * np.sin(pi * x)


def plus(*parts):
    return tuple(map(sum, zip(*parts, strict=True)))


def source(x, eps, xp):
    """What T11 to T14 have on their right-hand side."""
    return (eps * pi**2 + 1) * xp.cos(pi * x)


def at_left(x, a, length, rate):
    """sinh(rate (b - x)) / sinh(rate (b - a)) and its slope, b = a + length."""
    near, far = np.exp(-rate * (x - a)), np.exp(-rate * (2 * length - (x - a)))
    scale = -np.expm1(-2 * rate * length)
    return (near - far) / scale, -rate * (near + far) / scale


def at_right(x, b, length, rate):
    value, slope = at_left(-x, -b, length, rate)
    return value, -slope


def t1(x, eps):
    return at_left(x, 0.0, 1.0, 1 / np.sqrt(eps))


def t2(x, eps):
    scale = -np.expm1(-1 / eps)
    return -np.expm1((x - 1) / eps) / scale, -np.exp((x - 1) / eps) / eps / scale


def t4(x, eps):
    rate = (1 + eps) / eps
    slow, fast = np.exp(x - 1), np.exp(-rate * (1 + x))
    return slow + fast, slow - rate * fast


def step(x, eps):
    """erf(x / sqrt(2 eps)) / erf(1 / sqrt(2 eps)) and its slope."""
    scale = erf(1 / np.sqrt(2 * eps))
    bell = np.sqrt(2 / (pi * eps)) * np.exp(-(x**2) / (2 * eps))
    return erf(x / np.sqrt(2 * eps)) / scale, bell / scale


def t7(x, eps):
    bell = np.sqrt(2 * eps / pi)
    scale = erf(1 / np.sqrt(2 * eps)) + bell * np.exp(-1 / (2 * eps))
    inner = erf(x / np.sqrt(2 * eps))
    corner = (x * inner + bell * np.exp(-(x**2) / (2 * eps))) / scale
    return plus(cosine(x), (x + corner, 1 + inner / scale))


def t8(x, eps):
    scale = -np.expm1(-1 / eps)
    return (2 - np.exp(-1 / eps) - np.exp(-x / eps)) / scale, np.exp(-x / eps) / eps / scale


def t9(x, eps):
    return 1 / (eps + x**2), -2 * x / (eps + x**2) ** 2


def t15(x, eps):
    """c Ai(z) + d Bi(z), z = x / eps^(1/3), scaled by what grows."""
    k = eps ** (-1 / 3)
    top = 2 / 3 * k**1.5
    ai, _, bi, _ = airy(-k)
    aie, _, bie, _ = airye(k)
    # Bi is written relative to its value at the right end, where Ai is as good as zero.
    M = np.array([[ai, bi * np.exp(-top)], [aie * np.exp(-top), bie]])
    c, d = np.linalg.solve(M, np.ones(2))
    z = k * x
    positive = z > 0
    zp, zn = np.where(positive, z, 0.0), np.where(positive, 0.0, z)
    up = 2 / 3 * zp**1.5
    ae, aep, be, bep = airye(zp)
    a, ap, b, bp = airy(zn)
    right = (
        c * ae * np.exp(-up) + d * be * np.exp(up - top),
        k * (c * aep * np.exp(-up) + d * bep * np.exp(up - top)),
    )
    left = c * a + d * b * np.exp(-top), k * (c * ap + d * bp * np.exp(-top))
    return tuple(np.where(positive, r, f) for r, f in zip(right, left, strict=True))


def t16(x, eps):
    w = pi / (2 * eps)
    return np.sin(w * x), w * np.cos(w * x)


def t17(x, eps):
    return x / np.sqrt(eps + x**2), eps / (eps + x**2) ** 1.5


LINEAR = [
    Linear(1, (0.0, 1.0), lambda x, y, v, e, xp: y / e, lambda e, xp: (1.0, 0.0), t1, (0.0,)),
    Linear(2, (0.0, 1.0), lambda x, y, v, e, xp: v / e, lambda e, xp: (1.0, 0.0), t2, (1.0,)),
    Linear(
        3,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: (
            (
                y
                - (2 + xp.cos(pi * x)) * v
                - (1 + e * pi**2) * xp.cos(pi * x)
                - (2 + xp.cos(pi * x)) * pi * xp.sin(pi * x)
            )
            / e
        ),
        Fixed((-1.0, -1.0)),
        lambda x, e: cosine(x),
        (),
    ),
    Linear(
        4,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: ((1 + e) * y - v) / e,
        lambda e, xp: (1 + xp.exp(-2.0), 1 + xp.exp(-2 * (1 + e) / e)),
        t4,
        (-1.0,),
    ),
    Linear(
        5,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: (
            (x * v + y - (1 + e * pi**2) * xp.cos(pi * x) + pi * x * xp.sin(pi * x)) / e
        ),
        Fixed((-1.0, -1.0)),
        lambda x, e: cosine(x),
        (),
    ),
    Linear(
        6,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: (-x * v - e * pi**2 * xp.cos(pi * x) - pi * x * xp.sin(pi * x)) / e,
        lambda e, xp: (-2.0, 0.0),
        lambda x, e: plus(cosine(x), step(x, e)),
        (0.0,),
    ),
    Linear(
        7,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: (
            (y - x * v - (1 + e * pi**2) * xp.cos(pi * x) - pi * x * xp.sin(pi * x)) / e
        ),
        lambda e, xp: (-1.0, 1.0),
        t7,
        (0.0,),
    ),
    Linear(8, (0.0, 1.0), lambda x, y, v, e, xp: -v / e, lambda e, xp: (1.0, 2.0), t8, (0.0,)),
    Linear(
        9,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: -(4 * x * v + 2 * y) / (e + x**2),
        lambda e, xp: (1 / (1 + e), 1 / (1 + e)),
        t9,
        (0.0,),
    ),
    Linear(
        10,
        (-1.0, 1.0),
        lambda x, y, v, e, xp: -x * v / e,
        lambda e, xp: (0.0, 2.0),
        lambda x, e: plus((1.0, 0.0), step(x, e)),
        (0.0,),
    ),
    *(
        Linear(
            number,
            (-1.0, 1.0),
            lambda x, y, v, e, xp: (y - source(x, e, xp)) / e,
            Fixed(ends),
            solution,
            layers,
        )
        for number, ends, solution, layers in (
            (11, (-1.0, -1.0), lambda x, e: cosine(x), ()),
            (
                12,
                (-1.0, 0.0),
                lambda x, e: plus(cosine(x), at_right(x, 1.0, 2.0, 1 / np.sqrt(e))),
                (1.0,),
            ),
            (
                13,
                (0.0, -1.0),
                lambda x, e: plus(cosine(x), at_left(x, -1.0, 2.0, 1 / np.sqrt(e))),
                (-1.0,),
            ),
            (
                14,
                (0.0, 0.0),
                lambda x, e: plus(
                    cosine(x),
                    at_left(x, -1.0, 2.0, 1 / np.sqrt(e)),
                    at_right(x, 1.0, 2.0, 1 / np.sqrt(e)),
                ),
                (-1.0, 1.0),
            ),
        )
    ),
    Linear(15, (-1.0, 1.0), lambda x, y, v, e, xp: x * y / e, Fixed((1.0, 1.0)), t15, (0.0, 1.0)),
    Linear(
        16,
        (0.0, 1.0),
        lambda x, y, v, e, xp: -(pi**2) / 4 * y / e**2,
        lambda e, xp: (0.0, xp.sin(pi / (2 * e))),
        t16,
        (),
    ),
    Linear(
        17,
        (-0.1, 0.1),
        lambda x, y, v, e, xp: -3 * e * y / (e + x**2) ** 2,
        lambda e, xp: (-0.1 / xp.sqrt(e + 0.01), 0.1 / xp.sqrt(e + 0.01)),
        t17,
        (0.0,),
    ),
    Linear(
        18,
        (0.0, 1.0),
        lambda x, y, v, e, xp: -v / e,
        lambda e, xp: (1.0, xp.exp(-1 / e)),
        lambda x, e: (np.exp(-x / e), -np.exp(-x / e) / e),
        (0.0,),
    ),
]

CASES = [
    (problem, eps)
    for problem in LINEAR
    for eps in ((1 / 101, 1 / 1001) if problem.number == 16 else (1e-2, 1e-4, 1e-6))
]
TOLERANCES = [10.0**-k for k in range(3, 13)]


def places(problem, eps):
    """Where the error is looked at: everywhere, and closely in layers of any width."""
    low, high = problem.span
    near = np.geomspace(1e-3 * eps, (high - low) / 2, 400)
    parts = [np.linspace(low, high, 2001)]
    for at in problem.layers:
        parts += [at - near, at + near]
    x = np.unique(np.concatenate(parts))
    return x[(x >= low) & (x <= high)]


def errors(problem, eps, solution):
    """Largest error of y and of y', each relative to its largest value."""
    x = places(problem, eps)
    found = np.asarray(solution(x))
    known = np.stack(np.broadcast_arrays(*problem.solution(x, eps)), axis=1)
    return np.abs(found - known).max(axis=0) / np.abs(known).max(axis=0)
