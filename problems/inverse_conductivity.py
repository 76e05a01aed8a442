"""The conductivity of a disk from voltages on its edge, while known currents enter there.

div(a grad u) = 0 in the unit disk for two voltages u, with the current a du/dn given on the circle
and u in the middle of the disk. The root of the conductivity a is a polynomial of order two, whose
six coefficients are unknown; both voltages are given at 100 places of the circle, with noise of a
given standard deviation. With w harmonic and a = w^2, any harmonic function over w is a voltage:
here x / w and y / w with w = 1 + x / 3 + x y / 4, which are the reference, too.

Source: the question of Calderon (Seminar on Numerical Analysis, Rio de Janeiro, 1980, 65); the
solutions, by Liouville's substitution, are made for it.
"""

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn as cx

TRUTH = np.array([1.0, 1 / 3, 0.0, 0.0, 1 / 4, 0.0])


def conductivity(root):
    """From coefficients of its root to a function of a point."""
    return lambda x: (root @ jnp.array([1.0, *x, x[0] ** 2, x[0] * x[1], x[1] ** 2])) ** 2


def voltages(x):
    return x / conductivity(TRUTH)(x) ** 0.5


def divergence(u, x):  # of a grad u: what flows in flows out
    a = conductivity(u.args["root"])
    along = cx.partial(a, 0)(x) * cx.partial(u, 0)(x) + cx.partial(a, 1)(x) * cx.partial(u, 1)(x)
    return a(x) * cx.laplacian(u)(x) + along


def edge(u, x, n):
    through = cx.operators.normal_derivative
    known = conductivity(TRUTH)(x) * through(voltages, n)(x)
    return conductivity(u.args["root"])(x) * through(u, n)(x) - known


def ground(u, x):
    return u(x)


def measured(rows, noise, draw):
    rng = np.random.default_rng(draw)
    angles = rng.uniform(0, 2 * np.pi, rows)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    values = np.asarray(jax.vmap(voltages)(points))
    return points, values + noise * rng.normal(size=values.shape)


def problem(rows=100, noise=0.0, draw=0):
    return cx.pde(
        divergence,
        over=cx.domains.Ball(2),
        boundary={"circle": edge, (0.0, 0.0): ground},
        args={"root": cx.Unknown(np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))},
        data=cx.Data(measured(rows, noise, draw)),
        guess=jnp.zeros(2),
        reference=voltages,
    )
