"""Flow behind a grid: the stationary Navier-Stokes equations with a solution in closed form.

Two velocities and a pressure, at a Reynolds number of 40. Velocities are given at the edges, the
pressure at one corner, since it is known up to a constant.

Source: Kovasznay, Proc. Camb. Phil. Soc. 44 (1948) 58.
"""

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn as cx

SIDES = "left", "right", "bottom", "top"


def problem(reynolds=40.0):
    rate = reynolds / 2 - np.sqrt(reynolds**2 / 4 + 4 * np.pi**2)

    def exact(x):
        decay, angle = jnp.exp(rate * x[0]), 2 * jnp.pi * x[1]
        across = rate / (2 * jnp.pi) * decay * jnp.sin(angle)
        return jnp.stack([1 - decay * jnp.cos(angle), across, (1 - decay**2) / 2])

    def flow(u, x):
        y, slopes = u(x), jax.jacfwd(u)(x)
        forces = slopes[:2] @ y[:2] + slopes[2] - cx.laplacian(u)(x)[:2] / reynolds
        return forces, slopes[0, 0] + slopes[1, 1]

    def velocity(u, x):
        return (u(x) - exact(x))[:2]

    def pressure(u, x):
        return (u(x) - exact(x))[2]

    return cx.pde(
        flow,
        over=cx.Box([-0.5, -0.5], [1.0, 1.5]),
        boundary=dict.fromkeys(SIDES, velocity) | {(1.0, 1.5): pressure},
        guess=jnp.zeros(3),
        reference=exact,
    )
