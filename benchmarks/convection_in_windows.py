"""Convection 40 by networks in 20 windows of time, one after another; a line for each.

    python benchmarks/convection_in_windows.py

Between windows the values are projected onto nine Fourier modes: noise of the next start would be
differentiated in each window anew.
"""

import math
import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax.numpy as jnp
import numpy as np

import constrainednn as cx
from constrainednn.domains import Sobol

BOX = cx.Box([0.0, 0.0], [1.0, 2 * math.pi])  # share of the window, place
NODES, WINDOWS, MODES = np.arange(128) * np.pi / 64, 20, 8


def fourier(values):
    """A function of a place with these values at the nodes, up to the modes that are kept."""
    c = np.fft.rfft(values)[: MODES + 1] / len(values)
    a, b = jnp.asarray(2 * c.real[1:]), jnp.asarray(-2 * c.imag[1:])
    mean, k = jnp.asarray(c.real[0]), jnp.arange(1, MODES + 1)
    return lambda x: mean + a @ jnp.cos(k * x) + b @ jnp.sin(k * x)


def main():
    values, rng = np.sin(NODES), np.random.default_rng(1)
    missed = size = seconds = 0.0
    for k in range(WINDOWS):
        begin = fourier(values)

        def moves(u, p):
            return cx.partial(u, 0)(p) + 40 / WINDOWS * cx.partial(u, 1)(p)

        def turned(p):
            return jnp.stack([p[0], jnp.cos(p[1]), jnp.sin(p[1])])

        network = cx.models.with_input(cx.MLP(3, "scalar", width=40), turned)
        model = cx.with_output(network, lambda p, y, begin=begin: begin(p[1]) + p[0] * y)
        rows = cx.Constraint(moves, over=BOX, points=400, sampler=Sobol())
        u = cx.solve(cx.Problem(rows, model), steps=120)
        seconds += u.timings.run
        p = np.stack([rng.random(1000), 2 * np.pi * rng.random(1000)], axis=1)
        true = np.sin(p[:, 1] - 40 * (p[:, 0] + k) / WINDOWS)
        missed, size = missed + ((u(p) - true) ** 2).sum(), size + (true**2).sum()
        values = np.asarray(u(np.stack([np.ones_like(NODES), NODES], axis=1)))
        print(
            f"window {k + 1}: error {math.sqrt(missed / size):.1e}, run {seconds:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
