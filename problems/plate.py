"""A plate that is clamped at its edges: the biharmonic equation, of order four.

Value and slope are zero at the edges, so each has two conditions. The load is that of
(x (1 - x) y (1 - y))^2 exp(x).
"""

import jax
import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return (x[0] * (1 - x[0]) * x[1] * (1 - x[1])) ** 2 * jnp.exp(x[0])


def biharmonic(u, x):
    return cx.laplacian(cx.laplacian(u))(x) - cx.laplacian(cx.laplacian(exact))(x)


def clamped(u, x, n):
    return u(x), n @ jax.grad(u)(x)


def problem():
    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(biharmonic, over=square, boundary=clamped, reference=exact)
