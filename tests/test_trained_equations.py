"""`ivp` and `bvp` with a model that is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx

STATE = jnp.array([1.0, 0.0])
SPAN = (0.0, 4.0)
NETWORK = cx.MLP("scalar", 2, width=16)


def swing(t, y, omega):
    return jnp.stack([y[1], -(omega**2) * y[0]])


def exact(t):
    return jnp.stack([jnp.cos(t), -jnp.sin(t)])


def stated(model=NETWORK, span=SPAN, **settings):
    return cx.ivp(swing, STATE, span, args=1.0, model=model, reference=exact, **settings)


@pytest.fixture(scope="module")
def one():
    return cx.solve(stated(), steps=60, heldout=500)


@pytest.fixture(scope="module")
def several():
    return cx.solve(stated(windows=3), steps=60, heldout=500)


def errors_of(solution, t=None):
    t = np.linspace(*SPAN, 401) if t is None else t
    return np.asarray(solution(t) - jax.vmap(exact)(t))


@pytest.mark.slow
def test_the_start_holds_whatever_is_trained(several):
    np.testing.assert_array_equal(several(0.0), STATE)


@pytest.mark.slow
def test_the_error_estimate_is_the_error(one, several):
    for solution in (one, several):
        found = errors_of(solution)
        relative = np.linalg.norm(found, axis=0) / np.sqrt(200)
        estimate = solution.error_estimate()
        assert estimate.label == "estimate"
        np.testing.assert_allclose(estimate.relative_size, relative, rtol=0.3)
        at = errors_of(solution, estimate.t)
        np.testing.assert_allclose(-estimate.estimate, at, atol=0.1 * np.abs(at).max())
        assert f"{estimate.relative:.1e}" in solution.verdict.reason


@pytest.mark.slow
def test_the_comparison_is_with_the_same_function(one):
    found = one.compare()
    assert found.solver.startswith("DOP853")
    worst = np.abs(errors_of(one)).max()
    assert worst / 3 < found.difference < 3 * worst


@pytest.mark.slow
def test_nothing_is_said_beyond_the_span(several):
    with pytest.raises(ValueError, match=r"the solution is known from 0 to 4, got 4\.1"):
        several(4.1)


@pytest.mark.slow
def test_windows_start_where_the_one_before_ends(several):
    edges, states = several.model.start.value
    np.testing.assert_allclose(edges, np.linspace(*SPAN, 4))
    below = np.nextafter(np.asarray(edges[1:-1]), 0)
    np.testing.assert_allclose(several(below), states[1:, 0], atol=1e-14)


@pytest.mark.slow
def test_windows_are_trained_on_their_own_points(several):
    points = several.streams[0].train
    each = stated().constraints[0].points
    per_window = np.histogram(points.points, np.linspace(*SPAN, 4))[0]
    assert per_window.tolist() == [each] * 3
    assert points.weights.sum() == pytest.approx(1)
    # Gauss's rule in each window: exact for the mean of a cubic.
    assert points.weights @ points.points**3 == pytest.approx(SPAN[1] ** 3 / 4)
    assert len(several.history.loss) == several.steps + 1
    assert several.gap["swing"].train_rms == pytest.approx(
        np.sqrt(points.weights @ (residuals(several, points.points) ** 2).mean(axis=1))
    )


def residuals(solution, t):
    y = np.asarray(solution(t))
    return np.asarray(solution.derivative(t)) - np.stack([y[:, 1], -y[:, 0]], axis=1)


@pytest.mark.slow
def test_more_windows_leave_a_smaller_error(one, several):
    assert np.abs(errors_of(several)).max() < 0.2 * np.abs(errors_of(one)).max()


@pytest.mark.slow
def test_a_run_is_loaded_as_it_was(several, tmp_path):
    several.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", stated(windows=3))
    t = np.linspace(*SPAN, 7)
    np.testing.assert_array_equal(again(t), several(t))
    assert again.gap == several.gap


@pytest.mark.slow
def test_the_method_of_a_user_does_what_it_says():
    found = cx.solve(stated(), cx.LevenbergMarquardt(), steps=3, heldout=50)
    assert found.settings.method.startswith("LevenbergMarquardt()") and found.steps == 3
    default = cx.solve(stated(), steps=8, heldout=50)
    assert default.settings.method.count("LevenbergMarquardt") == 3


@pytest.mark.slow
def test_order_two_backwards_and_of_named_parts():
    def pull(t, y, args):
        return {"a": -y[0]["a"]}

    problem = cx.ivp(
        pull,
        ({"a": jnp.array(1.0)}, {"a": jnp.array(0.0)}),
        (3.0, 0.0),
        order=2,
        model=cx.MLP("scalar", 1, width=12),
        windows=2,
    )
    found = cx.solve(problem, steps=60, heldout=100)
    t = np.linspace(0, 3, 31)
    np.testing.assert_allclose(found(t)["a"], np.cos(t - 3), atol=1e-5)
    assert found(3.0)["a"] == 1.0 and found.error_estimate().relative < 1e-5


def ends(left, right, p):
    return jnp.stack([left[0], right[0], left[1] - 1])


def mode(x, y, p):
    return jnp.stack([y[1], -(p[0] ** 2) * y[0]])


@pytest.mark.slow
def test_a_boundary_value_problem_with_an_unknown_parameter():
    def parabola(x):
        return jnp.stack([x * (1 - x), 1 - 2 * x])

    problem = cx.bvp(mode, ends, (0.0, 1.0), parabola, p=[3.0], model=NETWORK)
    found = cx.solve(problem, steps=100, heldout=200)
    size = abs(float(found.model.parameters[0]) - np.pi)
    left, right = found(np.array([0.0, 1.0]))
    assert size < 1e-7 and np.abs(ends(left, right, None)).max() < 1e-7
    estimate = found.error_estimate()
    np.testing.assert_allclose(-estimate.parameters, found.model.parameters - np.pi, rtol=0.5)
    assert found.compare().solver.startswith("solve_bvp")


REFUSED = [
    ({"mass": [1.0, 0.0]}, ValueError, "mass= needs the windows of polynomials"),
    ({"breaks": (1.0,)}, ValueError, "breaks="),
    ({"data": cx.Data((np.ones(4), np.ones((4, 2))))}, ValueError, "data="),
    ({"model": None, "points": 9}, ValueError, "points= is for a model that is trained"),
    ({"model": None, "windows": 2}, ValueError, "windows= is for a model that is trained"),
    ({"windows": 0}, ValueError, "windows of ivp"),
    ({"points": 0}, ValueError, "points"),
    ({"model": cx.MLP("scalar", 3)}, TypeError, "returns 3 numbers, and the equation has 2"),
    (
        {"model": cx.RandomFeatures(cx.Interval(0, 5), 2)},
        ValueError,
        r"spread over Interval\(low=0.0, high=5.0\), and is called with scaled time from -1 to 1, "
        "which stands for 0 to 4",
    ),
    ({"model": cx.MLP("scalar", 2, over=cx.Normal(1))}, ValueError, "is spread over Normal"),
    ({"model": cx.MLP(1, 2)}, TypeError, "must take a number of shape"),
    ({"model": NETWORK(key=jax.random.key(0))}, TypeError, "must be a recipe"),
]


@pytest.mark.parametrize(("settings", "kind", "words"), REFUSED)
def test_what_a_trained_equation_cannot_be_is_refused(settings, kind, words):
    with pytest.raises(kind, match=words):
        problem = stated(**settings)
        problem.build_model(key=jax.random.key(0))


@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]])
def test_features_over_the_span_are_those_over_scaled_time(span):
    both = [cx.RandomFeatures(cx.Interval(*over), 2) for over in (SPAN, (-1.0, 1.0))]
    built = [stated(model, span).build_model(key=jax.random.key(3)) for model in both]
    assert all(map(np.array_equal, *map(jax.tree.leaves, built)))


def test_a_stiff_equation_is_refused():
    def stiff(t, y, args):
        return -1e5 * (y - jnp.cos(t))

    with pytest.raises(ValueError, match=r"stiff: at the start something decays in 1.0e-05"):
        cx.ivp(stiff, 1.0, (0.0, 1.0), model=cx.MLP("scalar", 1))


@pytest.mark.slow
def test_an_interrupted_march_keeps_what_was_trained():
    found = cx.solve(stated(windows=3), steps=100_000, time_limit=1e-3, heldout=50)
    assert found.status == "time_limit" and found.reason.startswith("window 1 of 3")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"model": "features"}, {"model": "mlp"}])
def test_the_gallery_is_solved_by_trained_models(settings):
    exact = cx.solve(cx.load_problem("van_der_pol"))
    found = cx.solve(cx.load_problem("van_der_pol", **settings), steps=120)
    t = np.linspace(0, 10, 500)
    size = np.linalg.norm(found(t) - exact(t)) / np.linalg.norm(exact(t))
    assert size < 1e-9 and size / 3 < found.error_estimate().relative < 3 * size
    bratu = cx.solve(cx.load_problem("bratu", **settings), steps=200)
    assert bratu.gap["equation"].error < 1e-9


@pytest.mark.slow
def test_a_study_of_points_is_one_command(tmp_path):
    vary = {"model": ["mlp"], "width": [10], "windows": [2], "points": [30, 60]}
    study = cx.study("van_der_pol", vary=vary, seeds=2, steps=20, out=tmp_path / "study", workers=1)
    rows = study.table()
    assert [row["points"] for row in rows] == [30, 30, 60, 60]
    assert all(row["heldout_loss"] > 0 for row in rows)
