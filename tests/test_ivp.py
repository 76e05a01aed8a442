"""Initial value problems against closed forms, SciPy, published values and sums by hand."""

import dataclasses
import functools
import itertools
import logging
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from numpy.polynomial import legendre
from scipy.integrate import solve_ivp
from scipy.special import ellipj, ellipk

import constrainednn as cx
from constrainednn._solve.problem_files import load_module, resolve

# Every field is compiled once a session, so tests share fields: those of the gallery. Evaluating a
# solution is compiled for every number of times, so there is one number, in [0, 1].
N = 200
UNIT = np.linspace(0.0, 1.0, N)


@functools.cache
def gallery(name):
    return load_module(resolve(name)[0])


@functools.cache
def solved_with(name, **settings):
    solution = cx.solve(gallery(name).problem(**settings))
    assert solution.status == "converged"
    return solution


def relative_error(found, known):
    """The largest over components of the relative L2 error; times along the first axis."""
    return np.max(np.linalg.norm(found - known, axis=0) / np.linalg.norm(known, axis=0))


def classical(field, y0, t, method="DOP853", **settings):
    settings = {"rtol": 1e-13, "atol": 1e-15, **settings}
    found = solve_ivp(field, (t[0], t[-1]), y0, method=method, t_eval=t, **settings)
    assert found.success
    return found.y.T


def lotka_volterra(t, y):
    return [1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]]


def van_der_pol(mu):
    return lambda t, y: [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


def lorenz(sigma, rho):
    return lambda t, y: [
        sigma * (y[1] - y[0]),
        y[0] * (rho - y[2]) - y[1],
        y[0] * y[1] - 8 / 3 * y[2],
    ]


def robertson(t, y):
    slow, fast = 0.04 * y[0] - 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [-slow, slow - fast, fast]


# Accuracy -----------------------------------------------------------------------------------------

CLOSED_FORMS = [
    slow("harmonic_oscillator", {"form": "first"}),
    slow("harmonic_oscillator", {"form": "second"}),
    ("logistic", {}),
]


@pytest.mark.parametrize(("name", "settings"), CLOSED_FORMS)
def test_closed_forms_are_met_to_twelve_digits(name, settings):
    solution, t = solved_with(name, **settings), 10.0 * UNIT
    known = np.asarray(jax.vmap(solution.problem.reference)(t))
    assert relative_error(np.asarray(solution(t)), known) < 1e-12
    assert solution.gap.constraints[0].error < 1e-12


@pytest.mark.parametrize(("name", "settings"), CLOSED_FORMS)
def test_a_closed_form_makes_the_residual_vanish(name, settings):
    problem = gallery(name).problem(**settings)
    residual, reference = problem.constraints[0].residual, problem.reference
    t = np.random.default_rng(0).uniform(0.0, 10.0, N)
    r = jax.jit(jax.vmap(lambda t: residual(reference, t)))(t)
    assert (
        np.max(np.abs(r)) < 1e3 * np.finfo(float).eps
    )  # some hundred operations on numbers near 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "field", "y0", "bound"),
    [
        ("lotka_volterra", {}, lotka_volterra, (2.5, 1.25), 1e-11),
        slow("van_der_pol", {}, van_der_pol(1), (2.0, 0.0), 1e-11),
        slow("van_der_pol", {"mu": 10.0}, van_der_pol(10), (2.0, 0.0), 1e-11),
        slow("lorenz", {}, lorenz(10, 15), (-8.0, 7.0, 27.0), 1e-10),
        # Errors made on the way have grown by then, DOP853's as well.
        slow("lorenz", {"case": "long"}, lorenz(3, 28), (1.0, 1.0, 1.0), 1e-9),
    ],
)
def test_agrees_with_dop853(name, settings, field, y0, bound):
    solution = solved_with(name, **settings)
    t = solution.model.ends[-1] * UNIT
    assert relative_error(np.asarray(solution(t)), classical(field, y0, t)) < bound


