"""Map three numbers to rotation matrices, from A^T A = I and det A = 1.

A residual of ten entries a point, six of them independent at a solution: the rotations have
dimension three among the nine entries of a matrix. The report says whether the map fills them.
"""

import jax.numpy as jnp

import constrainednn as cx


def is_rotation(u, x):
    A = u(x)
    return jnp.concatenate([(A.T @ A - jnp.eye(3)).ravel(), jnp.linalg.det(A)[None] - 1.0])


def as_matrix(x, y):
    return y.reshape(3, 3)


def problem(width=64, points=50):
    return cx.Problem(
        cx.Constraint(
            is_rotation, over=cx.Normal(3), points=points, target=cx.targets.RotationGroup(3)
        ),
        model=cx.with_output(cx.MLP(3, 9, width=width), as_matrix),
    )
