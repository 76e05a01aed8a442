"""Map the plane onto the unit circle by projection: |u(x)| = 1 holds, and u(x) stays close to x.

The circle is not learned, it is solved for at every point, so training is left with the rest: of
all maps onto the circle the one nearest to the identity, x / |x|. It is not continuous at the
origin, where a network cannot follow. Compare `unit_circle` (learned) and `unit_circle_exact` (by
formula).
"""

import jax.numpy as jnp

import constrainednn as cx


def circle(x, y):
    return y @ y - 1.0


def on_circle(u, x):
    return circle(x, u(x))


def stays_close(u, x):
    return u(x) - x


def problem(width=32, points=100):
    over = cx.Normal(2)
    return cx.Problem(
        [
            cx.Constraint(on_circle, over=over, points=points, target=cx.Circle(), tolerance=1e-12),
            cx.Constraint(stays_close, over=over, points=points),
        ],
        model=cx.with_projection(cx.MLP(2, 2, width=width), equalities=circle),
        reference=lambda x: x / jnp.linalg.norm(x),
    )
