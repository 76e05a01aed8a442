"""Measure the bars for initial and boundary value problems and print them as JSON.

    python benchmarks/ode.py                        # everything, then a table
    python benchmarks/ode.py robertson shock        # some of it

Error: the largest over components of the relative L2 error, on 2,000 uniform points joined with all
steps of the reference (`references.py`, forty digits, computed twice). Run time: median of five
solves after a first one, without compiling. Cold: a whole process that imports, compiles, solves
and reports its gap, median of three. Beside ours SciPy's solver on the same problem with functions
in plain NumPy at rtol 1e-12: DOP853 at atol 1e-14 of each component's largest value, or Radau with
the Jacobian at atol 1e-18; `solve_bvp` at its tightest tolerance that succeeds.
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))


@dataclasses.dataclass(frozen=True)
class Initial:
    """An initial value problem; `field` computes components from components."""

    bar: tuple[float, float, float]
    field: Callable
    start: tuple[float, ...]
    span: tuple[float, float]
    jacobian: Callable | None = None  # for Radau; DOP853 where there is none


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A boundary value problem in SciPy's form, for `xp` NumPy or jax.numpy."""

    bar: tuple[float, float, float]
    field: Callable  # (xp, x, y, p) -> components
    conditions: Callable  # (xp, left, right, p) -> numbers
    span: tuple[float, float]
    guess: Callable  # (xp, x) -> components
    p: tuple[float, ...] = ()
    singular: tuple | None = None


def lotka_volterra(t, y):
    return 1.5 * y[0] - y[0] * y[1], -3 * y[1] + y[0] * y[1]


def van_der_pol(mu):
    return lambda t, y: (y[1], mu * (1 - y[0] ** 2) * y[1] - y[0])


def van_der_pol_jacobian(mu):
    return lambda t, y: [[0, 1], [-2 * mu * y[0] * y[1] - 1, mu * (1 - y[0] ** 2)]]


def lorenz(s, r, b):
    return lambda t, y: (s * (y[1] - y[0]), y[0] * (r - y[2]) - y[1], y[0] * y[1] - b * y[2])


def robertson(t, y):
    made, used = 0.04 * y[0], 3e7 * y[1] ** 2
    back = 1e4 * y[1] * y[2]
    return back - made, made - back - used, used


def robertson_jacobian(t, y):
    by_2, by_3 = 1e4 * y[2], 1e4 * y[1]
    return [[-0.04, by_2, by_3], [0.04, -by_2 - 6e7 * y[1], -by_3], [0, 6e7 * y[1], 0]]


def pendulum(t, y):
    import jax.numpy as jnp

    return y[1], -(jnp.sin(y[0]) if not isinstance(y, np.ndarray) else np.sin(y[0]))


def butler_volmer(xp, left, right, p):
    f, kappa = 38.9, 1.64
    current = lambda i, h: i * (xp.exp(f * h) - xp.exp(-f * h))  # noqa: E731
    anode = current(0.01, -left[0]) + kappa * left[1]
    return anode, current(1e-4, 0.5 - right[0] - 1.0) - kappa * right[1]


def shock(xp, x, y, p):
    source = 1e-3 * np.pi**2 * xp.cos(np.pi * x) + np.pi * x * xp.sin(np.pi * x)
    return y[1], -1000 * (x * y[1] + source)


def zeros(xp, x):
    return 0 * x, 0 * x


def at_zero(xp, left, right, p):
    return left[0], right[0]