@pytest.mark.slow
def test_robertson_agrees_with_radau_in_each_component():
    solution = solved_with("robertson")
    t = np.concatenate([[0.0], np.geomspace(1e-6, 1e5, N - 1)])
    # Radau to 1e-10 is itself right to 1e-11 here.
    known = classical(robertson, (1.0, 0, 0), t, "Radau", rtol=1e-10, atol=[1e-12, 1e-18, 1e-12])
    assert relative_error(np.asarray(solution(t)), known) < 1e-9


@pytest.mark.slow
def test_robertson_ends_on_published_values():
    # Hairer and Wanner's res_rober. At 1e11 production and loss of y[0] agree in nine digits,
    # so rounding in the field alone costs about that many of sixteen.
    published = (0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050)
    solution = solved_with("robertson", end=1e11)
    np.testing.assert_allclose(solution(1e11), published, rtol=1e-8)


@pytest.mark.slow
def test_stiff_van_der_pol_ends_on_published_values():
    # "vdpolm" of the Test Set for IVP Solvers (Bari), Radau in quadruple precision.
    solution = solved_with("van_der_pol", mu=1000.0)
    published = (0.1706167732170469e1, -0.8928097010248125e-3)
    np.testing.assert_allclose(solution(2000.0), published, rtol=1e-11)


@pytest.mark.slow
def test_stiff_van_der_pol_agrees_with_radau():
    solution = solved_with("van_der_pol", mu=1000.0)
    t = 2000.0 * UNIT
    jacobian = lambda t, y: [[0, 1], [-2000 * y[0] * y[1] - 1, 1000 * (1 - y[0] ** 2)]]  # noqa: E731
    known = classical(
        van_der_pol(1000), (2.0, 0.0), t, "Radau", rtol=1e-11, atol=1e-14, jac=jacobian
    )
    assert relative_error(np.asarray(solution(t)), known) < 1e-7


@pytest.mark.slow
def test_pendulum_keeps_energy_and_phase_for_a_long_time():
    solution = solved_with("pendulum", end=200.0)
    t = 200.0 * UNIT
    angle, velocity = np.asarray(solution(t)), np.asarray(solution.derivative(t))
    energy = gallery("pendulum").energy(angle, velocity)
    assert np.max(np.abs(energy + np.cos(1.0))) < 1e-12
    # sin(angle / 2) = k cd(t, k) with k = sin(1/2), e.g. DLMF 22.19.
    k = np.sin(0.5)
    _, cn, dn, _ = ellipj(t, k**2)
    assert ellipk(k**2) * 4 * 29 < 200  # thirty turns
    known = 2 * np.arcsin(k * cn / dn)
    assert np.max(np.abs(angle - known)) < 1e-11


