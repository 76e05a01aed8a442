"""The Allen-Cahn equation u_t = 1e-4 u_xx + 5 (u - u^3) on a circle: layers form and move.

The start x^2 cos(pi x) has a kink where the ends meet.

Source: Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378 (2019) 686.
"""

import jax.numpy as jnp

import constrainednn as cx


def allen_cahn(u, p):  # p = (t, x)
    return cx.partial(u, 0)(p) - 1e-4 * cx.partial(u, 1, order=2)(p) - 5 * (u(p) - u(p) ** 3)


def start(x):
    return x**2 * jnp.cos(jnp.pi * x)


def problem():
    return cx.pde(
        allen_cahn,
        over=cx.Interval(-1.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary="periodic",
    )
