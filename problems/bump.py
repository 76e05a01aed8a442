"""Poisson's equation with a bump of width 0.03 somewhere in the unit square: elements find it.

The source and the edges are those of a Gaussian around (0.3, 0.6).
"""

import jax.numpy as jnp

import constrainednn as cx


def problem(width=0.03):
    def exact(x):
        return jnp.exp(-((x - jnp.array([0.3, 0.6])) ** 2).sum() / (2 * width**2))

    def poisson(u, x):
        return cx.laplacian(u)(x) - cx.laplacian(exact)(x)

    def edge(u, x):
        return u(x) - exact(x)

    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(poisson, over=square, boundary=edge, reference=exact)
