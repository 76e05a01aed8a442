"""Learn symmetric matrices whose eigenvalues are at least 0.1, at every point, by projection.

A symmetric 2 x 2 matrix less 0.1 I has no negative eigenvalue if its diagonal and its determinant
are not negative. The field to be learned reaches the bound: it is a smooth symmetric one with
eigenvalues below 0.1 raised to it, which is its nearest point in the set.

Source: N. J. Higham, Linear Algebra Appl. 103 (1988) 103, theorem 2.1.
"""

import jax.numpy as jnp

import constrainednn as cx

LEAST = 0.1


def symmetric(x, A):
    return A[0, 1] - A[1, 0]


def too_small(x, A):
    a, d = A[0, 0] - LEAST, A[1, 1] - LEAST
    return jnp.stack([-a, -d, A[0, 1] * A[1, 0] - a * d])


def is_symmetric(u, x):
    return symmetric(x, u(x))


def is_definite(u, x):
    return cx.at_most(too_small(x, u(x)), 0.0)


def raised(x):
    """The smooth field, with eigenvalues raised: its mean plus and minus a radius."""
    a, d, b = 1 + jnp.sin(x[0]), 1 + x[1] ** 2 / 2, 0.8 * x[0] * jnp.cos(x[1])
    mean, half = (a + d) / 2, (a - d) / 2
    radius = jnp.sqrt(half**2 + b**2 + 1e-30)
    low, high = (jnp.maximum(mean + sign * radius, LEAST) for sign in (-1, 1))
    turned = jnp.array([[half, b], [b, -half]]) / radius
    return (high + low) / 2 * jnp.eye(2) + (high - low) / 2 * turned


def fits(u, x):
    return u(x) - raised(x)


def as_matrix(x, y):
    return y.reshape(2, 2) + jnp.eye(2)


def problem(width=16, points=80):
    over = cx.Box([-2, -1], [2, 1])
    network = cx.with_output(cx.MLP(2, 4, width=width), as_matrix)
    return cx.Problem(
        [
            cx.Constraint(is_symmetric, over=over, points=points, tolerance=1e-12),
            cx.Constraint(is_definite, over=over, points=points, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-1),
        ],
        model=cx.with_projection(network, equalities=symmetric, inequalities=too_small),
        reference=raised,
    )
