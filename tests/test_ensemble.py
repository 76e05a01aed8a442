"""Ensembles, folds, early stopping and other ways to close the gap."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import constrainednn as cx
from constrainednn._solve.training import trainer


def misfit(u, point):
    x, noise = point
    return u(x) - jnp.sin(3 * x) - 0.3 * noise


NOISY_ROWS = (cx.Interval(-1, 1) * cx.Normal(1)).map(lambda p: (p[0], p[1]))


def noisy(points=40, width=32):
    """Regression with noise 0.3 on a sine, from 40 rows: enough freedom to fit the noise."""
    return cx.Problem(
        cx.Constraint(misfit, over=NOISY_ROWS, points=points),
        cx.MLP("scalar", "scalar", width=width, over=cx.Interval(-1, 1)),
        reference=lambda x: jnp.sin(3 * x),
    )


SETTINGS = {"heldout": 1024, "monitor": 512}


@pytest.mark.slow
def test_early_stopping_returns_the_lowest_monitor_loss_and_ends_the_run():
    method = cx.Optax(optax.adam(2e-2))
    whole = cx.solve(noisy(), method, steps=6000, **SETTINGS)
    early = cx.solve(noisy(), method, steps=6000, early_stopping=True, **SETTINGS)
    assert early.status == "early_stopped" and early.steps < whole.steps
    lowest = np.argmin(early.history.monitor[:-1])
    assert early.history.best_step == early.history.monitor_steps[lowest]
    assert early.history.monitor[-1] == early.history.monitor[lowest]
    assert early.steps >= 4 * early.history.best_step
    assert early.gap.heldout.value < whole.gap.heldout.value
    with pytest.raises(ValueError, match="this one is solved in pieces"):
        cx.solve(cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0)), early_stopping=True)


def row_misfit(u, row):
    return u(row[0]) - row[1]


def from_rows(**shares):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 50)
    over = cx.Data((x, np.sin(3 * x) + 0.3 * rng.normal(size=50)), **shares)
    model = cx.MLP("scalar", "scalar", width=16, over=cx.Interval(-1, 1))
    return cx.Problem(cx.Constraint(row_misfit, over=over), model)


@pytest.mark.slow
def test_rows_that_steer_are_neither_trained_on_nor_judged_by():
    method = cx.Optax(optax.adam(2e-2))
    with pytest.raises(ValueError, match=r"Set some rows apart: cx.Data\(rows, monitor=0\.2\)"):
        cx.solve(from_rows(), method, steps=3, early_stopping=True)
    early = cx.solve(from_rows(monitor=0.2), method, steps=3000, early_stopping=True)
    assert early.status == "early_stopped" and early.history.best_step < early.steps
    (points,) = early.streams
    parts = [
        set(draw.points[0].tolist()) for draw in (points.train, points.monitor, points.heldout)
    ]
    assert [len(part) for part in parts] == [30, 10, 10] and len(set.union(*parts)) == 50
    # The same rows judge, whatever share steers.
    (plain,) = cx.solve(from_rows(), method, steps=1).streams
    assert set(plain.heldout.points[0].tolist()) == parts[2] and plain.monitor is None
    x, y = points.monitor.points
    loss = np.mean((np.asarray(jax.vmap(early.model)(x)) - y) ** 2)
    assert early.history.monitor[-1] == pytest.approx(loss, rel=1e-12)
    with pytest.raises(ValueError, match="leaves 0 rows for training, 45 to monitor and 10 held"):
        from_rows(monitor=0.9)
    assert repr(from_rows(monitor=0.1, fold=(1, 5)).constraints[0].over) == (
        "Data(50 rows, fold=(1, 5), monitor=0.1)"
    )


@pytest.mark.slow
def test_no_member_trains_on_the_rows_that_judge_the_mean():
    problem = from_rows()
    found = cx.ensemble(problem, cx.Optax(optax.adam(1e-2)), seeds=[3, 1, 2], steps=2)
    held = [set(member.streams[0].heldout.points[0].tolist()) for member in found.members]
    fitted = [set(member.streams[0].train.points[0].tolist()) for member in found.members]
    assert held[0] == held[1] == held[2] and not set.union(*fitted) & held[0]
    assert set(cx.solve(problem, steps=1, seed=3).streams[0].heldout.points[0].tolist()) == held[0]
    firsts = [float(member.model.layers[0].weight[0, 0]) for member in found.members]
    assert len(set(firsts)) == 3


@pytest.mark.slow
def test_early_stopping_ends_at_the_same_step_on_a_slow_machine(monkeypatch):
    """Chunks end where the clock says; where a run ends must not."""
    method = cx.Optax(optax.adam(2e-2))
    settings = {"steps": 2000, "early_stopping": True, **SETTINGS}
    quick = cx.solve(noisy(), method, **settings)
    monkeypatch.setattr(trainer, "_LOOK_EVERY", 0.0)  # a step at a time
    slow = cx.solve(noisy(), method, **settings)
    assert (slow.steps, slow.status) == (quick.steps, "early_stopped") == (slow.steps, quick.status)
    assert slow.gap.heldout.value == quick.gap.heldout.value


@pytest.mark.slow
def test_train_points_of_an_early_stopped_run_are_those_it_trained_on(tmp_path):
    """Of the redraw before the chosen step, not the last one; loaded and resumed alike."""
    method, sampler = cx.Optax(optax.adam(2e-2)), cx.domains.Adaptive()
    problem = eqx.tree_at(lambda p: p.constraints[0].sampler, noisy(points=30), sampler)
    settings = {"early_stopping": True, "redraw": 50, **SETTINGS}
    found = cx.solve(problem, method, steps=900, **settings)
    best, redraws = found.history.best_step, found.history.redraws
    number = sum(step < best for step in redraws)
    assert found.history.last_draw == number and 0 < number < len(redraws)
    (points,) = found.streams
    exact = cx.solve(problem, method, steps=best, redraw=50, **SETTINGS)
    assert np.array_equal(points.train.cube, exact.streams[0].train.cube)
    cx.solve(problem, method, steps=200, out=tmp_path / "a", **settings)
    again = cx.resume(tmp_path / "a", problem, method, steps=900)
    assert again.gap.train == found.gap.train and again.history.last_draw == number
    assert cx.load_solution(tmp_path / "a", problem).gap.train == found.gap.train


@pytest.mark.slow
def test_constraints_over_the_same_rows_hold_out_the_same():
    data = from_rows().constraints[0].over

    def twice(u, row):
        return 2 * row_misfit(u, row)

    parts = [cx.Constraint(row_misfit, over=data), cx.Constraint(twice, over=data)]
    found = cx.solve(cx.Problem(parts, cx.Linear("scalar", "scalar")), steps=1)
    one, other = (item.heldout.points[0] for item in found.streams)
    assert np.array_equal(one, other)
    # Five times the loss of the first, so five times its error: the two are not independent.
    first, both = found.gap.constraints[0].heldout, found.gap.heldout
    assert both.error == pytest.approx(5 * first.error) and both.high == pytest.approx(
        5 * first.high
    )


def test_adaptive_points_without_redraws_are_refused():
    over = cx.Constraint(
        lambda u, x: u(x), over=cx.Normal(1), points=8, sampler=cx.domains.Adaptive(), name="r"
    )
    with pytest.raises(ValueError, match=r"chooses points at redraws, and there are none"):
        cx.solve(cx.Problem(over, cx.Linear(1, "scalar")), steps=1)


@pytest.mark.usefixtures("as_released")
def test_early_stopping_is_yes_or_no():
    with pytest.raises(TypeError, match="early_stopping must be True or False"):
        cx.solve(noisy(), early_stopping=1, **SETTINGS)


@pytest.mark.slow
def test_early_stopping_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path):
    method = cx.Optax(optax.adam(2e-2))
    whole = cx.solve(noisy(), method, steps=900, early_stopping=True, **SETTINGS)
    cx.solve(noisy(), method, steps=150, early_stopping=True, out=tmp_path / "a", **SETTINGS)
    again = cx.resume(tmp_path / "a", noisy(), method, steps=900)
    assert again.history.best_step == whole.history.best_step
    assert again.gap.heldout.value == whole.gap.heldout.value
    assert again.status == whole.status
    loaded = cx.load_solution(tmp_path / "a", noisy())
    assert loaded.gap.heldout.value == whole.gap.heldout.value


def test_ensemble_is_the_mean_of_its_members_and_spread_their_deviation():
    found = cx.ensemble(noisy(width=4), seeds=3, steps=3, **SETTINGS)
    x = jnp.linspace(-1, 1, 7)
    values = jnp.stack([member(x) for member in found.members])
    np.testing.assert_allclose(found(x), values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.spread(x), values.std(axis=0, ddof=1), rtol=1e-12)
    assert found.gap.constraints[0].points == 3 * 40
    calibration = found.calibration()
    assert calibration.spread == tuple(sorted(calibration.spread))
    assert calibration.plot().axes


@pytest.mark.slow
def test_ensemble_is_better_than_its_members_and_its_spread_tells_the_error():
    method = cx.Optax(optax.adam(2e-2))
    found = cx.ensemble(noisy(points=60), method, seeds=6, steps=600, **SETTINGS)
    alone = [member.gap.heldout.value for member in found.members]
    assert found.gap.heldout.value < np.mean(alone)  # Jensen, for a residual linear in u
    calibration = found.calibration()
    assert calibration.correlation > 0.2 and 0.3 < calibration.within_two <= 1


def test_an_ensemble_needs_two_seeds_that_matter():
    with pytest.raises(ValueError, match="two seeds or more"):
        cx.ensemble(noisy(), seeds=[1])
    with pytest.raises(ValueError, match="do not depend on a seed"):
        cx.ensemble(cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0)))


def rows_problem(x, y):
    def misfit(u, point):
        return u(point[0]) - point[1]

    return cx.Problem(cx.Constraint(misfit, over=cx.Data((x, y))), cx.Linear(3, "scalar"))


def test_folds_are_the_parts_and_agree_with_dense_algebra():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(31, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 + 0.4 * rng.normal(size=31)
    found = cx.cross_validate(rows_problem(x, y), folds=4, seed=5)
    held = [s.streams[0].heldout.points[1] for s in found.solutions]
    assert sorted(map(len, held)) == [7, 8, 8, 8]
    assert sorted(np.concatenate(held)) == sorted(y)  # each row once
    design = np.column_stack([x, np.ones(31)])
    losses = []
    for part in held:
        out = np.isin(y, part)
        beta = np.linalg.lstsq(design[~out], y[~out], rcond=None)[0]
        losses.append(np.mean((design[out] @ beta - y[out]) ** 2))
    np.testing.assert_allclose([s.gap.heldout.value for s in found.solutions], losses, rtol=1e-9)
    assert found.heldout.value == pytest.approx(np.mean(losses))
    assert found.heldout.error == pytest.approx(np.std(losses, ddof=1) * np.sqrt(1 / 4 + 1 / 3))
    with pytest.raises(ValueError, match=r"needs a constraint over cx\.Data"):
        cx.cross_validate(noisy())
    with pytest.raises(ValueError, match="at most as many parts as the 3 rows"):
        cx.cross_validate(rows_problem(x[:3], y[:3]), folds=4)


@pytest.mark.slow
def test_interval_over_folds_covers_what_it_says():
    """120 data sets: covered are at least 95 % of them, less four standard errors."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(120):
        x = rng.normal(size=(60, 3))
        y = x @ [1.0, -2.0, 0.5] + rng.normal(size=60)
        found = cx.cross_validate(rows_problem(x, y), folds=5)
        # p slopes and an intercept from 48 rows: gap.md, section 3
        expected = (1 + 1 / 48) * (1 + 3 / (48 - 3 - 2))
        inside += found.heldout.low <= expected <= found.heldout.high
    assert inside >= 120 * 0.95 - 4 * (120 * 0.95 * 0.05) ** 0.5


