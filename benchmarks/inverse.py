"""Measure the bars for inverse problems and for the other equations; print JSON and a table.

    python benchmarks/inverse.py                            # everything
    python benchmarks/inverse.py inverse_lorenz delay       # some of it

The problems are those of the gallery. Error: for an inverse problem without noise the largest
relative error of a parameter; with noise the largest difference of estimate, standard error and
interval ends from those of SciPy's `least_squares` on the exact flow, relative to the standard
error; otherwise the largest relative L2 error over components against a closed form, or against the
same system without its algebraic equation. Run: median wall time of five whole calls of `solve`,
its report included, after a first one. Cold: a whole process that imports, compiles, solves and
reports, median of three.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

# Error, seconds of a run, seconds of a cold process.
BARS = {
    "inverse_lorenz": (1e-8, 3, 10),
    "inverse_lotka_volterra": (1e-4, 2, 9),
    "volterra": (1e-10, 1, 6),
    "fredholm": (1e-10, 1, 6),
    "robertson_dae": (1e-8, 3, 10),
    "pendulum_dae": (1e-8, 3, 10),
    "delay": (1e-9, 3, 10),
    "damped_family": (1e-6, 10, 18),
}


def relative(found, true) -> float:
    """The largest over components of the relative L2 error."""
    found, true = (np.asarray(x).reshape(len(x), -1) for x in (found, true))
    return float((np.linalg.norm(found - true, axis=0) / np.linalg.norm(true, axis=0)).max())


def lorenz_error(solution) -> float:
    true = {"sigma": 10.0, "rho": 15.0, "beta": 8 / 3}
    found = solution.estimates()
    return max(abs(found[name].value / value - 1) for name, value in true.items())


def lotka_volterra_error(solution) -> float:
    """Difference from the least-squares fit of the exact flow, in standard errors."""
    from scipy.integrate import solve_ivp
    from scipy.optimize import least_squares
    from scipy.stats import t as student

    times, counts = (np.asarray(x) for x in solution.streams[1].train.points)
    names = ["birth", "catch", "death", "gain"]

    def rows(logs):
        birth, catch, death, gain = np.exp(logs)

        def field(t, y):
            return [birth * y[0] - catch * y[0] * y[1], gain * y[0] * y[1] - death * y[1]]

        tight = {"rtol": 1e-13, "atol": 1e-13}
        y = solve_ivp(field, (0.0, times[-1]), (10.0, 5.0), "DOP853", times, **tight).y.T
        return (y - counts).ravel()

    start = np.log([1.0, 0.1, 1.5, 0.075])
    fit = least_squares(rows, start, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, jac="3-point")
    degrees = len(fit.fun) - len(names)
    covariance = 2 * fit.cost / degrees * np.linalg.inv(fit.jac.T @ fit.jac)
    error = np.sqrt(np.diag(covariance))
    found, off = solution.estimates(), []
    for k, name in enumerate(names):
        ends = fit.x[k] + student.ppf(0.975, degrees) * error[k] * np.array([0, -1, 1])
        item = found[name]
        off += (np.abs(np.log([item.value, item.low, item.high]) - ends) / error[k]).tolist()
        off.append(abs(item.error / (np.exp(fit.x[k]) * error[k]) - 1))
    return max(off)


def closed_form_error(solution) -> float:
    low, high = (
        0.0,
        {"renewal": 3.0, "balance": 1.0, "late": 10.0}[solution.gap.constraints[0].name],
    )
    x = np.linspace(low, high, 2001)
    import jax

    return relative(solution(x), jax.vmap(solution.problem.reference)(x))


def robertson_error(solution) -> float:
    import constrainednn as cx

    t = np.geomspace(1e-6, 1e5, 2000)
    return relative(solution(t), cx.solve(cx.load_problem("robertson"))(t))


def pendulum_error(solution) -> float:
    import jax.numpy as jnp

    import constrainednn as cx

    swing = cx.ivp(lambda t, s, args: -9.81 * jnp.sin(s[0]), (np.pi / 2, 0.0), (0.0, 10.0), order=2)
    angle, t = cx.solve(swing), np.linspace(0, 10, 2001)
    a, w = np.asarray(angle(t)), np.asarray(angle.derivative(t))
    true = [np.sin(a), -np.cos(a), np.cos(a) * w, np.sin(a) * w, w**2 + 9.81 * np.cos(a)]
    return relative(solution(t), np.stack(true, axis=1))


def family_error(solution) -> float:
    """Largest error over 50 dampings and 200 times."""
    import jax

    grid = np.meshgrid(np.linspace(0, 6, 200), np.linspace(0.05, 2.0, 50))
    x = np.stack([part.ravel() for part in grid], axis=1)
    return float(np.abs(solution(x) - jax.vmap(solution.problem.reference)(x)).max())


ERRORS: dict[str, Callable] = {
    "inverse_lorenz": lorenz_error,
    "inverse_lotka_volterra": lotka_volterra_error,
    "volterra": closed_form_error,
    "fredholm": closed_form_error,
    "robertson_dae": robertson_error,
    "pendulum_dae": pendulum_error,
    "delay": closed_form_error,
    "damped_family": family_error,
}


def once(name: str):
    """One solve with its report, for the cold time."""
    import constrainednn as cx

    solution = cx.solve(cx.load_problem(name))
    str(solution)
    return solution


def timed(run: Callable, runs: int) -> float:
    """Median of seconds."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(name: str) -> dict:
    """Error, seconds and status of one problem."""
    import constrainednn as cx

    solution = once(name)
    problem = cx.load_problem(name)
    command = [sys.executable, __file__, "--once", name]
    return {
        "bar": BARS[name],
        "error": ERRORS[name](solution),
        "run seconds": timed(lambda: cx.solve(problem), 5),
        "training seconds": cx.solve(problem).timings.run,
        "cold seconds": timed(lambda: subprocess.run(command, check=True, capture_output=True), 3),
        "status": str(solution.status),
        "reason": solution.reason,
    }


def main(names: list[str]) -> None:
    """Measure the named problems, or all, and print JSON and a table."""
    unknown = set(names) - set(BARS)
    if unknown:
        sys.exit(f"no problem is named {', '.join(unknown)}. Known: {', '.join(BARS)}")
    results = {}
    for name in names or BARS:
        results[name] = measure(name)
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    print(json.dumps({"machine": machine, "problems": results}, indent=2))
    print("\n| problem | error (bar) | run s (bar) | cold s (bar) | status |")
    print("|---|---|---|---|---|")
    for name, row in results.items():
        error, run, whole = row["bar"]
        print(
            f"| `{name}` | {row['error']:.1e} ({error:.0e}) | {row['run seconds']:.2f} ({run:g}) | "
            f"{row['cold seconds']:.1f} ({whole:g}) | {row['status']} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        once(sys.argv[2])
    else:
        main(sys.argv[1:])
