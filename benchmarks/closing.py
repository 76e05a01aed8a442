"""What closes the gap: studies of three problems, printed as one table each.

    python benchmarks/closing.py [circle] [regression] [ode]

`circle`: the unit circle with the `relu` recipe of the introductory lesson (one hidden layer of
1,024 relu units, unit normal weights, 100 points, gradient descent with rate 1e-3, 10,000 steps)
and one change at a time. `regression`: a sine with noise 0.3 at 40 points. `ode`: y' = -y as a
plain residual of a network, 20 points. Four seeds each; medians with quantiles of 10 and 90 %, and
the ratio of held-out losses to that of the first line, seed by seed.
"""

import os
import sys

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import constrainednn as cx
from constrainednn.studies.tables.rows import quantiles_of

SEEDS = 4


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def relu(width):
    """The recipe of the lesson, at any width."""

    def recipe(*, key):
        first, second = jax.random.split(key)
        net = eqx.nn.MLP(2, 2, width, 1, jax.nn.relu, key=key)
        weights = jax.random.normal(first, (width, 2)), jax.random.normal(second, (2, width))
        return eqx.tree_at(
            lambda u: [u.layers[0].weight, u.layers[0].bias, u.layers[1].weight, u.layers[1].bias],
            net,
            [weights[0], jnp.zeros(width), weights[1], jnp.zeros(2)],
        )

    return recipe


def circle(points=100, width=1024, enhanced=0.0, smooth=False, sampler=None):
    residual = cx.operators.gradient_enhanced(on_circle, enhanced) if enhanced else on_circle
    model = cx.MLP(2, 2, width=width) if smooth else relu(width)
    over = cx.Normal(2)
    return cx.Problem(cx.Constraint(residual, over=over, points=points, sampler=sampler), model)


def plain_loss(solution):
    """Held-out loss of |u| - 1 alone, whatever was trained on."""
    streams = solution.streams[0]
    values = np.asarray(jax.vmap(lambda x: on_circle(solution.model, x))(streams.heldout.points))
    return float(np.mean(values**2))


def regression(points=40, width=32):
    def misfit(u, point):
        x, noise = point
        return u(x) - jnp.sin(3 * x) - 0.3 * noise

    over = (cx.Interval(-1, 1) * cx.Normal(1)).map(lambda p: (p[0], p[1]))
    model = cx.MLP("scalar", "scalar", width=width, over=cx.Interval(-1, 1))
    return cx.Problem(
        cx.Constraint(misfit, over=over, points=points), model, reference=lambda x: jnp.sin(3 * x)
    )


def decay(points=20, width=32, enhanced=0.0, hard=False, sampler=None):
    def residual(u, t):
        return cx.derivative(u)(t) + u(t)

    def start(u, t):
        return u(t) - 1.0

    over = cx.Interval(0, 3)
    model = cx.MLP("scalar", "scalar", width=width, over=over)
    fn = cx.operators.gradient_enhanced(residual, enhanced) if enhanced else residual
    parts = [cx.Constraint(fn, over=over, points=points, sampler=sampler, name="equation")]
    if hard:
        model = cx.with_output(model, lambda t, y: 1.0 + t * y)
    else:
        parts.append(cx.Constraint(start, over=cx.Points(jnp.zeros(1)), name="start"))
    return cx.Problem(parts, model, reference=lambda t: jnp.exp(-t))


GD = cx.Optax(optax.sgd(1e-3))
ADAM = cx.Optax(optax.adam(1e-2))
CIRCLE = {
    "as in the lesson": (circle, {}, {}),
    "400 points": (circle, {"points": 400}, {}),
    "redrawn every 100 steps": (circle, {}, {"redraw": 100}),
    "redrawn where it is large": (circle, {"sampler": cx.domains.Adaptive()}, {"redraw": 100}),
    "early stopping": (circle, {}, {"early_stopping": True}),
    "weight decay 0.1": (
        circle,
        {},
        {"method": cx.Optax(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1e-3)))},
    ),
    "width 64": (circle, {"width": 64}, {}),
    "gradient-enhanced": (circle, {"enhanced": 0.1}, {}),
    "smooth, Levenberg-Marquardt": (
        circle,
        {"smooth": True, "width": 64},
        {"method": cx.LevenbergMarquardt(), "steps": 200},
    ),
    "smooth, LM, 400 points": (
        circle,
        {"smooth": True, "width": 64, "points": 400},
        {"method": cx.LevenbergMarquardt(), "steps": 200},
    ),
}
REGRESSION = {
    "Adam, 5,000 steps": (regression, {}, {}),
    "early stopping": (regression, {}, {"early_stopping": True}),
    "weight decay 0.01": (
        regression,
        {},
        {"method": cx.Optax(optax.chain(optax.add_decayed_weights(0.01), optax.adam(1e-2)))},
    ),
    "width 4": (regression, {"width": 4}, {}),
    "160 points": (regression, {"points": 160}, {}),
}
ODE = {
    "Adam, 20 points": (decay, {}, {}),
    "40 points": (decay, {"points": 40}, {}),
    "redrawn every 100 steps": (decay, {}, {"redraw": 100}),
    "redrawn where it is large": (decay, {"sampler": cx.domains.Adaptive()}, {"redraw": 100}),
    "gradient-enhanced": (decay, {"enhanced": 0.1}, {}),
    "start built in": (decay, {"hard": True}, {}),
    "Levenberg-Marquardt": (decay, {}, {"method": cx.LevenbergMarquardt(), "steps": 500}),
    "both": (decay, {"hard": True}, {"method": cx.LevenbergMarquardt(), "steps": 500}),
}


def run(variants, defaults, loss):
    """A line for each variant, and one for the ensemble of the first."""
    first = None
    print(
        "| variant | train | held-out | gap | held-out / first, same seed |\n|---|---|---|---|---|"
    )
    for name, (problem, keywords, arguments) in variants.items():
        rows, stated, settings = [], problem(**keywords), {**defaults, **arguments}
        for seed in range(SEEDS):
            solution = cx.solve(stated, seed=seed, **settings)
            rows.append((solution.gap.train, loss(solution), solution.gap.difference.value))
        values = np.array(rows).T
        first = values[1] if first is None else first
        cells = []
        for each in (values[0], values[1], values[1] / first):
            low, middle, high = quantiles_of(each)
            cells.append(f"{middle:.2g} [{low:.2g}, {high:.2g}]")
        gap = f"{quantiles_of(values[2])[1]:.2g}"
        print(f"| {name} | {cells[0]} | {cells[1]} | {gap} | {cells[2]} |", flush=True)
    problem, keywords, arguments = next(iter(variants.values()))
    found = cx.ensemble(problem(**keywords), seeds=SEEDS, **{**defaults, **arguments})
    g = found.gap
    print(f"| ensemble of {SEEDS} | {g.train:.2g} | {g.heldout.value:.2g} |", end="")
    print(f" {g.difference.value:.2g} | |\n", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["circle", "regression", "ode"]
    total = lambda solution: solution.gap.heldout.value  # noqa: E731
    if "circle" in wanted:
        run(CIRCLE, {"method": GD, "steps": 10_000}, plain_loss)
    if "regression" in wanted:
        run(REGRESSION, {"method": ADAM, "steps": 5_000}, total)
    if "ode" in wanted:
        run(ODE, {"method": ADAM, "steps": 5_000}, total)