def test_gradient_enhanced_rows_are_the_derivatives():
    def on_circle(u, x):
        return jnp.linalg.norm(u(x)) - 1.0

    u = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, key=jax.random.key(0))
    x = jnp.array([0.3, -0.7])
    enhanced = cx.operators.gradient_enhanced(on_circle, weight=0.25)
    h = 1e-6
    slopes = [(on_circle(u, x + h * e) - on_circle(u, x - h * e)) / (2 * h) for e in jnp.eye(2)]
    expected = [on_circle(u, x), *(0.5 * slope for slope in slopes)]
    np.testing.assert_allclose(enhanced(u, x), expected, rtol=1e-8, atol=1e-9)
    assert enhanced.__name__ == "on_circle"  # so its points are those of the plain residual
    with pytest.raises(ValueError, match="weight of gradient_enhanced"):
        cx.operators.gradient_enhanced(on_circle, weight=0)


def peak(u, x):
    return u(x) - jnp.exp(-((x / 0.1) ** 2))


def peaked(points=64):
    model = cx.MLP("scalar", "scalar", width=8, over=cx.Interval(-1, 1))
    over = cx.Constraint(
        peak, over=cx.Interval(-1, 1), points=points, sampler=cx.domains.Adaptive()
    )
    return cx.Problem(over, model)


