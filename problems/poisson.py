"""Poisson's equation on the unit square, with the product of two sines as its solution.

The edges are held at zero. Two by two elements reach rounding.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


def poisson(u, x):
    return cx.laplacian(u)(x) + 2 * jnp.pi**2 * exact(x)


def edge(u, x):
    return u(x)


def problem():
    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(poisson, over=square, boundary=edge, reference=exact)
