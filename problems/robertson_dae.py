"""Robertson's reaction with conservation of mass in place of the third rate: index 1.

`end` is the last time.

Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.1, equation 1.4;
as a differential-algebraic system in the examples of SUNDIALS (IDA).
"""

import jax.numpy as jnp

import constrainednn as cx


def kinetics(t, y, args):
    a, b, c = y
    slow, fast = 0.04 * a - 1e4 * b * c, 3e7 * b**2
    return jnp.stack([-slow, slow - fast, a + b + c - 1.0])


def problem(end=1e5):
    return cx.ivp(kinetics, jnp.array([1.0, 0.0, 0.0]), (0.0, end), mass=[1.0, 1.0, 0.0])
