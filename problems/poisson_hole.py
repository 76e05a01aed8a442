"""Laplace's equation on a square with a round hole, through which a flux is given.

The solution is log |x - c| + x y with the middle c of the hole. The flux leaves along the outward
normal, which on the hole points to its middle; on the sides of the square the values are given. The
sides of six by six elements keep clear of the circle; those that lie within the hole are left out.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

CENTER, RADIUS = (0.5, 0.5), 0.25


def exact(x):
    from_center = x - jnp.array(CENTER)
    return jnp.log(from_center @ from_center) / 2 + x[0] * x[1]


def laplace(u, x):
    return cx.laplacian(u)(x)


def value(u, x):
    return u(x) - exact(x)


def flux(u, x, normal):
    through = cx.operators.normal_derivative
    return through(u, normal)(x) - through(exact, normal)(x)


def problem():
    square = cx.Box([0.0, 0.0], [1.0, 1.0])
    plate = square - cx.domains.Ball(2, RADIUS, center=CENTER, name="hole")
    sides = dict.fromkeys(["left", "right", "bottom", "top"], value)
    ends = np.linspace(0.0, 1.0, 7)
    return cx.pde(
        laplace,
        over=plate,
        boundary={**sides, "hole": flux},
        mesh=(ends, ends),
        reference=exact,
    )
