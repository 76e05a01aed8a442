"""The wave equation u_tt = 4 u_xx on (0, 1): two modes that start at rest.

Source: Wang, Teng and Perdikaris, SIAM J. Sci. Comput. 43 (2021) A3055.
"""

import jax.numpy as jnp

import constrainednn as cx


def wave(u, p):  # p = (t, x)
    return cx.partial(u, 0, order=2)(p) - 4 * cx.partial(u, 1, order=2)(p)


def wall(u, p):
    return u(p)


def start(x):  # value and velocity
    return jnp.sin(jnp.pi * x) + jnp.sin(4 * jnp.pi * x) / 2, jnp.zeros_like(x)


def solution(p):
    t, x = p[0], p[1]
    low = jnp.sin(jnp.pi * x) * jnp.cos(2 * jnp.pi * t)
    return low + jnp.sin(4 * jnp.pi * x) * jnp.cos(8 * jnp.pi * t) / 2


def problem():
    return cx.pde(
        wave,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        reference=solution,
    )
