"""Several experiments in one fit, against SciPy's least squares over its own integrations."""

import itertools
import signal
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

import constrainednn as cx
from constrainednn._common import batched
from constrainednn._ode.fitting import initial_values
from constrainednn._pieces.window_control import try_windows
from constrainednn._solve.problem_files import load_module, resolve

SMALL = {"heldout": 64, "monitor": 16}
KINETICS = load_module(resolve("experiments")[0])
RATES = {"rate": 1.0, "energy": 3.0e4}


def scipy_fit(solution, starts, tight=1e-13):
    """The fit of the rows that were trained on: estimates and standard errors in the user's scale.

    Args:
        solution: Of the gallery's problem, for its rows.
        starts: For each experiment its start, or None where that is an unknown of its own.
        tight: Relative tolerance of the integrations.
    """
    rows = [solution[k].streams[1].train.points for k in range(len(starts))]
    kelvins = [float(part.model.args["kelvin"]) for part in solution]
    own = [k for k, start in enumerate(starts) if start is None]

    def residual(logs):
        rate, energy, *unknown = np.exp(logs)
        firsts = dict(zip(own, unknown, strict=True))
        found = []
        for k, ((t, seen), kelvin) in enumerate(zip(rows, kelvins, strict=True)):
            if not len(t):
                continue
            speed = rate * np.exp(-energy / KINETICS.GAS * (1 / kelvin - 1 / 320))
            found.append(
                solve_ivp(
                    lambda t, c, speed=speed: -speed * c**2,
                    (0.0, max(t[-1], 1e-3)),
                    [firsts.get(k, starts[k])],
                    "DOP853",
                    t,
                    rtol=tight,
                    atol=tight,
                ).y[0]
                - seen
            )
        return np.concatenate(found)

    start = np.log([*RATES.values(), *(rows[k][1][0] for k in own)])
    fit = least_squares(
        residual, start, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, jac="3-point"
    )
    sigma2 = 2 * fit.cost / (len(fit.fun) - len(start))
    error = np.sqrt(np.diag(sigma2 * np.linalg.inv(fit.jac.T @ fit.jac)))
    names = [*RATES, *(f"{solution.model.names[k]}.y0" for k in own)]
    values = np.exp(fit.x)
    return dict(zip(names, zip(values, values * error, strict=True), strict=True)), fit


def assert_same(found, expected):
    """Estimates and standard errors to the accuracy of a difference quotient."""
    assert found.values.keys() == expected.keys()
    for name, (value, error) in expected.items():
        np.testing.assert_allclose(found[name].value, value, atol=1e-5 * error)
        np.testing.assert_allclose(found[name].error, error, rtol=1e-5)


# Estimates


@pytest.mark.slow
def test_four_experiments_are_the_least_squares_fit_of_all_rows(solved):
    solution = solved("experiments", **SMALL)
    assert solution.status == "converged"
    expected, fit = scipy_fit(solution, [None] * 4)
    found = solution.estimates()
    assert_same(found, expected)
    assert found.degrees == len(fit.fun) - 6
    for name, true in KINETICS.TRUTH.items():
        assert abs(found[name].value - true) < 4 * found[name].error


@pytest.mark.slow
def test_what_one_experiment_cannot_tell_two_of_them_can():
    """One temperature gives one rate constant: two numbers only together with another."""

    def stated(*kelvins):
        experiments = []
        for kelvin, start, seconds in KINETICS.RUNS:
            if kelvin in kelvins:
                t = np.linspace(0.0, seconds, 20)
                seen = KINETICS.concentration(t, kelvin, start)
                seen += 0.01 * np.random.default_rng(int(kelvin)).normal(size=20)
                experiments.append(
                    cx.Experiment(
                        y0=start,
                        span=(0.0, seconds),
                        args={"kelvin": kelvin},
                        data=cx.Data((t, seen), holdout=0.0),
                    )
                )
        args = {name: cx.Unknown(value, low=0.0) for name, value in RATES.items()}
        return cx.solve(cx.ivp(KINETICS.decay, args=args, experiments=experiments), **SMALL)

    for kelvin in (300.0, 335.0):
        alone = stated(kelvin).estimates()
        assert [item.label for item in alone.values.values()] == ["not determined by the data"] * 2
        assert len(alone.undetermined) == 1
    both = stated(300.0, 335.0)
    expected, _ = scipy_fit(both, [1.0, 1.0])
    found = both.estimates()
    assert not found.undetermined
    assert_same(found, expected)
    # As one experiment would be called that has no name.
    assert both.model.names == ("experiment 1", "experiment 2")


