"""Logistic growth: y' = rate y (1 - y / capacity), with its closed form.

`start` is the population at time 0, `rate` its growth while it is small, `capacity` where it
levels off, `end` the last time.

Source: Strogatz, Nonlinear Dynamics and Chaos, section 2.3, eq. (1); the closed form is Verhulst's.
"""

import jax.numpy as jnp

import constrainednn as cx


def growth(t, y, args):
    rate, capacity = args
    return rate * y * (1.0 - y / capacity)


def problem(start=0.1, rate=1.0, capacity=1.0, end=10.0):
    def solution(t):
        return capacity / (1.0 + (capacity / start - 1.0) * jnp.exp(-rate * t))

    return cx.ivp(growth, start, (0.0, end), args=(rate, capacity), reference=solution)
