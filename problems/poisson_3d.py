"""Poisson's equation in a cube, by random features: the same statement as in the plane.

Elements end at two dimensions; a model is trained in any number of them. The head of frozen
features enters linearly, so that one least-squares problem is solved. The solution is a product of
sines, its faces are held at zero. They count twenty times, about as much as the Laplacian of the
solution exceeds the solution: errors at the faces are errors inside.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return jnp.prod(jnp.sin(jnp.pi * x))


def poisson(u, x):
    return cx.laplacian(u)(x) + 3 * jnp.pi**2 * exact(x)


def face(u, x):
    return 20 * u(x)


def problem(width=1500):
    cube = cx.Box([0.0] * 3, [1.0] * 3)
    features = cx.RandomFeatures(cube, "scalar", width=width)
    return cx.pde(poisson, over=cube, boundary=face, model=features, reference=exact)
