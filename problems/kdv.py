"""The Korteweg-de Vries equation u_t + u u_x + 0.022^2 u_xxx = 0: a cosine breaks into solitons.

Source: Zabusky and Kruskal, Phys. Rev. Lett. 15 (1965) 240.
"""

import jax.numpy as jnp

import constrainednn as cx


def kdv(u, p):  # p = (t, x)
    dispersion = 0.022**2 * cx.partial(u, 1, order=3)(p)
    return cx.partial(u, 0)(p) + u(p) * cx.partial(u, 1)(p) + dispersion


def start(x):
    return jnp.cos(jnp.pi * x)


def problem(end=1.0):
    return cx.pde(
        kdv,
        over=cx.Interval(-1.0, 1.0),
        time=(0.0, end),
        start=start,
        boundary="periodic",
        width=(14, 20),
    )