PROBLEMS: dict[str, Initial | Boundary] = {
    "decay": Initial((1e-11, 0.5, 6), lambda t, y: (-y[0],), (1.0,), (0.0, 5.0)),
    "oscillator": Initial((1e-11, 0.5, 6), lambda t, y: (y[1], -y[0]), (1.0, 0.0), (0.0, 10.0)),
    "lotka_volterra": Initial((1e-11, 0.5, 6), lotka_volterra, (2.5, 1.25), (0.0, 6.0)),
    "van_der_pol_1": Initial((1e-11, 1, 6), van_der_pol(1.0), (2.0, 0.0), (0.0, 10.0)),
    "pendulum": Initial((1e-11, 1, 6), pendulum, (1.0, 0.0), (0.0, 20.0)),
    "lorenz_short": Initial((1e-10, 3, 8), lorenz(10, 15, 8 / 3), (-8.0, 7.0, 27.0), (0.0, 3.0)),
    "lorenz_long": Initial((1e-6, 10, 16), lorenz(3, 28, 8 / 3), (1.0, 1.0, 1.0), (0.0, 20.0)),
    "robertson": Initial((1e-7, 1, 8), robertson, (1.0, 0.0, 0.0), (0.0, 1e5), robertson_jacobian),
    "van_der_pol_1000": Initial(
        (1e-6, 10, 16), van_der_pol(1000.0), (2.0, 0.0), (0.0, 2000.0), van_der_pol_jacobian(1000.0)
    ),
    "bratu_lower": Boundary(
        (1e-10, 1, 6),
        lambda xp, x, y, p: (y[1], -xp.exp(y[0])),
        at_zero,
        (0.0, 1.0),
        zeros,
    ),
    "boundary_layer": Boundary(
        (1e-10, 1, 6), lambda xp, x, y, p: (y[1], 1000 * (y[1] - 1)), at_zero, (0.0, 1.0), zeros
    ),
    "exponential": Boundary(
        (1e-9, 1, 8),
        lambda xp, x, y, p: (y[1], y[0]),
        lambda xp, left, right, p: (left[0] - 1, right[0]),
        (0.0, 1.0),
        zeros,
    ),
    "sturm_liouville": Boundary(
        (1e-9, 1, 8),
        lambda xp, x, y, p: (y[1], -(p[0] ** 2) * y[0]),
        lambda xp, left, right, p: (left[0], right[0], left[1] - p[0]),
        (0.0, np.pi),
        lambda xp, x: (xp.sin(x), xp.cos(x)),
        p=(0.5,),
    ),
    "emden": Boundary(
        (1e-9, 1, 8),
        lambda xp, x, y, p: (y[1], -(y[0] ** 5)),
        lambda xp, left, right, p: (left[1], right[0] - np.sqrt(3) / 2),
        (0.0, 1.0),
        lambda xp, x: (1 + 0 * x, 0 * x),
        singular=((0.0, 0.0), (0.0, -2.0)),
    ),
    "shock": Boundary(
        (1e-9, 1, 8),
        shock,
        lambda xp, left, right, p: (left[0] + 2, right[0]),
        (-1.0, 1.0),
        zeros,
    ),
    "nonlinear_boundary": Boundary(
        (1e-9, 1, 8),
        lambda xp, x, y, p: (y[1], 0 * y[1]),
        butler_volmer,
        (0.0, 0.1),
        zeros,
    ),
    "large": Boundary(
        (1e-9, 1, 8),
        lambda xp, x, y, p: xp.stack([y[1::2], 0 * y[::2]], axis=1).reshape(y.shape),
        lambda xp, left, right, p: xp.concatenate([left[::2], right[::2] - 1]),
        (0.0, 1.0),
        lambda xp, x: 0 * x + xp.zeros((60, *x.shape)),
    ),
}


def stated(problem: Initial | Boundary):
    """The problem as this package takes it."""
    import jax.numpy as jnp

    import constrainednn as cx

    if isinstance(problem, Initial):
        field = lambda t, y, args: jnp.stack(problem.field(t, y))  # noqa: E731
        return cx.ivp(field, np.asarray(problem.start), problem.span)
    some = (lambda fn: fn) if problem.p else (lambda fn: lambda a, b: fn(a, b, ()))
    array = lambda value: jnp.stack(value) if isinstance(value, tuple) else value  # noqa: E731
    return cx.bvp(
        some(lambda x, y, p: array(problem.field(jnp, x, y, p))),
        some(lambda left, right, p: array(problem.conditions(jnp, left, right, p))),
        problem.span,
        lambda x: array(problem.guess(jnp, x)),
        p=problem.p or None,
        S=problem.singular,
    )


def eigenvalue_problems():
    """The first three eigenvalues of Mathieu's equation, from the gallery."""
    import constrainednn as cx

    return [cx.load_problem("sturm_liouville", index=index) for index in range(3)]


