"""Map space onto the unit sphere by projection: |u(x)| = 1 holds, and u(x) stays close to x.

As `circle_projected`, in three dimensions; the nearest map onto the sphere is x / |x|.
"""

import jax.numpy as jnp

import constrainednn as cx


def sphere(x, y):
    return y @ y - 1.0


def on_sphere(u, x):
    return sphere(x, u(x))


def stays_close(u, x):
    return u(x) - x


def problem(width=32, points=100):
    over = cx.Normal(3)
    return cx.Problem(
        [
            cx.Constraint(on_sphere, over=over, points=points, tolerance=1e-12),
            cx.Constraint(stays_close, over=over, points=points),
        ],
        model=cx.with_projection(cx.MLP(3, 3, width=width), equalities=sphere),
        reference=lambda x: x / jnp.linalg.norm(x),
    )