@pytest.mark.slow
def test_backwards_in_time_returns_to_the_start():
    forth = solved_with("lotka_volterra")
    args = forth.problem.scheme.field.args
    back = cx.solve(
        cx.ivp(gallery("lotka_volterra").populations, forth(6.0), (6.0, 0.0), args=args)
    )
    assert back.status == "converged"
    np.testing.assert_allclose(back(0.0), [2.5, 1.25], rtol=1e-12)
    t = 6.0 * UNIT
    np.testing.assert_allclose(back(t), forth(t), rtol=1e-11)
    np.testing.assert_allclose(back.derivative(t), forth.derivative(t), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_second_order_form_equals_first_order_form():
    first = solved_with("harmonic_oscillator", form="first")
    second = solved_with("harmonic_oscillator", form="second")
    t = 10.0 * UNIT
    np.testing.assert_allclose(second(t), first(t)[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(second.derivative(t), first(t)[:, 1], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_state_may_be_any_pytree():
    def field(t, y, args):
        (predators,) = y["predators"]
        met = y["prey"] * predators
        return {"prey": 1.5 * y["prey"] - met[0, 0], "predators": (met - 3.0 * predators,)}

    y0 = {"prey": 2.5, "predators": (np.full((1, 2), 1.25),)}
    solution, t = cx.solve(cx.ivp(field, y0, (0.0, 6.0))), 6.0 * UNIT
    found, known = solution(t), solved_with("lotka_volterra")(t)
    assert found["prey"].shape == (N,) and found["predators"][0].shape == (N, 1, 2)
    np.testing.assert_allclose(found["prey"], known[:, 0], rtol=1e-11)
    for column in range(2):
        np.testing.assert_allclose(found["predators"][0][:, 0, column], known[:, 1], rtol=1e-11)


@pytest.mark.slow
def test_a_smaller_tolerance_costs_windows_and_buys_digits():
    problem = gallery("lotka_volterra").problem()
    t = 6.0 * UNIT
    known = np.asarray(solved_with("lotka_volterra")(t))
    runs = [cx.solve(problem, tolerance=tolerance) for tolerance in (1e-4, 1e-7, 1e-10)]
    counts = [run.model.count for run in runs]
    errors = [relative_error(np.asarray(run(t)), known) for run in runs]
    assert counts[0] < counts[1] < counts[2]
    assert errors[0] > 100 * errors[1] > 1e4 * errors[2]
    assert errors[2] < 1e-10


@pytest.mark.slow
def test_convergence_in_the_number_of_features_is_spectral():
    # So loose a tolerance accepts every window and lets it grow fourfold: the same three windows
    # for any width. An infinite capacity leaves exponential decay of the logistic equation.
    widths, t = np.array([4, 6, 8, 10, 12]), 10.0 * UNIT
    known = {
        (1.0, 1.0): 1 / (1 + 9 * np.exp(-t)),
        (-1.0, np.inf): 0.1 * np.exp(-t),
    }
    for args, expected in known.items():
        errors = []
        for width in map(int, widths):
            problem = cx.ivp(gallery("logistic").growth, 0.1, (0.0, 10.0), args=args, width=width)
            solution = cx.solve(problem, tolerance=1e6)
            np.testing.assert_allclose(solution.model.ends, [0.0, 0.5, 2.5, 10.0])
            errors.append(relative_error(np.asarray(solution(t)), expected))
        log = np.log10(errors)
        (slope, _), misfit, *_ = np.polyfit(widths, log, 1, full=True)
        _, algebraic, *_ = np.polyfit(np.log(widths), log, 1, full=True)
        # A straight line against the width, not against its logarithm; 0.35 is a factor of five
        # for every two features.
        assert slope < -0.35
        assert misfit[0] < 0.05 * np.sum((log - log.mean()) ** 2)
        assert misfit[0] < algebraic[0]


# A solution is a function -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_array_of_times_gives_what_single_calls_give():
    solution = solved_with("lotka_volterra")
    t = np.resize(np.concatenate([solution.model.ends, [0.123, 5.9]]), N)
    for fn in (solution, solution.derivative):
        many = fn(t)
        for i in (0, 1, -1):  # the start, an edge, inside
            np.testing.assert_allclose(many[i], fn(float(t[i])), rtol=1e-14, atol=1e-14)


@pytest.mark.slow
def test_the_derivative_is_the_vector_field():
    solution = solved_with("lotka_volterra")
    t = 6.0 * UNIT
    expected = np.array(lotka_volterra(t, np.asarray(solution(t)).T)).T
    np.testing.assert_allclose(solution.derivative(t), expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_differentiable_at_and_beside_the_edges_of_windows():
    solution = solved_with("lotka_volterra")
    edges = solution.model.ends[1:-1]
    t = np.resize(np.concatenate([edges - 1e-9, edges, edges + 1e-9]), N)
    slope = jax.jit(jax.vmap(jax.grad(lambda t: solution.model(t)[1])))(t)
    expected = lotka_volterra(t, np.asarray(solution(t)).T)[1]
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_the_start_holds_and_windows_join():
    solution = solved_with("lotka_volterra")
    edges = solution.model.ends[1:-1]
    found = np.asarray(solution(np.resize([0.0, *np.nextafter(edges, 0.0), *edges], N)))
    np.testing.assert_allclose(found[0], [2.5, 1.25], rtol=1e-15)
    before, after = found[1 : 2 * len(edges) + 1].reshape(2, len(edges), 2)
    np.testing.assert_allclose(before, after, rtol=1e-14)


@pytest.mark.parametrize("t", [-1e-9, 6.0 + 1e-9, np.nan, np.array([1.0, 7.0])], ids=str)
def test_out_of_range_is_refused(t):
    solution = solved_with("lotka_volterra")
    for fn in (solution, solution.derivative):
        with pytest.raises(ValueError, match="known from 0 to 6"):
            fn(t)
    assert np.isnan(solution.model(jnp.asarray(6.0 + 1e-9))).all()


# What is reported ---------------------------------------------------------------------------------


def by_hand(model, n):
    """Times, shares and squared residuals of Lotka-Volterra at n Gauss nodes of each window."""
    s, weights = legendre.leggauss(n)
    edges, norms = model.ends, np.sqrt(np.arange(model.head.shape[1]) + 0.5)[:, None]
    times, shares, squares = [], [], []
    for j, (start, stop) in enumerate(itertools.pairwise(edges)):
        half = (stop - start) / 2
        slope = norms * np.asarray(model.head[j])  # Legendre coefficients of du/ds
        value = legendre.legint(slope, lbnd=-1)
        u = np.asarray(model.states[j, 0])[:, None] + legendre.legval(s, value)
        r = legendre.legval(s, slope) / half - np.array(lotka_volterra(None, u))
        times.append(start + half * (s + 1))
        shares.append((stop - start) / (edges[-1] - edges[0]) * weights / 2)
        squares.append((r**2).sum(axis=0))
    return tuple(map(np.concatenate, (times, shares, squares)))


def test_train_is_the_mean_over_windows_that_weigh_as_they_are_long():
    solution = cx.solve(gallery("lotka_volterra").problem(), tolerance=1e-5)
    gap, train = solution.gap.constraints[0], solution.streams[0].train
    t, shares, squares = by_hand(solution.model, len(train) // solution.model.count)
    np.testing.assert_allclose(train.points, t, rtol=1e-13)
    np.testing.assert_allclose(train.weights, shares, rtol=1e-12)
    np.testing.assert_allclose(train.weights.sum(), 1.0, rtol=1e-13)
    # The residual is 1e-5 of a field of size 5, so rounding is 1e-10 of it.
    np.testing.assert_allclose(gap.train, (shares * squares).sum(), rtol=1e-8)
    # Sixty nodes a window integrate the square of the residual: what held-out points estimate.
    _, shares, squares = by_hand(solution.model, 60)
    assert abs((shares * squares).sum() - gap.heldout.value) < 4 * gap.heldout.error


def test_held_out_points_are_no_training_points_and_cover_all_windows():
    solution = solved_with("lotka_volterra")
    streams = solution.streams[0]
    sets = [set(np.asarray(part.points).tolist()) for part in (streams.train, streams.heldout)]
    assert len(sets[1]) == 4096 and not sets[0] & sets[1]
    assert not sets[1] & set(np.asarray(streams.monitor.points).tolist())
    found = np.histogram(streams.heldout.points, solution.model.ends)[0]
    share = np.diff(solution.model.ends) / 6.0
    # Counts are binomial; four standard errors for each of a dozen windows.
    assert np.all(np.abs(found - 4096 * share) < 4 * np.sqrt(4096 * share * (1 - share)))


def test_the_monitor_residual_of_each_window_is_below_the_tolerance():
    tolerance = 1e-6
    solution = cx.solve(gallery("lotka_volterra").problem(), tolerance=tolerance)
    history = solution.history.pieces
    np.testing.assert_array_equal(history.edges, solution.model.ends)
    assert len(history.monitor) == len(history.steps) == solution.model.count
    assert np.all(history.monitor <= tolerance) and np.all(history.steps >= 1)
    # All Newton steps count, those of windows that were given up too.
    assert history.rejected == 0 and solution.steps == history.steps.sum()
    # At other points, by definition: what holds at thirty-two holds elsewhere but for a factor.
    t = 6.0 * UNIT
    u, slope = np.asarray(solution(t)), np.asarray(solution.derivative(t))
    r = np.abs(slope - np.array(lotka_volterra(t, u.T)).T)
    for start, stop in itertools.pairwise(history.edges):
        inside = (start <= t) & (t <= stop)
        assert np.max((stop - start) * r[inside] / u[inside].max(axis=0)) < 20 * tolerance


@pytest.mark.slow
def test_saved_and_loaded_gives_identical_numbers(tmp_path):
    solution = solved_with("lotka_volterra")
    solution.save(tmp_path / "run")
    loaded = cx.load_solution(tmp_path / "run", gallery("lotka_volterra").problem())
    assert dataclasses.asdict(loaded.gap) == dataclasses.asdict(solution.gap)
    assert (loaded.status, loaded.reason) == (solution.status, solution.reason)
    t = 6.0 * UNIT
    np.testing.assert_array_equal(loaded(t), solution(t))
    np.testing.assert_array_equal(loaded.derivative(t), solution.derivative(t))
    np.testing.assert_array_equal(loaded.history.pieces.edges, solution.history.pieces.edges)


def test_other_values_of_arguments_are_not_compiled_again(caplog):
    module = gallery("lotka_volterra")
    before = solved_with("lotka_volterra")
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        moved = cx.solve(module.problem(birth=1.4, prey=2.0))
    compiled = [record.getMessage() for record in caplog.records if "Compiling" in record.msg]
    assert not [text for text in compiled if "_advance" in text or "_block" in text]
    field = lambda t, y: [1.4 * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]]  # noqa: E731
    assert before.model.head.shape == moved.model.head.shape  # the model grows in powers of two
    t = 6.0 * UNIT
    assert relative_error(np.asarray(moved(t)), classical(field, (2.0, 1.25), t)) < 1e-11


# Endings ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_blow_up_is_located_and_all_before_is_kept():
    # y' = y (1 + y) from 1: 1 / (2 exp(-t) - 1), infinite at log 2.
    problem = cx.ivp(gallery("logistic").growth, 1.0, (0.0, 5.0), args=(1.0, -1.0))
    solution = cx.solve(problem)
    end = solution.model.ends[-1]
    assert solution.status == "blow_up"
    assert abs(end - np.log(2)) < 1e-8
    assert f"t = {end:.17g}" in solution.reason
    t = (np.log(2) - 1e-3) * UNIT
    known = 1 / (2 * np.exp(-t) - 1)
    # An error of eps made early has grown to eps / distance.
    bound = 1000 * np.finfo(float).eps / (np.log(2) - t)
    assert np.all(np.abs(np.asarray(solution(t)) / known - 1) < bound)
    with pytest.raises(ValueError, match=r"known from 0 to 0\.693"):
        solution(1.0)
    assert solution.streams[0].heldout.points.max() <= end


@pytest.mark.slow
def test_ctrl_c_ends_a_march_and_keeps_what_was_reached():
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if progress.phase.startswith("solving") and signal.SIGINT not in seen:
            seen.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    solution = cx.solve(gallery("van_der_pol").problem(mu=10.0, end=1e4), progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert solution.status == "interrupted" and "SIGINT" in solution.reason
    end = solution.model.ends[-1]
    assert 1.0 < end < 1e4
    t = min(end, 20.0) * UNIT
    np.testing.assert_allclose(
        solution(t), solved_with("van_der_pol", mu=10.0)(t), rtol=1e-9, atol=1e-9
    )
    with pytest.raises(ValueError, match="is known from 0"):
        solution(1e4)


@pytest.mark.slow
def test_a_limit_of_steps_keeps_what_was_reached():
    solution = cx.solve(gallery("van_der_pol").problem(mu=10.0, end=1e4), steps=100)
    assert solution.status == "max_steps" and "100" in solution.reason
    end = solution.model.ends[-1]
    assert 0.1 < end < 100.0
    t = min(end, 20.0) * UNIT
    np.testing.assert_allclose(
        solution(t), solved_with("van_der_pol", mu=10.0)(t), rtol=1e-9, atol=1e-9
    )


@pytest.mark.slow
def test_a_limit_of_steps_is_a_limit():
    # A window takes a dozen Newton steps at most, and the one under way may be finished.
    solution = cx.solve(gallery("van_der_pol").problem(mu=10.0), steps=40)
    assert solution.status == "max_steps"
    assert solution.steps <= 40 + 12


# Wrong input --------------------------------------------------------------------------------------


def decay(t, y, args):
    return -y


def spring(t, y, args):
    return -y[0]


GOOD = {"vector_field": decay, "y0": np.ones(2), "span": (0.0, 1.0)}


@pytest.mark.usefixtures("as_released")
@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"vector_field": lambda t, y, args: -y[:1]}, ValueError, "must return the shape of y0"),
        ({"vector_field": lambda t, y, args: (y, y)}, ValueError, "must return the shape of y0"),
        ({"vector_field": lambda t, y: -y}, TypeError, r"must take f\(t, y, args\)"),
        ({"y0": np.array([1.0, np.nan])}, ValueError, "y0 must be finite"),
        ({"y0": np.inf}, ValueError, "y0 must be finite"),
        ({"y0": np.array([1.0 + 1j])}, TypeError, "y0 must hold real numbers"),
        ({"y0": np.zeros(0)}, ValueError, "y0 holds no numbers"),
        ({"y0": "one"}, TypeError, "y0 must hold real numbers"),
        ({"span": (1.0, 1.0)}, ValueError, "two different finite times"),
        ({"span": (0.0, np.inf)}, ValueError, "two different finite times"),
        ({"span": (np.nan, 1.0)}, ValueError, "two different finite times"),
        ({"span": 1.0}, ValueError, r"span must be a pair \(t0, t1\)"),
        ({"span": (0.0, 1.0, 2.0)}, ValueError, r"span must be a pair \(t0, t1\)"),
        ({"span": (1.7e9, 1.7e9 + 1e-6)}, ValueError, "Measure time from its start"),
        (
            {"vector_field": lambda t, y, args: -y.astype(jnp.float32)},
            TypeError,
            "vector_field returns float32 although its arguments are float64",
        ),
        ({"vector_field": lambda t, y, args: 1j * y}, TypeError, "returns complex numbers"),
        ({"order": 3}, ValueError, "order"),
        ({"order": True}, ValueError, "order must be 1 or 2, got True"),
        ({"order": 2}, ValueError, "needs y0="),
        ({"order": 2, "y0": 1.0, "vector_field": spring}, ValueError, "needs y0="),
        ({"order": 2, "y0": (np.ones(2), 1.0), "vector_field": spring}, ValueError, "same shape"),
        ({"width": 1}, ValueError, "width"),
        ({"width": 8.5}, TypeError, "width"),
    ],
)
def test_wrong_input_is_refused_by_name(change, kind, text):
    with pytest.raises(kind, match=text):
        cx.ivp(**{**GOOD, **change})


@pytest.mark.usefixtures("as_released")
@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"method": cx.LevenbergMarquardt()}, ValueError, "method"),
        ({"redraw": 10}, ValueError, "redraw"),
        ({"tolerance": 1e-16}, ValueError, "tolerance=1e-16 is below the rounding"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        ({"steps": 0}, ValueError, "steps"),
    ],
)
def test_settings_of_solve_that_cannot_be_are_refused_by_name(settings, kind, text):
    with pytest.raises(kind, match=text):
        cx.solve(gallery("lotka_volterra").problem(), **settings)


