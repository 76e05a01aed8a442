"""Unidentifiable on purpose: y' = -first * second * y, of which only the product can be seen.

The estimates say so, and name the direction: one rate up, the other down by as much. `noise` is the
standard deviation of the noise, drawn from `draw`.

Source: Raue et al., Bioinformatics 25 (2009) 1923, on structural non-identifiability.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def decay(t, y, args):
    return -args["first"] * args["second"] * y


def problem(observations=30, noise=0.01, draw=0):
    times = np.linspace(0.0, 3.0, observations)
    seen = np.exp(-1.2 * times) + noise * np.random.default_rng(draw).normal(size=times.shape)
    return cx.ivp(
        decay,
        jnp.asarray(1.0),
        (0.0, 3.0),
        args={"first": cx.Unknown(1.0, low=0.0), "second": cx.Unknown(0.5, low=0.0)},
        data=cx.Data((times, seen), holdout=0.0),
    )
