"""A Volterra equation: u(t) = 1 - integral from 0 to t of (t - s) u(s) ds, solved by cos t.

`end` is the last time, `width` the number of features.

Source: Linz, Analytical and Numerical Methods for Volterra Equations, SIAM (1985), chapter 1.
"""

import jax.numpy as jnp

import constrainednn as cx


def renewal(u, t):
    return u(t) - 1.0 + cx.integral(lambda s: (t - s) * u(s), 0.0, t, nodes=32)


def problem(end=3.0, width=60):
    times = cx.Interval(0.0, end)
    return cx.Problem(
        cx.Constraint(renewal, over=times, points=2 * width, sampler=cx.GaussQuadrature()),
        cx.RandomFeatures(times, "scalar", width=width),
        reference=jnp.cos,
    )
