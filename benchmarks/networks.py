"""Measure networks trained by Levenberg-Marquardt; print JSON.

    python benchmarks/networks.py                 # everything, some fifteen minutes
    python benchmarks/networks.py step poisson    # some of it
    python benchmarks/networks.py ode samplers circle

Step: seconds of one step by the Gram matrix, without its Jacobian, beside SciPy's QR of that
Jacobian. Poisson: -laplace u = f on the unit square with a solution of sines, u built to vanish on
the boundary, a tanh network of 64 neurons and 900 rows. The others are the gallery's equations in
space and time, stated for random features and for networks. Errors are relative L2 on held-out
points; seconds are those of a second call, compilation apart.

Ode: `ivp` and `bvp` by networks, five seeds, beside random features of the same width: what inner
weights frozen at their start would give. Samplers: held-out residual after training on Gauss nodes,
Sobol and independent points. Circle: the unit circle with and without `spread`, three seeds.
"""

import json
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

import constrainednn as cx
from constrainednn.methods.gram_steps import gram_step

SIZES = (2000, 900), (4000, 300), (6000, 2900)
# Model of a gallery problem, its settings, steps, error and seconds that must be met.
SPACE_TIME = {
    "heat, features": ("heat", {}, ("features", 400), 30, 1e-6, 90),
    "wave, features": ("wave", {}, ("features", 1200), 30, 1e-6, 90),
    "heat, network": ("heat", {}, ("network", 30, 1), 200, 1e-4, 90),
    "burgers, network": ("burgers", {"nu": 0.01}, ("network", 20, 3), 150, 1e-4, 90),
    "wave, network": ("wave", {}, ("network", 30, 2), 400, 1e-4, 90),
}


def median_seconds(fn, runs=5):
    fn()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        jax.block_until_ready(fn())
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


@jax.jit
def one_step(A, r):
    curved = lambda s: r + A @ s + jnp.sin(A @ s) / 10  # noqa: E731
    return gram_step(curved, r, A, jnp.asarray(1e-6))


def step():
    """Seconds of a step and of a QR."""
    found = []
    for m, P in SIZES:
        rng = np.random.default_rng(0)
        A = rng.normal(size=(m, P)) * 10.0 ** -np.linspace(0, 4, P)
        A /= np.linalg.norm(A, axis=0)
        r = rng.normal(size=m)
        ours, theirs = jnp.asarray(A), jnp.asarray(r)
        qr = median_seconds(lambda A=A: scipy.linalg.qr(A, mode="r", check_finite=False)[0])
        gram = median_seconds(lambda A=ours, r=theirs: one_step(A, r))
        found.append({"m": m, "P": P, "step": gram, "qr": qr, "ratio": gram / qr})
    return found


def solved(problem, steps, seed=0):
    cx.solve(problem, steps=2, seed=seed)
    solution = cx.solve(problem, steps=steps, seed=seed)
    gap = solution.gap.constraints[0]
    return {
        "error": gap.error,
        "train": gap.train_rms,
        "held_out": gap.heldout_rms.value,
        "steps": solution.steps,
        "status": str(solution.status),
        "run": solution.timings.run,
    }


def poisson():
    """Five seeds, 300 and 1,000 steps."""
    square = cx.Box((0.0, 0.0), (1.0, 1.0))

    def reference(x):
        return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])

    def poisson(u, x):
        return cx.laplacian(u)(x) + 2 * jnp.pi**2 * reference(x)

    model = cx.with_output(
        cx.MLP(2, "scalar", width=64, depth=1, over=square),
        lambda x, y: y * x[0] * (1 - x[0]) * x[1] * (1 - x[1]),
    )
    rows = cx.Constraint(poisson, over=square, points=900, sampler=cx.domains.Sobol())
    problem = cx.Problem([rows], model, reference=reference)
    found = {}
    for steps in (300, 1000):
        runs = [solved(problem, steps, seed) for seed in range(5)]
        errors, seconds = ([run[name] for run in runs] for name in ("error", "run"))
        found[steps] = {
            "median": float(np.median(errors)),
            "worst": max(errors),
            "seconds": float(np.median(seconds)),
            "runs": runs,
        }
    return found


def space_time(row):
    """One of the gallery's equations with a model that is trained."""
    name, settings, (kind, width, *depth), steps, bar, seconds = SPACE_TIME[row]
    elements, stated = cx.load_problem(name, **settings), cx.pde
    box = elements.constraints[0].over
    model = cx.RandomFeatures(box, "scalar", width=width)
    if kind == "network":
        model = cx.MLP(2, "scalar", width=width, depth=depth[0], over=box)
    try:
        cx.pde = lambda *args, **keywords: stated(*args, **keywords, model=model)
        problem = cx.load_problem(name, **settings)
    finally:
        cx.pde = stated
    return {"bar": bar, "bar_seconds": seconds} | solved(problem, steps)


def decay(t, y, args):
    return -y


def swing(t, y, args):
    return jnp.stack([y[1], -y[0]])


