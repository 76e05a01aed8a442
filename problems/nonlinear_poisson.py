"""Laplace u - u^3 = f on the unit square, with f made so that a product of sines solves it.

The edges are held at zero. Newton's method begins at zero and takes five steps.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


def cubic(u, x):
    source = -2 * jnp.pi**2 * exact(x) - exact(x) ** 3
    return cx.laplacian(u)(x) - u(x) ** 3 - source


def edge(u, x):
    return u(x)


def problem():
    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(cubic, over=square, boundary=edge, reference=exact)
