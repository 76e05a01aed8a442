"""The Lorenz system: convection in three numbers, x' = sigma (y - x) and so on.

`case` selects the parameters (sigma, rho, beta), the start and the last time:

- short: (10, 15, 8/3) from (-8, 7, 27) to 3, a spiral into one of the two fixed points;
- long: (3, 28, 8/3) from (1, 1, 1) to 20.

`end`, if not 0, is another last time. Errors grow along the way: the long case keeps fewer digits
at its end than the residual alone would say.

Source: Lorenz, Deterministic Nonperiodic Flow, J. Atmos. Sci. 20 (1963) 130, eqs. (25) to (27).
"""

import jax.numpy as jnp

import constrainednn as cx

cases = {
    "short": ((10.0, 15.0, 8.0 / 3.0), (-8.0, 7.0, 27.0), 3.0),
    "long": ((3.0, 28.0, 8.0 / 3.0), (1.0, 1.0, 1.0), 20.0),
}


def convection(t, state, args):
    sigma, rho, beta = args
    x, y, z = state
    return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])


def problem(case="short", end=0.0):
    if case not in cases:
        raise ValueError(f"case must be one of {', '.join(cases)}, got {case!r}")
    args, start, last = cases[case]
    return cx.ivp(convection, jnp.array(start), (0.0, end or last), args=args)
