"""Map two angles onto a torus in space: every value lies on the surface, by projection.

What is learned is a twisted parametrisation, from the usual one inside of the surface; with a
residual alone the values would lie near it, here they lie on it at angles nobody tried as well. The
radii are 2 and 1.

Source: M. P. do Carmo, Differential Geometry of Curves and Surfaces (1976), section 2-2, example 6.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def surface(x, y):
    return (jnp.hypot(y[0], y[1]) - 2.0) ** 2 + y[2] ** 2 - 1.0


def on_torus(u, x):
    return surface(x, u(x))


def tube(x, radius):
    a, b = x
    out = 2 + radius * jnp.cos(b)
    return jnp.stack([out * jnp.cos(a), out * jnp.sin(a), radius * jnp.sin(b)])


def torus(x):
    return tube(x + jnp.array([0.0, 0.5]) * jnp.sin(x[0]), 1.0)


def from_inside(x, y):
    """Close to the circle in the middle values would jump: start half way to the surface."""
    return y + tube(x, 0.5)


def fits(u, x):
    return u(x) - torus(x)


def problem(width=32, points=100):
    over = cx.Box([0, 0], [2 * np.pi, 2 * np.pi])
    target = cx.targets.Manifold(torus, over=over)
    network = cx.with_output(cx.MLP(2, 3, width=width), from_inside)
    return cx.Problem(
        [
            cx.Constraint(on_torus, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-1),
        ],
        model=cx.with_projection(network, equalities=surface),
        reference=torus,
    )
