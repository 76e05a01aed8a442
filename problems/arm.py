"""Inverse kinematics: angles of an arm in the plane that lead its tip to a point x, at every x.

Three links of length 1, joints within 2.5 radians, and an obstacle, a disc of radius 0.3 at
(0.5, 0.9), that joints and middles of links stay out of. Of all such postures the one that bends
least is sought near a bent one, a local minimum of the mean of the squared angles. There is no
reference.

The equations are those of B. Siciliano et al., Robotics: Modelling, Planning and Control (2009),
section 2.12.1; the numbers are our own.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

OBSTACLE, RADIUS, MOST = np.array([0.5, 0.9]), 0.3, 2.5


def joints(y):
    """Ends of the three links, the last of them the tip."""
    angles = jnp.cumsum(y)
    return jnp.cumsum(jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1), axis=0)


def misses(x, y):
    return joints(y)[2] - x


def collides(x, y):
    ends = joints(y)
    starts = jnp.concatenate([jnp.zeros((1, 2)), ends[:2]])
    near = jnp.concatenate([ends[:2], (starts + ends) / 2])
    inside = RADIUS**2 - ((near - OBSTACLE[None]) ** 2).sum(axis=1)
    return jnp.concatenate([inside, y**2 - MOST**2])


def reaches(u, x):
    return misses(x, u(x))


def allowed(u, x):
    return cx.at_most(collides(x, u(x)), 0.0)


def bends(u, x):
    return jnp.sum(u(x) ** 2)


def bent(x, y):
    """A posture to start from: a straight arm has no slope towards its own base."""
    return y + jnp.array([0.9, -1.0, -1.0])


def problem(width=16, points=60):
    over = cx.Box([1.0, -0.5], [2.0, 0.5])
    network = cx.with_output(cx.MLP(2, 3, width=width), bent)
    return cx.Problem(
        [
            cx.Constraint(reaches, over=over, points=points, tolerance=1e-12),
            cx.Constraint(allowed, over=over, points=points, tolerance=1e-12),
        ],
        model=cx.with_projection(network, equalities=misses, inequalities=collides),
        objective=cx.Objective(bends, over=over, points=points),
    )