def test_a_list_is_not_taken_for_a_vector_in_silence():
    with pytest.raises(TypeError) as caught:
        cx.ivp(decay, [1.0, 2.0], (0.0, 1.0))
    assert any("write y0=jnp.array" in note for note in caught.value.__notes__)


def test_a_field_with_its_arguments_in_another_order_is_told_of_theirs():
    with pytest.raises(IndexError) as caught:
        cx.ivp(lambda y, t, args: jnp.stack([y[1], -y[0]]), jnp.array([0.0, 1.0]), (0.0, 1.0))
    expected = "vector_field is called as f(t, y, args), with arrays of shapes (), (2,)."
    assert expected in caught.value.__notes__


@pytest.mark.slow
def test_arguments_may_be_anything():
    """Strings, functions, whole numbers and flags choose; floats are numbers."""

    def field(t, y, args):
        kind, of, count, on, rate = args
        return of(y) * count * rate if on and kind == "growth" else -y

    args = ("growth", lambda y: 2.0 * y, 3, True, 0.5)
    solution = cx.solve(cx.ivp(field, 1.0, (0.0, 1.0), args=args))
    assert np.isclose(solution(1.0), np.exp(3.0), rtol=1e-13, atol=0)
    assert solution.error_estimate().label == "at rounding"


