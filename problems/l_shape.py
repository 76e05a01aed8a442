"""Laplace's equation on an L, whose corner that points inwards is a singularity.

The solution is r^(2/3) sin(2 theta / 3), which vanishes on both edges at that corner; its
derivatives are infinite there. Nothing is told about it: elements become small at the corner.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    theta = jnp.arctan2(x[1], x[0])
    theta = jnp.where(theta < -1e-9, theta + 2 * jnp.pi, theta)
    square = x[0] ** 2 + x[1] ** 2
    r = jnp.where(square > 0, square, 1.0) ** (1 / 2)
    return jnp.where(square > 0, r ** (2 / 3) * jnp.sin(2 * theta / 3), 0.0)


def laplace(u, x):
    return cx.laplacian(u)(x)


def edge(u, x):
    return u(x) - exact(x)


def problem():
    corner = cx.Box([-1.0, -1.0], [1.0, 1.0]) - cx.Box([0.0, -1.0], [1.0, 0.0])
    return cx.pde(laplace, over=corner, boundary=edge, width=12, reference=exact)
