"""Learn probabilities of three classes: they sum to one and are not negative, at every point.

By projection onto the probability simplex, which reaches its edges, where probabilities are zero,
as softmax never does. What is learned is the nearest point of the simplex to three smooth scores.

Source: A. F. T. Martins and R. F. Astudillo, From softmax to sparsemax, ICML (2016), section 2.
"""

import jax.numpy as jnp

import constrainednn as cx


def sums_to_one(x, y):
    return jnp.sum(y) - 1.0


def not_positive(x, y):
    return -y


def total(u, x):
    return sums_to_one(x, u(x))


def positive(u, x):
    return cx.at_most(not_positive(x, u(x)), 0.0)


def scores(x):
    return jnp.stack([jnp.sin(2 * x[0]), jnp.cos(x[1]), x[0] * x[1] / 2])


def sparsemax(x):
    """The nearest point of the simplex: the scores less a threshold, cut off at zero."""
    v = scores(x)
    ordered = jnp.sort(v)[::-1]
    excess = (jnp.cumsum(ordered) - 1.0) / jnp.arange(1, 4)
    threshold = excess[jnp.sum(ordered > excess) - 1]
    return jnp.maximum(v - threshold, 0.0)


def fits(u, x):
    return u(x) - sparsemax(x)


def problem(width=32, points=100):
    over = cx.Box([-2, -2], [2, 2])
    network = cx.MLP(2, 3, width=width, over=over)
    return cx.Problem(
        [
            cx.Constraint(total, over=over, points=points, tolerance=1e-12),
            cx.Constraint(positive, over=over, points=points, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-2),
        ],
        model=cx.with_projection(network, equalities=sums_to_one, inequalities=not_positive),
        reference=sparsemax,
    )
