"""The gallery against closed forms: what each problem must give, from theory."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import constrainednn as cx
from constrainednn._gap.residual_vector import residual_vector, rows
from constrainednn._gap.residuals import loss_at
from constrainednn._gap.streams import draw_streams
from constrainednn._solve.problem_files import load_module, resolve
from constrainednn.models.recipes import trainable_mask

ALL = ["exponential_decay", "linear_regression", "rotation", "unit_circle", "unit_circle_exact"]


def only(solution):
    return solution.gap.constraints[0]


@pytest.mark.parametrize("name", ALL)
def test_gallery_problem_opens_with_what_it_is_and_names_itself(name):
    path, _ = resolve(name)
    first = load_module(path).__doc__.splitlines()[0]
    assert first.endswith((".", "!")) and len(first) < 100
    assert isinstance(cx.load_problem(name), cx.Problem)


def regression_matrix(solution):
    x, y = solution.streams[0].train.points
    return np.stack([x, np.ones_like(x)], axis=1), y


def test_gradient_descent_on_a_line_follows_its_closed_form(solved):
    # theta_k = theta* + (I - 2 lr X^T X / n)^k (theta_0 - theta*), theta_0 = 0.
    solution = solved("linear_regression", method="gd")
    X, y = regression_matrix(solution)
    best = np.linalg.lstsq(X, y, rcond=None)[0]
    contraction = np.linalg.matrix_power(np.eye(2) - 0.2 * X.T @ X / len(y), 100)
    expected = best - contraction @ best
    found = np.array([solution.model.slope, solution.model.intercept])
    assert solution.steps == 100
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_levenberg_marquardt_on_a_line_is_least_squares(solved):
    solution = solved("linear_regression")
    X, y = regression_matrix(solution)
    found = np.array([solution.model.slope, solution.model.intercept])
    np.testing.assert_allclose(found, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-12)
    assert solution.status == "converged"


def losses_over_seeds(problem, seeds, heldout):
    """Train and held-out loss of a least-squares fit for each seed, as `solve` would have them."""
    (constraint,), method = problem.constraints, cx.LevenbergMarquardt()
    params, static = eqx.partition(problem.model, trainable_mask(problem.model, None))
    draws = [
        draw_streams(constraint, key=jax.random.key(seed), monitor=1, heldout=heldout)
        for seed in range(seeds)
    ]

    def fit(blocks):
        residual = residual_vector(problem.constraints, static, blocks)
        state, theta = method.init(residual, params), params
        for _ in range(2):  # linear: the first step is exact, the second removes its rounding
            theta, state, _ = method.step(residual, theta, state)
        return theta

    blocks = [rows(problem.constraints, [points.train]) for points in draws]
    fitted = jax.jit(jax.vmap(fit))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks))
    models = [
        eqx.combine(jax.tree.map(lambda leaf: leaf[i], fitted), static)  # noqa: B023
        for i in range(seeds)
    ]
    return tuple(
        np.array(
            [
                loss_at(constraint, model, getattr(points, kind))
                for model, points in zip(models, draws, strict=True)
            ]
        )
        for kind in ("train", "heldout")
    )


def assert_mean(losses, expected, rounding=0.0):
    """The mean over seeds within four standard errors."""
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    assert abs(losses.mean() - expected) < 4 * error + rounding


@pytest.mark.slow
def test_regression_losses_over_many_seeds_are_those_of_theory():
    # With an intercept and one slope: train 1 - 2/n, fresh (1 + 1/n)(1 + 1/(n - 3)), n = 25.
    train, fresh = losses_over_seeds(cx.load_problem("linear_regression"), 300, heldout=256)
    assert_mean(train, 0.92)
    assert_mean(fresh, (1 + 1 / 25) * (1 + 1 / 22))


@pytest.mark.parametrize(
    ("n", "p"),
    [
        pytest.param(50, 5, marks=pytest.mark.slow),
        pytest.param(50, 25, marks=pytest.mark.slow),
        pytest.param(50, 40, marks=pytest.mark.slow),
        pytest.param(50, 100, marks=pytest.mark.slow),
    ],
)
def test_linear_least_squares_gap_is_that_of_theory(n, p):
    # Gaussian features without intercept, noise 1: train 1 - p/n, fresh 1 + p/(n-p-1). Past
    # interpolation the fit from zero has minimum norm: train 0, fresh 1 + n/(p-n-1) + |beta|^2
    # (1 - n/p). Levenberg-Marquardt scales columns by their norms, which are equal on average;
    # simulated with NumPy, that adds 0.0316 +- 0.0019 to the fresh loss.
    def measure(z):
        return z[:p], z[0] + z[p]  # beta is the first unit vector

    def misfit(u, point):
        x, y = point
        return u(x) - y

    model = eqx.nn.Linear(p, "scalar", use_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda u: u.weight, model, jnp.zeros((1, p)))
    item = cx.Constraint(misfit, over=cx.Normal(p + 1).map(measure), points=n)
    train, fresh = losses_over_seeds(cx.Problem(item, model), 200, heldout=256)
    assert_mean(train, max(0.0, 1 - p / n), rounding=1e-20)
    scaled = 1 + n / (p - n - 1) + (1 - n / p) + 0.0316 if p > n else 0.0
    assert_mean(fresh, 1 + p / (n - p - 1) if p < n else scaled)


def test_smooth_circle_trains_to_rounding_and_shows_its_gap(solved):
    solution = solved("unit_circle")
    gap = only(solution)
    assert solution.parameters == 322
    assert solution.status == "converged"
    assert gap.train_rms < 1e-12
    assert gap.heldout_rms.low > 1e-4  # a hundred points do not pin 322 parameters down
    assert gap.difference.low > 0
    assert not gap.at_rounding


@pytest.mark.slow
def test_linear_map_cannot_reach_the_circle(solved):
    # The best linear map is 0.6267 times a rotation: held-out loss 1 - pi/4.
    solution = solved("unit_circle", settings={"model": "linear", "points": 10_000})
    gap = only(solution)
    assert solution.status == "converged"
    assert abs(gap.heldout.value - (1 - np.pi / 4)) < 4 * gap.heldout.error
    singular = np.linalg.svd(np.asarray(solution.model.weight), compute_uv=False)
    # E|x| / E|x|^2 = sqrt(pi/2) / 2; at n points its standard error is about 0.3 / sqrt(n).
    np.testing.assert_allclose(singular, np.sqrt(np.pi / 2) / 2, atol=4 * 0.5 / np.sqrt(10_000))


@pytest.mark.slow
def test_rank_one_stationary_point_of_the_linear_map_is_worse(solved):
    # All entries equal: steps keep the rank, so the fit ends in the rank-one stationary point.
    best = solved("unit_circle", settings={"model": "linear", "points": 10_000})
    start = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0))
    start = eqx.tree_at(lambda u: u.weight, start, jnp.full((2, 2), 0.5))
    problem = cx.Problem(best.problem.constraints, start)
    solution = cx.solve(problem, cx.Optax(optax.sgd(0.1)), steps=300)
    gap = only(solution)
    assert abs(gap.heldout.value - (1 - 2 / np.pi)) < 4 * gap.heldout.error
    assert gap.heldout.low > only(best).heldout.high
    assert gap.image.spread[1] < 1e-6 < gap.image.spread[0]


@pytest.mark.slow
def test_relu_lesson_fits_its_points_and_not_fresh_ones():
    problem = cx.load_problem("unit_circle", model="relu")
    solution = cx.solve(problem, cx.Optax(optax.sgd(1e-3)), steps=2000)
    gap = only(solution)
    assert solution.parameters == 5122
    assert gap.train < 0.02 < gap.heldout.low
    assert gap.ratio > 3
    assert all(np.diff(solution.history.loss) < 0)  # a small rate descends at every step


def test_exact_circle_converges_before_the_first_step(solved):
    solution = solved("unit_circle_exact")
    gap = only(solution)
    assert (solution.status, solution.steps) == ("converged", 0)
    assert gap.at_rounding and gap.heldout_rms.value < 1e-15
    assert gap.worst.residual < 1e-14
    assert gap.image.collapsed is False and gap.image.rank == 1


@pytest.mark.slow
def test_rotation_rows_depend_on_each_other_at_a_solution(solved):
    solution = solved("rotation")
    gap = only(solution)
    assert solution.status == "converged" and gap.entries == 10
    assert gap.train_rms < 1e-12
    # Per point the residual has rank 6 at a rotation: A^T A - I is symmetric, det follows.
    residual = solution.problem.constraints[0].residual
    A = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    A = A * jnp.sign(jnp.linalg.det(A))
    J = jax.jacfwd(lambda a: residual(lambda _: a, None))(A).reshape(10, 9)
    assert np.linalg.matrix_rank(np.asarray(J), tol=1e-10) == 6
    assert gap.image.rank == 3 and gap.image.collapsed is False


@pytest.mark.slow
def test_constant_rotation_satisfies_everything_and_is_called_collapsed():
    problem = cx.load_problem("rotation", points=25)

    class Constant(eqx.Module):
        matrix: jax.Array

        def __call__(self, x):
            return self.matrix

    solution = cx.solve(cx.Problem(problem.constraints, Constant(1.1 * jnp.eye(3))))
    gap = only(solution)
    assert gap.heldout_rms.value < 1e-12  # zero loss and zero gap prove nothing here
    assert gap.image.rank == 0 and gap.image.collapsed is True


@pytest.mark.slow
@pytest.mark.parametrize("start", ["hard", "soft"])
def test_decay_matches_the_exponential(solved, start):
    solution = solved("exponential_decay", settings={"start": start})
    t = np.linspace(0.0, 5.0, 2000)
    error = np.asarray(jax.vmap(solution)(t)) - np.exp(-t)
    assert np.linalg.norm(error) / np.linalg.norm(np.exp(-t)) < 1e-10
    assert only(solution).error < 1e-10
    assert float(abs(solution(0.0) - 1)) < (1e-15 if start == "hard" else 1e-10)
    assert len(solution.gap.finite) == (0 if start == "hard" else 1)


@pytest.mark.slow
def test_frozen_features_stay_and_a_stage_may_train_them(solved):
    trained = solved("exponential_decay")
    problem, key = trained.problem, jax.random.key(0)
    start = problem.build_model(key=key).model
    same = lambda a, b: all(bool((x == y).all()) for x, y in zip(a, b, strict=True))  # noqa: E731
    assert same(start.inner.value, trained.model.model.inner.value)
    stage = cx.Stage(cx.Optax(optax.adam(1e-4)), steps=3, trainable=lambda u: u.model.inner)
    moved = cx.solve(problem, [stage]).model.model
    assert not same(start.inner.value, moved.inner.value)
    assert same([start.head_weight], [moved.head_weight])


@pytest.mark.slow
def test_redraws_train_on_the_last_draw_only():
    problem = cx.load_problem("unit_circle", points=32)
    solution = cx.solve(problem, cx.Optax(optax.adam(1e-2)), steps=25, redraw=10)
    assert solution.history.redraws == (10, 20)
    key = jax.random.key(0)
    last = draw_streams(problem.constraints[0], key=key, monitor=1, heldout=2, redraw=2)
    np.testing.assert_array_equal(solution.streams[0].train.points, last.train.points)
    residual = residual_vector(
        problem.constraints,
        eqx.partition(solution.model, trainable_mask(solution.model, None))[1],
        rows(problem.constraints, [last.train]),
    )
    r = residual(eqx.filter(solution.model, trainable_mask(solution.model, None)))
    np.testing.assert_allclose(float(r @ r), solution.gap.train, rtol=1e-12)


@pytest.mark.slow
def test_splitting_into_chunks_changes_no_bit(monkeypatch):
    from constrainednn._solve.training import trainer

    problem = cx.load_problem("unit_circle", points=16)
    whole = cx.solve(problem, cx.Optax(optax.adam(1e-2)), steps=50, monitor=64, heldout=64)
    monkeypatch.setattr(trainer, "_LOOK_EVERY", 0.0)  # one step between two looks
    split = cx.solve(problem, cx.Optax(optax.adam(1e-2)), steps=50, monitor=64, heldout=64)
    for a, b in zip(jax.tree.leaves(whole.model), jax.tree.leaves(split.model), strict=True):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(whole.history.loss, split.history.loss)
    assert dataclasses.asdict(whole.gap.heldout) == dataclasses.asdict(split.gap.heldout)


PROJECTED = {
    # What is enforced, and the least share of the target that is covered.
    "circle_projected": (["on_circle"], 0.95),
    "sphere_projected": (["on_sphere"], None),
    "torus": (["on_torus"], 0.9),
    "ellipse": (["on_ellipse"], 0.95),
    "pendulum_energy": (["keeps_energy"], 0.95),
    "doubly_stochastic": (["sum_to_one", "not_negative"], None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTED)
def test_projected_values_stay_on_their_set_wherever_a_search_goes(name):
    held, share = PROJECTED[name]
    solution = cx.solve(cx.load_problem(name), steps=20)
    for gap in map(solution.gap.__getitem__, held):
        assert gap.holds.kind == "to solver tolerance" and gap.holds.missed <= 1e-4
        assert gap.worst.residual < 1e-12
        assert share is None or (gap.image.coverage >= share and gap.image.collapsed is False)


@pytest.mark.slow
def test_quadratic_programme_is_feasible_everywhere_and_close_to_its_optimum():
    from scipy.optimize import minimize

    path, _ = resolve("quadratic_programme")
    module = load_module(path)
    A, C, root = module.A, module.C, module.ROOT
    solution = cx.solve(cx.load_problem("quadratic_programme"), steps=60, heldout=512)
    x = np.asarray(solution.streams[-1].heldout.points[:100])
    y = np.asarray(solution(x))
    assert np.abs(y @ A.T - x).max() < 1e-12 and np.abs(y).max() < 1 + 1e-12
    best = [
        minimize(
            lambda y: np.sum((root @ (y - C)) ** 2),
            np.zeros(4),
            jac=lambda y: 2 * root.T @ root @ (y - C),
            bounds=[(-1, 1)] * 4,
            constraints={"type": "eq", "fun": lambda y, x=x: A @ y - x, "jac": lambda y: A},
            tol=1e-12,
        ).fun
        for x in x
    ]
    costs = jax.vmap(lambda x: module.cost(module.optimum, x))(x)
    np.testing.assert_allclose(costs, best, rtol=0, atol=1e-8)
    least = solution.gap.objective
    assert 0 <= least.excess.value <= 0.01 * least.optimum
    assert solution.verdict.word == "no tolerance to meet"
