"""Measure networks on partial differential equations, their conditions built in; print JSON.

    python benchmarks/trained_pde.py                      # everything, one seed, minutes each
    python benchmarks/trained_pde.py helmholtz burgers 5  # some of it, five seeds

Errors are relative L2 on held-out points, against closed forms. Seconds are those of taking steps,
compilation apart; "cpu" is the time of all cores for the whole call, which other jobs disturb less.
"""

import json
import math
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax.numpy as jnp
import numpy as np

import constrainednn as cx
from constrainednn.domains import Adaptive, BoxBoundary, Sobol

SQUARE = cx.Box([0.0, 0.0], [1.0, 1.0])
CIRCLE, LINE = cx.Box([0.0, 0.0], [1.0, 2 * math.pi]), cx.Box([0.0, -1.0], [1.0, 1.0])
CUBE = cx.Box([0.0] * 5, [1.0] * 5)
STEERED = {"sampler": Adaptive(0.7), "redraw": 10}


def lifting(exact, box):
    """What turns a network into one with the values of `exact` at the edges of a rectangle."""
    low, high = np.asarray(box.low), np.asarray(box.high)

    def along(fn, i):
        """What is linear in a coordinate between its ends."""

        def between(x):
            share = (x[i] - low[i]) / (high[i] - low[i])
            return (1 - share) * fn(x.at[i].set(low[i])) + share * fn(x.at[i].set(high[i]))

        return between

    def edges(x):
        return along(exact, 0)(x) + along(exact, 1)(x) - along(along(exact, 0), 1)(x)

    def inside(x, y):
        return edges(x) + jnp.prod(4 * (x - low) * (high - x) / (high - low) ** 2) * y

    return inside


def single(residual, model, over, points, exact, **settings):
    """A problem of one equation."""
    settings = {"sampler": Sobol(), **settings}
    settings.pop("redraw", None)
    return cx.Problem(
        cx.Constraint(residual, over=over, points=points, **settings), model, reference=exact
    )


def helmholtz():
    def exact(x):
        return jnp.sin(10 * x[0]) * jnp.sin(10 * x[1])

    def wave(u, x):
        return (cx.laplacian(u)(x) + 100 * u(x) + 100 * exact(x)) / 100

    model = cx.with_output(cx.MLP(2, "scalar", width=100), lifting(exact, SQUARE))
    return single(wave, model, SQUARE, 1600, exact)


def nonlinear_poisson():
    def exact(x):
        return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])

    def cubic(u, x):
        return cx.laplacian(u)(x) - u(x) ** 3 + 2 * jnp.pi**2 * exact(x) + exact(x) ** 3

    model = cx.with_output(cx.MLP(2, "scalar"), lifting(exact, SQUARE))
    return single(cubic, model, SQUARE, 900, exact)


def wave():
    """Two modes, at rest at first."""

    def start(x):
        return jnp.sin(jnp.pi * x) + jnp.sin(4 * jnp.pi * x) / 2

    def exact(p):
        t, x = 2 * jnp.pi * p[0], jnp.pi * p[1]
        return jnp.sin(x) * jnp.cos(t) + jnp.sin(4 * x) * jnp.cos(4 * t) / 2

    def vibrates(u, p):
        u_tt, u_xx = cx.partial(u, 0, order=2)(p), cx.partial(u, 1, order=2)(p)
        return (u_tt - 4 * u_xx) / (64 * jnp.pi**2)

    def within(p, y):
        return start(p[1]) + 4 * p[0] ** 2 * p[1] * (1 - p[1]) * y

    model = cx.with_output(cx.MLP(2, "scalar", width=100), within)
    return single(vibrates, model, SQUARE, 1600, exact)


def around(start, residual, exact):
    """An equation on a circle with the start built in."""

    def turned(p):
        return jnp.stack([p[0], jnp.cos(p[1]), jnp.sin(p[1])])

    inner = cx.models.with_input(cx.MLP(3, "scalar", width=80), turned)
    model = cx.with_output(inner, lambda p, y: start(p[1]) + p[0] * y)
    return single(residual, model, CIRCLE, 1600, exact)


def convection():
    def moves(u, p):
        return (cx.partial(u, 0)(p) + 40 * cx.partial(u, 1)(p)) / 40

    def exact(p):
        return jnp.sin(p[1] - 40 * p[0])

    return around(jnp.sin, moves, exact)


def reaction():
    def start(x):
        return jnp.exp(-((x - jnp.pi) ** 2) / (2 * (jnp.pi / 4) ** 2))

    def grows(u, p):
        return cx.partial(u, 0)(p) - 5 * u(p) * (1 - u(p))

    def exact(p):
        grown = start(p[1]) * jnp.exp(5 * p[0])
        return grown / (grown + 1 - start(p[1]))

    return around(start, grows, exact)


def burgers():
    nu = 0.01 / math.pi

    def steepens(u, p):
        u_t, u_x = cx.partial(u, 0)(p), cx.partial(u, 1)(p)
        return u_t + u(p) * u_x - nu * cx.partial(u, 1, order=2)(p)

    def within(p, y):
        return -jnp.sin(jnp.pi * p[1]) + p[0] * (1 - p[1] ** 2) * y

    model = cx.with_output(cx.MLP(2, "scalar", width=20, depth=3), within)
    return single(steepens, model, LINE, 3000, cx.load_problem("burgers").reference, **STEERED)


def gaussians():
    """Poisson's equation in five dimensions, its faces soft."""

    def exact(x):
        return jnp.exp(-2 * jnp.sum((x - 0.5) ** 2))

    def poisson(u, x):
        return cx.laplacian(u)(x) - cx.laplacian(exact)(x)

    def face(u, x):
        return 10 * (u(x) - exact(x))

    rows = [
        cx.Constraint(poisson, over=CUBE, points=3000, sampler=Sobol()),
        cx.Constraint(face, over=BoxBoundary(CUBE.low, CUBE.high), points=1500),
    ]
    return cx.Problem(rows, cx.MLP(5, "scalar"), reference=exact)


# Steps, and the error and seconds that must be met.
ROWS = {
    helmholtz: (400, 1e-7, 30),
    wave: (300, 1e-5, 60),
    nonlinear_poisson: (400, 1e-7, 30),
    convection: (300, 1e-5, 60),
    reaction: (300, 1e-5, 60),
    burgers: (500, 5e-5, 90),
    gaussians: (150, 1e-5, 120),
}


def measured(row, seeds):
    """Errors and seconds over some seeds."""
    steps, bar, seconds = ROWS[row]
    problem, found = row(), []
    steered = isinstance(problem.constraints[0].sampler, Adaptive)
    for seed in range(seeds):
        started = time.process_time()
        u = cx.solve(problem, steps=steps, seed=seed, redraw=STEERED["redraw"] if steered else None)
        gap = u.gap.constraints[0]
        found.append(
            {
                "error": gap.error,
                "run": u.timings.run,
                "compile": u.timings.compile,
                "cpu": time.process_time() - started,
                "steps": u.steps,
                "parameters": u.parameters,
                "train": gap.train_rms,
                "held_out": gap.heldout_rms.value,
                "reason": u.reason,
            }
        )
    return {"bar": bar, "bar_seconds": seconds, "runs": found}


def main(arguments):
    names = {row.__name__: row for row in ROWS}
    chosen = [names[word] for word in arguments if word in names] or list(ROWS)
    seeds = next((int(word) for word in arguments if word.isdigit()), 1)
    for row in chosen:
        found = measured(row, seeds)
        print(json.dumps({row.__name__: found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
