"""Learn the solutions of a quadratic programme: least |y - c|_Q^2 with A y = x and |y| <= 1.

Four unknowns, two equations whose right-hand side x is the parameter, and bounds. Equations and
bounds hold at every x, by a projection that knows nothing of Q; the mean cost over all x is what
training lowers. The reference tries all sets of at most two bounds that may hold a solution, since
the equations leave two directions.

The statement is that of parametric programming, e.g. S. Boyd and L. Vandenberghe, Convex
Optimization (2004), section 5.6; the numbers are our own.
"""

import itertools

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

A = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 2.0, 0.5]])
C = np.array([1.0, -0.5, 0.8, 0.2])
# Q = ROOT^T ROOT.
ROOT = np.array(
    [[2.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.3, 0.0], [0.0, 0.0, 1.5, -0.4], [0.0, 0.0, 0.0, 1.0]]
)
# Bounds that hold a solution, as rows of G y = 1: none, one, or two of different entries.
G = np.concatenate([np.eye(4), -np.eye(4)])
HELD = [[], *([i] for i in range(8))]
HELD += [[i, j] for i, j in itertools.combinations(range(8), 2) if j != i + 4]


def balance(x, y):
    return A @ y - x


def beyond(x, y):
    return jnp.concatenate([y - 1.0, -1.0 - y])


def balanced(u, x):
    return balance(x, u(x))


def bounded(u, x):
    return cx.at_most(beyond(x, u(x)), 0.0)


def cost(u, x):
    return jnp.sum((ROOT @ (u(x) - C)) ** 2)


def optimum(x):
    """The cheapest of all points that the conditions of Karush, Kuhn and Tucker allow."""
    best, least = jnp.full(4, jnp.nan), jnp.inf
    for held in HELD:
        rows = np.concatenate([A, G[held]])
        zeros = np.zeros((len(rows), len(rows)))
        system = np.linalg.inv(np.block([[ROOT.T @ ROOT, rows.T], [rows, zeros]]))
        y = system[:4] @ jnp.concatenate([ROOT.T @ ROOT @ C, x, jnp.ones(len(held))])
        value = jnp.where(jnp.max(jnp.abs(y)) <= 1 + 1e-9, cost(lambda _, y=y: y, x), jnp.inf)
        best, least = jnp.where(value < least, y, best), jnp.minimum(value, least)
    return best


def problem(width=16, points=100):
    over = cx.Box([-1, -1], [1, 1])
    network = cx.MLP(2, 4, width=width, over=over)
    return cx.Problem(
        [
            cx.Constraint(balanced, over=over, points=points, tolerance=1e-12),
            cx.Constraint(bounded, over=over, points=points, tolerance=1e-12),
        ],
        model=cx.with_projection(network, equalities=balance, inequalities=beyond),
        objective=cx.Objective(cost, over=over, points=points),
        reference=optimum,
    )
