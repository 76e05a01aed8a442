"""Measure equations in space alone; print JSON and a table.

    python benchmarks/space.py                  # everything
    python benchmarks/space.py poisson bump     # some of it

The problems are those of the gallery; `poisson_hanging` is the first on 25 elements that are
divided towards a point, and so have hanging nodes. Error: relative L2 over 101 x 101 places against
the closed form. Second: wall seconds of a second call of `solve`, its report included; the run
alone is beside it. Estimate: what `error_estimate` says without a reference, and its seconds. Cold
and cached: a whole process that imports, compiles, solves, draws and saves, with an empty and with
a filled compilation cache. The elements are spectral, not neural.
"""

import dataclasses
import json
import os
import platform
import sys
import tempfile
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
from pde import process_seconds, relative

import constrainednn as cx

# Name of a row: problem, its settings, tolerance, error and seconds that must be met.
ROWS = {
    "poisson_hanging": ("poisson", {}, 1e-10, 1e-13, 1),
    "poisson": ("poisson", {}, 1e-10, 1e-13, 1),
    "nonlinear_poisson": ("nonlinear_poisson", {}, 1e-10, 1e-13, 1),
    "helmholtz": ("helmholtz", {}, 1e-11, 1e-13, 1),
    "helmholtz_40": ("helmholtz", {"k": 40.0}, 1e-10, 1e-10, 10),
    "bump": ("bump", {}, 1e-8, 1e-11, 5),
    "l_shape": ("l_shape", {}, 1e-6, 1e-7, 20),
    "plate": ("plate", {}, 1e-10, 1e-10, 10),
    "kovasznay": ("kovasznay", {}, 1e-11, 1e-12, 20),
}


def problem_of(row):
    name, settings, *_ = ROWS[row]
    problem = cx.load_problem(name, **settings)
    return divided(problem) if row.endswith("_hanging") else problem


def divided(problem, times=3, towards=(0.3, 0.6)):
    """The same with other elements to begin with: all are halved, then those around a point."""
    scheme = problem.scheme
    mesh, _ = scheme.first_mesh.divided(np.ones((len(scheme.low), 2), bool))
    for _ in range(times):
        around = ((mesh.low <= towards) & (mesh.high >= towards)).all(axis=1)
        mesh, _ = mesh.divided(np.repeat(around[:, None], 2, axis=1))
    low, high = (tuple(map(tuple, corner.tolist())) for corner in (mesh.low, mesh.high))
    scheme = dataclasses.replace(scheme, low=low, high=high)
    c = np.zeros((len(low), scheme.width**2, len(scheme.equations.smooth)))
    return cx.Problem(
        problem.constraints,
        scheme.stacked(mesh, c, scheme.width),
        trainable=lambda u: (u.coefficients,),
        reference=problem.reference,
        scheme=scheme,
    )


def measure(row):
    _, _, tolerance, bar, seconds = ROWS[row]
    began = time.perf_counter()
    cx.solve(problem_of(row), tolerance=tolerance)
    first = time.perf_counter() - began
    began = time.perf_counter()
    solution = cx.solve(problem_of(row), tolerance=tolerance)
    second = time.perf_counter() - began
    over, corners = solution.problem.constraints[0].over, solution.model.corners
    ends = corners[0].min(axis=0), corners[1].max(axis=0)
    axes = [np.linspace(*pair, 101) for pair in zip(*ends, strict=True)]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    p = p[over.holds(p)]
    known = np.asarray(jax.jit(jax.vmap(solution.problem.reference))(p))
    began = time.perf_counter()
    estimate = solution.error_estimate()
    return {
        "row": row,
        "tolerance": tolerance,
        "bar": bar,
        "bar_seconds": seconds,
        "error": relative(np.asarray(solution(p)), known),
        "estimate": estimate.relative,
        "rounding": estimate.rounding,
        "label": estimate.label,
        "estimate_seconds": time.perf_counter() - began,
        "verdict": str(solution.verdict)[:300],
        "first_seconds": first,
        "seconds": second,
        "run_seconds": solution.timings.run,
        "elements": solution.model.count,
        "steps": solution.steps,
        "gap": [(g.name, g.train_rms, g.heldout_rms.value) for g in solution.gap.constraints],
    }


def main(names):
    rows = []
    for row in names or ROWS:
        found = measure(row)
        name, settings, tolerance, *_ = ROWS[row]
        if not settings and row == name:
            with tempfile.TemporaryDirectory() as cache:
                found["cold"], found["cached"] = (
                    process_seconds(name, tolerance, cache) for _ in range(2)
                )
        rows.append(found)
        print(json.dumps(found), flush=True)
    print(json.dumps({"python": platform.python_version(), "jax": jax.__version__, "rows": rows}))
    print(
        "| row | error (must) | second s (must) | of it run | elements | estimate | cold; cached |"
    )
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        processes = f"{r['cold']:.0f}; {r['cached']:.0f}" if "cold" in r else "-"
        print(
            f"| `{r['row']}` | {r['error']:.1e} ({r['bar']:.0e}) | "
            f"{r['seconds']:.2f} ({r['bar_seconds']}) | {r['run_seconds']:.2f} | {r['elements']} | "
            f"{r['estimate']:.1e}, {r['label']}, {r['estimate_seconds']:.1f} s | {processes} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
