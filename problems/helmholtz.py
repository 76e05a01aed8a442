"""Helmholtz' equation on the unit square: waves of wave number k in both directions.

The source and the edges are those of sin(k x) sin(k y). Elements are halved until each holds a few
waves.
"""

import jax.numpy as jnp

import constrainednn as cx


def problem(k=10.0):
    def exact(x):
        return jnp.sin(k * x[0]) * jnp.sin(k * x[1])

    def helmholtz(u, x):
        return cx.laplacian(u)(x) + k**2 * u(x) + k**2 * exact(x)

    def edge(u, x):
        return u(x) - exact(x)

    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(helmholtz, over=square, boundary=edge, reference=exact)