def predation(t, y, args):
    return jnp.stack([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]])


def van_der_pol(t, y, args):
    return jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]])


INITIAL = {
    "decay": (decay, [1.0], (0.0, 5.0)),
    "oscillator": (swing, [1.0, 0.0], (0.0, 10.0)),
    "lotka_volterra": (predation, [1.0, 1.0], (0.0, 6.0)),
    "van_der_pol": (van_der_pol, [2.0, 0.0], (0.0, 10.0)),
}


def ode():
    """Errors against windows of polynomials, or closed forms; seconds of the run and of a call."""
    found = {}
    for name, (field, start, span) in INITIAL.items():
        exact = cx.solve(cx.ivp(field, jnp.array(start), span))
        t = np.linspace(*span, 2000)
        models = {
            "network": cx.MLP("scalar", len(start), width=40),
            "features": cx.RandomFeatures(cx.Interval(-1, 1), len(start), width=40),
        }
        for kind, model in models.items():
            problem = cx.ivp(field, jnp.array(start), span, model=model, windows=10)
            error = lambda u: float(np.linalg.norm(u(t) - exact(t)) / np.linalg.norm(exact(t)))  # noqa: B023, E731
            found[f"{name}, {kind}"] = _runs(problem, error, 120)
    for branch in ("lower", "upper"):
        for kind in ("mlp", "features"):
            problem = cx.load_problem("bratu", branch=branch, model=kind)
            found[f"bratu {branch}, {kind}"] = _runs(
                problem, lambda u: u.gap.constraints[0].error, 200
            )
    return found


def _runs(problem, error, steps):
    """Five seeds: errors, estimates, and seconds once compiled."""
    cx.solve(problem, steps=steps, seed=9).error_estimate()
    rows = []
    for seed in range(5):
        began = time.perf_counter()
        u = cx.solve(problem, steps=steps, seed=seed)
        call = time.perf_counter() - began
        rows.append((error(u), u.error_estimate().relative, u.timings.run, call, u.steps))
    errors, estimates, run, call, taken = map(list, zip(*rows, strict=True))
    gap = u.gap.constraints[0]
    return {
        "median": float(np.median(errors)),
        "worst": max(errors),
        "estimates": estimates,
        "errors": errors,
        "run": float(np.median(run)),
        "call": float(np.median(call)),
        "steps": int(np.median(taken)),
        "held_out": gap.heldout_rms.value,
        "train": gap.train_rms,
    }


def samplers():
    """Held-out RMS residuals and errors over five seeds, by sampler, dimension and points."""
    found = {}
    rules = (cx.GaussQuadrature(), cx.domains.Sobol(), cx.domains.Independent())
    for dim, width, counts in ((1, 30, (50, 200)), (2, 64, (400, 900)), (3, 40, (343, 1000))):
        box = cx.Box((0.0,) * dim, (1.0,) * dim)

        def solution(x):
            return jnp.prod(jnp.sin(jnp.pi * x))

        def poisson(u, x, dim=dim):
            return cx.laplacian(u)(x) + dim * jnp.pi**2 * solution(x)

        def vanishing(x, y):
            return y * jnp.prod(x * (1 - x))

        model = cx.with_output(cx.MLP(dim, "scalar", width=width), vanishing)
        for points in counts:
            for rule in rules:
                rows = cx.Constraint(poisson, over=box, points=points, sampler=rule)
                problem = cx.Problem(rows, model, reference=solution)
                runs = [solved(problem, 150, seed) for seed in range(5)]
                held = [run["held_out"] for run in runs]
                found[f"{dim}-D, {points}, {type(rule).__name__}"] = {
                    "error": float(np.median([run["error"] for run in runs])),
                    "held_out": float(np.median(held)),
                    "worst": max(held),
                }
    return found


def circle(seeds=3):
    """The unit circle with a condition that u turns along x0, and without: how much is covered."""
    found = {}
    for points in (100, 400, 3200):
        for spread in (False, True):
            problem = cx.load_problem("unit_circle", points=points, spread=spread)
            cx.solve(problem, steps=2)
            runs = []
            for seed in range(seeds):
                u = cx.solve(problem, steps=400 if points < 1000 else 100, seed=seed)
                gap = u.gap["on_circle"]
                runs.append(
                    {
                        "train": gap.train_rms,
                        "held_out": gap.heldout_rms.value,
                        "coverage": gap.image.coverage,
                        "degree": gap.image.degree,
                        "collapsed": gap.image.collapsed,
                        "steps": u.steps,
                        "status": str(u.status),
                        "run": u.timings.run,
                    }
                )
            found[f"{points}, {'turning' if spread else 'alone'}"] = runs
            print(points, spread, runs, file=sys.stderr, flush=True)
    return found


PARTS = {"step": step, "poisson": poisson, "ode": ode, "samplers": samplers, "circle": circle}


def main(names):
    for name in names or (*PARTS, *SPACE_TIME):
        found = PARTS.get(name, lambda name=name: space_time(name))()
        print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
