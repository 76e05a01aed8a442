"""Equations on which networks are known to fail, trained and cured; print JSON and a table.

    python benchmarks/failing.py                    # all equations and cures, three seeds
    python benchmarks/failing.py reaction wave 20   # some of them, twenty seeds

Convection, reaction, reaction and diffusion as in Krishnapriyan et al., "Characterizing possible
failure modes in physics-informed neural networks", NeurIPS 34 (2021), and a wave of two modes. The
gallery's statements with `model=` a tanh network, start and edges as rows beside the equation.
Errors are relative L2 on 4,000 fresh points against the same statement solved in pieces.

A run is flagged where its verdict is none of a solution ("not solved", "cannot tell", or "no
solution" said of a row), or where `error_estimate` says more than 5 %, summed over windows. It
should be where the error is above 10 %, and not where it is below 0.1 %.
"""

import itertools
import json
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn as cx

EQUATIONS = {
    "convection, 30": ("convection", {"speed": 30.0}),
    "convection, 80": ("convection", {"speed": 80.0}),
    "reaction": ("reaction", {}),
    "reaction, diffusion": ("reaction_diffusion", {}),
    "wave, two modes": ("wave", {}),
}
METHOD, STEPS, WINDOWS = cx.LevenbergMarquardt(), 100, 10
WRONG, RIGHT, DOUBTED = 0.1, 1e-3, 0.05
FEW, MANY = 300, 2000


def stated(name, settings, **keywords):
    """A gallery problem with further arguments of `cx.pde`."""
    original = cx.pde
    try:
        cx.pde = lambda *args, **own: original(*args, **(own | keywords))
        return cx.load_problem(name, **settings)
    finally:
        cx.pde = original


def trained(name, settings, points, box, **keywords):
    """The statement for a network, with so many points for the equation."""
    model = cx.MLP(2, "scalar", width=40, over=box)
    problem = stated(name, settings, model=model, **keywords)
    first, *others = problem.constraints
    equation = cx.Constraint(first.residual, over=first.over, points=points, name=first.name)
    return cx.Problem([equation, *others], problem.model, scheme=problem.scheme)


def is_flagged(verdict):
    return verdict.word in ("not solved", "cannot tell") or "no solution" in verdict.reason


def in_windows(name, settings, box, seed):
    """Networks for windows of time, each of which starts where the one before ends."""
    (first, low), (last, high) = box.low, box.high
    edges, start, found = np.linspace(first, last, WINDOWS + 1), {}, []
    for begin, end in itertools.pairwise(edges):
        part = cx.Box([begin, low], [end, high])
        problem = trained(name, settings, FEW, part, time=(begin, end), reference=None, **start)
        found.append(cx.solve(problem, METHOD, steps=STEPS, seed=seed))
        u = found[-1].model
        start = {"start": continued(u, end, name == "wave")}

    def at(p):
        k = np.clip(np.searchsorted(edges, p[:, 0], side="right") - 1, 0, WINDOWS - 1)
        values = np.empty(len(p))
        for i, solution in enumerate(found):
            values[k == i] = solution(p[k == i])
        return values

    return found, at


def continued(u, end, has_velocity):
    """The start of a window from the network before."""

    def value(x):
        return u(jnp.stack([jnp.asarray(end), x]))

    def with_velocity(x):
        return value(x), cx.partial(u, 0)(jnp.stack([jnp.asarray(end), x]))

    return with_velocity if has_velocity else value


def run(name, settings, cure, box, exact, seed):
    """Solutions, one or one for each window, and the function they make."""
    if cure == "pieces":
        return [exact], exact
    if cure == "windows":
        return in_windows(name, settings, box, seed)
    points = MANY if cure == "more points" else FEW
    redraw = 10 if cure == "redraws" else None
    problem = trained(name, settings, points, box, reference=None)
    solution = cx.solve(problem, METHOD, steps=STEPS, seed=seed, redraw=redraw)
    return [solution], solution


CURES = "network", "more points", "redraws", "windows", "pieces"


def measured(row, cure, seed):
    """Residuals, verdict and error of one run."""
    name, settings = row
    pieces = stated(name, settings)
    exact = cx.solve(pieces, tolerance=1e-10)
    box = pieces.constraints[0].over
    began = time.process_time()
    solutions, at = run(name, settings, cure, box, exact, seed)
    seconds = time.process_time() - began
    rng = np.random.default_rng(1)
    p = np.asarray(box.low) + rng.random((4000, 2)) * np.subtract(box.high, box.low)
    true = np.asarray(exact(p))
    judged = pieces.reference if cure == "pieces" and pieces.reference else None
    true = np.asarray(jax.vmap(judged)(p)) if judged else true
    gaps = [solution.gap.constraints[0] for solution in solutions]
    flagged = [item.verdict for item in solutions if is_flagged(item.verdict)]
    estimate = 0.0 if cure == "pieces" else sum(u.error_estimate().relative for u in solutions)
    return {
        "seed": seed,
        "train": float(np.sqrt(np.mean([gap.train_rms**2 for gap in gaps]))),
        "held_out": float(np.sqrt(np.mean([gap.heldout_rms.value**2 for gap in gaps]))),
        "error": float(np.linalg.norm(np.asarray(at(p)) - true) / np.linalg.norm(true)),
        "estimate": estimate,
        "by_verdict": bool(flagged),
        "flagged": bool(flagged) or not estimate <= DOUBTED,
        "verdict": str(flagged[0] if flagged else solutions[-1].verdict),
        "cpu": seconds,
    }


def main(arguments):
    seeds = next((int(word) for word in arguments if word.isdigit()), 3)
    words = [word for word in arguments if not word.isdigit()]
    meant = lambda word: [word] if word in EQUATIONS else [r for r in EQUATIONS if word in r]  # noqa: E731
    chosen = [row for word in words for row in meant(word)] or list(EQUATIONS)
    lines = []
    for row in chosen:
        for cure in CURES:
            cure_seeds = 1 if cure == "pieces" else seeds
            runs = [measured(EQUATIONS[row], cure, seed) for seed in range(cure_seeds)]
            print(json.dumps({"equation": row, "cure": cure, "runs": runs}), flush=True)
            lines.append(line(row, cure, runs))
    print(
        "\n| equation | run | train RMS | held-out RMS | error | by verdict; by either | missed |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


def line(row, cure, runs):
    """Medians, errors with least and largest, and how many verdicts were right."""
    train, held, error = ([item[name] for item in runs] for name in ("train", "held_out", "error"))
    missed = [
        item["seed"]
        for item in runs
        if (item["error"] > WRONG and not item["flagged"])
        or (item["error"] < RIGHT and item["flagged"])
    ]
    shown = f"{np.median(error):.1e} [{min(error):.1e}, {max(error):.1e}]"
    judged, flagged = (sum(item[name] for item in runs) for name in ("by_verdict", "flagged"))
    return (
        f"| {row} | {cure} | {np.median(train):.1e} | {np.median(held):.1e} | {shown} "
        f"| {judged}; {flagged} of {len(runs)} | {', '.join(map(str, missed)) or '-'} |"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
