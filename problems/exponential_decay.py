"""Exponential decay: y' = -y, y(0) = 1 on [0, 5], the first differential equation.

`start` says how the initial value is held: "hard" by the ansatz 1 + t y(t), "soft" by a constraint
at t = 0. The solution exp(-t) is the reference.
"""

import jax
import jax.numpy as jnp

import constrainednn as cx


def decay(u, t):
    return jax.grad(u)(t) + u(t)


def initial_value(u, t):
    return u(t) - 1.0


def solution(t):
    return jnp.exp(-t)


def problem(start="hard", width=80, points=200):
    time = cx.Interval(0.0, 5.0)
    model = cx.RandomFeatures(time, "scalar", width=width)
    constraints = [cx.Constraint(decay, over=time, points=points, sampler=cx.GaussQuadrature())]
    if start == "hard":
        model = cx.with_output(model, lambda t, y: 1.0 + t * y)
    elif start == "soft":
        constraints.append(cx.Constraint(initial_value, over=cx.Points(jnp.zeros(1))))
    else:
        raise ValueError(f"start must be hard or soft, got {start!r}")
    return cx.Problem(constraints, model=model, reference=solution)
