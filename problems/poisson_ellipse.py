"""Poisson's equation on an ellipse, which a level set describes, with its edge held at zero.

The source is that of (1 - x^2 / 4 - y^2) exp(x) cos(y). Any function that is smooth and negative
inside will do for the region; its edge is found from it.
"""

import jax.numpy as jnp

import constrainednn as cx


def oval(x):
    return x[0] ** 2 / 4 + x[1] ** 2 - 1


def exact(x):
    return -oval(x) * jnp.exp(x[0]) * jnp.cos(x[1])


def poisson(u, x):
    return cx.laplacian(u)(x) - cx.laplacian(exact)(x)


def edge(u, x):
    return u(x)


def problem():
    ellipse = cx.domains.LevelSet(oval, [-2.0, -1.0], [2.0, 1.0])
    return cx.pde(poisson, over=ellipse, boundary=edge, reference=exact)
