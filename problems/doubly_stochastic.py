"""Learn doubly stochastic matrices: rows and columns sum to one and no entry is negative.

Six equations in nine entries of which five are independent, and nine bounds, at every point, by
projection. What is learned is the matrix that Sinkhorn's scaling makes of positive scores.

Source: R. Sinkhorn, Ann. Math. Statist. 35 (1964) 876: scaling rows and columns in turn converges.
"""

import jax
import jax.numpy as jnp

import constrainednn as cx


def sums(x, A):
    return jnp.concatenate([A.sum(axis=0), A.sum(axis=1)]) - 1.0


def negative(x, A):
    return -A


def sum_to_one(u, x):
    return sums(x, u(x))


def not_negative(u, x):
    return cx.at_most(negative(x, u(x)), 0.0)


def scaled(x):
    """Scores of 0.14 to 7.4, scaled a hundred times: rows and columns are then at rounding."""
    a, b = x
    scores = jnp.array([[a + b, a, -b], [b - a, a * b, 1.0], [jnp.sin(2 * a), b, jnp.cos(b)]])

    def both(_, A):
        A = A / A.sum(axis=1, keepdims=True)
        return A / A.sum(axis=0, keepdims=True)

    return jax.lax.fori_loop(0, 100, both, jnp.exp(scores))


def fits(u, x):
    return u(x) - scaled(x)


def as_matrix(x, y):
    return y.reshape(3, 3)


def problem(width=16, points=80):
    over = cx.Box([-1, -1], [1, 1])
    network = cx.with_output(cx.MLP(2, 9, width=width), as_matrix)
    return cx.Problem(
        [
            cx.Constraint(sum_to_one, over=over, points=points, tolerance=1e-12),
            cx.Constraint(not_negative, over=over, points=points, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-2),
        ],
        model=cx.with_projection(network, equalities=sums, inequalities=negative),
        reference=scaled,
    )
