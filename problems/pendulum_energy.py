"""Learn a swing of the pendulum with its energy: angle and speed at each time, by projection.

The energy p^2 / 2 - cos(angle) is that of the start, at rest at 120 degrees, at all times. The
motion is Fourier's series of the exact one, in powers of the nome.

Source: D. F. Lawden, Elliptic Functions and Applications (1989), section 5.1 and equation 8.7.8.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

START = 2 * np.pi / 3
MODULUS = np.sin(START / 2)


def quarter_period(k):
    """The complete elliptic integral K(k), by the arithmetic-geometric mean."""
    a, b = 1.0, np.sqrt(1 - k**2)
    for _ in range(8):
        a, b = (a + b) / 2, np.sqrt(a * b)
    return np.pi / (2 * a)


PERIOD = 4 * quarter_period(MODULUS)
NOME = np.exp(-np.pi * quarter_period(np.sqrt(1 - MODULUS**2)) / quarter_period(MODULUS))


def energy(t, y):
    return y[1] ** 2 / 2 - jnp.cos(y[0]) + np.cos(START)


def keeps_energy(u, t):
    return energy(t, u(t))


def swing(t):
    """Angle and speed: sum of cosines of odd multiples of the frequency."""
    n = np.arange(1, 41, 2)
    a = 8 * (-1.0) ** ((n - 1) // 2) * NOME ** (n / 2) / (n * (1 + NOME**n))
    w = 2 * np.pi * n / PERIOD
    return jnp.stack([a @ jnp.cos(w * t), -(a * w) @ jnp.sin(w * t)])


def level(angle):
    """The curve of this energy: sin(angle / 2) = k sin(phi), p = 2 k cos(phi)."""
    return jnp.stack([2 * jnp.arcsin(MODULUS * jnp.sin(angle)), 2 * MODULUS * jnp.cos(angle)])


def fits(u, t):
    return u(t) - swing(t)


def from_spring(t, y):
    """The swing of a spring to start from, with the same period."""
    w = 2 * np.pi / PERIOD
    return y + START * jnp.stack([jnp.cos(w * t), -w * jnp.sin(w * t)])


def problem(width=16, points=40):
    over = cx.Interval(0, PERIOD)
    target = cx.targets.Manifold(level, over=cx.Interval(0, 2 * np.pi))
    network = cx.with_output(cx.MLP("scalar", 2, width=width), from_spring)
    return cx.Problem(
        [
            cx.Constraint(keeps_energy, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-2),
        ],
        model=cx.with_projection(network, equalities=energy),
        reference=swing,
    )
