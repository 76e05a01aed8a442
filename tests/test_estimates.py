"""Estimates where data say little: bounds, missing values, poor starts; against SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from scipy.optimize import curve_fit, least_squares
from scipy.stats import binom, t

import constrainednn as cx
from constrainednn._fitting import fit
from constrainednn._fitting.fit import _damped
from constrainednn._fitting.step import Linearised
from constrainednn.results.estimates.from_rows import estimates_from
from constrainednn.results.estimates.regression import Regression

SMALL = {"heldout": 64, "monitor": 16}


def logistic(t, y, args):
    return args["r"] * y * (1 - y)


def at_start(args):
    return args["s0"]


def square_decay(t, y, args):
    return -args["k"] * y**2


def decay(t, y, args):
    return -args["k"] * y


def law(u, row):
    return u["A"].value * jnp.exp(-u["k"].value * row[0]) - row[1]


def logistic_fit(first):
    """Growth from 10^-7.5, fitted from a first guess of it."""
    times, s0 = np.linspace(0, 30, 41), 10**-7.5
    seen = 1 / (1 + (1 / s0 - 1) * np.exp(-0.8 * times))
    seen += 0.003 * np.random.default_rng(0).normal(size=41)
    args = {"r": cx.Unknown(0.5, low=0), "s0": cx.Unknown(first, low=0)}
    data = cx.Data((times, seen), holdout=0)
    return times, seen, cx.ivp(logistic, at_start, (0.0, 30.0), args=args, data=data)


@pytest.mark.slow
def test_estimates_do_not_depend_on_the_start():
    values = []
    for first in (10**-1.4, 10**-1.5, 1e-9):
        times, seen, problem = logistic_fit(first)
        found = cx.solve(problem, **SMALL).estimates()
        assert [item.label for item in found.values.values()] == ["", ""]
        values.append([(item.value, item.error) for item in found.values.values()])
    exact = lambda x, r, log: 1 / (1 + (np.exp(-log) - 1) * np.exp(-r * x))  # noqa: E731
    best, covariance = curve_fit(exact, times, seen, [0.8, np.log(3e-8)], ftol=1e-14, xtol=1e-14)
    error = np.sqrt(np.diag(covariance))
    s0 = np.exp(best[1])
    for (r, r_error), (start, start_error) in values:
        np.testing.assert_allclose([r, start], [best[0], s0], rtol=1e-5)
        np.testing.assert_allclose([r_error, start_error], error * [1, s0], rtol=1e-3)


def square_decay_fit(first):
    times = np.linspace(100, 2000, 20)
    seen = 1000 / (1 + 1000 * 1.8e-7 * times) + 5 * np.random.default_rng(0).normal(size=20)
    data = cx.Data((times, seen), holdout=0)
    args = {"k": cx.Unknown(first, low=0)}
    problem = cx.ivp(square_decay, 1000.0, (0.0, 2000.0), args=args, data=data)
    return times, seen, problem


@pytest.mark.slow
def test_a_start_many_decades_off_is_no_bound():
    for first in (1e-9, 1e-3, 1.0, 100.0):
        times, seen, problem = square_decay_fit(first)
        solution = cx.solve(problem, **SMALL)
        (best,), _ = curve_fit(lambda x, k: 1000 / (1 + 1e-4 * k * x), times, seen, [1.8])
        assert solution.status == "converged"
        item = solution.estimates()["k"]
        assert item.label == "" and abs(item.value - 1e-7 * best) < 1e-5 * item.error


@pytest.mark.slow
def test_a_start_where_data_say_nothing_has_not_converged():
    solution = cx.solve(square_decay_fit(1e12)[2], **SMALL)
    assert solution.status == "stalled"
    found = solution.estimates()
    assert repr(found).startswith("stalled: ")
    assert found["k"].label == "not determined by the data"


def decay_rows(seed, k=0.0):
    times = np.linspace(0.3, 3, 10)
    return times, np.exp(-k * times) + 0.1 * np.random.default_rng(seed).normal(size=10)


@pytest.mark.parametrize("kind", [slow("any model"), slow("equation")])
def test_interval_at_a_bound_is_one_sided_for_equations_and_for_any_model(kind):
    """Upper ends against the closed form of the sum of squares."""
    labels = set()
    for seed in range(4):
        times, seen = decay_rows(seed)
        data = cx.Data((times, seen), holdout=0)
        unknown = {"k": cx.Unknown(0.5, low=0)}
        if kind == "equation":
            solution = cx.solve(cx.ivp(decay, 1.0, (0.0, 3.0), args=unknown, data=data), **SMALL)
            assert solution.status == "converged"
        else:
            solution = cx.solve(cx.Problem(cx.Constraint(law_of_one, over=data), unknown))
        rss = lambda k: float(np.sum((np.exp(-k * times) - seen) ** 2))  # noqa: E731, B023
        item = solution.estimates()["k"]
        labels.add(item.label)
        assert (item.label == "at its bound") == (item.value < 1e-6)
        assert item.low == 0
        rise = (rss(item.high) - rss(item.value)) / (rss(item.value) / 9)
        assert abs(rise / t.ppf(0.975, 9) ** 2 - 1) < 0.05
    assert labels == {"", "at its bound"}


def law_of_one(u, row):
    return jnp.exp(-u["k"].value * row[0]) - row[1]


@pytest.mark.parametrize("bounds", [slow({"low": 0.0}), slow({"low": 0.0, "high": 5.0})])
def test_what_rows_see_only_as_rounding_is_not_determined(bounds):
    def faint(u, row):
        return u["A"].value * row[0] + 1e-49 * u["b"].value * row[0] ** 2 - row[1]

    x = np.linspace(0, 1, 12)
    seen = 2 * x + 0.1 * np.random.default_rng(0).normal(size=12)
    over = cx.Data((x, seen), holdout=0)
    model = {"A": cx.Unknown(1.0), "b": cx.Unknown(1.0, **bounds)}
    found = cx.solve(cx.Problem(cx.Constraint(faint, over=over), model)).estimates()
    assert found["b"].label == "not determined by the data"
    (_, covariance) = curve_fit(lambda x, a: a * x, x, seen)
    assert found["A"].label == ""
    # One unknown more is counted among the degrees of freedom.
    np.testing.assert_allclose(found["A"].error ** 2, covariance[0, 0] * 11 / 10, rtol=1e-6)


# Missing values


def reaction(t, y, args):
    return jnp.stack([-args["k"] * y[0], args["k"] * y[0]])


def observed_with_gaps():
    times = np.linspace(0.2, 3, 15)
    exact = lambda k: np.stack([np.exp(-k * times), 1 - np.exp(-k * times)], axis=1)  # noqa: E731
    seen = exact(1.0) + 0.02 * np.random.default_rng(0).normal(size=(15, 2))
    seen[3, 0] = seen[9, 1] = np.nan
    seen[7] = np.nan
    return times, seen, exact


@pytest.mark.slow
def test_missing_values_of_an_equation_are_left_out_and_counted():
    times, seen, exact = observed_with_gaps()
    data = cx.Data((times, seen), holdout=0)
    args = {"k": cx.Unknown(0.5, low=0)}
    solution = cx.solve(
        cx.ivp(reaction, jnp.array([1.0, 0.0]), (0.0, 3.0), args=args, data=data), **SMALL
    )
    there = np.isfinite(seen)
    (best,), covariance = curve_fit(lambda x, k: exact(k)[there], times, seen[there], [1.0])
    found = solution.estimates()
    assert (found["k"].n, found.degrees) == (26, 25)
    np.testing.assert_allclose(found["k"].value, best, rtol=1e-6)
    np.testing.assert_allclose(found["k"].error, np.sqrt(covariance[0, 0]), rtol=1e-4)
    rms = np.sqrt(np.mean((exact(best) - seen)[there] ** 2))
    np.testing.assert_allclose(solution.gap.finite[0].rms, rms, rtol=1e-6)
    assert "data: 4 of 30 values are missing, among them 1 whole row; left out" in repr(solution)


@pytest.mark.slow
def test_missing_values_of_any_model_and_of_logarithms():
    """A derivative of the logarithm of NaN would be NaN, too."""

    def logarithm(u, row):
        return jnp.log(row[1] / u["A"].value) + u["k"].value * row[0]

    times, seen, _ = observed_with_gaps()
    found = []
    keep = np.isfinite(seen[:, 0])
    for rows in ((times, seen[:, 0]), (times[keep], seen[keep, 0])):
        model = {"A": cx.Unknown(1.2), "k": cx.Unknown(0.5, low=0)}
        over = cx.Data(rows, holdout=0)
        solution = cx.solve(cx.Problem(cx.Constraint(logarithm, over=over), model))
        found.append(solution.estimates())
        assert len(solution.streams[0].train) == 13
    for name in ("A", "k"):
        one, other = found[0][name], found[1][name]
        np.testing.assert_allclose(
            [one.value, one.error, one.low, one.high],
            [other.value, other.error, other.low, other.high],
            rtol=1e-8,
        )


@pytest.mark.slow
def test_held_out_rms_of_rows_with_gaps_is_that_of_what_was_observed():
    times, seen, _ = observed_with_gaps()
    over = cx.Data((times, seen), holdout=0.4)
    constraint = cx.Constraint(lambda u, row: u["c"].value - row[1], over=over, name="level")
    solution = cx.solve(cx.Problem(constraint, {"c": cx.Unknown(np.array([0.5, 0.5]))}))
    held = solution.streams[0].heldout.points[1]
    r = np.asarray(solution.model["c"].value) - held
    np.testing.assert_allclose(
        solution.gap["level"].heldout_rms.value, np.sqrt(np.nanmean(r**2)), rtol=1e-12
    )


@pytest.mark.slow
def test_rows_that_say_nothing_do_not_count():
    """Rows that a residual sets to zero: as if they were not there."""

    def masked(u, row):
        x, y, there = row
        return there * (u["A"].value * jnp.exp(-u["k"].value * x) - y)

    times, seen = decay_rows(4, k=1.0)
    there = np.array([1, 1, 0, 1, 1, 1, 0, 0, 1, 1.0])
    found = []
    for rows, residual in (
        ((times, seen, there), masked),
        ((times[there > 0], seen[there > 0]), law),
    ):
        model = {"A": cx.Unknown(1.2), "k": cx.Unknown(0.5, low=0)}
        problem = cx.Problem(cx.Constraint(residual, over=cx.Data(rows, holdout=0)), model)
        found.append(cx.solve(problem).estimates())
    assert found[0].degrees == found[1].degrees == 5
    np.testing.assert_allclose(found[0]["k"].error, found[1]["k"].error, rtol=1e-8)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda x, y: (y, x), "NaN means missing only among the values y"),
        (lambda x, y: y, "NaN or infinity"),
        (lambda x, y: (x, np.where(np.isnan(y), np.inf, y)), "rows with infinity"),
        (lambda x, y: (x, np.full_like(y, np.nan)), "Data has no value: all are NaN"),
    ],
)
def test_what_is_not_missing_but_wrong(rows, words):
    times, seen, _ = observed_with_gaps()
    with pytest.raises(ValueError, match=words):
        cx.Data(rows(times, seen[:, 0]))


# Ends of runs


@pytest.mark.slow
def test_data_are_not_judged_on_an_unsolved_model():
    """The residual divides by what is zero at the start, and so is the first guess everywhere."""

    def chain(t, y, args):
        a, b, _ = y
        return jnp.stack([-args["k"] * a, args["k"] * a - 0.4 * b, 0.4 * b])

    def ratio(u, row):
        a, b, c = u(row[0])
        return (a + b) / c - row[1]

    times = np.linspace(0.5, 3, 12)
    known = cx.solve(cx.ivp(chain, jnp.array([1.0, 0, 0]), (0.0, 3.0), args={"k": 1.0}), **SMALL)
    a, b, c = np.asarray(known(times)).T
    data = cx.Constraint(ratio, over=cx.Data((times, (a + b) / c), holdout=0))
    args = {"k": cx.Unknown(0.7, low=0)}
    problem = cx.ivp(chain, jnp.array([1.0, 0, 0]), (0.0, 3.0), args=args, data=data)
    assert abs(cx.solve(problem, **SMALL).estimates()["k"].value - 1) < 1e-8


@pytest.mark.slow
def test_limit_of_steps_is_named_and_stands_before_the_estimates(monkeypatch):
    monkeypatch.setattr(fit, "_SHARES", (1.0,))
    problem = logistic_fit(10**-1.4)[2]
    solution = cx.solve(problem, **SMALL, steps=400)
    assert solution.status == "max_steps"
    assert "the limit of 400 Newton steps, which steps= raises" in solution.reason
    found = solution.estimates()
    assert repr(found).startswith("max_steps: ") and "from a minimum" in repr(found)
    assert all(item.label for item in found.values.values())
    assert cx.solve(problem, **SMALL).status == "converged"


@pytest.mark.parametrize(("beyond", "tried"), [(-0.25, False), (1.5, False), (11.5, True)])
def test_a_bound_is_tried_only_where_it_can_be_the_minimum(beyond, tried):
    # Rows linear in k > 0 whose minimum lies so many times k beyond the bound; others are noise.
    k, rows = 0.01, np.ones(50)
    rows[0] = (1 + beyond) * k
    slopes = np.zeros((50, 1))
    slopes[0] = k
    linear = Linearised(
        rows,
        slopes,
        np.log([k]),
        {"k": cx.Unknown(k, low=0.0)},
        scale=np.zeros(1),
        held=np.zeros(1, bool),
        eps=2e-16,
    )
    step, expected = linear.near_bounds()
    assert step.any() == tried
    if tried:
        at_bound = rows - slopes[:, 0]
        gain = float(linear.rss - at_bound @ at_bound / linear.row_scale**2)
        assert linear.is_bound(gain, expected)


@pytest.mark.parametrize(("gain", "predicted"), [(1.0, 1e-300), (1e300, 1e-10), (1.0, 0.0)])
def test_any_ratio_of_gains_gives_a_damping(gain, predicted):
    damping, factor = _damped(1e-3, 2.0, gain, predicted)
    assert 0 < damping < 1 and factor == 2.0


# Many repeats


def profile_of(times, seen, first, scale):
    """Least squares of `scale exp(-k t)`, or of two unknowns, in closed form."""
    unknowns = {"k": cx.Unknown(0.5, low=0)} | ({} if scale else {"A": cx.Unknown(1.0)})

    def rows(z):
        k, A = np.exp(z[0]), 1.0 if scale else z[1]
        y = A * np.exp(-k * times)
        return y - seen, np.stack(
            [-k * times * y, *([] if scale else [np.exp(-k * times)])], axis=1
        )

    value = lambda x: (x[1] if x.size > 1 else 1.0) * np.exp(-x[0] * times) - seen  # noqa: E731
    start = np.array(first)
    low = [0.0] + [-np.inf] * (start.size - 1)
    fit = least_squares(value, start, bounds=(low, np.inf), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    z = np.array([np.log(max(fit.x[0], 1e-30)), *fit.x[1:]])
    r, S = rows(z)
    return estimates_from(Regression(r, S, z, unknowns, np.ones(r.size), rows))


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("k", [0.0, 0.02, 0.3, 1.5])
def test_intervals_of_few_rows_next_to_a_bound_cover(k, n, alone):
    """1,000 draws: 95 % intervals without a label cover in at least 93 %."""
    rng, times = np.random.default_rng([n, int(100 * k)]), np.linspace(0.3, 3, n)
    inside = unlabelled = 0
    for _ in range(1000):
        seen = np.exp(-k * times) + 0.1 * rng.normal(size=n)
        found = profile_of(times, seen, [0.5] if alone else [0.5, 1.0], alone)
        for name, true in (("k", k), ("A", 1.0)):
            item = found.values.get(name)
            if item is not None and not item.label:
                unlabelled += 1
                inside += item.low <= true <= item.high
    # Exact one-sided binomial test at 1 %.
    assert unlabelled > 300
    assert binom.cdf(inside, unlabelled, 0.93) > 0.01, (inside, unlabelled)


@pytest.mark.slow
def test_unknown_time_of_a_switch_is_not_called_unidentifiable():
    """The derivative through `where` is zero, and data change all the same."""
    t = np.linspace(0.1, 5.0, 40)
    y = np.where(t < 0.7, 0.0, 1 - np.exp(0.7 - t))
    solution = cx.solve(
        cx.ivp(
            lambda t, y, args: jnp.where(t < args["lag"], 0.0, 1.0) - args["k"] * y,
            0.0,
            (0.0, 5.0),
            args={"lag": cx.Unknown(0.5), "k": cx.Unknown(0.8), "unused": cx.Unknown(1.0)},
            data=cx.Data((t, y), holdout=0),
        )
    )
    found = solution.estimates()
    assert "a switch at an unknown time?" in found["lag"].label
    assert found["unused"].label == "not determined by the data"
    assert found.undetermined == ({"unused": 1.0},)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_noise_below_the_tolerance_is_labelled_and_intervals_hold_their_estimate(noise):
    t = np.linspace(0.2, 3.0, 20)
    y = np.exp(-3 * t) + noise * np.random.default_rng(2).normal(size=20)
    problem = cx.ivp(
        lambda t, y, args: -args["k"] * y,
        1.0,
        (0.0, 3.0),
        args={"k": cx.Unknown(2.0)},
        data=cx.Data((t, y), holdout=0),
    )
    loose = cx.solve(problem, tolerance=1e-5).estimates()["k"]
    assert loose.label == "noise is below the tolerance to which the equation is solved"
    assert loose.low <= loose.value <= loose.high
    if noise:
        assert cx.solve(problem).estimates()["k"].label == ""


@pytest.mark.slow
def test_exact_data_without_an_equation_have_no_label_about_its_tolerance():
    x = np.linspace(0.0, 1.0, 8)
    problem = cx.Problem(
        cx.Constraint(
            lambda u, row: u["a"].value * row[0] - row[1],
            over=cx.Data((x, 2 * x), holdout=0),
            name="line",
        ),
        model={"a": cx.Unknown(1.0)},
    )
    assert cx.solve(problem).estimates()["a"].label == ""


@pytest.mark.slow
def test_curved_direction_is_no_switch():
    t = np.linspace(0.1, 1.0, 20)
    problem = cx.ivp(
        lambda t, y, args: jnp.cos(300 * (args["c"] - 1)) + 0 * y,
        0.0,
        (0.0, 1.0),
        args={"c": cx.Unknown(1.0)},
        data=cx.Data((t, t), holdout=0),
    )
    assert cx.solve(problem).estimates()["c"].label == "not determined by the data"
