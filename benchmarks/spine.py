"""Measure the bars of the first release and print them as JSON.

    python benchmarks/spine.py                # everything, about ten minutes on two cores
    python benchmarks/spine.py cold circle    # some of it

Run times exclude compilation, which is given apart; each is the median of several runs after a
warm-up. Cold times are whole processes, imports and compilation included.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import numpy as np

import constrainednn as cx

SIZES = (50, 100, 200, 400, 800, 1600, 3200)


def cold():
    """Seconds of whole processes: the command line from a shell."""
    script = str(Path(sys.executable).with_name("constrainednn"))

    def seconds(*arguments, runs=5):
        taken = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            subprocess.run([script, *arguments], check=True, capture_output=True)
            taken.append(time.perf_counter() - start)
        return summary(taken[1:])  # the first fills the disk cache

    return {
        "solve unit_circle": seconds("solve", "unit_circle"),
        "solve exponential_decay": seconds("solve", "exponential_decay"),
        "--help": seconds("--help"),
    }


def circle():
    """Run time of the smooth map at 100 points, and the curve of RMS residuals over n."""
    runs = [cx.solve(cx.load_problem("unit_circle"), seed=seed) for seed in range(11)][1:]
    result = {
        "run seconds": summary([run.timings.run for run in runs]),
        "largest train RMS": max(gap(run).train_rms for run in runs),
        "steps": summary([run.steps for run in runs]),
        "status": sorted({str(run.status) for run in runs}),
    }
    curve = []
    for n in SIZES:
        problem = cx.load_problem("unit_circle", points=n)
        runs, diverged = solved(problem, seeds=range(10), steps=100)
        curve.append(
            {
                "n": n,
                "train RMS": summary([gap(run).train_rms for run in runs]),
                "heldout RMS": summary([gap(run).heldout_rms.value for run in runs]),
                "run seconds": summary([run.timings.run for run in runs]),
                "coverage": summary([gap(run).image.coverage for run in runs]),
                "collapsed": sum(gap(run).image.collapsed for run in runs),
                "diverged": diverged,
            }
        )
    median = {row["n"]: row["heldout RMS"]["median"] for row in curve}
    result |= {
        "parameters": runs[0].parameters,
        "curve": curve,
        "heldout RMS at 3200 / at 100": median[3200] / median[100],
    }
    return result


def solved(problem, *, seeds, steps):
    """Solutions, with the number of those that ended in NaN."""
    runs, diverged = [], 0
    for seed in seeds:
        try:
            runs.append(cx.solve(problem, seed=seed, steps=steps))
        except cx.results.SolveFailed as failed:
            runs.append(failed.solution)
            diverged += 1
    return runs, diverged


def relu():
    """The classic lesson: 10,000 steps of gradient descent, width 1,024, 100 points."""
    problem = cx.load_problem("unit_circle", model="relu")
    import optax

    method = cx.Optax(optax.sgd(1e-3))
    runs = [cx.solve(problem, method, steps=10_000, seed=seed) for seed in range(4)][1:]
    return {
        "run seconds": summary([run.timings.run for run in runs]),
        "train RMS": summary([gap(run).train_rms for run in runs]),
        "heldout RMS": summary([gap(run).heldout_rms.value for run in runs]),
    }


def decay():
    """Exponential decay with random features and a hard start, ten seeds."""
    problem = cx.load_problem("exponential_decay")
    runs = [cx.solve(problem, seed=seed) for seed in range(11)][1:]
    t = np.linspace(0.0, 5.0, 2000)
    exact = np.exp(-t)
    errors = [
        float(np.linalg.norm(np.asarray(jax.vmap(run)(t)) - exact) / np.linalg.norm(exact))
        for run in runs
    ]
    return {
        "run seconds": summary([run.timings.run for run in runs]),
        "relative L2 error": summary(errors),
    }


def gap(solution):
    """The only constraint's gap."""
    return solution.gap.constraints[0]


def summary(values):
    """Median with smallest and largest."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
        "runs": len(values),
    }


def draw_curve(curve, parameters, path):
    """The curve over n, with n = P marked, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    n = [row["n"] for row in curve]
    for name, colour in (("train RMS", "#0072B2"), ("heldout RMS", "#D55E00")):
        middle = [row[name]["median"] for row in curve]
        low = [row[name]["least"] for row in curve]
        high = [row[name]["largest"] for row in curve]
        axes.fill_between(n, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(n, middle, "o-", color=colour, ms=4, label=name.replace("heldout", "held-out"))
    axes.axvline(parameters, color="#666666", ls="--", lw=1)
    label = f" n = P = {parameters}"
    axes.text(parameters, 0.5, label, transform=axes.get_xaxis_transform(), color="#666666")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="training points n",
        ylabel="RMS residual",
        title="unit circle, smooth: median and range over 10 seeds",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main(names):
    """Run the named measurements and print one JSON object."""
    known = {"cold": cold, "circle": circle, "relu": relu, "decay": decay}
    results = {name: known[name]() for name in names or known}
    results["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
    }
    print(json.dumps(results, indent=2))
    if "circle" in results:
        figure = Path(__file__).parent.parent / "docs" / "_static" / "circle_curve.png"
        figure.parent.mkdir(exist_ok=True, parents=True)
        draw_curve(results["circle"]["curve"], results["circle"]["parameters"], figure)


if __name__ == "__main__":
    main(sys.argv[1:])
