"""The heat equation u_t = u_xx / 4 on (0, 1), from a sine, with both ends held at zero."""

import jax.numpy as jnp

import constrainednn as cx


def heat(u, p):  # p = (t, x)
    return cx.partial(u, 0)(p) - cx.partial(u, 1, order=2)(p) / 4


def wall(u, p):
    return u(p)


def start(x):
    return jnp.sin(jnp.pi * x)


def solution(p):
    return jnp.exp(-(jnp.pi**2) * p[0] / 4) * start(p[1])


def problem():
    return cx.pde(
        heat,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        reference=solution,
    )
