"""Bratu's problem: y'' + exp(y) = 0, y(0) = y(1) = 0, which has two solutions.

`branch` says which one: "lower" or "upper"; the first guess, a parabola of about the right height,
decides. `model` is what solves it: "legendre" for elements of polynomials, "features" or "mlp" for
a model of `width` units that is trained on so many `points`, 0 for twice its parameters per
component. The solutions are y(x) = 2 log(cosh(c) / cosh(c (1 - 2 x))) for the two roots c of
cosh(c) = sqrt(8) c.

Source: Ascher, Mattheij and Russell, Numerical Solution of Boundary Value Problems (1995),
example 1.9; the closed form is Bratu's of 1914.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

roots = {"lower": 0.3, "upper": 3.0}
heights = {"lower": 0.0, "upper": 4.0}


def bratu(x, y):
    return jnp.stack([y[1], -jnp.exp(y[0])])


def ends_at_zero(left, right):
    return jnp.stack([left[0], right[0]])


def root_near(c):
    for _ in range(50):  # Newton's method
        c -= (np.cosh(c) - np.sqrt(8) * c) / (np.sinh(c) - np.sqrt(8))
    return c


def problem(branch="lower", model="legendre", width=40, points=0):
    if branch not in roots:
        raise ValueError(f"branch must be lower or upper, got {branch!r}")
    height, c = heights[branch], root_near(roots[branch])

    def parabola(x):
        return jnp.stack([4 * height * x * (1 - x), 4 * height * (1 - 2 * x)])

    def solution(x):
        inner = c * (1 - 2 * x)
        value = 2 * (jnp.log(jnp.cosh(c)) - jnp.log(jnp.cosh(inner)))
        return jnp.stack([value, 4 * c * jnp.tanh(inner)])

    models = {
        "legendre": None,
        "features": cx.RandomFeatures(cx.Interval(-1, 1), 2, width=width),
        "mlp": cx.MLP("scalar", 2, width=width),
    }
    if model not in models:
        raise ValueError(f"model must be legendre, features or mlp, got {model!r}")
    return cx.bvp(
        bratu,
        ends_at_zero,
        (0.0, 1.0),
        parabola,
        model=models[model],
        points=points or None,
        reference=solution,
    )