@pytest.mark.slow
def test_shared_and_own_start_values_and_a_backward_experiment():
    """y' = -rate y: a start that two share, one of its own and a known one."""
    rate, shared = 0.7, 2.0
    t = np.linspace(0.0, 2.0, 9)
    grown = lambda t, start: start * np.exp(-rate * t)  # noqa: E731
    data = lambda t, y: cx.Data((t, y), holdout=0.0)  # noqa: E731
    problem = cx.ivp(
        lambda t, y, args: -args["rate"] * y,
        cx.Unknown(1.0),
        (0.0, 2.0),
        args={"rate": cx.Unknown(1.0)},
        experiments=[
            cx.Experiment(data=data(t, grown(t, shared)), name="a"),
            cx.Experiment(data=data(t[1::2], grown(t[1::2], shared)), name="b"),
            cx.Experiment(data=data(t, grown(t, 5.0)), y0=cx.Unknown(4.0, low=0.0), name="c"),
            cx.Experiment(data=data(-t, grown(-t, 3.0)), y0=3.0, span=(0.0, -2.0), name="d"),
        ],
    )
    solution = cx.solve(problem, **SMALL)
    found = solution.estimates()
    assert found.values.keys() == {"rate", "y0", "c.y0"}
    for name, true in (("rate", rate), ("y0", shared), ("c.y0", 5.0)):
        assert abs(found[name].value - true) < 1e-12
    for name, start in (("a", shared), ("b", shared), ("c", 5.0), ("d", 3.0)):
        times = -t if name == "d" else t
        np.testing.assert_allclose(solution[name](times), grown(times, start), rtol=1e-11)


@pytest.mark.slow
def test_unknown_start_of_a_single_problem():
    t, rate, first = np.linspace(0.0, 2.0, 9), 0.7, np.array([2.0, -1.0])
    seen = {"left": first[0] * np.exp(-rate * t), "right": first[1] * np.exp(-rate * t)}
    problem = cx.ivp(
        lambda t, y, args: jax.tree.map(lambda part: -args["rate"] * part, y),
        {"left": cx.Unknown(1.0), "right": -1.0},
        (0.0, 2.0),
        args={"rate": cx.Unknown(1.0)},
        data=cx.Data((t, seen), holdout=0.0),
    )
    found = cx.solve(problem, **SMALL).estimates()
    assert found.values.keys() == {"rate", "y0.left"}
    assert abs(found["y0.left"].value - 2.0) < 1e-12 and abs(found["rate"].value - rate) < 1e-12


@pytest.mark.slow
def test_second_order_with_invariants_and_data_seen_through_a_residual():
    """Two springs of one stiffness, let go from rest and pushed; position alone is seen."""

    def position(u, row):
        return u(row[0]) - row[1]

    def energy(t, state, args):
        return state[1] ** 2 + args["stiffness"] * state[0] ** 2

    t, w = np.linspace(0.0, 3.0, 12), 1.3
    seen = {"pulled": np.cos(w * t), "pushed": np.sin(w * t)}
    starts = {"pulled": (1.0, 0.0), "pushed": (0.0, w)}
    problem = cx.ivp(
        lambda t, state, args: -args["stiffness"] * state[0],
        span=(0.0, 3.0),
        args={"stiffness": cx.Unknown(1.0, low=0.0)},
        order=2,
        invariants=energy,
        experiments=[
            cx.Experiment(
                name=name,
                y0=starts[name],
                data=cx.Constraint(position, over=cx.Data((t, seen[name]), holdout=0.0)),
            )
            for name in seen
        ],
    )
    solution = cx.solve(problem, **SMALL)
    assert abs(solution.estimates()["stiffness"].value - w**2) < 1e-12
    for name in seen:
        assert solution.gap[f"{name}: energy"].heldout_rms.value < 1e-12
        np.testing.assert_allclose(solution[name](t), seen[name], atol=1e-12)


