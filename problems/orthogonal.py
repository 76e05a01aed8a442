"""Learn orthonormal columns: u(x)^T u(x) = I at every x, two columns in space, by projection.

The nearest such matrix to a given one is its orthogonal polar factor. What is learned is that
factor of a matrix which depends smoothly on the point.

Source: N. J. Higham, Functions of Matrices (2008), theorem 8.4.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def orthonormal(x, A):
    return (A.T @ A - jnp.eye(2))[np.triu_indices(2)]


def is_orthonormal(u, x):
    return orthonormal(x, u(x))


def polar(x):
    """A (A^T A)^-1/2, with the root of a 2 x 2 matrix by Cayley and Hamilton."""
    a, b = x
    A = jnp.array([[1 + 0.5 * jnp.sin(a), b], [0.5 * a, 1.5], [jnp.cos(b), -0.5 * a * b]])
    gram = A.T @ A
    root = jnp.sqrt(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2)
    whole = jnp.sqrt(jnp.trace(gram) + 2 * root)
    S = (gram + root * jnp.eye(2)) / whole
    inverse = jnp.array([[S[1, 1], -S[0, 1]], [-S[1, 0], S[0, 0]]]) / root
    return A @ inverse


def fits(u, x):
    return u(x) - polar(x)


def as_matrix(x, y):
    return y.reshape(3, 2) + jnp.eye(3, 2)


def problem(width=16, points=80):
    over = cx.Box([-1, -1], [1, 1])
    network = cx.with_output(cx.MLP(2, 6, width=width), as_matrix)
    return cx.Problem(
        [
            cx.Constraint(is_orthonormal, over=over, points=points, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-2),
        ],
        model=cx.with_projection(network, equalities=orthonormal),
        reference=polar,
    )
