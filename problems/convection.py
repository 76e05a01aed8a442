"""Convection u_t + c u_x = 0 around a circle of length 2 pi: a sine goes around, c = 40.

At this speed physics-informed networks fail: Krishnapriyan et al., NeurIPS 34 (2021).
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def problem(speed=40.0):
    def convection(u, p):  # p = (t, x)
        return cx.partial(u, 0)(p) + speed * cx.partial(u, 1)(p)

    def solution(p):
        return jnp.sin(p[1] - speed * p[0])

    return cx.pde(
        convection,
        over=cx.Interval(0.0, 2 * math.pi),
        time=(0.0, 1.0),
        start=jnp.sin,
        boundary="periodic",
        reference=solution,
    )