@pytest.mark.slow
def test_doses_at_times_of_their_own():
    """Infusions of 0.02 h that no window would meet by chance: volume and clearance."""

    def drug(t, c, args):
        on = (t >= args["at"]) & (t < args["at"] + 0.02)
        return jnp.where(on, args["dose"] / 0.02, 0.0) / args["volume"] - args["clear"] * c

    t, experiments = np.linspace(0.25, 6.0, 12), []
    for at, dose in ((0.5, 10.0), (2.0, 25.0)):
        top = dose / 0.02 / 20.0 / 0.3 * -np.expm1(-0.3 * 0.02)
        seen = np.where(t < at, 0.0, top * np.exp(-0.3 * (t - at - 0.02)))
        experiments.append(
            cx.Experiment(
                args={"at": at, "dose": dose},
                breaks=(at, at + 0.02),
                data=cx.Data((t, seen), holdout=0.0),
            )
        )
    args = {"volume": cx.Unknown(10.0, low=0.0), "clear": cx.Unknown(0.1, low=0.0)}
    found = cx.solve(cx.ivp(drug, 0.0, (0.0, 6.0), args=args, experiments=experiments), **SMALL)
    assert abs(found.estimates()["volume"].value - 20.0) < 1e-10
    assert abs(found.estimates()["clear"].value - 0.3) < 1e-12


# Held-out rows and experiments


@pytest.mark.slow
def test_rows_are_held_out_within_each_experiment(solved):
    solution = solved("experiments", **SMALL)
    held = []
    for part in solution:
        (gap,) = [item for item in part.gap.constraints if item.sampler == "rows"]
        assert (gap.points, gap.heldout.n) == (16, 4)
        assert gap.note == "train and held-out are rows of this experiment"
        streams = part.streams[1]
        t = np.concatenate([streams.train.points[0], streams.heldout.points[0]])
        assert len(np.unique(t)) == 20
        held.append(tuple(np.round(streams.heldout.points[0] / t.max() * 19).astype(int)))
    assert len(set(held)) > 1  # each has its own split
    data = [solution.gap[f"{name}: data"] for name in solution.model.names]
    # Their held-out rows are independent of each other: squared errors add.
    equations = [solution.gap[f"{name}: decay"] for name in solution.model.names]
    error = np.sqrt(sum(item.heldout.error**2 for item in [*data, *equations]))
    np.testing.assert_allclose(solution.gap.heldout.error, error, rtol=1e-12)


@pytest.mark.slow
def test_an_experiment_that_is_held_out_judges_what_the_others_tell(solved):
    solution = solved("experiments", settings={"judged_at": 310.0}, **SMALL)
    expected, fit = scipy_fit(solution, [None, 0.8, None, None])
    assert len(fit.fun) == 48
    assert_same(solution.estimates(), expected)
    gap = solution.gap["310 K: data"]
    t, seen = solution.problem.constraints[3].over.rows
    rate, energy = (solution.estimates()[name].value for name in RATES)
    speed = rate * np.exp(-energy / KINETICS.GAS * (1 / 310 - 1 / 320))
    rms = np.sqrt(np.mean((0.8 / (1 + 0.8 * speed * t) - seen) ** 2))
    np.testing.assert_allclose(gap.heldout_rms.value, rms, rtol=1e-9)
    assert gap.heldout.n == 20 and gap.points == 0
    assert all(np.isnan([gap.train, gap.train_rms, gap.ratio, gap.difference.value]))
    trained = [item for item in solution.gap.constraints if item.name != "310 K: data"]
    assert solution.gap.train == pytest.approx(sum(item.train for item in trained), rel=1e-12)
    assert solution.gap.heldout.value == pytest.approx(
        sum(item.heldout.value for item in trained), rel=1e-12
    )
    text = repr(solution)
    assert "310 K: data: the whole experiment is held out: no row of it was fitted" in text
    assert "310 K: data: trained on none of its rows; judged on 20 rows of Data(20 rows)" in text


