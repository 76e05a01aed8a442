"""A pendulum in Cartesian coordinates with the tension of its rod, index 1, let go horizontally.

x'' = -tension x and y'' = -tension y - g, where the tension is what keeps the second derivative of
x^2 + y^2 zero. The energy is reported: it should not drift. `end` is the last time.

Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section VII.1, equation 1.20
with the constraint differentiated twice.
"""

import jax.numpy as jnp

import constrainednn as cx

GRAVITY = 9.81


def swing(t, state, args):
    x, y, u, v, tension = state
    return jnp.stack(
        [
            u,
            v,
            -tension * x,
            -tension * y - GRAVITY,
            u**2 + v**2 - tension * (x**2 + y**2) - GRAVITY * y,
        ]
    )


def energy(t, state, args):
    _, y, u, v, _ = state
    return (u**2 + v**2) / 2 + GRAVITY * y


def rod(t, state, args):
    return state[0] ** 2 + state[1] ** 2


def problem(end=10.0):
    return cx.ivp(
        swing,
        jnp.array([1.0, 0.0, 0.0, 0.0, 0.0]),
        (0.0, end),
        mass=[1.0, 1.0, 1.0, 1.0, 0.0],
        invariants=[energy, rod],
    )
