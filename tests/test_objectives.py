"""Objectives under constraints: against closed forms of the minimum and of its multipliers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import constrainednn as cx
from constrainednn._solve.training.diagnosis import why_max_steps
from constrainednn.errors import BadTypeError, BadValueError, ProblemError, StoreError
from constrainednn.methods import AugmentedLagrangian
from constrainednn.methods.base import CONVERGED, STALLED
from constrainednn.studies.tables.rows import flat

OVER = cx.Box([-1, -1], [1, 1])
LBFGS = cx.Optax(optax.lbfgs())


def wanted(x):
    return jnp.stack([x[0], x[1], x[0] - x[1]])


def one(x, y):
    return jnp.sum(y) - 1.0


def total(u, x):
    return one(x, u(x))


def cost(u, x):
    """Negative where the distance is below one, so that its mean is no sum of squares."""
    return jnp.sum((u(x) - wanted(x)) ** 2) - 1.0


def nearest(x):
    y = wanted(x)
    return y - (jnp.sum(y) - 1.0) / 3


# Its mean over the square: |y - y*|^2 = (2 x_0 - 1)^2 / 3, of which E (2 x_0 - 1)^2 = 4 / 3 + 1.
LEAST = 7 / 9 - 1


def stated(model, **options):
    constraint = cx.Constraint(total, over=OVER, points=40, tolerance=1e-3)
    objective = cx.Objective(cost, over=OVER, points=40)
    return cx.Problem(constraint, model, objective=objective, **options)


AFFINE = cx.Linear(2, 3)
HARD = cx.with_projection(AFFINE, equalities=one)


@pytest.fixture(scope="module")
def hard():
    # A convex quadratic cost of a linear model: short steps down the gradient reach its minimum.
    method = cx.Optax(optax.sgd(0.3))
    return cx.solve(stated(HARD, reference=nearest), method, steps=400, heldout=400)


@pytest.mark.slow
def test_objective_under_a_projection_reaches_its_minimum(hard):
    least = hard.gap.objective
    # The model holds the solution, so what is left is rounding of the cost.
    assert abs(least.excess.value) < 1e-12 and least.largest < 1e-6
    assert least.heldout.low < LEAST < least.heldout.high
    assert least.optimum == pytest.approx(least.heldout.value, abs=1e-12)
    assert hard.gap["total"].worst.residual < 1e-14
    assert hard.gap.loss == pytest.approx(least.train, abs=1e-12) == hard.history.loss[-1]


def test_report_of_an_objective_says_mean_gap_and_excess(hard):
    least, text = hard.gap.objective, str(hard.gap)
    x = hard.streams[-1]
    values = [
        np.asarray(jax.vmap(lambda x: cost(hard.model, x))(s.points)) for s in (x.train, x.heldout)
    ]
    assert least.train == pytest.approx(values[0].mean(), abs=1e-13)
    assert least.heldout.value == pytest.approx(values[1].mean(), abs=1e-13)
    assert least.difference.value == least.heldout.value - least.train
    assert least.heldout.n == 400
    assert least.difference.error == least.heldout.error > 0
    assert "cost (mean)" in text and "above the reference's" in text
    assert hard.verdict.word == "no tolerance to meet" and "no solution" not in repr(hard)


@pytest.mark.slow
def test_objective_is_saved_loaded_and_told_from_another(hard, tmp_path):
    hard.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", stated(HARD, reference=nearest))
    assert again.gap.objective == hard.gap.objective and again.verdict.reason == hard.verdict.reason
    kept = json.loads((tmp_path / "run" / "report.json").read_text())["gap"]["objective"]
    assert kept["name"] == "cost" and kept["heldout"]["value"] == hard.gap.objective.heldout.value
    constraint = cx.Constraint(total, over=OVER, points=40, tolerance=1e-3)
    with pytest.raises(StoreError, match=r"objective was .* in the file and is None"):
        cx.load_solution(tmp_path / "run", cx.Problem(constraint, HARD))


@pytest.mark.slow
def test_default_method_of_an_objective_reaches_its_minimum():
    found = cx.solve(stated(HARD, reference=nearest), steps=30, heldout=400)
    assert abs(found.gap.objective.excess.value) < 1e-12
    assert found.settings.method.startswith("AugmentedLagrangian")


@pytest.mark.slow
def test_augmented_lagrangian_meets_constraints_that_weights_trade_away():
    problem = stated(AFFINE, reference=nearest)
    met = cx.solve(problem, AugmentedLagrangian(every=20), steps=300, heldout=400)
    # In the limit sum(y) = 1 at 40 points, which determine an affine map: everywhere.
    assert met.gap["total"].worst.residual < 1e-6
    assert abs(met.gap.objective.excess.value) < 1e-6
    assert met.verdict.word == "no tolerance to meet"
    traded = cx.solve(problem, LBFGS, steps=30, heldout=400)
    # At a weight of one, least |y - v|^2 + (sum(y) - 1)^2 has sum(y) - 1 = (sum(v) - 1) / 4.
    x = np.asarray(traded.streams[0].heldout.points)
    expected = np.sqrt(np.mean((2 * x[:, 0] - 1) ** 2)) / 4
    assert traded.gap["total"].heldout_rms.value == pytest.approx(expected, rel=0.05)
    assert traded.gap.objective.excess.value < -0.1
    assert traded.verdict.word == "not solved" and "held-out points" in traded.verdict.reason


def falls(u, x):
    return -jnp.sum(u(x) ** 2)


@pytest.mark.slow
def test_objective_without_a_minimum_is_called_unbounded():
    constraint = cx.Constraint(total, over=OVER, points=40)
    objective = cx.Objective(falls, over=OVER, points=40)
    found = cx.solve(cx.Problem(constraint, HARD, objective=objective), steps=200, heldout=50)
    assert found.status == "blow_up" and "unbounded below" in found.reason
    assert found.verdict.word == "not solved"


def pair(u, x):
    return u(x)[:2]


def fixed(u, x):
    return jnp.sum(x)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: cx.Objective(3.0, over=OVER), BadTypeError, "takes a function"),
        (lambda: cx.Objective(cost, over=cx.Points([[0.0, 0.0]])), BadTypeError, "population"),
        (lambda: cx.Objective(lambda x: x, over=OVER, name="a"), BadTypeError, r"fn\(u, x\)"),
        (
            lambda: cx.Objective(cost, over=OVER, sampler=cx.domains.Adaptive()),
            BadValueError,
            "nothing to go by",
        ),
        (lambda: cx.Objective(lambda u, x: 0.0, over=OVER), BadValueError, "objective's random"),
        (
            lambda: cx.Problem(
                cx.Constraint(total, over=OVER), HARD, objective=cx.Objective(total, over=OVER)
            ),
            BadValueError,
            "both named 'total'",
        ),
        (
            lambda: cx.Problem(cx.Constraint(total, over=OVER), HARD, objective=cost),
            BadTypeError,
            "must be a cx.Objective",
        ),
        (lambda: cx.solve(stated(HARD), cx.LevenbergMarquardt()), BadValueError, "sums of squares"),
        (lambda: cx.solve(stated(AFFINE), redraw=10), BadValueError, "multipliers are of those"),
        (lambda: cx.solve(stated(HARD), tolerance=1e-6), BadValueError, "is not known"),
        (lambda: AugmentedLagrangian(cx.LevenbergMarquardt()), BadTypeError, "inner method"),
        (lambda: AugmentedLagrangian(every=0), BadValueError, "every of"),
        (
            lambda: cx.solve(
                cx.Problem(cx.Constraint(total, over=OVER), HARD), AugmentedLagrangian()
            ),
            BadValueError,
            "with an objective",
        ),
    ],
)
def test_objective_that_cannot_be_right_is_refused_with_what_to_write(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong()


def test_trial_names_an_objective_of_several_numbers_or_of_none_of_the_parameters():
    constraint = cx.Constraint(total, over=OVER, points=40)
    several, none = (
        cx.Problem(constraint, HARD, objective=cx.Objective(fn, over=OVER, points=40))
        for fn in (pair, fixed)
    )
    with pytest.raises(ProblemError, match=r"objective 'pair' must be one number.*\(2,\)"):
        cx.solve(several, steps=1)
    assert "objective 'fixed' does not depend on" in cx.check(none)[-1].error


class Parabola(cx.methods.AbstractLagrangian):
    """Least |theta|^2 with theta_0 equal to all `values`; for one, 1, the multiplier is -2."""

    values: tuple[float, ...] = (1.0,)

    def parts(self, params):
        return jnp.vdot(params, params), params[0] - jnp.array(self.values)


def by_hand(method, residual, theta, steps):
    state, step = method.init(residual, theta), jax.jit(method.step)
    for _ in range(steps):
        theta, state, info = step(residual, theta, state)
        if info.verdict:
            break
    return theta, state, info


def test_augmented_lagrangian_finds_minimum_and_multiplier_and_says_so():
    method = AugmentedLagrangian(LBFGS, every=10)
    theta, state, info = by_hand(method, Parabola(), jnp.array([3.0, 3.0]), 1000)
    assert info.verdict == CONVERGED
    np.testing.assert_allclose(theta, [1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(state.multipliers, [-2.0], atol=1e-6)
    # The loss is the problem's, |theta|^2 + (theta_0 - 1)^2, and a violation that is rounding
    # has the penalty grow no more.
    np.testing.assert_allclose(info.loss, 1.0, atol=1e-6)
    assert state.penalty <= 16


@pytest.mark.slow
def test_constraints_that_contradict_each_other_stall_and_multipliers_stay_bounded():
    method, residual = AugmentedLagrangian(LBFGS, every=5), Parabola((1.0, 2.0))
    theta, state, info = by_hand(method, residual, jnp.array([3.0, 3.0]), 5000)
    assert info.verdict == STALLED
    np.testing.assert_allclose(theta, [1.5, 0.0], atol=1e-6)
    assert jnp.linalg.norm(state.multipliers) < 100
    clause, _ = method.explain(theta, state)
    assert "cannot meet the constraints" in clause


@pytest.mark.slow
def test_nonlinear_constraints_are_met_beside_the_least_cost():
    """The nearest points of an ellipse, from a circle around it."""

    def around(x):
        return 3 * jnp.stack([jnp.cos(x), jnp.sin(x)])

    def ellipse(u, x):
        y = u(x)
        return y[0] ** 2 / 4 + y[1] ** 2 - 1

    def distance(u, x):
        return jnp.sum((u(x) - around(x)) ** 2)

    def nearest_of_it(x):
        t = x  # Newton's method on the angle, by the closed form of the derivatives
        for _ in range(20):
            to = jnp.stack([2 * jnp.cos(t), jnp.sin(t)]) - around(x)
            slope = jnp.stack([-2 * jnp.sin(t), jnp.cos(t)])
            bend = -jnp.stack([2 * jnp.cos(t), jnp.sin(t)])
            t = t - to @ slope / (slope @ slope + to @ bend)
        return jnp.stack([2 * jnp.cos(t), jnp.sin(t)])

    over = cx.Interval(0.0, 3.0)
    even = {"points": 100, "sampler": cx.GaussQuadrature()}
    constraint = cx.Constraint(ellipse, over=over, **even)
    objective = cx.Objective(distance, over=over, **even)
    model = cx.MLP("scalar", 2, width=30)
    problem = cx.Problem(constraint, model, objective=objective, reference=nearest_of_it)
    found = cx.solve(problem, steps=2000, heldout=1000)
    assert found.gap["ellipse"].heldout_rms.value < 3e-3
    assert abs(found.gap.objective.excess.value) < 3e-3


def test_objective_of_derivatives_gets_even_points_and_places_units():
    over = cx.Interval(0.0, 9.0)

    def energy(u, x):
        return cx.derivative(u)(x) ** 2

    def end(u, x):
        return u(x) - 1.0

    constraint = cx.Constraint(end, over=cx.Points(jnp.array([0.0])))
    objective = cx.Objective(energy, over=over, points=30)
    problem = cx.Problem(constraint, cx.MLP("scalar", "scalar", width=8), objective=objective)
    assert isinstance(problem.objective.stated.sampler, cx.GaussQuadrature)
    first = problem.build_model(key=jax.random.key(0)).layers[0]
    centres = -first.bias / first.weight[:, 0]
    # A little beyond both ends.
    assert centres.min() < 0.5 and 8.5 < centres.max() < 11


def test_gap_of_the_excess_is_without_the_luck_of_the_draw(hard):
    """The reference has the same luck: what is left is that of the model."""
    least = hard.gap.objective
    assert abs(least.train_excess) < 1e-12 and abs(least.excess_gap.value) < 1e-12
    assert abs(least.difference.value) > 1e-3
    assert "cost (excess)" in str(hard.gap) and "not trained on" in str(hard.gap)


@pytest.mark.slow
def test_reason_of_a_run_that_falls_and_falls_says_so():
    problem = stated(HARD)
    falling = why_max_steps(problem, -np.exp(0.2 * np.arange(60.0)), [], 60)
    assert "may be unbounded below" in falling
    levelled = why_max_steps(problem, -200 + 300 * np.exp(-np.arange(60.0)), [], 60)
    assert levelled == "the limit of 60 steps is reached"


@pytest.mark.slow
def test_study_of_an_objective_has_its_columns():
    def affine(points: int = 20):
        constraint = cx.Constraint(total, over=OVER, points=points)
        objective = cx.Objective(cost, over=OVER, points=points)
        return cx.Problem(constraint, HARD, objective=objective, reference=nearest)

    method = {"gd": cx.Optax(optax.sgd(0.3))}
    vary = {"points": [20, 40], "method": method}
    found = cx.study(affine, vary=vary, seeds=2, steps=40, heldout=100, engine="loop")
    for row in map(flat, found.rows):
        assert row["objective_gap"] == pytest.approx(row["objective"] - row["loss"], abs=1e-10)
        assert 0 < row["excess"] < 1 and row["train_excess"] < row["excess"]
    assert len(found.rows) == 4


@pytest.mark.slow
def test_name_of_the_method_says_what_its_rounds_take():
    assert repr(AugmentedLagrangian(every=7)).startswith(
        "AugmentedLagrangian(Optax(scale_by_lbfgs("
    )
    assert repr(AugmentedLagrangian(every=7)).endswith("every=7)")
