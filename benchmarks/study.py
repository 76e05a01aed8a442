"""Measure the bars for studies and print them as JSON.

    python benchmarks/study.py [checks]

`engines`: 32 seeds of a network of width 16 on 100 points of the unit circle, 1,000 steps of Adam,
run together and one after the other in one warm process, and as 32 calls of `solve`; which engine
a trial takes; beside it Levenberg-Marquardt, 100 steps, which is not run together. Seven rounds.
`circle`: 40 runs of the unit circle (`points` 50 to 800, Levenberg-Marquardt, 8 seeds, at most 100
steps) in a whole process, compilation included, and with two workers. `resume`: seconds to find
that nothing of 10,000 finished rows is left to run; the rows are those of the first study, under
other seeds. `checks`, only if asked for, since it takes an hour: 2,000 seeds of linear least
squares with 50 points and 5, 25, 40 and 100 Gaussian features against the closed forms.
"""

import json
import operator
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def engines() -> dict:
    import statistics

    import constrainednn as cx

    def problem():
        return cx.Problem(cx.Constraint(on_circle, over=cx.Normal(2), points=100), MODEL)

    def on_circle(u, x):
        return jnp.linalg.norm(u(x)) - 1.0

    import jax.numpy as jnp
    import optax

    MODEL = cx.MLP(2, 2, width=16)
    adam = {"adam": cx.Optax(optax.adam(1e-3))}
    stated = problem()
    seconds: dict[str, list[float]] = {"loop": [], "vmap": [], "solve": [], "lm loop": []}
    for _ in range(8):  # the first one compiles
        for engine in ("loop", "vmap"):
            began = time.perf_counter()
            cx.study(stated, method=adam["adam"], steps=1000, seeds=32, engine=engine)
            seconds[engine].append(time.perf_counter() - began)
        began = time.perf_counter()
        for seed in range(32):
            cx.solve(stated, adam["adam"], steps=1000, seed=seed)
        seconds["solve"].append(time.perf_counter() - began)
        began = time.perf_counter()
        cx.study(stated, steps=100, seeds=32, engine="loop")
        seconds["lm loop"].append(time.perf_counter() - began)
    chosen = cx.study(stated, method=adam["adam"], steps=1000, seeds=32).rows[0]["engine"]
    lm = cx.study(stated, steps=100, seeds=32).rows[0]["engine"]
    # Round by round, since the machine's speed drifts.
    ratios = {
        name: statistics.median(map(operator.truediv, seconds["vmap"][1:], seconds[name][1:]))
        for name in ("loop", "solve")
    }
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    return {
        "first, compilation included": {name: each[0] for name, each in seconds.items()},
        "warm": medians,
        "vmap / loop": ratios["loop"],
        "vmap / solve": ratios["solve"],
        "chosen": {"adam": chosen, "lm": lm},
    }


def checks() -> dict:
    """Linear least squares against the closed forms: departures in standard errors."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import constrainednn as cx

    n, found = 50, {}
    for p in (5, 25, 40, 100):

        def measure(z, p=p):
            return z[:p], z[0] + z[p]  # beta is the first unit vector, the noise one

        def misfit(u, point):
            return u(point[0]) - point[1]

        model = eqx.nn.Linear(p, "scalar", use_bias=False, key=jax.random.key(0))
        model = eqx.tree_at(lambda u: u.weight, model, jnp.zeros((1, p)))
        over = cx.Normal(p + 1).map(measure)
        problem = cx.Problem(cx.Constraint(misfit, over=over, points=n), model)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", cx.errors.ProblemWarning
            )  # the model is ready-made, and zero
            # Past interpolation by gradient descent, which from zero ends at the least norm;
            # Levenberg-Marquardt scales columns, and ends a little beside it.
            descent = {"method": cx.Optax(optax.sgd(0.1)), "steps": 1000} if p > n else {}
            study = cx.study(problem, seeds=2000, heldout=256, monitor=8, **descent)
        if p < n:
            expected = {"train_loss": 1 - p / n, "heldout_loss": 1 + p / (n - p - 1)}
        else:  # minimum norm, from zero
            expected = {"train_loss": 0.0, "heldout_loss": 1 + n / (p - n - 1) + 1 - n / p}
        for name, value in expected.items():
            losses = np.array([row[name] for row in study.table()])
            error = losses.std(ddof=1) / np.sqrt(len(losses))
            found[f"p = {p}, {name}"] = {
                "expected": value,
                "mean": float(losses.mean()),
                "standard errors": float((losses.mean() - value) / max(error, 1e-20)),
            }
    return found


def main() -> None:
    started = time.perf_counter()
    import constrainednn as cx

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "circle"
        points = [50, 100, 200, 400, 800]
        found = cx.study("unit_circle", vary={"points": points}, seeds=8, steps=100, out=out)
        circle = time.perf_counter() - started
        print(found)
        began = time.perf_counter()
        cx.study("unit_circle", vary={"points": points}, seeds=8, steps=100, workers=2)
        beside = time.perf_counter() - began
        with (out / "runs.jsonl").open("w") as stream:
            for row in found.rows[::8]:  # one for each number of points
                for seed in range(2000):
                    stream.write(json.dumps(row | {"seed": seed}) + "\n")
        began = time.perf_counter()
        again = cx.study("unit_circle", vary={"points": points}, seeds=2000, steps=100, out=out)
        resume = time.perf_counter() - began
    result = {
        "engines": engines(),
        "circle": {"runs": len(found.rows), "seconds": circle, "seconds, two workers": beside},
        "resume": {"rows": len(again.rows), "seconds": resume},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    print(json.dumps(checks(), indent=2)) if "checks" in sys.argv else main()
