"""Measure equations in space and time; print JSON and a table.

    python benchmarks/pde.py                    # everything
    python benchmarks/pde.py burgers kdv        # some of it
    python benchmarks/pde.py coverage 200       # intervals of the viscosity over noisy repeats
    python benchmarks/pde.py effectivity        # error estimates against closed forms

The problems are those of the gallery. Error: relative L2 over 101 times and 401 places, the start
included, against a closed form, or against our own ETDRK4 with twice the resolution (its
disagreement with the first is printed beside it). Second: wall seconds of a second call of `solve`,
its report included. Cold and cached: a whole process that imports, compiles, solves and reports,
with an empty and with a filled compilation cache. Estimate: what `error_estimate` says without a
reference, and its seconds. The elements are spectral, not neural.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np

import constrainednn as cx

# Name of a row: problem, its settings, tolerance, error and seconds that must be met.
ROWS = {
    "heat": ("heat", {}, 1e-11, 1e-11, 10),
    "convection": ("convection", {}, 1e-12, 1e-11, 10),
    "reaction": ("reaction", {}, 1e-12, 1e-11, 10),
    "reaction_diffusion": ("reaction_diffusion", {}, 1e-11, None, None),
    "wave": ("wave", {}, 1e-11, 1e-11, 10),
    "klein_gordon": ("klein_gordon", {}, 1e-11, 1e-11, 10),
    "burgers": ("burgers", {}, 1e-11, 1e-11, 15),
    "burgers_0.01": ("burgers", {"nu": 0.01}, 1e-11, 1e-11, 10),
    "fisher": ("fisher", {}, 1e-11, 1e-11, 10),
    "schroedinger": ("schroedinger", {}, 1e-8, 1e-9, 40),
    "allen_cahn": ("allen_cahn", {}, 1e-9, 2e-8, 60),
    "kdv": ("kdv", {}, 1e-8, 2e-9, 60),
    "kuramoto_sivashinsky": ("kuramoto_sivashinsky", {}, 1e-9, 1e-7, 120),
    "black_scholes": ("black_scholes", {}, 1e-7, None, None),
}
TIMES, PLACES = 101, 401


def etdrk4(hat, linear, nonlinear, length, dt, times):
    """Fourier coefficients of u_t = linear u + nonlinear(u) at multiples of `dt`.

    Source: Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
    """
    n = len(hat)
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    L = linear(k)
    circle = np.exp(2j * np.pi * (np.arange(1, 65) - 0.5) / 64)
    z = dt * L[:, None] + circle
    full, half = np.exp(dt * L), np.exp(dt * L / 2)
    mean = lambda f: dt * f.mean(axis=1)  # noqa: E731
    Q = mean((np.exp(z / 2) - 1) / z)
    f1 = mean((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3)
    f2 = mean((2 + z + np.exp(z) * (z - 2)) / z**3)
    f3 = mean((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3)
    found, steps, v = [], 0, hat
    for t in times:
        while steps < round(t / dt):
            Nv = nonlinear(v, k)
            a = half * v + Q * Nv
            Na = nonlinear(a, k)
            b = half * v + Q * Na
            Nb = nonlinear(b, k)
            c = half * a + Q * (2 * Nb - Nv)
            v = full * v + f1 * Nv + 2 * f2 * (Na + Nb) + f3 * nonlinear(c, k)
            steps += 1
        found.append(v)
    return np.array(found)


def at_places(hat, x, low, length):
    """The function with these Fourier coefficients, on a grid from `low` on, at places x."""
    n = hat.shape[-1]
    k = np.fft.fftfreq(n, 1 / n)
    return (hat @ np.exp(2j * np.pi * np.outer((x - low) / length, k)).T / n).real


def sampled(fn, low, length, n):
    return np.fft.fft(fn(low + length * np.arange(n) / n))


def allen_cahn(times, x, n, dt):
    # Sampling x^2 cos(pi x) aliases its kink at the seam: its coefficients are known exactly.
    m = np.fft.fftfreq(n, 1 / n)
    moment = lambda j: np.where(  # noqa: E731
        j == 0, 2 / 3, 4 * (-1.0) ** j / np.where(j == 0, 1, j * np.pi) ** 2
    )
    hat = n * (-1.0) ** m * (moment(m + 1) + moment(m - 1)) / 4
    cubic = lambda v, k: -5 * np.fft.fft(np.fft.ifft(v).real ** 3)  # noqa: E731
    found = etdrk4(hat, lambda k: -1e-4 * k**2 + 5, cubic, 2.0, dt, times)
    values = at_places(found, x, -1.0, 2.0)
    values[0] = x**2 * np.cos(np.pi * x)
    return values


def product(v, k):
    """-u u_x, without the highest third of the frequencies."""
    w = v.copy()
    w[len(v) // 3 : -(len(v) // 3)] = 0
    return -0.5j * k * np.fft.fft(np.fft.ifft(w).real ** 2)


def kdv(times, x, n, dt):
    hat = sampled(lambda x: np.cos(np.pi * x), -1.0, 2.0, n)
    found = etdrk4(hat, lambda k: 0.022**2 * 1j * k**3, product, 2.0, dt, times)
    return at_places(found, x, -1.0, 2.0)


def kuramoto_sivashinsky(times, x, n, dt):
    length = 32 * np.pi
    hat = sampled(lambda x: np.cos(x / 16) * (1 + np.sin(x / 16)), 0.0, length, n)
    found = etdrk4(hat, lambda k: k**2 - k**4, product, length, dt, times)
    return at_places(found, x, 0.0, length)


def reaction_diffusion(times, x, n, dt):
    length = 2 * np.pi
    # The start has a kink at the seam, as above: its coefficients by quadrature.
    s, w = np.polynomial.legendre.leggauss(2000)
    bump = np.exp(-(s**2) * np.pi**2 / (2 * (np.pi / 4) ** 2))
    m = np.fft.fftfreq(n, 1 / n)
    hat = n / 2 * np.exp(-1j * np.outer(m, np.pi * (s + 1))) @ (w * bump)
    growth = lambda v, k: -5 * np.fft.fft(np.fft.ifft(v).real ** 2)  # noqa: E731
    found = etdrk4(hat, lambda k: 5 - 5 * k**2, growth, length, dt, times)
    values = at_places(found, x, 0.0, length)
    values[0] = np.exp(-((x - np.pi) ** 2) / (2 * (np.pi / 4) ** 2))
    return values


# Twice the resolution of the first computation, and the first.
CLASSICAL = {
    "allen_cahn": (allen_cahn, (8192, 1e-4), (4096, 2e-4)),
    "kdv": (kdv, (1536, 2.5e-5), (1024, 5e-5)),
    "kuramoto_sivashinsky": (kuramoto_sivashinsky, (1024, 0.0025), (512, 0.005)),
    "reaction_diffusion": (reaction_diffusion, (1024, 2.5e-4), (512, 5e-4)),
}


def relative(found, known):
    return float(np.linalg.norm(found - known) / np.linalg.norm(known))


def measure(row):
    name, settings, tolerance, bar, seconds = ROWS[row]
    problem = cx.load_problem(name, **settings)
    began = time.perf_counter()
    solution = cx.solve(problem, tolerance=tolerance)
    first = time.perf_counter() - began
    began = time.perf_counter()
    solution = cx.solve(cx.load_problem(name, **settings), tolerance=tolerance)
    second = time.perf_counter() - began
    low, high = solution.problem.constraints[0].over.low, solution.problem.constraints[0].over.high
    times, x = np.linspace(low[0], high[0], TIMES), np.linspace(low[1], high[1], PLACES)
    p = np.stack(np.meshgrid(times, x, indexing="ij"), axis=-1)
    flat = lambda value: np.stack([np.asarray(leaf) for leaf in jax.tree.leaves(value)])  # noqa: E731
    found = {"row": row, "tolerance": tolerance, "bar": bar, "bar_seconds": seconds}
    if row in CLASSICAL:
        fn, fine, coarse = CLASSICAL[row]
        known = fn(times, x, *fine)[None]
        began = time.perf_counter()
        other = fn(times, x, *coarse)[None]
        found["classical_seconds"] = time.perf_counter() - began
        found["classical_error"] = relative(other, known)
    else:
        reference = jax.jit(jax.vmap(solution.problem.reference))
        known = flat(reference(p.reshape(-1, 2))).reshape(-1, TIMES, PLACES)
    error = relative(flat(solution(p)), known) if solution.model.ends[-1] == high[0] else None
    began = time.perf_counter()
    estimate = solution.error_estimate()
    again = time.perf_counter() - began
    windows = solution.model.count
    return found | {
        "error": error,
        "estimate": estimate.relative,
        "rounding": estimate.rounding,
        "label": estimate.label,
        "estimate_seconds": again,
        "verdict": str(solution.verdict)[:300],
        "first_seconds": first,
        "seconds": second,
        "windows": windows,
        "elements": max(len(solution.model.elements(w)) - 1 for w in range(windows)),
        "steps": solution.steps,
        "gap": [
            (item.name, item.train_rms, item.heldout_rms.value) for item in solution.gap.constraints
        ],
    }


def process_seconds(name, tolerance, cache):
    """Wall seconds of a whole process, from the shell to its pictures."""
    out = tempfile.mkdtemp()
    shutil.rmtree(out)
    command = [sys.executable, "-m", "constrainednn", "solve", name, "--tolerance", str(tolerance)]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    began = time.perf_counter()
    subprocess.run([*command, "--out", out], env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    assert os.path.isdir(out), f"{command} has solved nothing"
    return seconds


def coverage(count):
    """How often the 95 % interval of the viscosity holds the truth, for noise of 1 %."""
    estimates = []
    for draw in range(count):
        problem = cx.load_problem("inverse_burgers", noise=0.01, draw=draw)
        began = time.perf_counter()
        found = cx.solve(problem, tolerance=1e-6).estimates()["nu"]
        seconds = time.perf_counter() - began
        estimates.append((found.value, found.low, found.high, found.error, seconds))
        print(json.dumps(estimates[-1]), flush=True)
    value, low, high, error, seconds = np.array(estimates).T
    nu = 0.05
    print(
        json.dumps(
            {
                "fits": count,
                "covered": float(((low < nu) & (nu < high)).mean()),
                "bias": float((value - nu).mean()),
                "spread": float(value.std(ddof=1)),
                "standard_error": float(np.sqrt((error**2).mean())),
                "seconds": float(np.median(seconds)),
            }
        )
    )


def columns(values):
    """Values of all components at many points, a column for each."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(values)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def effectivity():
    """Estimated over true error, over closed forms and tolerances, in space and time and in space.

    The true error is over the grid of the table, or 101 x 101 places. Where it is below ten times
    the rounding level the estimate should say "at rounding"; elsewhere it should be within a factor
    of three, or say that it cannot tell.
    """
    rows = []
    for name in [*(row for row in ROWS if row not in CLASSICAL and row != "black_scholes"), *PLANE]:
        problem, settings, *_ = ROWS.get(name, (name, {}))
        for tolerance in (1e-4, 1e-6, 1e-8):
            solution = cx.solve(cx.load_problem(problem, **settings), tolerance=tolerance)
            box = solution.problem.constraints[0].over
            counts = (101, 101) if name in PLANE else (TIMES, PLACES)
            axes = [np.linspace(*ends) for ends in zip(box.low, box.high, counts, strict=True)]
            p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
            known = columns(jax.jit(jax.vmap(solution.problem.reference))(p))
            error, estimate = relative(columns(solution(p)), known), solution.error_estimate()
            rows.append(
                {
                    "row": name,
                    "tolerance": tolerance,
                    "error": error,
                    "estimate": estimate.relative,
                    "rounding": estimate.rounding,
                    "label": estimate.label,
                    "ratio": estimate.relative / error,
                    "verdict": solution.verdict.word,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    clear = [r for r in rows if r["error"] > 10 * r["rounding"]]
    told = [r for r in clear if r["label"] != "too large to tell"]
    within = [r for r in told if 1 / 3 < r["ratio"] < 3]
    print(
        json.dumps(
            {
                "rows": len(rows),
                "above rounding": len(clear),
                "cannot tell": len(clear) - len(told),
                "within a factor of three": len(within),
                "outside": [
                    (r["row"], r["tolerance"], r["ratio"]) for r in told if r not in within
                ],
            }
        )
    )


# Problems in the plane with closed forms.
PLANE = ["poisson", "nonlinear_poisson", "helmholtz", "bump", "plate", "kovasznay"]


def main(names):
    rows = []
    for row in names or ROWS:
        found = measure(row)
        name, settings, tolerance, *_ = ROWS[row]
        if not settings:
            with tempfile.TemporaryDirectory() as cache:
                found["cold"], found["cached"] = (
                    process_seconds(name, tolerance, cache) for _ in range(2)
                )
        rows.append(found)
        print(json.dumps(found), flush=True)
    print(json.dumps({"python": platform.python_version(), "jax": jax.__version__, "rows": rows}))
    print("| row | error (must) | second s (must) | cold; cached | estimate | classical |")
    print("|---|---|---|---|---|---|")
    show = lambda value, form: "-" if value is None else format(value, form)  # noqa: E731
    for r in rows:
        classical = "-"
        if "classical_error" in r:
            classical = f"ETDRK4 {r['classical_error']:.1e} in {r['classical_seconds']:.1f} s"
        print(
            f"| `{r['row']}` | {show(r['error'], '.1e')} ({show(r['bar'], '.0e')}) | "
            f"{r['seconds']:.1f} ({show(r['bar_seconds'], '')}) | "
            f"{show(r.get('cold'), '.0f')}; {show(r.get('cached'), '.0f')} | "
            f"{r['estimate']:.1e}, {r['estimate_seconds']:.1f} s | {classical} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["coverage"]:
        coverage(int(sys.argv[2]))
    elif sys.argv[1:] == ["effectivity"]:
        effectivity()
    else:
        main(sys.argv[1:])