@pytest.mark.slow
def test_missing_values_are_left_out_within_their_experiment():
    t, rng = np.linspace(0.0, 2.0, 11), np.random.default_rng(0)
    seen = {k: k * np.exp(-0.7 * t) + 0.01 * rng.normal(size=11) for k in (1.0, 2.0, 3.0)}

    def fitted(drop):
        experiments = []
        for k, y in seen.items():
            gone = np.arange(11) == k + 2
            if drop:
                data = cx.Data((t[~gone], y[~gone]), holdout=0.0)
            else:
                data = cx.Data((t, np.where(gone, np.nan, y)), holdout=0.0)
            experiments.append(cx.Experiment(y0=k, data=data, name=f"{k:g}", heldout=k == 3.0))
        args = {"rate": cx.Unknown(1.0, low=0.0)}
        field = lambda t, y, args: -args["rate"] * y  # noqa: E731
        problem = cx.ivp(field, span=(0.0, 2.0), args=args, experiments=experiments)
        return cx.solve(problem, **SMALL)

    missing, dropped = fitted(drop=False), fitted(drop=True)
    found, expected = (item.estimates() for item in (missing, dropped))
    assert found.degrees == expected.degrees == 19
    assert found["rate"].value == pytest.approx(expected["rate"].value, rel=1e-12)
    assert found["rate"].error == pytest.approx(expected["rate"].error, rel=1e-8)
    held, known = (item.gap["3: data"].heldout_rms.value for item in (missing, dropped))
    assert held == pytest.approx(known, rel=1e-9)
    assert "3: data: 1 of 11 values are missing" in repr(missing)


# One of them


@pytest.mark.slow
def test_one_experiment_is_a_solution_of_its_own(solved):
    solution = solved("experiments", **SMALL)
    part = solution["335 K"]
    args, start = part.model.args, float(part(0.0))
    assert start == solution.estimates()["335 K.y0"].value
    k = float(args["rate"] * jnp.exp(-args["energy"] / KINETICS.GAS * (1 / 335 - 1 / 320)))
    t = np.linspace(0.0, 3.0, 50)
    true = start / (1 + start * k * t)
    np.testing.assert_allclose(part(t), true, rtol=1e-13)
    np.testing.assert_allclose(part.derivative(t), -k * true**2, rtol=1e-11)
    assert part.error_estimate().label == "at rounding"
    assert part.compare().difference < 1e-11
    assert [item.name for item in part.gap.constraints] == ["335 K: decay", "335 K: data"]
    assert part.gap.constraints[1] is solution.gap["335 K: data"]
    assert part.gap.train == sum(item.train for item in part.gap.constraints)
    assert "335 K: data" in repr(part) and "standard error" not in repr(part)
    assert repr(solution[3]) == repr(solution[-1]) == repr(part)
    assert sum(item.steps for item in [solution]) == solution.steps


