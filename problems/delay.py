"""A delay equation: y'(t) = -y(t - 1) with y = 1 until time 0, which swings and dies away.

`end` is the last time. Between two whole numbers the solution is a polynomial.

Source: Driver, Ordinary and Delay Differential Equations, Springer (1977), section 21: the method
of steps gives y(t) = sum_k (-1)^k (t - k + 1)^k / k! over all k with k <= t + 1.
"""

import math

import jax.numpy as jnp

import constrainednn as cx


def late(t, y, args, before):
    return -before


def problem(end=10.0):
    def by_steps(t):
        terms = range(math.floor(end) + 2)
        powers = [jnp.maximum(t - k + 1, 0.0) ** k / math.factorial(k) for k in terms[1:]]
        return 1.0 + sum((-1) ** k * power for k, power in enumerate(powers, 1))

    return cx.ivp(
        late, 1.0, (0.0, end), delays=1.0, history=lambda t: jnp.ones(()), reference=by_steps
    )
