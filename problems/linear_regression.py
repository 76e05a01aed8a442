"""Noisy regression: fit a line to y = 10 x + 4 plus unit normal noise; fresh draws judge.

The held-out points are new draws of (x, y), so the gap has a closed form: over many seeds the
train loss is 1 - 2/n and the fresh loss (1 + 1/n) (1 + 1/(n - 3)), for n points, one slope and an
intercept. At n = 25 these are 0.92 and 1.0873.

Source: the least-squares formulas are classical, e.g. Rao, Linear Statistical Inference, ch. 4.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import constrainednn as cx


class Line(eqx.Module):
    """The smallest network: slope and intercept."""

    slope: jax.Array
    intercept: jax.Array

    def __call__(self, x):
        return self.slope * x + self.intercept


def noisy(z):
    return z[0], 10.0 * z[0] + 4.0 + z[1]


def misfit(u, point):
    x, y = point
    return u(x) - y


def truth(x):
    return 10.0 * x + 4.0


methods = {"gd": cx.Stage(cx.Optax(optax.sgd(0.1)), steps=100)}


def problem(points=25):
    return cx.Problem(
        cx.Constraint(misfit, over=cx.Normal(2).map(noisy), points=points),
        model=Line(jnp.zeros(()), jnp.zeros(())),
        reference=truth,
    )
