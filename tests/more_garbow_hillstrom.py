"""The problems of More, Garbow and Hillstrom, sizes as in MINPACK's own test of `lmder`.

Numbers are those of the paper; 10, 15 and 17 are NIST's MGH10, MGH09 and MGH17 from their second
starts. Minima are sums of squares; those that lie at infinity are left out.

Source: More, Garbow and Hillstrom, Testing unconstrained optimization software, ACM Transactions
on Mathematical Software 7 (1981) 17, section 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from nist import FITS


class Sum(NamedTuple):
    """A sum of squares to be lowered.

    Attributes:
        residual: From parameters to what is squared.
        start: The paper's start; tests take it 10 and 100 times, too.
        minima: Sums of squares at minima, the least first.
    """

    residual: Callable
    start: tuple[float, ...]
    minima: tuple[float, ...] = (0.0,)


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x):
    first = -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1]
    return jnp.stack([first, -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** np.arange(1, 4))


def jennrich_sampson(x):
    i = np.arange(1.0, 11)
    return 2 + 2 * i - jnp.exp(i * x[0]) - jnp.exp(i * x[1])


def helical_valley(x):
    turn = jnp.arctan(x[1] / x[0]) / (2 * jnp.pi) + jnp.where(x[0] < 0, 0.5, 0.0)
    return jnp.stack([10 * (x[2] - 10 * turn), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]])


BARD = np.fromstring(
    "0.14 0.18 0.22 0.25 0.29 0.32 0.35 0.39 0.37 0.58 0.73 0.96 1.34 2.10 4.39", sep=" "
)


def bard(x):
    u = np.arange(1.0, 16)
    return BARD - (x[0] + u / ((16 - u) * x[1] + np.minimum(u, 16 - u) * x[2]))


HALF = "0.0009 0.0044 0.0175 0.0540 0.1295 0.2420 0.3521 0.3989"
BELL = np.array((HALF + " " + " ".join(HALF.split()[-2::-1])).split(), float)


def gaussian(x):
    return x[0] * jnp.exp(-x[1] * ((8 - np.arange(1.0, 16)) / 2 - x[2]) ** 2 / 2) - BELL


def gulf(x):
    t = np.arange(1.0, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def box(x):
    t = 0.1 * np.arange(1.0, 11)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x):
    parts = [x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3])]
    return jnp.stack([*parts, (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2])


def wood(x):
    first = [10 * (x[1] - x[0] ** 2), 1 - x[0], 90**0.5 * (x[3] - x[2] ** 2), 1 - x[2]]
    return jnp.stack([*first, 10**0.5 * (x[1] + x[3] - 2), (x[1] - x[3]) / 10**0.5])


def brown_dennis(x):
    t = np.arange(1.0, 21) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def biggs(x):
    t = 0.1 * np.arange(1.0, 14)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    decays = x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1])
    return decays + x[5] * jnp.exp(-t * x[4]) - y


OSBORNE = np.fromstring(
    """
    1.366 1.191 1.112 1.013 0.991 0.885 0.831 0.847 0.786 0.725 0.746 0.679 0.608 0.655 0.616 0.606
    0.602 0.626 0.651 0.724 0.649 0.649 0.694 0.644 0.624 0.661 0.612 0.558 0.533 0.495 0.500 0.423
    0.395 0.375 0.372 0.391 0.396 0.405 0.428 0.429 0.523 0.562 0.607 0.653 0.672 0.708 0.633 0.668
    0.645 0.632 0.591 0.559 0.597 0.625 0.739 0.710 0.729 0.720 0.636 0.581 0.428 0.292 0.162 0.098
    0.054""",
    sep=" ",
)


def osborne(x):
    t = np.arange(65) / 10
    peaks = [x[k] * jnp.exp(-x[k + 4] * (t - x[k + 7]) ** 2) for k in (1, 2, 3)]
    return OSBORNE - x[0] * jnp.exp(-x[4] * t) - peaks[0] - peaks[1] - peaks[2]


def watson(x):
    j, t = np.arange(len(x)), (np.arange(1.0, 30) / 29)[:, None]
    slope = (j[1:] * t ** (j[1:] - 1)) @ x[1:]
    rows = slope - ((t**j) @ x) ** 2 - 1
    return jnp.concatenate([rows, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def extended_rosenbrock(x):
    odd, even = x[0::2], x[1::2]
    return jnp.concatenate([10 * (even - odd**2), 1 - odd])


def penalty_1(x):
    return jnp.append(1e-5**0.5 * (x - 1), x @ x - 0.25)


def penalty_2(x):
    n = len(x)
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    bends = jnp.exp(x[1:] / 10) + jnp.exp(x[:-1] / 10) - y
    falls = jnp.exp(x[1:] / 10) - np.exp(-0.1)
    last = (n - np.arange(n)) @ x**2 - 1
    weighted = 1e-5**0.5 * jnp.concatenate([bends, falls])
    return jnp.concatenate([jnp.stack([x[0] - 0.2, last]), weighted])


def variably_dimensioned(x):
    total = np.arange(1.0, len(x) + 1) @ (x - 1)
    return jnp.concatenate([x - 1, jnp.stack([total, total**2])])


def trigonometric(x):
    i = np.arange(1, len(x) + 1)
    return len(x) - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):
    return jnp.append(x[:-1] + jnp.sum(x) - (len(x) + 1), jnp.prod(x) - 1)


def discrete_boundary_value(x):
    h = 1 / (len(x) + 1)
    t, padded = h * np.arange(1, len(x) + 1), jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2


def discrete_integral(x):
    h = 1 / (len(x) + 1)
    t = h * np.arange(1, len(x) + 1)
    kernel = np.minimum(t, t[:, None]) * (1 - np.maximum(t, t[:, None]))
    return x + h * kernel @ (x + t + 1) ** 3 / 2


def broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def broyden_banded(x):
    i = np.arange(len(x))
    near = (i - i[:, None] >= -5) & (i - i[:, None] <= 1) & (i != i[:, None])
    return x * (2 + 5 * x**2) + 1 - near.astype(float) @ (x * (1 + x))


def full_rank(x):
    mean = 2 * jnp.sum(x) / 10
    return jnp.concatenate([x - mean - 1, -mean - 1 + jnp.zeros(5)])


def rank_one(x):
    return np.arange(1.0, 11) * (np.arange(1.0, 6) @ x) - 1


def rank_one_with_zeros(x):
    inner = np.arange(10.0)[1:-1] * (np.arange(2.0, 5) @ x[1:-1]) - 1
    return jnp.pad(inner, 1, constant_values=-1.0)


def chebyquad(x):
    y, rows = 2 * x - 1, []
    before, now = jnp.ones_like(x), y
    for i in range(1, len(x) + 1):
        rows.append(jnp.mean(now) + (1 / (i**2 - 1) if i % 2 == 0 else 0.0))
        before, now = now, 2 * y * now - before
    return jnp.stack(rows)


def spread(n):
    """Points between zero and one."""
    return tuple(np.arange(1, n + 1) / (n + 1))


def ends_held(n):
    """t (t - 1)."""
    t = np.array(spread(n))
    return tuple(t * (t - 1))


SUMS = {
    "1 Rosenbrock": Sum(rosenbrock, (-1.2, 1.0)),
    "2 Freudenstein and Roth": Sum(freudenstein_roth, (0.5, -2.0), (0.0, 48.98425)),
    "3 Powell, badly scaled": Sum(powell_badly_scaled, (0.0, 1.0)),
    "4 Brown, badly scaled": Sum(brown_badly_scaled, (1.0, 1.0)),
    "5 Beale": Sum(beale, (1.0, 1.0)),
    "6 Jennrich and Sampson": Sum(jennrich_sampson, (0.3, 0.4), (124.362,)),
    "7 helical valley": Sum(helical_valley, (-1.0, 0.0, 0.0)),
    "8 Bard": Sum(bard, (1.0, 1.0, 1.0), (8.21487e-3,)),
    "9 Gaussian": Sum(gaussian, (0.4, 1.0, 0.0), (1.12793277e-8,)),
    "10 Meyer": Sum(FITS["MGH10"].residual, FITS["MGH10"].near, (FITS["MGH10"].squares,)),
    "11 Gulf": Sum(gulf, (5.0, 2.5, 0.15)),
    "12 Box": Sum(box, (0.0, 10.0, 20.0)),
    "13 Powell, singular": Sum(powell_singular, (3.0, -1.0, 0.0, 1.0)),
    "14 Wood": Sum(wood, (-3.0, -1.0, -3.0, -1.0)),
    "15 Kowalik and Osborne": Sum(
        FITS["MGH09"].residual, FITS["MGH09"].near, (FITS["MGH09"].squares,)
    ),
    "16 Brown and Dennis": Sum(brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.2,)),
    "17 Osborne": Sum(FITS["MGH17"].residual, FITS["MGH17"].near, (FITS["MGH17"].squares,)),
    "18 Biggs": Sum(biggs, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), (0.0, 5.65565e-3)),
    "19 Osborne": Sum(
        osborne, (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5), (4.01377e-2,)
    ),
    "20 Watson, 6": Sum(watson, (0.0,) * 6, (2.28767e-3,)),
    "20 Watson, 9": Sum(watson, (0.0,) * 9, (1.39976e-6,)),
    "20 Watson, 12": Sum(watson, (0.0,) * 12, (4.72238e-10,)),
    "21 extended Rosenbrock": Sum(extended_rosenbrock, (-1.2, 1.0) * 5),
    "23 penalty I": Sum(penalty_1, tuple(range(1, 11)), (7.08765e-5,)),
    "24 penalty II": Sum(penalty_2, (0.5,) * 10, (2.93660e-4,)),
    "25 variably dimensioned": Sum(variably_dimensioned, tuple(1 - np.arange(1, 11) / 10)),
    "26 trigonometric": Sum(trigonometric, (0.1,) * 10, (0.0, 2.79506e-5)),
    "27 Brown, almost linear": Sum(brown_almost_linear, (0.5,) * 10, (0.0, 1.0)),
    "28 discrete boundary value": Sum(discrete_boundary_value, ends_held(10)),
    "29 discrete integral": Sum(discrete_integral, ends_held(10)),
    "30 Broyden, tridiagonal": Sum(broyden_tridiagonal, (-1.0,) * 10),
    "31 Broyden, banded": Sum(broyden_banded, (-1.0,) * 10),
    "32 linear, full rank": Sum(full_rank, (1.0,) * 5, (5.0,)),
    "33 linear, rank one": Sum(rank_one, (1.0,) * 5, (90 / 42,)),
    "34 rank one, zero columns": Sum(rank_one_with_zeros, (1.0,) * 5, (124 / 34,)),
    "35 Chebyquad, 8": Sum(chebyquad, spread(8), (3.51687e-3,)),
    "35 Chebyquad, 9": Sum(chebyquad, spread(9)),
    "35 Chebyquad, 10": Sum(chebyquad, spread(10), (6.50395e-3,)),
}
