"""Map a rotation vector to its rotation matrix: every value is a rotation, by projection.

Seven equations in nine entries, A^T A = I and det A = 1, of which six are independent at a
rotation. The reference is Rodrigues' formula. Compare `rotation`, where the same holds as a
residual.

Source: R. M. Murray, Z. Li and S. S. Sastry, A Mathematical Introduction to Robotic Manipulation
(1994), equation 2.14.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def turns(x, A):
    gram = A.T @ A - jnp.eye(3)
    return jnp.append(gram[np.triu_indices(3)], A[0] @ jnp.cross(A[1], A[2]) - 1.0)


def is_rotation(u, x):
    return turns(x, u(x))


def rotation(x):
    """By the angle |x| about the axis x; sine and cosine over the angle have no pole at zero."""
    half = jnp.sqrt(x @ x + 1e-30) / 2
    K = jnp.array([[0, -x[2], x[1]], [x[2], 0, -x[0]], [-x[1], x[0], 0]])
    ratio = jnp.sin(half) / half
    return jnp.eye(3) + ratio * jnp.cos(half) * K + 0.5 * ratio**2 * K @ K


def fits(u, x):
    return u(x) - rotation(x)


def as_matrix(x, y):
    return y.reshape(3, 3) + jnp.eye(3)


def problem(width=32, points=150):
    over = cx.Box([-2, -2, -2], [2, 2, 2])
    target = cx.targets.RotationGroup(3)
    network = cx.with_output(cx.MLP(3, 9, width=width), as_matrix)
    return cx.Problem(
        [
            cx.Constraint(is_rotation, over=over, points=points, target=target, tolerance=1e-12),
            cx.Constraint(fits, over=over, points=points, tolerance=1e-1),
        ],
        model=cx.with_projection(network, equalities=turns),
        reference=rotation,
    )
