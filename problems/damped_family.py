"""All damped oscillators at once: x'' + 2 z x' + x = 0 from (1, 0), for damping z in [0.05, 2].

One solve covers the family: a point is a pair (t, z), and so the gap covers both. `end` is the last
time, `width` the number of features.

Source: any textbook on vibrations; solutions are underdamped below z = 1 and overdamped above.
"""

import jax.numpy as jnp

import constrainednn as cx

LOW, HIGH = 0.05, 2.0


def motion(u, point):
    t, damping = point
    position, velocity, acceleration = cx.taylor(lambda t: u(jnp.stack([t, damping])), t, order=2)
    return acceleration + 2 * damping * velocity + position


def from_rest(point, y):
    """Position one and velocity zero at time 0, whatever y is."""
    return 1.0 + point[0] ** 2 * y


def exact(point):
    t, damping = point
    # cos and sin of a complex frequency, as series where it vanishes.
    square = t**2 * (1.0 - damping**2)
    root = jnp.sqrt(jnp.where(jnp.abs(square) > 1e-4, jnp.abs(square), 1.0))
    cosine = jnp.where(square > 0, jnp.cos(root), jnp.cosh(root))
    ratio = jnp.where(square > 0, jnp.sin(root), jnp.sinh(root)) / root
    near = jnp.abs(square) <= 1e-4
    cosine = jnp.where(near, 1 - square / 2 + square**2 / 24, cosine)
    ratio = jnp.where(near, 1 - square / 6 + square**2 / 120, ratio)
    return jnp.exp(-damping * t) * (cosine + damping * t * ratio)


def problem(end=6.0, width=800):
    family = cx.Interval(0.0, end) * cx.Interval(LOW, HIGH)
    return cx.Problem(
        cx.Constraint(motion, over=family, points=2500, sampler=cx.GaussQuadrature()),
        cx.with_output(cx.RandomFeatures(family, "scalar", width=width), from_rest),
        reference=exact,
    )