@pytest.mark.slow
def test_what_only_one_can_tell_is_not_asked_of_all(solved):
    solution = solved("experiments", **SMALL)
    words = r"that of 4 experiments: ask one of them, such as solution\['300 K'\] or solution\[0\]"
    for ask in (
        lambda: solution(1.0),
        lambda: jax.jit(solution)(1.0),
        lambda: solution.derivative(1.0),
        solution.error_estimate,
        solution.compare,
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    with pytest.raises(ValueError, match="estimates are those of all experiments"):
        solution[0].estimates()
    with pytest.raises(KeyError, match="no experiment is named '1 K'; there is: 300 K, 310 K"):
        solution["1 K"]
    with pytest.raises(IndexError, match="there are 4 experiments, got number 4"):
        solution[4]
    with pytest.raises(TypeError, match="this solution has no experiments"):
        solution[0][0]


@pytest.mark.slow
def test_figures_show_each_experiment(solved):
    solution = solved("experiments", settings={"judged_at": 310.0}, **SMALL)
    names = {"300 K", "310 K", "320 K", "335 K"}
    for figure in (solution.plot(), solution.plot_moments()):
        assert names <= {axes.get_title() for axes in figure.axes}
    first = solution.plot().axes[0]
    data = [line for line in first.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in data) == 20


# Runs


@pytest.mark.slow
def test_saved_and_loaded_experiments_are_the_same(solved, tmp_path):
    solution = solved("experiments", settings={"judged_at": 310.0}, **SMALL)
    solution.save(tmp_path / "a")
    loaded = cx.load_solution(tmp_path / "a", solution.problem)
    assert repr(loaded) == repr(solution)
    for saved, kept in zip(
        jax.tree.leaves(loaded.model), jax.tree.leaves(solution.model), strict=True
    ):
        np.testing.assert_array_equal(saved, kept)
    for name in solution.model.names:
        assert repr(loaded[name]) == repr(solution[name])
        np.testing.assert_array_equal(
            loaded[name].history.pieces.edges, solution[name].history.pieces.edges
        )
    other = cx.load_problem("experiments")
    with pytest.raises(cx.errors.StoreError, match="Load it with the problem"):
        cx.load_solution(tmp_path / "a", other)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [2, 20])
