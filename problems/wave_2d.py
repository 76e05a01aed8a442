"""The wave equation u_tt = u_xx + u_yy on the unit square: two modes of a drum that start at rest.

The sides are held at zero.
"""

import jax.numpy as jnp

import constrainednn as cx


def mode(x, i, j):
    return jnp.sin(i * jnp.pi * x[0]) * jnp.sin(j * jnp.pi * x[1])


def wave(u, p):  # p = (t, x, y)
    u_xx, u_yy = cx.partial(u, 1, order=2)(p), cx.partial(u, 2, order=2)(p)
    return cx.partial(u, 0, order=2)(p) - u_xx - u_yy


def wall(u, p):
    return u(p)


def start(x):  # value and velocity
    return mode(x, 1, 1) + mode(x, 2, 1) / 2, jnp.zeros_like(x[0])


def solution(p):
    turn = lambda k: jnp.cos(jnp.sqrt(k) * jnp.pi * p[0])  # noqa: E731
    return turn(2.0) * mode(p[1:], 1, 1) + turn(5.0) * mode(p[1:], 2, 1) / 2


def problem():
    return cx.pde(
        wave,
        over=cx.Box([0.0, 0.0], [1.0, 1.0]),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        reference=solution,
    )
