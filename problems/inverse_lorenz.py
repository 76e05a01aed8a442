"""Inverse Lorenz: the three rates from observations of all states, without noise.

`observations` uniform times on [0, `end`], from (-8, 7, 27); the truth is 10, 15 and 8/3, and the
search begins with `guess` for each.

Source: the inverse problem of DeepXDE's documentation, Lu, Meng, Mao and Karniadakis, SIAM Review
63 (2021) 208, with fewer observations; the equation is Lorenz, J. Atmos. Sci. 20 (1963) 130.
"""

import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import constrainednn as cx

TRUTH = {"sigma": 10.0, "rho": 15.0, "beta": 8 / 3}
START = (-8.0, 7.0, 27.0)


def convection(t, y, args):
    x, y, z = y
    return jnp.stack([args["sigma"] * (y - x), x * (args["rho"] - z) - y, x * y - args["beta"] * z])


def observe(times):
    """The true states."""

    def truth(t, y):
        x, y, z = y
        return [10.0 * (y - x), x * (15.0 - z) - y, x * y - 8 / 3 * z]

    span = 0.0, times[-1]
    return solve_ivp(truth, span, START, "DOP853", times, rtol=1e-13, atol=1e-13).y.T


def problem(observations=25, end=3.0, guess=1.0):
    times = np.linspace(0.0, end, observations)
    return cx.ivp(
        convection,
        jnp.array(START),
        (0.0, end),
        args={name: cx.Unknown(guess) for name in TRUTH},
        data=cx.Data((times, observe(times)), holdout=0.0),
    )