@pytest.mark.slow
def test_adaptive_points_go_where_the_residual_is_and_weigh_as_the_measure(tmp_path):
    settings = {"redraw": 40, "heldout": 256, "monitor": 64}
    method = cx.Optax(optax.adam(1e-2))
    found = cx.solve(peaked(points=4096), method, steps=45, **settings)
    train = found.streams[0].train
    x = train.points
    near = np.abs(x) < 0.1
    assert near.mean() > 0.2  # a tenth of the measure
    assert train.weights.sum() == pytest.approx(1)
    # |x| < 0.1 has measure 0.1, x^2 the mean 1/3: four Monte Carlo errors of 4,096 points
    assert float((train.weights * near).sum()) == pytest.approx(0.1, abs=0.02)
    assert float((train.weights * x**2).sum()) == pytest.approx(1 / 3, abs=0.03)
    # A run that goes on, and one that is loaded, have the points that were chosen.
    whole = cx.solve(peaked(), method, steps=90, **settings)
    cx.solve(peaked(), method, steps=60, out=tmp_path / "a", **settings)
    again = cx.resume(tmp_path / "a", peaked(), method, steps=90)
    assert again.history.redraws == whole.history.redraws == (40, 80)
    assert again.gap.train == whole.gap.train
    loaded = cx.load_solution(tmp_path / "a", peaked())
    assert loaded.gap.train == whole.gap.train
    beside = cx.study(
        peaked(), method=method, steps=90, seeds=2, engine="vmap", **settings
    ).table()[0]
    assert beside["train_loss"] == pytest.approx(whole.gap.train, rel=1e-3)
    with pytest.raises(ValueError, match=r"share of Adaptive must be in \(0, 1\)"):
        cx.domains.Adaptive(1.0)
