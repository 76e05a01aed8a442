"""The heat equation u_t = (u_xx + u_yy) / 4 on the unit square, from two modes, sides at zero."""

import jax.numpy as jnp

import constrainednn as cx


def mode(x, i, j):
    return jnp.sin(i * jnp.pi * x[0]) * jnp.sin(j * jnp.pi * x[1])


def heat(u, p):  # p = (t, x, y)
    u_xx, u_yy = cx.partial(u, 1, order=2)(p), cx.partial(u, 2, order=2)(p)
    return cx.partial(u, 0)(p) - (u_xx + u_yy) / 4


def wall(u, p):
    return u(p)


def start(x):
    return mode(x, 1, 1) + mode(x, 2, 1) / 2


def solution(p):
    decay = lambda k: jnp.exp(-k * jnp.pi**2 * p[0] / 4)  # noqa: E731
    return decay(2) * mode(p[1:], 1, 1) + decay(5) * mode(p[1:], 2, 1) / 2


def problem():
    return cx.pde(
        heat,
        over=cx.Box([0.0, 0.0], [1.0, 1.0]),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        reference=solution,
    )
