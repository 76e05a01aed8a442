"""Variable projection against Levenberg-Marquardt from the same start; print JSON and a table.

    python benchmarks/projection.py                  # everything, three seeds
    python benchmarks/projection.py wave burgers 5   # some of it, five seeds

Networks of differential equations start where `solve` starts them; from there on both methods take
steps for as many CPU seconds, compilation apart. Errors are relative L2 on 4,000 fresh points
against closed forms (Burgers: the statement in pieces), after a third of the seconds and all of
them. CPU seconds are those of all threads.
"""

import json
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import trained_pde as rows

import constrainednn as cx
from constrainednn._gap.objectives.lagrangian import minimised, soft_constraints
from constrainednn._gap.residuals import monitor_loss
from constrainednn._solve.right_start import right_start
from constrainednn._solve.training.stage_state import InStage
from constrainednn._solve.training.steps import advance
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn.domains import Independent
from constrainednn.domains.samplers.draws import draw

METHODS = {"projection": cx.methods.VariableProjection(), "LM": cx.LevenbergMarquardt()}


def oscillator():
    over = cx.Interval(0.0, 10.0)

    def swings(u, t):
        return cx.derivative(u, 2)(t) + u(t)

    model = cx.with_output(cx.MLP("scalar", "scalar", width=40), lambda t, y: 1 + t**2 * y / 10)
    return rows.single(swings, model, over, 200, jnp.cos, sampler=cx.GaussQuadrature())


def poisson():
    def exact(x):
        return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])

    def source(u, x):
        return cx.laplacian(u)(x) + 2 * jnp.pi**2 * exact(x)

    model = cx.with_output(cx.MLP(2, "scalar"), rows.lifting(exact, rows.SQUARE))
    return rows.single(source, model, rows.SQUARE, 900, exact)


def heat():
    def exact(p):
        return jnp.exp(-(jnp.pi**2) * p[0] / 4) * jnp.sin(jnp.pi * p[1])

    def warms(u, p):
        return cx.partial(u, 0)(p) - cx.partial(u, 1, order=2)(p) / 4

    def within(p, y):
        return jnp.sin(jnp.pi * p[1]) + 4 * p[0] * p[1] * (1 - p[1]) * y

    return rows.single(
        warms, cx.with_output(cx.MLP(2, "scalar", width=40), within), rows.SQUARE, 900, exact
    )


def burgers():
    """As in docs/from_deepxde.md: start and walls are rows."""

    def steepens(u, p):
        u_t, u_x, u_xx = cx.partial(u, 0)(p), cx.partial(u, 1)(p), cx.partial(u, 1, order=2)(p)
        return u_t + u(p) * u_x - 0.1 * u_xx

    stated = {
        "over": cx.Interval(-1.0, 1.0),
        "time": (0.0, 1.0),
        "start": lambda x: -jnp.sin(jnp.pi * x),
        "boundary": lambda u, p: u(p),
    }
    exact = cx.solve(cx.pde(steepens, **stated), progress=False)
    model = cx.MLP(2, "scalar", width=40)
    return cx.pde(steepens, **stated, model=model, reference=exact.model)


# CPU seconds of taking steps.
ROWS = {
    oscillator: 3,
    poisson: 6,
    rows.helmholtz: 15,
    heat: 6,
    rows.nonlinear_poisson: 9,
    rows.reaction: 15,
    rows.wave: 15,
    burgers: 15,
    rows.gaussians: 20,
}


def served(now, steps):
    """Losses of some steps, and CPU seconds."""
    chunk, began = now.chunk(steps), time.process_time()
    found = jax.block_until_ready(advance(*chunk[:-1], jnp.asarray(steps)))
    took = time.process_time() - began
    return now.take(found), took


def trained(problem, seed, seconds):
    """For each method errors after a third of the seconds and all; steps, losses at the end."""
    model = problem.build_model(key=jax.random.key(seed))
    counts = {"monitor": 1024, "heldout": 4096}
    points = TrainingPoints(problem.statements, jax.random.key(seed), counts)
    soft = soft_constraints(problem, model, points.train)
    model = right_start(problem, model, points, 1.0, soft).model
    params, static = eqx.partition(model, eqx.is_inexact_array)
    residual = minimised(problem, static, points.train, 1.0, soft)
    fresh = draw(problem.constraints[0].over, 4000, Independent(), key=jax.random.key(1)).points
    true = np.asarray(jax.vmap(problem.reference)(fresh))

    @jax.jit
    def values(params):
        return jax.vmap(eqx.combine(params, static))(fresh)

    def error(params):
        return float(np.linalg.norm(values(params) - true) / np.linalg.norm(true))

    found: dict = {"start": error(params)}
    for name, method in METHODS.items():
        stage = cx.Stage(method, steps=10_000)
        now = InStage.entered(stage, params, static, residual, 0.0, 0)
        compiling = served(now, 0)[1]
        spent, steps, pace, third = 0.0, 0, 1, None
        while spent < seconds and not now.verdict:
            losses, took = served(now, pace)
            spent, steps = spent + took, steps + len(losses)
            pace = max(1, min(2 * pace, int(0.3 * pace / took)))
            if third is None and spent >= seconds / 3:
                third = error(now.params)
        last = error(now.params)
        found[name] = {
            "third": last if third is None else third,
            "end": last,
            "steps": steps,
            "cpu": spent,
            "compile": compiling,
            "verdict": now.verdict,
            "train": float(np.sqrt(float(now.best[1]))),
            "monitor": monitor_loss(problem, now.model, points.train, points.monitor) ** 0.5,
        }
    return found


def line(name, seconds, runs):
    """Medians and worst of both methods."""
    shown = [name, str(seconds)]
    for method in METHODS:
        for place in ("third", "end"):
            errors = [run[method][place] for run in runs]
            shown.append(f"{np.median(errors):.1e}; {max(errors):.1e}")
        shown.append(f"{np.median([run[method]['steps'] for run in runs]):.0f}")
    return "| " + " | ".join(shown) + " |"


def main(arguments):
    names = {row.__name__: row for row in ROWS}
    chosen = [names[word] for word in arguments if word in names] or list(ROWS)
    seeds = next((int(word) for word in arguments if word.isdigit()), 3)
    for row in chosen:
        problem = row()
        runs = [trained(problem, seed, ROWS[row]) for seed in range(seeds)]
        print(json.dumps({row.__name__: runs}), flush=True)
        print(line(row.__name__, ROWS[row], runs), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
