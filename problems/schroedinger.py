"""The nonlinear Schroedinger equation i u_t + u_xx / 2 + |u|^2 u = 0: a breather of two solitons.

The unknowns are the real and the imaginary part. The interval stands for the line: at its ends the
solution is 1e-10.

Source: Satsuma and Yajima, Prog. Theor. Phys. Suppl. 55 (1974) 284.
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def schroedinger(w, p):  # p = (t, x)
    (a, b), (a_t, b_t) = w(p), cx.partial(w, 0)(p)
    a_xx, b_xx = cx.partial(w, 1, order=2)(p)
    square = a**2 + b**2
    return a_t + b_xx / 2 + square * b, b_t - a_xx / 2 - square * a


def start(x):
    return 2 / jnp.cosh(x), jnp.zeros_like(x)


def solution(p):
    t, x = p[0], p[1]
    top = jnp.cosh(3 * x) + 3 * jnp.exp(4j * t) * jnp.cosh(x)
    u = 4 * jnp.exp(0.5j * t) * top / (jnp.cosh(4 * x) + 4 * jnp.cosh(2 * x) + 3 * jnp.cos(4 * t))
    return u.real, u.imag


def problem():
    return cx.pde(
        schroedinger,
        over=cx.Interval(-24.0, 24.0),
        time=(0.0, math.pi / 2),
        start=start,
        boundary="periodic",
        reference=solution,
    )