def test_interrupted_fit_goes_on_as_if_it_had_not_been(solved, tmp_path, looks):
    whole = solved("experiments", **SMALL)
    seen = itertools.count(1)

    def progress(now):
        if now.phase == "solving, %" and next(seen) == looks:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        part = cx.solve(whole.problem, **SMALL, out=tmp_path / "a", progress=progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert part.status == "interrupted"
    assert len(list(part)) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cx.errors.RunWarning)
        rest = cx.resume(tmp_path / "a", whole.problem)
    assert (rest.status, rest.reason, rest.steps) == (whole.status, whole.reason, whole.steps)
    for one, other in zip(jax.tree.leaves(rest.model), jax.tree.leaves(whole.model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_experiments_of_one_shape_share_what_is_compiled():
    def field(t, y, args):
        return -args["rate"] * args["factor"] * y

    def stated(count):
        t = np.linspace(0.0, 1.0, 8)
        experiments = [
            cx.Experiment(
                y0=1.0 + k,
                span=(0.0, 1.0 + k),
                args={"factor": 1.0 + k},
                data=cx.Data((t, (1.0 + k) * np.exp(-0.5 * (1 + k) * t)), holdout=0.0),
            )
            for k in range(count)
        ]
        return cx.ivp(field, args={"rate": cx.Unknown(1.0)}, experiments=experiments)

    def programs():
        return [
            fn.programs()
            for fn in (
                try_windows,
                initial_values._linearised,
                initial_values.rows_of,
            )
        ]

    cx.solve(stated(1), **SMALL)
    marching, measuring = programs(), batched._block.count()
    solution = cx.solve(stated(3), **SMALL)
    assert abs(solution.estimates()["rate"].value - 0.5) < 1e-12
    assert programs() == marching
    # What is new maps the unit interval onto two more spans; no residual is compiled again.
    assert batched._block.count() <= measuring + 2


@pytest.mark.slow
def test_a_march_that_does_not_arrive_is_named():
    t = np.linspace(0.0, 1.0, 6)
    problem = cx.ivp(
        lambda t, y, args: args["rate"] * y**2,
        span=(0.0, 1.0),
        args={"rate": cx.Unknown(0.4)},
        experiments=[
            cx.Experiment(y0=1.0, data=cx.Data((t, 1 / (1 - 0.5 * t)), holdout=0.0)),
            # Infinite at 0.5 with what the first tells.
            cx.Experiment(y0=4.0, data=cx.Data((t, t)), name="hot", heldout=True),
        ],
    )
    solution = cx.solve(problem, **SMALL)
    assert solution.status == "blow_up"
    assert "experiment 'hot': windows shrank to rounding at t = 0.49999" in solution.reason
    assert abs(float(solution["hot"].model.args["rate"]) - 0.5) < 1e-10


@pytest.mark.slow
def test_processor_time_beside_scipy(solved):
    """Warm, at most twenty times that of least_squares over solve_ivp with the same tolerance."""
    solution = solved("experiments")
    began = time.process_time()
    cx.solve(solution.problem)
    ours = time.process_time() - began
    began = time.process_time()
    scipy_fit(solution, [None] * 4, tight=1e-12)
    assert ours < 20 * (time.process_time() - began)


# Bad input


def known(**keywords):
    t = np.linspace(0.0, 1.0, 5)
    return cx.Experiment(**{"y0": 1.0, "data": cx.Data((t, np.exp(-t))), **keywords})


UNKNOWN = cx.Unknown(1.0)


@pytest.mark.parametrize(
    ("experiments", "change", "words"),
    [
        ([], {}, "experiments must hold at least one, got none"),
        ([3.0], {}, "experiments must hold cx.Experiment, got 3.0"),
        ([known(name="a"), known(name="a")], {}, "two experiments are named 'a'"),
        (
            [known(), known(y0=jnp.ones(2))],
            {},
            r"y0 has the shape \(\) in experiment 'experiment 1' and \(2,\) in experiment",
        ),
        (
            [known()],
            {"data": cx.Data((np.ones(5), np.ones(5)))},
            "experiments= cannot be combined with data=",
        ),
        ([known()], {"reference": jnp.exp}, "experiments= cannot be combined with reference="),
        ([known(breaks=(2.0,), name="x")], {}, "experiment 'x': breaks must lie within span"),
        ([known(span=(1.0, 1.0), name="x")], {}, "experiment 'x': span must be two different"),
        ([known()], {"span": None}, "experiment 'experiment 1': ivp needs y0 and span"),
        ([known()], {"args": {"rate": 1.0}}, "experiment 'experiment 1': data has nothing to"),
        ([known(heldout=True)], {}, "every experiment is held out"),
        (
            [known(), known(y0=cx.Unknown(1.0), heldout=True, name="x")],
            {},
            "experiment 'x' is held out, so that no data determine the unknowns that only it has",
        ),
        ([known(y0=UNKNOWN), known(y0=UNKNOWN)], {}, "one cx.Unknown is in experiment"),
        (
            [known(args={"dose": 1.0}), known(args={"doze": 2.0})],
            {},
            "experiment 'experiment 1' lacks 'doze' in args, which another one has",
        ),
        ([known(args={"dose": 1.0})], {"args": UNKNOWN}, "needs args of ivp as a dict"),
    ],
)
def test_what_does_not_fit_together_is_refused(experiments, change, words, as_released):
    given = {"span": (0.0, 1.0), "args": {"rate": cx.Unknown(1.0)}, **change}
    with pytest.raises((TypeError, ValueError), match=words):
        cx.ivp(lambda t, y, args: -args["rate"] * y, experiments=experiments, **given)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"args": [1.0]}, "args of Experiment must be a dict"),
        ({"heldout": 1}, "heldout of Experiment must be True or False"),
        ({"name": ""}, "name of Experiment must be printable text"),
        ({"name": 300}, "name of Experiment must be printable text"),
        ({"name": "x" * 101}, "at most 100 characters, got 101"),
    ],
)
def test_settings_of_an_experiment(keywords, words, as_released):
    with pytest.raises((TypeError, ValueError), match=words):
        known(**keywords)


@pytest.mark.slow
def test_data_outside_of_the_span_of_their_experiment():
    late = cx.Data((np.array([0.5, 1.5]), np.ones(2)), holdout=0.0)
    experiments = [known(span=(0.0, 2.0)), known(name="short", data=late)]
    problem = cx.ivp(
        lambda t, y, args: -args["rate"] * y,
        span=(0.0, 1.0),
        args={"rate": cx.Unknown(1.0)},
        experiments=experiments,
    )
    words = r"constraint 'short: data': 1 of 2 rows lie outside of the interval \[0, 1\]"
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.solve(problem, **SMALL)