def classical(name: str, problem: Initial | Boundary) -> dict:
    """SciPy on the same problem: error, seconds, solver."""
    from references import reference, relative_error
    from scipy.integrate import solve_bvp, solve_ivp

    ref = reference(name)
    if isinstance(problem, Initial):
        jacobian = {} if problem.jacobian is None else {"jac": problem.jacobian}
        solver = "Radau" if jacobian else "DOP853"
        solve = lambda **more: solve_ivp(  # noqa: E731
            lambda t, y: np.array(problem.field(t, y)),
            problem.span,
            problem.start,
            method=solver,
            rtol=1e-12,
            # A component of the stiff ones is far below its largest value nearly everywhere.
            atol=1e-18 if jacobian else 1e-14 * np.abs(ref.y).max(axis=0),
            **jacobian,
            **more,
        )
        # Timed without the interpolant, whose values are what the error is of.
        _, seconds = timed(solve, 3)
        return {
            "solver": solver,
            "error": relative_error(solve(t_eval=ref.t).y.T, ref),
            "run seconds": seconds,
        }
    x = np.linspace(*problem.span, 9)
    guess = np.stack(problem.guess(np, x))
    wrap = (lambda fn: fn) if problem.p else (lambda fn: lambda a, b: fn(a, b, ()))

    def solve_at(tolerance):
        # A singular Jacobian in a step is part of what is measured, not a warning to read.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return solve_bvp(
                wrap(lambda x, y, p: np.stack(problem.field(np, x, y, p))),
                wrap(lambda a, b, p: np.array(problem.conditions(np, a, b, p))),
                x,
                guess,
                p=problem.p or None,
                S=None if problem.singular is None else np.array(problem.singular),
                tol=tolerance,
                max_nodes=20_000,
            )

    for tolerance in (1e-11, 1e-9, 1e-6, 1e-3):
        if solve_at(tolerance).status == 0:
            break
    found, seconds = timed(lambda: solve_at(tolerance), 3)
    return {
        "solver": f"solve_bvp, tol={tolerance:g}",
        "error": relative_error(found.sol(ref.t).T, ref),
        "run seconds": seconds,
        "status": int(found.status),
    }


def timed(solve: Callable, runs: int):
    """The result and the median of seconds."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        found = solve()
        taken.append(time.perf_counter() - start)
    return found, statistics.median(taken)


def ours(name: str) -> dict:
    """Error, seconds and gap of this package."""
    from references import eigenvalues, reference, relative_error

    import constrainednn as cx

    if name == "eigenvalues":
        problems = eigenvalue_problems()
        first = [cx.solve(item) for item in problems]
        runs = [sum(cx.solve(item).timings.run for item in problems) for _ in range(5)]
        values = np.array([[float(item.model.parameters[0]) for item in first]])
        ref, error = eigenvalues(), relative_error(values, eigenvalues())
    else:
        problem = stated(PROBLEMS[name])
        first = [cx.solve(problem)]
        runs = [cx.solve(problem).timings.run for _ in range(5)]
        ref = reference(name)
        error = relative_error(np.asarray(first[0](ref.t)).reshape(ref.y.shape), ref)
    gap = first[0].gap.constraints[0]
    return {
        "error": error,
        "run seconds": statistics.median(runs),
        "compile seconds": sum(item.timings.compile for item in first),
        "status": sorted({str(item.status) for item in first}),
        "pieces": sum(item.model.count for item in first),
        "newton steps": sum(item.steps for item in first),
        "train RMS": gap.train_rms,
        "held-out RMS": gap.heldout_rms.value,
        "reference disagreement": ref.disagreement,
    }


def once(name: str) -> None:
    """One solve with its report, for the cold time."""
    import constrainednn as cx

    for problem in eigenvalue_problems() if name == "eigenvalues" else [stated(PROBLEMS[name])]:
        str(cx.solve(problem))


def cold(name: str) -> float:
    """Seconds of a whole process."""
    command = [sys.executable, __file__, "--once", name]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True), 3)[1]


def main(names: list[str]) -> None:
    """Measure the named problems, or all, and print JSON and a table."""
    bars = {name: problem.bar for name, problem in PROBLEMS.items()} | {"eigenvalues": (1e-9, 2, 8)}
    unknown = set(names) - set(bars)
    if unknown:
        sys.exit(f"no problem is named {', '.join(unknown)}. Known: {', '.join(bars)}")
    results = {}
    for name in names or bars:
        row = {"bar": bars[name], **ours(name), "cold seconds": cold(name)}
        if name in PROBLEMS:
            row["classical"] = classical(name, PROBLEMS[name])
        results[name] = row
        print(name, json.dumps(row), file=sys.stderr, flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    print(json.dumps({"machine": machine, "problems": results}, indent=2))
    print("\n| problem | error (bar) | run s (bar) | cold s (bar) | SciPy: error | s | pieces |")
    print("|---|---|---|---|---|---|---|")
    for name, row in results.items():
        error, run, whole = row["bar"]
        other = row.get("classical", {"solver": "-", "error": np.nan, "run seconds": np.nan})
        print(
            f"| {name} | {row['error']:.1e} ({error:.0e}) | {row['run seconds']:.4f} ({run:g}) | "
            f"{row['cold seconds']:.1f} ({whole:g}) | {other['solver']}: {other['error']:.1e} | "
            f"{other['run seconds']:.3f} | {row['pieces']} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        once(sys.argv[2])
    else:
        main(sys.argv[1:])
