"""Map two angles onto a torus in space: every value lies on the surface, by projection.

What is learned is the usual parametrisation; with a residual alone the values would lie near the
surface, here they lie on it at angles nobody tried as well. The radii are 2 and 1.

Source: M. P. do Carmo, Differential Geometry of Curves and Surfaces (1976), section 2-2, example 6.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def surface(x, y):
    return (jnp.hypot(y[0], y[1]) - 2.0) ** 2 + y[2] ** 2 - 1.0


def on_torus(u, x):
    return surface(x, u(x))


def torus(x):
    a, b = x
    return jnp.stack([(2 + jnp.cos(b)) * jnp.cos(a), (2 + jnp.cos(b)) * jnp.sin(a), jnp.sin(b)])


def fits(u, x):
    return u(x) - torus(x)


def problem(width=32, points=100):
    over = cx.Box([0, 0], [2 * np.pi, 2 * np.pi])
    target = cx.targets.Manifold(torus, over=over)
    return cx.Problem(
        [
            cx.Constraint(on_torus, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-1),
        ],
        model=cx.with_projection(cx.MLP(2, 3, width=width), equalities=surface),
        reference=torus,
    )
