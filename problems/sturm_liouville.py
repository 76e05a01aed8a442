"""Eigenvalues: y'' + (a - 2 q cos 2x) y = 0, y'(0) = y'(pi) = 0, Mathieu's equation.

The eigenvalue a is an unknown parameter, y(0) = 1 fixes the size of y. `index` says which one to
look for, 0 for the smallest: the first guess comes from a small matrix of Fourier cosines, its
eigenvalue rounded to one decimal. The value found is `solution.model.parameters`.

Source: DLMF 28.2; the values are those of `scipy.special.mathieu_a`.
"""

import functools

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def flat_ends(left, right, p):
    return jnp.stack([left[1], right[1], left[0] - 1])


def start(index, q):
    """Eigenvalue and eigenvector of a small matrix: Fourier cosines cos(k x), k up to 12."""
    k = np.arange(13)
    matrix = np.diag(k.astype(float) ** 2)
    # -2 q cos(2x) couples k with k + 2 and k - 2; cos(-k x) = cos(k x).
    for row in k:
        for other in (row + 2, abs(row - 2)):
            if other < len(k):
                matrix[other, row] += q
    values, vectors = (np.real(part) for part in np.linalg.eig(matrix))
    order = np.argsort(values)
    return float(values[order[index]]), vectors[:, order[index]]


@functools.cache  # one function for all indices, so that it is compiled once
def equation(q):
    def mathieu(x, y, p):
        return jnp.stack([y[1], -(p[0] - 2 * q * jnp.cos(2 * x)) * y[0]])

    return mathieu


def problem(index=0, q=5.0):
    if not 0 <= index <= 6:
        raise ValueError(f"index must be 0 to 6, got {index}")
    eigenvalue, weights = start(index, q)
    weights = weights / weights.sum()

    def guess(x):
        k = jnp.arange(len(weights))
        return jnp.stack([weights @ jnp.cos(k * x), -(k * weights) @ jnp.sin(k * x)])

    return cx.bvp(equation(q), flat_ends, (0.0, np.pi), guess, p=[round(eigenvalue, 1)])
