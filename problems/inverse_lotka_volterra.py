"""Inverse Lotka-Volterra: four rates from noisy counts of prey and predators, or of prey alone.

`observations` uniform times on (0, 10], from 10 prey and 5 predators, with normal noise of `noise`
times the mean count, drawn from `draw`. `seen` is "both" or "prey". The rates are positive, so each
is fitted on a logarithmic scale; the search begins at `guess` times the truth.

Source: rates as in the guide of turing.jl on Bayesian differential equations, rescaled; the
equation is Lotka, PNAS 6 (1920) 410.
"""

import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import constrainednn as cx

TRUTH = {"birth": 1.0, "catch": 0.1, "death": 1.5, "gain": 0.075}
START = (10.0, 5.0)


def populations(t, y, args):
    prey, predators = y
    met = prey * predators
    return jnp.stack(
        [args["birth"] * prey - args["catch"] * met, args["gain"] * met - args["death"] * predators]
    )


def counts(times):
    """The true populations."""

    def truth(t, y):
        return [1.0 * y[0] - 0.1 * y[0] * y[1], 0.075 * y[0] * y[1] - 1.5 * y[1]]

    return solve_ivp(truth, (0.0, times[-1]), START, "DOP853", times, rtol=1e-13, atol=1e-13).y.T


def prey_seen(u, row):
    time, prey = row
    return u(time)[0] - prey


def problem(observations=40, noise=0.02, draw=0, seen="both", guess=1.3):
    times = np.linspace(0.0, 10.0, observations + 1)[1:]
    true = counts(times)
    noisy = true + noise * true.mean() * np.random.default_rng(draw).normal(size=true.shape)
    data = cx.Data((times, noisy), holdout=0.0)
    if seen == "prey":
        data = cx.Constraint(prey_seen, over=cx.Data((times, noisy[:, 0]), holdout=0.0))
    return cx.ivp(
        populations,
        jnp.array(START),
        (0.0, 10.0),
        args={name: cx.Unknown(guess * rate, low=0.0) for name, rate in TRUTH.items()},
        data=data,
    )
