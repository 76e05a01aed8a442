"""Held-out by contract: nothing that steers or trains ever sees the points that judge."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import constrainednn as cx
from constrainednn._gap import residuals
from constrainednn._gap.measure import gap_report
from constrainednn._gap.residual_vector import residual_vector, rows
from constrainednn._gap.residuals import loss_at, term_size
from constrainednn._gap.streams import draw_streams, streams_of_all
from constrainednn.models.recipes import trainable_mask
from constrainednn.results.saving import report_dict


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def constraint(**changes):
    settings = {"over": cx.Normal(2), "points": 32} | changes
    return cx.Constraint(on_circle, **settings)


def streams_of(item, seed=0):
    return draw_streams(item, key=jax.random.key(seed), monitor=64, heldout=128)


def as_set(points):
    return {row.tobytes() for row in np.asarray(points)}


@pytest.mark.parametrize(
    "sampler",
    [cx.domains.Independent(), cx.domains.Sobol(), cx.domains.LatinHypercube()],
    ids=lambda s: type(s).__name__,
)
def test_heldout_points_are_never_train_or_monitor_points(sampler):
    points = streams_of(constraint(sampler=sampler, points=128))
    train, monitor, held = (
        as_set(part.points) for part in (points.train, points.monitor, points.heldout)
    )
    assert not held & train and not held & monitor and not train & monitor


def test_changing_one_stream_never_shifts_another():
    base = streams_of(constraint())
    more = streams_of(constraint(points=64))
    other = streams_of(constraint(sampler=cx.domains.Sobol()))
    renamed = streams_of(constraint(name="another"))
    for changed in (more, other):
        np.testing.assert_array_equal(base.heldout.points, changed.heldout.points)
        np.testing.assert_array_equal(base.monitor.points, changed.monitor.points)
    assert not as_set(base.train.points) & as_set(other.train.points)
    assert not as_set(base.heldout.points) & as_set(renamed.heldout.points)
    again = draw_streams(constraint(), key=jax.random.key(0), monitor=64, heldout=128, redraw=3)
    np.testing.assert_array_equal(base.heldout.points, again.heldout.points)
    assert not as_set(base.train.points) & as_set(again.train.points)


@pytest.mark.slow
def test_methods_compare_on_equal_points():
    problem = cx.Problem(constraint(), cx.MLP(2, 2, width=8))
    runs = [
        cx.solve(problem, method, steps=3, heldout=64, monitor=32)
        for method in (cx.LevenbergMarquardt(), cx.Optax(optax.adam(1e-3)))
    ]
    for name in ("train", "monitor", "heldout"):
        first, second = (getattr(run.streams[0], name).points for run in runs)
        np.testing.assert_array_equal(first, second)
    assert runs[0].history.monitor[0] == runs[1].history.monitor[0]  # same initial parameters


def test_a_model_that_memorises_its_points_shows_a_large_gap():
    points = streams_of(constraint()).train.points

    class Memory(eqx.Module):
        """On the circle at the remembered points, off it elsewhere."""

        known: jax.Array
        scale: jax.Array

        def __call__(self, x):
            hit = jnp.any(jnp.all(self.known == x[None], axis=1))
            return jnp.where(hit, 1.0, 3.0) * self.scale * jnp.array([1.0, 0.0])

    model = Memory(jnp.asarray(points), jnp.ones(()))
    problem = cx.Problem(constraint(), model, trainable=lambda u: u.scale)
    report = gap_report(problem, model, [streams_of(constraint())])
    assert report.train == 0.0
    assert report.difference.low == report.difference.high == 4.0  # (3 - 1)^2 at every fresh point


class FrozenSampler(cx.domains.AbstractSampler):
    """Broken on purpose: the same points whatever the key, those of the held-out stream."""

    cube: np.ndarray

    def fill(self, domain, n, *, key):
        return self.cube[:n], np.full(n, 1 / n)


def test_a_sampler_that_repeats_heldout_points_is_refused_a_gap():
    held = streams_of(constraint()).heldout.cube
    item = constraint(sampler=FrozenSampler(held))
    problem = cx.Problem(item, cx.MLP(2, 2, width=8))
    with pytest.raises(ValueError, match="held-out points are training points"):
        cx.solve(problem, steps=1, heldout=128, monitor=64)


def test_data_rows_are_split_without_overlap_and_by_seed():
    x = np.linspace(0, 1, 50)
    item = cx.Constraint(lambda u, p: u(p[0]) - p[1], over=cx.Data((x, x**2)), name="fit")
    first, other = streams_of(item), streams_of(item, seed=1)
    train, held = first.train.points[0], first.heldout.points[0]
    assert first.monitor is None
    assert len(held) == 10 and len(train) == 40
    assert sorted([*train, *held]) == sorted(x)
    assert set(held) != set(other.heldout.points[0])


@pytest.mark.slow
def test_report_is_measured_at_the_saved_parameters(tmp_path):
    problem = cx.Problem(constraint(target=cx.Circle()), cx.MLP(2, 2, width=8))
    solution = cx.solve(
        problem, cx.Optax(optax.adam(1e-2)), steps=40, redraw=15, heldout=200, monitor=50
    )
    solution.save(tmp_path / "run")
    loaded = cx.load_solution(tmp_path / "run", problem)
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    for known in (solution, loaded):
        assert report_dict(known, known.verdict)["gap"] == stored["gap"]
    assert loaded.gap.train != loaded.gap.heldout.value


@pytest.mark.slow
def test_history_ends_with_the_reported_loss():
    problem = cx.Problem(constraint(), cx.MLP(2, 2, width=8))
    solution = cx.solve(problem, steps=5, heldout=64, monitor=32)
    assert solution.history.loss[-1] == solution.gap.loss
    assert len(solution.history.loss) == solution.steps + 1
    model, item, points = solution.model, problem.constraints[0], solution.streams[0].train
    params, static = eqx.partition(model, trainable_mask(model, None))
    residual = residual_vector([item], static, rows([item], [points]))
    # What a method minimises and what is reported: two compiled functions, 32 squares summed in
    # another order.
    loss = eqx.filter_jit(lambda params: jnp.sum(residual(params) ** 2))
    np.testing.assert_allclose(loss(params), solution.gap.loss, rtol=1e-13)
    start = eqx.filter(problem.build_model(key=jax.random.key(0)), trainable_mask(model, None))
    np.testing.assert_allclose(loss(start), solution.history.loss[0], rtol=1e-13)


@pytest.mark.slow
def test_nan_on_heldout_points_alone_changes_nothing_but_the_judgement():
    def stated(places):
        known = jnp.asarray(places)

        def residual(u, x):
            hit = jnp.any(jnp.all(known == x[None], axis=1))
            return jnp.where(hit, jnp.nan, on_circle(u, x))

        item = cx.Constraint(residual, over=cx.Normal(2), points=32)
        return cx.Problem(item, cx.MLP(2, 2, width=8))

    settings = {"steps": 12, "redraw": 5, "heldout": 64, "monitor": 32}
    (item,) = stated(np.zeros((64, 2))).constraints
    heldout = draw_streams(item, key=jax.random.key(0), monitor=32, heldout=64).heldout.points
    plain, broken = (
        cx.solve(stated(places), **settings) for places in (np.full((64, 2), 99.0), heldout)
    )
    assert np.isnan(broken.gap.heldout.value) and np.isfinite(plain.gap.heldout.value)
    assert (plain.status, plain.reason) == (broken.status, broken.reason)
    assert plain.history.redraws == broken.history.redraws
    for kind in ("loss", "monitor_steps", "monitor", "best_step"):
        pair = (getattr(run.history, kind) for run in (plain, broken))
        np.testing.assert_array_equal(*pair)
    leaves = (jax.tree.leaves(eqx.filter(run.model, eqx.is_array)) for run in (plain, broken))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_reference_of_another_shape_is_refused_before_training():
    def line(u, t):
        return u(t)[0] - 2 * t

    def stated(reference):
        item = cx.Constraint(line, over=cx.Interval(0, 1), points=8)
        return cx.Problem(item, cx.Linear("scalar", 1), reference=reference)

    def never(seen):
        assert seen.phase == "compiling"

    wrong = {
        r"reference: its value at a point has shape \(\), the model's \(1,\)": lambda t: 2 * t,
        r"reference: shapes do not fit.*test_leakage": lambda t: jnp.ones((2, 2)) @ jnp.ones(3),
        r"reference must take one point, but it takes \(\)": lambda: 0.0,
    }
    for words, reference in wrong.items():
        with pytest.raises(cx.errors.UsageError, match=words):
            cx.solve(stated(reference), progress=never)
        (finding,) = cx.check(stated(reference))
        assert finding.error.startswith("reference")
    right = stated(lambda t: 3 * t[None])  # it knows 3 t where the solution is 2 t
    gap = cx.solve(right, steps=20, heldout=64, monitor=8).gap.constraints[0]
    assert gap.error == pytest.approx(1 / 3, rel=1e-12)
    zero = stated(lambda t: jnp.zeros(1))
    gap = cx.solve(zero, steps=0, heldout=64, monitor=8).gap.constraints[0]
    assert gap.error is None and gap.absolute_error > 0


def test_pieces_refuse_a_reference_of_another_shape():
    problem = cx.ivp(
        lambda t, y, args: -y, jnp.ones(2), (0.0, 1.0), reference=lambda t: jnp.exp(-t)
    )
    with pytest.raises(cx.errors.ProblemError, match="reference: its value at a point has shape"):
        cx.solve(problem)


@pytest.mark.slow
def test_monitor_loss_compares_with_the_training_loss():
    x = np.linspace(0, 1, 20)

    def fit(u, point):
        return u(point[0]) - point[1]

    def level(u, t):
        return u(t) - 3.0

    data = cx.Constraint(fit, over=cx.Data((x, x**2)))
    origin = cx.Constraint(level, over=cx.Points([0]), weight=100.0)
    inside = cx.Constraint(level, over=cx.Interval(0, 1), points=8, name="inside")
    model = cx.Linear("scalar", "scalar")
    nobody = cx.solve(cx.Problem([data, origin], model), steps=2)
    assert np.isnan(nobody.history.monitor).all()  # and not zero
    run = cx.solve(cx.Problem([data, origin, inside], model), steps=2, heldout=16, monitor=4096)
    # Both are the weighted sum over all constraints, at the same parameters; only one is sampled.
    sampled = run.gap["inside"].heldout
    rest = run.gap.loss - run.gap["inside"].train
    watched = run.history.monitor[-1] - rest
    assert abs(watched - sampled.value) < 4 * np.hypot(sampled.error, sampled.error / 16)


@pytest.mark.slow
def test_last_entries_of_the_history_belong_to_what_is_returned():
    problem = cx.Problem(constraint(), cx.MLP(2, 2, width=8))
    solution = cx.solve(problem, cx.Optax(optax.adam(0.3)), steps=60, heldout=64, monitor=32)
    history, points = solution.history, solution.streams[0]
    assert history.best_step == int(np.argmin(history.loss[:-1])) < solution.steps
    assert history.loss[-1] == pytest.approx(history.loss[history.best_step], rel=1e-12)
    assert history.monitor_steps[-1] == history.snapshots[-1][0] == solution.steps
    returned = loss_at(problem.constraints[0], solution.model, points.monitor)
    assert history.monitor[-1] == returned
    assert loss_at(problem.constraints[0], history.snapshots[-1][1], points.train) == pytest.approx(
        history.loss[-1], rel=1e-12
    )
    assert f"the best is step {history.best_step}" in repr(solution)


@pytest.mark.slow
def test_every_step_is_watched_once():
    problem = cx.Problem(constraint(), cx.MLP(2, 2, width=8))
    for tolerance in (0.1, 1e-3, 1e-8):
        history = cx.solve(problem, tolerance=tolerance, heldout=16, monitor=16).history
        assert (np.diff(history.monitor_steps) > 0).all()
        assert (np.diff([step for step, _ in history.snapshots]) > 0).all()


@pytest.mark.slow
def test_evaluate_takes_a_measure_and_no_finite_set(solved, as_released):
    with pytest.raises(TypeError, match=r"over must be a domain.*Points\(1 given\)"):
        solved("unit_circle").evaluate(over=cx.Points(np.zeros((1, 2))))


def misfit(u, row):
    return u(row[0]) - row[1]


def over_rows(name, x, y, **settings):
    return cx.Constraint(misfit, over=cx.Data((x, y), **settings), name=name)


@pytest.mark.parametrize("order", ["without the last", "shuffled", "with more", "repeated"])
def test_rows_held_out_by_one_constraint_are_trained_on_by_none(order):
    x = np.linspace(0, 1, 40)
    if order == "repeated":
        x = np.repeat(x[::2], 2)
    generator = np.random.default_rng(0)
    y = generator.normal(size=40)
    pick = np.arange(39) if order != "shuffled" else generator.permutation(40)
    x2, y2 = x[pick], y[pick]
    if order == "with more":
        x2, y2 = np.append(x2, [2.0, 3.0]), np.append(y2, [0.0, 0.0])
    items = [over_rows("first", x, y), over_rows("second", x2, y2)]
    both = streams_of_all(items, key=jax.random.key(0))
    pairs = lambda draw: set(zip(*(a.tolist() for a in draw.points), strict=True))  # noqa: E731
    for one, other in (both, both[::-1]):
        assert not pairs(one.heldout) & pairs(other.train)
    # The first is split as if it were alone.
    alone = draw_streams(items[0], key=jax.random.key(0), monitor=1, heldout=1)
    np.testing.assert_array_equal(alone.heldout.points[0], both[0].heldout.points[0])


@pytest.mark.slow
def test_errors_over_shared_rows_add_in_the_total():
    x = np.linspace(0, 1, 200)
    y = np.random.default_rng(0).normal(size=200)
    problem = cx.Problem(
        [over_rows("first", x, y), over_rows("second", x[:-1], y[:-1])],
        cx.Linear("scalar", "scalar"),
    )
    report = cx.solve(problem, steps=3).gap
    parts = [gap.heldout.error for gap in report.constraints]
    assert report.heldout.error == pytest.approx(sum(parts), rel=1e-12)


def test_same_rows_under_other_shares_are_refused():
    x = np.linspace(0, 1, 40)
    items = [over_rows("first", x, x), over_rows("second", x[:-1], x[:-1], holdout=0.4)]
    with pytest.raises(
        cx.errors.ProblemError, match="'first' and 'second' are over the same rows, and"
    ):
        streams_of_all(items, key=jax.random.key(0))
    # Inputs alone give no observation away: an equation may be asked for at all of them.
    at_all = cx.Constraint(lambda u, x: u(x), over=cx.Data(x, holdout=0.0), name="equation")
    assert len(streams_of_all([items[0], at_all], key=jax.random.key(0))[1].train) == 40


def test_a_hole_is_found_where_degree_proves_there_is_one():
    class Radial(eqx.Module):
        """x / sqrt(|x|^2 + e): on the circle nearly everywhere, zero at the origin."""

        e: jax.Array

        def __call__(self, x):
            return x / jnp.sqrt(x @ x + self.e)

    item = constraint(target=cx.Circle(), points=16)
    model = Radial(jnp.asarray(1e-4))
    points = draw_streams(item, key=jax.random.key(0), monitor=8, heldout=512)
    gap = gap_report(cx.Problem(item, model), model, [points]).constraints[0]
    assert gap.image.degree == 1
    assert gap.heldout_quantiles["max"] < 0.5  # the draw alone does not see it
    assert gap.worst.residual > 0.99
    assert float(np.linalg.norm(gap.worst.point)) < 1e-3


@pytest.mark.slow
def test_worst_never_falls_below_the_sampled_maximum(solved):
    for name in ("unit_circle", "exponential_decay", "linear_regression"):
        gap = solved(name).gap.constraints[0]
        assert gap.worst.residual >= gap.heldout_quantiles["max"]


def test_terms_of_a_residual_are_those_that_its_sum_has():
    class Wave(eqx.Module):
        speed: jax.Array

        def __call__(self, x):
            return jnp.sin(self.speed * x[0] + x[1])

    points = np.random.default_rng(0).uniform(0, 40, (256, 2))
    slope = np.cos(2 * points[:, 0] + points[:, 1])

    def transport(u, x):
        along_t, along_x = jax.grad(u)(x)
        return along_t - 40 * along_x

    found = term_size(transport, Wave(jnp.asarray(2.0)), points)
    # The terms 2 cos and 40 cos, and their sum. Random signs: four standard errors are below 30 %.
    assert found == pytest.approx(np.sqrt(np.mean(slope**2) * (2**2 + 40**2 + 38**2)), rel=0.3)
    scaled = term_size(lambda u, x: 1e-20 * transport(u, x), Wave(jnp.asarray(2.0)), points)
    assert scaled == pytest.approx(1e-20 * found, rel=1e-6)


def test_residual_that_is_as_large_as_its_terms_is_no_solution():
    class Exponential(eqx.Module):
        rate: jax.Array

        def __call__(self, x):
            return jnp.exp(-self.rate * x)

    def decay(u, x):
        return jax.grad(u)(x) + u(x)

    item = cx.Constraint(decay, over=cx.Interval(0, 1), points=16)
    points = draw_streams(item, key=jax.random.key(0), monitor=8, heldout=512)
    right, wrong = (
        gap_report(cx.Problem(item, model), model, [points]).constraints[0].relative
        for model in (Exponential(jnp.asarray(1 + 1e-6)), Exponential(jnp.asarray(-1.0)))
    )
    assert right < 1e-5
    assert 0.3 < wrong <= 2


@pytest.mark.slow
def test_search_for_the_worst_point_is_bounded_and_says_so(monkeypatch):
    calls = []
    evaluate = residuals.residuals_at
    monkeypatch.setattr(residuals, "residuals_at", lambda *a: calls.append(1) or evaluate(*a))

    def ridge(u, x):  # along it each scale finds a little more
        along = jnp.exp(-1e10 * (x[1] - 0.5 - 0.3 * jnp.sin(20 * x[0])) ** 2)
        return 1 + u(x) + along * (1 + x[0] ** 2)

    narrow = cx.Constraint(ridge, over=cx.Box([0, 0], [1, 1]), points=8)

    def many(u, x):
        return u(x) - jnp.sin(jnp.sum(x**2))

    wide = cx.Constraint(many, over=cx.Box([0] * 101, [1] * 101), points=8)
    found = []
    for item, shape in ((narrow, 2), (wide, 101)):
        problem = cx.Problem(item, cx.Linear(shape, "scalar"))
        points = draw_streams(item, key=jax.random.key(0), monitor=8, heldout=256)
        model = problem.build_model(key=jax.random.key(0))
        gap = gap_report(problem, model, [points]).constraints[0]
        assert gap.worst.residual >= gap.heldout_quantiles["max"]
        found.append(gap.worst.ended)
    assert found[1] and len(calls) < 2 * 210


@pytest.mark.slow
def test_reference_that_is_zero_on_an_edge_has_an_absolute_error():
    class Off(eqx.Module):
        by: jax.Array

        def __call__(self, x):
            return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1]) + self.by

    def top(t):
        return jnp.stack([t, jnp.ones_like(t)])

    def value(u, x):
        return u(x)

    problem = cx.Problem(
        [
            cx.Constraint(value, over=cx.Box([0, 0], [1, 1]), points=8, name="inside"),
            cx.Constraint(value, over=cx.Interval(0, 1).map(top), points=8, name="edge"),
            # Points of an edge, which are no points of the model.
            cx.Constraint(lambda u, t: u(top(t)), over=cx.Interval(0, 1), points=8, name="lifted"),
        ],
        Off(jnp.asarray(1e-3)),
        reference=Off(jnp.asarray(0.0)),
    )
    solution = cx.solve(problem, steps=0, heldout=64, monitor=8)
    gap = solution.gap
    assert gap["inside"].error == pytest.approx(2e-3, rel=0.3)  # 1e-3 over an RMS of about 1/2
    assert gap["edge"].error is None and gap["edge"].absolute_error == pytest.approx(1e-3)
    assert gap["lifted"].error is None
    assert "edge: RMS error 0.001 against the reference, which is zero," in repr(solution)
    assert "a region of probability below 0.0469 may have been missed" in repr(solution)


@pytest.mark.slow
def test_total_adds_constraints_and_leaves_finite_sets_out_of_the_gap():
    """And a notebook's table has the rows of the terminal's."""
    problem = cx.Problem(
        [
            constraint(weight=2.0),
            constraint(name="again", weight=3.0),
            cx.Constraint(on_circle, over=cx.Points(np.zeros((1, 2))), name="origin"),
        ],
        cx.MLP(2, 2, width=8),
    )
    solution = cx.solve(problem, steps=2, heldout=64, monitor=32)
    report = solution.gap
    first, second = report.constraints
    np.testing.assert_allclose(report.train, first.train + second.train, rtol=1e-14)
    np.testing.assert_allclose(report.loss, report.train + report.finite[0].loss, rtol=1e-14)
    np.testing.assert_allclose(
        report.difference.value, first.difference.value + second.difference.value, rtol=1e-12
    )
    error = np.hypot(first.heldout.error, second.heldout.error)
    np.testing.assert_allclose(report.heldout.error, error, rtol=1e-12)
    assert [item.name for item in report.finite] == ["origin"]
    html = report._repr_html_()
    assert "<td>origin</td>" in html and "<td>total (loss)</td>" in html


@pytest.mark.slow
def test_extrapolation_is_named_and_judged_elsewhere(solved):
    solution = solved("unit_circle")
    far = solution.evaluate(over=cx.Normal(2).map(lambda z: 3 * z), heldout=512)
    assert "extrapolation" in far.note
    assert far.heldout.value > solution.gap["on_circle"].heldout.value
    assert dataclasses.asdict(far)["train"] == solution.gap["on_circle"].train


def poisson_on_the_square(*conditions):
    """u = sin(pi x) sin(pi y), zero on the edge of the unit square."""

    def poisson(u, x):
        known = jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])
        return cx.laplacian(u)(x) + 2 * jnp.pi**2 * known

    square = cx.Box([0, 0], [1, 1])
    problem = cx.Problem(
        [cx.Constraint(poisson, over=square, points=200), *conditions],
        model=cx.RandomFeatures(square, "scalar", width=60),
        reference=lambda x: jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1]),
    )
    return cx.solve(problem, heldout=256, monitor=16)


@pytest.mark.slow
def test_a_reference_that_is_zero_on_an_edge_gives_the_absolute_error():
    def edge(u, x):
        return u(x)

    over = cx.domains.BoxBoundary([0, 0], [1, 1])
    solution = poisson_on_the_square(cx.Constraint(edge, over=over, points=80))
    gap = solution.gap["edge"]
    # On the edge the residual is the error.
    assert gap.error is None
    assert gap.absolute_error == pytest.approx(gap.heldout_rms.value, rel=1e-6)
    assert "against the reference, which is zero, on the held-out points" in repr(solution)
    inside = solution.gap["poisson"]
    # The mean square of the known solution is 1/4.
    assert inside.absolute_error == pytest.approx(inside.error / 2, rel=0.2)


@pytest.mark.slow
def test_a_reference_is_not_compared_on_points_that_the_model_does_not_take():
    def bottom(u, s):
        return u(jnp.stack([s, 0.0 * s]))

    edge = cx.Constraint(bottom, over=cx.Interval(0, 1), points=40)
    solution = poisson_on_the_square(edge)
    gap = solution.gap["bottom"]
    assert gap.error is None and gap.absolute_error is None
    assert "bottom: the reference is not compared" in repr(solution)
    assert solution.gap["poisson"].error is not None


@pytest.mark.slow
def test_repeated_inputs_held_out_by_one_constraint_are_trained_on_by_none():
    """The second set lacks the first of two rows at the same place: which, nobody can tell."""
    x = np.repeat(np.arange(40.0), 2)
    y = np.arange(80.0)

    def misfit(u, row):
        return u(row[0]) - row[1]

    first, second = (
        cx.Constraint(misfit, over=cx.Data(rows, holdout=0.3), name=name)
        for name, rows in (("all", (x, y)), ("most", (x[1:], y[1:])))
    )
    problem = cx.Problem([first, second], cx.Linear("scalar", "scalar"))
    solution = cx.solve(problem, steps=1)
    one, other = solution.streams
    held = set(one.heldout.points[1].tolist()) | set(other.heldout.points[1].tolist())
    trained = set(one.train.points[1].tolist()) | set(other.train.points[1].tolist())
    assert held and trained and not held & trained


@pytest.mark.slow
def test_a_reference_of_whole_numbers_is_compared(as_released):
    def value(u, x):
        return u(x) - 1.0

    problem = cx.Problem(
        cx.Constraint(value, over=cx.Interval(0, 1), points=8),
        cx.Linear("scalar", "scalar"),
        reference=lambda x: 1,
    )
    assert cx.solve(problem, heldout=64, monitor=8).gap["value"].error < 1e-12
