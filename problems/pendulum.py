"""Pendulum: angle'' = -sin(angle), released at rest, whose energy stays the same.

`angle` is where it starts, in radians; `end` the last time, in units of sqrt(length / gravity).
`energy` of the angle and its derivative is the same at all times: how far it drifts is a measure
of the error that needs no reference.

Source: Hairer, Lubich and Wanner, Geometric Numerical Integration, section I.1.2.
"""

import jax.numpy as jnp

import constrainednn as cx


def pendulum(t, y, args):
    angle, _ = y
    return -jnp.sin(angle)


def energy(angle, velocity):
    """Constant in time along every solution."""
    return velocity**2 / 2.0 - jnp.cos(angle)


def problem(angle=1.0, end=20.0):
    return cx.ivp(pendulum, (angle, 0.0), (0.0, end), order=2)
