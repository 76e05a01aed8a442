"""Reaction and diffusion u_t = nu u_xx + rho u (1 - u) on a circle, nu = rho = 5.

Source: Krishnapriyan et al., NeurIPS 34 (2021).
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def start(x):
    return jnp.exp(-((x - jnp.pi) ** 2) / (2 * (jnp.pi / 4) ** 2))


def problem(nu=5.0, rho=5.0):
    def reaction_diffusion(u, p):  # p = (t, x)
        reaction = rho * u(p) * (1 - u(p))
        return cx.partial(u, 0)(p) - nu * cx.partial(u, 1, order=2)(p) - reaction

    return cx.pde(
        reaction_diffusion,
        over=cx.Interval(0.0, 2 * math.pi),
        time=(0.0, 1.0),
        start=start,
        boundary="periodic",
    )
