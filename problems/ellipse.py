"""Map an angle onto an ellipse of half axes 2 and 1: every value lies on it, by projection.

The nearest point of an ellipse has no simple formula, so no transform of the output does this: it
is found by an iteration for each value.

Source: D. Eberly, Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid (2013),
section 2: the equations of the nearest point.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def curve(x, y):
    return (y[0] / 2) ** 2 + y[1] ** 2 - 1.0


def on_ellipse(u, x):
    return curve(x, u(x))


def ellipse(x):
    return jnp.stack([2 * jnp.cos(x), jnp.sin(x)])


def fits(u, x):
    return u(x) - ellipse(x)


def from_circle(x, y):
    """A circle to start from: in the middle of an ellipse values jump between its sides."""
    return y + 2 * jnp.stack([jnp.cos(x), jnp.sin(x)])


def problem(width=16, points=40):
    over = cx.Interval(0, 2 * np.pi)
    target = cx.targets.Manifold(ellipse, over=over)
    network = cx.with_output(cx.MLP("scalar", 2, width=width), from_circle)
    return cx.Problem(
        [
            cx.Constraint(on_ellipse, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-3),
        ],
        model=cx.with_projection(network, equalities=curve),
        reference=ellipse,
    )
