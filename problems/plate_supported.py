"""A plate that is simply supported at its edges: the biharmonic equation, of order four.

Its edges stay in place and carry no bending moment: the value and the second derivative across an
edge are zero, which are two conditions on each, as for the clamped `plate`. Along a straight edge
that stays in place no second derivative is left but that one, so it is the Laplacian. The load is a
product of sines.

Source: Timoshenko and Woinowsky-Krieger, Theory of Plates and Shells (1959), section 27.
"""

import jax.numpy as jnp

import constrainednn as cx


def exact(x):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(2 * jnp.pi * x[1])


def load(x):
    return (5 * jnp.pi**2) ** 2 * exact(x)


def biharmonic(u, x):
    return cx.laplacian(cx.laplacian(u))(x) - load(x)


def supported(u, x):
    return u(x), cx.laplacian(u)(x)


def problem():
    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    return cx.pde(biharmonic, over=square, boundary=supported, reference=exact)
