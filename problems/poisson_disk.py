"""Poisson's equation on the unit disk, whose edge is held at zero.

The source is that of (1 - |x|^2) exp(x) cos(y). Four elements, which the circle cuts, reach
rounding.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return (1 - x @ x) * jnp.exp(x[0]) * jnp.cos(x[1])


def poisson(u, x):
    return cx.laplacian(u)(x) - cx.laplacian(exact)(x)


def edge(u, x):
    return u(x)


def problem():
    disk = cx.domains.Ball(2)
    return cx.pde(poisson, over=disk, boundary=edge, reference=exact)
