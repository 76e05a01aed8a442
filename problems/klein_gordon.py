"""A nonlinear wave: u_tt = u_xx - u^3 + f on (0, 1), f made for x cos(5 pi t) + (x t)^3.

Source: Wang, Teng and Perdikaris, SIAM J. Sci. Comput. 43 (2021) A3055.
"""

import jax.numpy as jnp

import constrainednn as cx


def solution(p):
    t, x = p[0], p[1]
    return x * jnp.cos(5 * jnp.pi * t) + (x * t) ** 3


def force(p):
    t, x = p[0], p[1]
    u_tt = -25 * jnp.pi**2 * x * jnp.cos(5 * jnp.pi * t) + 6 * t * x**3
    return u_tt - 6 * x * t**3 + solution(p) ** 3


def klein_gordon(u, p):  # p = (t, x)
    wave = cx.partial(u, 0, order=2)(p) - cx.partial(u, 1, order=2)(p)
    return wave + u(p) ** 3 - force(p)


def ends(u, p):
    return u(p) - solution(p)


def start(x):  # value and velocity
    return x, jnp.zeros_like(x)


def problem():
    return cx.pde(
        klein_gordon,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary=ends,
        reference=solution,
    )
