"""A Fredholm equation: u(x) = e^x - x + integral from 0 to 1 of x e^(-y) u(y) dy, solved by e^x.

`width` is the number of features.

Source: second kind with a degenerate kernel, Atkinson, The Numerical Solution of Integral Equations
of the Second Kind, Cambridge (1997), chapter 1.
"""

import jax.numpy as jnp

import constrainednn as cx


def balance(u, x):
    known = jnp.exp(x) - x
    return u(x) - known - cx.integral(lambda y: x * jnp.exp(-y) * u(y), 0.0, 1.0, nodes=32)


def problem(width=60):
    places = cx.Interval(0.0, 1.0)
    return cx.Problem(
        cx.Constraint(balance, over=places, points=2 * width, sampler=cx.GaussQuadrature()),
        cx.RandomFeatures(places, "scalar", width=width),
        reference=jnp.exp,
    )
