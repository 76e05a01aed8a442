"""Levenberg-Marquardt on published least-squares problems, beside SciPy's, as JSON and a table.

    python benchmarks/least_squares.py              # NIST's 54 runs, and More, Garbow, Hillstrom
    python benchmarks/least_squares.py nist         # one of them

A run finds the minimum if its sum of squares is at most a millionth above the least that is
published, or below 1e-20. SciPy's `least_squares` gets the same Jacobian, columns scaled by their
norms and not, tolerances of 1e-15 and 5,000 evaluations; ours 3,000 steps.
"""

import json
import sys
import warnings
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.optimize  # noqa: E402

import constrainednn as cx  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from minimised import minimised  # noqa: E402
from more_garbow_hillstrom import SUMS  # noqa: E402
from nist import FITS  # noqa: E402

METHOD = cx.LevenbergMarquardt()
STEPS = 3000
NAMES = ("max_steps", "converged", "stalled", "nonfinite")
PEERS = [(method, scale) for method in ("lm", "trf") for scale in ("jac", 1.0)]


def ours(fn, start):
    """What a run found and how it ended."""
    params, state, verdict, steps = minimised(METHOD, fn, jnp.asarray(start), STEPS)
    r = np.asarray(fn(params))
    return {
        "squares": float(r @ r),
        "steps": int(steps),
        "status": NAMES[int(verdict)],
        "why": METHOD.explain(params, state)[0],
    }


def theirs(fn, start):
    """The sum of squares and the evaluations of SciPy's methods, by method and scale."""
    value, slope = jax.jit(fn), jax.jit(jax.jacfwd(fn))
    finite = lambda a: np.nan_to_num(np.asarray(a), nan=1e100, posinf=1e100, neginf=-1e100)  # noqa: E731
    found = {}
    for method, scale in PEERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                end = scipy.optimize.least_squares(
                    lambda x: finite(value(x)),
                    start,
                    lambda x: finite(slope(x)),
                    method=method,
                    x_scale=scale,
                    **dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15),
                    max_nfev=5000,
                )
        except (ValueError, np.linalg.LinAlgError):
            found[f"{method} {scale}"] = (float("inf"), 0)
        else:
            found[f"{method} {scale}"] = (2 * float(end.cost), int(end.nfev))
    return found


def runs(name):
    """Label, function, start and minima of all runs of a collection."""
    if name == "nist":
        for fit in FITS.values():
            for which, start in (("far", fit.far), ("near", fit.near)):
                yield f"{fit.name}, {which}", fit.residual, start, (fit.squares,)
        return
    for label, (fn, start, minima) in SUMS.items():
        for factor in (1, 10, 100) if any(start) else (1,):
            yield f"{label}, {factor}", fn, tuple(factor * np.array(start)), minima


def is_least(squares, minima):
    return squares <= minima[0] * (1 + 2e-6) or squares < 1e-20


def main(names):
    for name in names or ("nist", "more"):
        rows = []
        for label, fn, start, minima in runs(name):
            start = np.array(start, float)
            row = {"run": label} | ours(fn, start)
            peers = theirs(fn, start)
            row["found"] = is_least(row["squares"], minima)
            row["at_a_minimum"] = any(abs(row["squares"] / (m or 1) - 1) < 1e-4 for m in minima)
            row["peers"] = {peer: is_least(found, minima) for peer, (found, _) in peers.items()}
            row["evaluations"] = {peer: count for peer, (_, count) in peers.items()}
            print(json.dumps(row), flush=True)
            rows.append(row)
        table(name, rows)


def table(name, rows):
    """How many runs found the minimum, and in how many steps, by method."""
    print(f"\n{name}: {len(rows)} runs")
    steps = [row["steps"] for row in rows if row["found"]]
    print(f"ours: {len(steps)} found, {np.median(steps):.0f} steps [{min(steps)}, {max(steps)}]")
    for peer in rows[0]["peers"]:
        counts = [row["evaluations"][peer] for row in rows if row["peers"][peer]]
        bounds = f"{np.median(counts):.0f} evaluations [{min(counts)}, {max(counts)}]"
        print(f"{peer}: {len(counts)} found, {bounds}")
    for row in rows:
        if not row["found"] and (any(row["peers"].values()) or row["status"] == "converged"):
            print(row["run"], row["squares"], row["status"], row["why"], row["peers"])


if __name__ == "__main__":
    main(sys.argv[1:])
