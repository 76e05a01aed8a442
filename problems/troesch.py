"""Troesch's problem: y'' = mu sinh(mu y), y(0) = 0, y(1) = 1, with a layer at x = 1.

From a straight line Newton's method fails beyond mu of about ten, so mu is raised in steps: each
problem is solved from the solution of the one before (`continuation`). Twice the first integral,
y'^2 - 2 cosh(mu y), is the same everywhere.

Source: B. A. Troesch, A simple approach to a sensitive two-point boundary value problem, J. Comput.
Phys. 21 (1976) 279.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def troesch(x, y, args):
    return jnp.stack([y[1], args["mu"] * jnp.sinh(args["mu"] * y[0])])


def ends(left, right, args):
    return jnp.stack([left[0], right[0] - 1])


def line(x):
    return jnp.stack([x, jnp.ones_like(x)])


def problem(mu=20.0):
    if not 0 < mu <= 50:
        raise ValueError(f"mu must be above zero and at most 50, got {mu}")
    way = np.linspace(min(mu, 2.0), mu, max(2, round(mu / 3))).tolist()
    return cx.bvp(troesch, ends, (0.0, 1.0), line, args={"mu": float(mu)}, continuation=("mu", way))
