"""Learn the solutions of a quadratic programme: minimise |y - c|_Q^2 with A y = x and |y| <= 1.

Four unknowns, two equations whose right-hand side x is the parameter, and bounds. Equations and
bounds hold at every x, by a projection that knows nothing of Q; the objective is a sum of squares,
which is what training lowers. It is not zero at the solution, so the residual `distance` has no
tolerance.

The statement is that of parametric programming, e.g. S. Boyd and L. Vandenberghe, Convex
Optimization (2004), section 5.6; the numbers are our own.
"""

import jax.numpy as jnp

import constrainednn as cx

A = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 2.0, 0.5]])
C = jnp.array([1.0, -0.5, 0.8, 0.2])
# Q = ROOT^T ROOT.
ROOT = jnp.array(
    [[2.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.3, 0.0], [0.0, 0.0, 1.5, -0.4], [0.0, 0.0, 0.0, 1.0]]
)


def balance(x, y):
    return A @ y - x


def beyond(x, y):
    return jnp.concatenate([y - 1.0, -1.0 - y])


def balanced(u, x):
    return balance(x, u(x))


def bounded(u, x):
    return cx.at_most(beyond(x, u(x)), 0.0)


def distance(u, x):
    return ROOT @ (u(x) - C)


def problem(width=16, points=100):
    over = cx.Box([-1, -1], [1, 1])
    network = cx.MLP(2, 4, width=width, over=over)
    return cx.Problem(
        [
            cx.Constraint(balanced, over=over, points=points, tolerance=1e-12),
            cx.Constraint(bounded, over=over, points=points, tolerance=1e-12),
            cx.Constraint(distance, over=over, points=points),
        ],
        model=cx.with_projection(network, equalities=balance, inequalities=beyond),
    )
