"""Flow in a square cavity under a lid that moves: the stationary Navier-Stokes equations.

Two velocities and a pressure at a Reynolds number of 100. The lid moves with 4 x (1 - x), which
vanishes in the corners; walls are at rest. The pressure is known up to a constant, its mean is
zero. In both upper corners velocities are continuous but not smooth, so that elements become small
there: a tolerance of 1e-3 leaves errors below 1e-4.

Source: the problem of Ghia, Ghia and Shin, J. Comput. Phys. 48 (1982) 387, with a smooth lid.
"""

import jax
import jax.numpy as jnp

import constrainednn as cx


def problem(reynolds=100.0):
    def flow(u, x):
        y, slopes = u(x), jax.jacfwd(u)(x)
        forces = slopes[:2] @ y[:2] + slopes[2] - cx.laplacian(u)(x)[:2] / reynolds
        return forces, slopes[0, 0] + slopes[1, 1]

    def wall(u, x):
        return u(x)[:2]

    def lid(u, x):
        return u(x)[:2] - jnp.stack([4 * x[0] * (1 - x[0]), jnp.zeros(())])

    return cx.pde(
        flow,
        over=cx.Box([0.0, 0.0], [1.0, 1.0]),
        boundary={"left": wall, "right": wall, "bottom": wall, "top": lid},
        guess=jnp.zeros(3),
        width=10,
    )
