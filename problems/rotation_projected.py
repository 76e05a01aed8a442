"""Map three numbers to rotation matrices by projection: A^T A = I and det A = 1 hold.

Ten equations of which six are independent at a rotation. Training is left with a turn of its own:
the rotation about the axis x by the angle |x|, by Rodrigues' formula,
from its values at the training points.

Source: O. Rodrigues, J. Math. Pures Appl. 5 (1840) 380.
"""

import jax.numpy as jnp

import constrainednn as cx


def rotations(x, A):
    return jnp.concatenate([(A.T @ A - jnp.eye(3)).ravel(), jnp.linalg.det(A)[None] - 1.0])


def is_rotation(u, x):
    return rotations(x, u(x))


def about(x):
    """The rotation about the axis x by the angle |x|."""
    square = jnp.maximum(x @ x, 1e-30)
    angle = jnp.sqrt(square)
    cross = jnp.array([[0.0, -x[2], x[1]], [x[2], 0.0, -x[0]], [-x[1], x[0], 0.0]])
    half = jnp.sin(angle / 2) ** 2
    return jnp.eye(3) + jnp.sin(angle) / angle * cross + 2 * half / square * cross @ cross


def turns(u, x):
    return u(x) - about(x)


def as_matrix(x, y):
    return y.reshape(3, 3)


def problem(width=32, points=100):
    over, target = cx.Normal(3), cx.RotationGroup(3)
    network = cx.with_output(cx.MLP(3, 9, width=width), as_matrix)
    return cx.Problem(
        [
            cx.Constraint(is_rotation, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(turns, over=over, points=points),
        ],
        model=cx.with_projection(network, equalities=rotations),
        reference=about,
    )
