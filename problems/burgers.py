"""Burgers' equation u_t + u u_x = nu u_xx on (-1, 1): a front as thin as the viscosity forms.

The start is -sin(pi x), the ends are held at zero, and nu = 0.01 / pi. The reference is the
solution by Cole and Hopf, integrated by Gauss and Hermite's rule.

Source: Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378 (2019) 686.
"""

import math

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def wall(u, p):
    return u(p)


def start(x):
    return -jnp.sin(jnp.pi * x)


def cole_hopf(nu, nodes=200):
    """The solution: a quotient of integrals over the start, in exponents that do not overflow."""
    z, w = np.polynomial.hermite.hermgauss(nodes)

    def u(p):
        t, x = p[0], p[1]
        y = x - 2 * jnp.sqrt(nu * t) * z
        exponent = -jnp.cos(jnp.pi * y) / (2 * math.pi * nu)
        weight = w * jnp.exp(exponent - jnp.max(exponent))
        return jnp.sum(weight * -jnp.sin(jnp.pi * y)) / jnp.sum(weight)

    return u


def problem(nu=0.01 / math.pi):
    def burgers(u, p):  # p = (t, x)
        u_t, u_x = cx.partial(u, 0)(p), cx.partial(u, 1)(p)
        return u_t + u(p) * u_x - nu * cx.partial(u, 1, order=2)(p)

    return cx.pde(
        burgers,
        over=cx.Interval(-1.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        reference=cole_hopf(nu),
    )
