"""Fisher's equation u_t = u_xx + u (1 - u): a wave front that travels with speed 5 / sqrt(6).

Source: Ablowitz and Zeppetella, Bull. Math. Biol. 41 (1979) 835.
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def solution(p):
    return 1 / (1 + jnp.exp((p[1] - 5 / math.sqrt(6) * p[0]) / math.sqrt(6))) ** 2


def fisher(u, p):  # p = (t, x)
    return cx.partial(u, 0)(p) - cx.partial(u, 1, order=2)(p) - u(p) * (1 - u(p))


def ends(u, p):
    return u(p) - solution(p)


def start(x):
    return solution(jnp.stack([jnp.zeros_like(x), x]))


def problem():
    return cx.pde(
        fisher,
        over=cx.Interval(-20.0, 40.0),
        time=(0.0, 5.0),
        start=start,
        boundary=ends,
        reference=solution,
    )
