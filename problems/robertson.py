"""Robertson's chemical reaction: three concentrations, rates from 0.04 to 3e7, ends at time 1e5.

The classic stiff problem: the intermediate product, y[1], comes into being within 1e-3 and is
never more than 4e-5 of the whole. `end` is the last time.

Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.1, eq. (1.4).
"""

import jax.numpy as jnp

import constrainednn as cx


def reaction(t, y, args):
    slow = 0.04 * y[0] - 1e4 * y[1] * y[2]
    fast = 3e7 * y[1] ** 2
    return jnp.stack([-slow, slow - fast, fast])


def problem(end=1e5):
    return cx.ivp(reaction, jnp.array([1.0, 0.0, 0.0]), (0.0, end))
