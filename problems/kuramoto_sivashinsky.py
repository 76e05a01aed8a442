"""The Kuramoto-Sivashinsky equation u_t + u u_x + u_xx + u_xxxx = 0 on a circle of length 32 pi.

Long waves grow, short ones fade, and chaos sets in after some time.

Source: Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def kuramoto_sivashinsky(u, p):  # p = (t, x)
    linear = cx.partial(u, 1, order=2)(p) + cx.partial(u, 1, order=4)(p)
    return cx.partial(u, 0)(p) + u(p) * cx.partial(u, 1)(p) + linear


def start(x):
    return jnp.cos(x / 16) * (1 + jnp.sin(x / 16))


def problem(end=20.0):
    return cx.pde(
        kuramoto_sivashinsky,
        over=cx.Interval(0.0, 32 * math.pi),
        time=(0.0, end),
        start=start,
        boundary="periodic",
    )