@pytest.mark.slow
def test_what_dies_away_and_grows_again_keeps_its_digits():
    """y' = 100 t y falls to e^-50 and returns to where it came from."""
    solution = cx.solve(cx.ivp(lambda t, y, args: 100 * t * y, 1.0, (-1.0, 1.0)))
    assert abs(solution(1.0) - 1) < 1e-11  # the condition number is 100


@pytest.mark.slow
def test_times_far_from_zero():
    """A span of four hundred floating-point numbers; y is relative to where it starts."""
    start = 1.7e9
    solution = cx.solve(cx.ivp(lambda t, y, args: -1e4 * y, 1.0, (start, start + 1e-4)))
    assert solution.status == "converged"
    assert np.isclose(solution(start + 1e-4), np.exp(-1e4 * ((start + 1e-4) - start)), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "settings", "status"),
    [
        # infinite slope at the start
        slow(lambda t, y, args: jnp.sqrt(jnp.abs(y)), {}, "blow_up"),
        (lambda t, y, args: jnp.sin(40 * y**2) * 1e3, {"steps": 1}, "max_steps"),
    ],
)
def test_a_march_that_never_got_started_is_a_solution_with_a_status(field, settings, status):
    start = 0.0 if status == "blow_up" else 1.0
    solution = cx.solve(cx.ivp(field, start, (0.0, 1.0)), heldout=64, monitor=64, **settings)
    assert solution.status == status
    reached = solution.model.ends[-1]
    assert 0 < reached < 1e-12
    assert abs(solution(reached) - start) < 1e-9
    assert np.isnan(solution.history.pieces.monitor).all()


def test_a_field_that_is_not_finite_at_the_start_is_named():
    growth = gallery("logistic").growth  # divided by a capacity of zero
    with pytest.raises(cx.errors.ProblemError, match=r"'growth'.*NaN or infinite"):
        cx.solve(cx.ivp(growth, 1.0, (0.0, 1.0), args=(1.0, 0.0)))


@pytest.mark.parametrize("field, message", [
    (lambda t, y, args: np.sin(t) * y, "vector_field passes a traced array to NumPy.*jax.numpy"),
    (lambda t, y, args: math.sin(t) * y, "vector_field needs the value.*math.sin"),
    (lambda t, y, args: y[y > 0].sum() * y, "vector_field needs the value"),
    (lambda t, y, args: y if t < 0.5 else -y, "vector_field needs the value.*jnp.where.*breaks="),
])  # fmt: skip
def test_field_that_cannot_be_traced_is_told_what_to_write(field, message):
    with pytest.raises(ValueError, match=message):
        cx.ivp(field, 1.0, (0.0, 1.0))
