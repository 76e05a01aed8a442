"""The logistic reaction u_t = rho u (1 - u) at every place of a circle, rho = 5.

Physics-informed networks find u = 0 instead: Krishnapriyan et al., NeurIPS 34 (2021).
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def start(x):
    return jnp.exp(-((x - jnp.pi) ** 2) / (2 * (jnp.pi / 4) ** 2))


def problem(rho=5.0):
    def reaction(u, p):  # p = (t, x)
        return cx.partial(u, 0)(p) - rho * u(p) * (1 - u(p))

    def solution(p):
        grown = start(p[1]) * jnp.exp(rho * p[0])
        return grown / (grown + 1 - start(p[1]))

    return cx.pde(
        reaction,
        over=cx.Interval(0.0, 2 * math.pi),
        time=(0.0, 1.0),
        start=start,
        boundary="periodic",
        reference=solution,
    )
