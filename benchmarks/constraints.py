"""Constraints that hold by projection: how well, where not, and at what cost; print JSON.

    python benchmarks/constraints.py [seeds] [row ...]

Rows: the problems of the gallery below, for each seed (10) trained by Levenberg-Marquardt for 20
steps: the largest violation that a search over the held-out measure found, the share of the 4,096
held-out points where the projection did not arrive with the largest violation there, coverage of
the target, the held-out RMS of what was fitted, and CPU seconds; the worst seed of each is shown,
and each seed on the standard error output. And `projection`: 10,000 points in 100 dimensions onto
50 nonlinear equations, ten iterations, warm: CPU seconds, the largest violation, and the share that
arrived. And `quadratic`, `nonconvex`, `quadratic_network` and `nonconvex_network`, if named: see
`programmes.py`. They take the first number for that of instances (10,000) and the second for that
of training steps (1000).
"""

import json
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

PROBLEMS = "circle_projected", "sphere_projected", "torus", "ellipse", "pendulum_energy"
ENFORCED = ("to solver tolerance", "exact by construction")
STEPS = 20


def gallery(name: str, seeds: int) -> dict:
    import constrainednn as cx

    runs = []
    for seed in range(seeds):
        started = time.process_time()
        found = cx.solve(cx.load_problem(name), steps=STEPS, seed=seed).gap.constraints
        held = [gap for gap in found if gap.holds.kind in ENFORCED]
        others = [gap.heldout_rms.value for gap in found if gap not in held]
        coverages = [gap.image.coverage for gap in held if gap.image is not None]
        runs.append(
            {
                "worst": max(gap.worst.residual for gap in held),
                "holds": sorted({gap.holds.kind for gap in held}),
                "missed": max(gap.holds.missed or 0.0 for gap in held),
                "violation": max(gap.holds.violation or 0.0 for gap in held),
                "coverage": min((part for part in coverages if part is not None), default=None),
                "fit": max(others, default=None),
                "seconds": time.process_time() - started,
            }
        )
        print(json.dumps({name: {"seed": seed, **runs[-1]}}), file=sys.stderr, flush=True)
    largest = lambda key: max((run[key] for run in runs if run[key] is not None), default=None)  # noqa: E731
    coverages = [run["coverage"] for run in runs if run["coverage"] is not None]
    return {
        **{key: largest(key) for key in ("worst", "missed", "violation", "fit", "seconds")},
        "holds": sorted({kind for run in runs for kind in run["holds"]}),
        "coverage": min(coverages, default=None),
        "runs": runs,
    }


def projection(points: int = 10_000, size: int = 100, equations: int = 50) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    import constrainednn as cx
    from constrainednn._common.batched import in_blocks

    first, second, third = jax.random.split(jax.random.key(0), 3)
    A = jax.random.normal(first, (equations, size)) / np.sqrt(size)
    B = jax.random.normal(second, (equations, size)) / np.sqrt(size)

    def nonlinear(x, y):
        return A @ y + 0.5 * jnp.sin(B @ y) - 0.3

    class Values(eqx.Module):
        factor: jax.Array

        def __call__(self, x):
            return self.factor * x

    model = cx.with_projection(Values(jnp.ones(())), equalities=nonlinear, iterations=10)
    values = np.asarray(jax.random.normal(third, (points, size)))
    in_blocks(model, values[:1024])
    started, began = time.process_time(), time.perf_counter()
    y = in_blocks(model, values)
    seconds, wall = time.process_time() - started, time.perf_counter() - began
    left = np.abs(np.asarray(jax.vmap(lambda y: nonlinear(None, y))(y))).max(axis=1)
    arrived = float((left <= model.projection.allowed(y.dtype)).mean())
    return {"seconds": seconds, "wall": wall, "violation": float(left.max()), "arrived": arrived}


def main(arguments: list[str]) -> None:
    numbers = [int(word) for word in arguments if word.isdigit()]
    rows = [word for word in arguments if not word.isdigit()] or [*PROBLEMS, "projection"]
    found = {}
    for row in rows:
        if row == "projection":
            found[row] = projection()
        elif row.split("_")[0] in ("quadratic", "nonconvex"):
            import programmes

            kind = "network" if row.endswith("_network") else "affine"
            found[row] = programmes.row(row.startswith("quadratic"), kind, *numbers[:2])
        else:
            found[row] = gallery(row, (numbers or [10])[0])
        print(json.dumps({row: found[row]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
