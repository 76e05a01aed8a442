"""Unknowns from data: the estimate and its interval against SciPy, closed forms and repeats."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

import constrainednn as cx
from constrainednn._ode.fitting import initial_values
from constrainednn._ode.schemes.windows import Evolution
from constrainednn._pieces import march
from constrainednn._problem.equation_arguments import Arguments
from constrainednn._problem.scheme import Observed
from constrainednn._solve.problem_files import load_module, resolve
from constrainednn.models.pieces import Features, stack_pieces
from constrainednn.results.estimates.from_rows import estimates_from
from constrainednn.results.estimates.regression import Regression

SMALL = {"heldout": 64, "monitor": 16}
LOTKA = load_module(resolve("inverse_lotka_volterra")[0])
TIMES = np.linspace(0.0, 2.0, 12)


def decay(t, y, args):
    return -args["rate"] * y


def decay_problem(args=None, y0=None, data=None, **keywords):
    """y' = -rate y, seen with a little noise."""
    seen = np.exp(-1.5 * TIMES) + 0.01 * np.random.default_rng(1).normal(size=12)
    return cx.ivp(
        decay,
        jnp.asarray(1.0) if y0 is None else y0,
        (0.0, 2.0),
        args={"rate": cx.Unknown(1.0)} if args is None else args,
        data=cx.Data((TIMES, seen), holdout=0.0) if data is None else data,
        **keywords,
    )


# Estimates


@pytest.mark.slow
def test_lorenz_without_noise(solved):
    solution = solved("inverse_lorenz", **SMALL)
    assert solution.status == "converged"
    found = solution.estimates()
    for name, true in (("sigma", 10.0), ("rho", 15.0), ("beta", 8 / 3)):
        assert abs(found[name].value - true) < 1e-10 * true
        assert found[name].error < 1e-10
    # The error of the solution is that for the rates that were found.
    assert "estimated relative error" in repr(solution.error_estimate())
    assert solution.compare().difference < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["both", "prey"])
def test_lotka_volterra_is_the_least_squares_fit_of_the_exact_flow(solved, seen):
    solution = solved("inverse_lotka_volterra", settings={"seen": seen}, **SMALL)
    times, counts = solution.streams[1].train.points
    names = sorted(LOTKA.TRUTH)

    def rows(logs):
        birth, catch, death, gain = np.exp(logs)

        def field(t, y):
            return [birth * y[0] - catch * y[0] * y[1], gain * y[0] * y[1] - death * y[1]]

        span, tight = (0.0, times[-1]), {"rtol": 1e-13, "atol": 1e-13}
        y = solve_ivp(field, span, LOTKA.START, "DOP853", times, **tight).y.T
        return ((y if seen == "both" else y[:, 0]) - counts).ravel()

    start = [np.log(LOTKA.TRUTH[name]) for name in names]
    fit = least_squares(rows, start, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, jac="3-point")
    degrees = len(fit.fun) - 4
    sigma = np.sqrt(2 * fit.cost / degrees)
    covariance = sigma**2 * np.linalg.inv(fit.jac.T @ fit.jac)
    error = np.sqrt(np.diag(covariance))
    found = solution.estimates()
    assert found.degrees == degrees
    np.testing.assert_allclose(found.sigma, sigma, rtol=1e-8)
    from scipy.stats import t

    quantile = t.ppf(0.975, degrees)
    for k, name in enumerate(names):
        item = found[name]
        np.testing.assert_allclose(np.log(item.value), fit.x[k], atol=1e-4 * error[k])
        np.testing.assert_allclose(item.error, np.exp(fit.x[k]) * error[k], rtol=1e-4)
        # A profile interval, which for so little noise is a t interval of the logarithm nearly.
        ends = fit.x[k] + quantile * error[k] * np.array([-1, 1])
        np.testing.assert_allclose(np.log([item.low, item.high]), ends, atol=0.1 * error[k])
    np.testing.assert_allclose(found.correlation, covariance / np.outer(error, error), atol=1e-5)


@pytest.mark.slow
def test_unidentifiable_model_is_called_so_with_its_direction(solved):
    solution = solved("unidentifiable", **SMALL)
    found = solution.estimates()
    (direction,) = found.undetermined
    assert direction.keys() == {"first", "second"}
    np.testing.assert_allclose(sorted(direction.values()), [-1, 1], atol=1e-6)
    for item in found.values.values():
        assert item.label == "not determined by the data"
        assert (item.low, item.high, item.error) == (0.0, np.inf, np.inf)
    assert np.isnan(found.correlation).all()
    text = repr(solution)
    assert (
        "unidentifiable: the data would be the same with first +1 % and second -1 %" in text
        or "unidentifiable: the data would be the same with first -1 % and second +1 %" in text
    )
    # The product is determined all the same.
    args = solution.model.args
    assert abs(float(args["first"] * args["second"]) - 1.2) < 0.05


@pytest.mark.slow
def test_unknown_initial_value_and_scale_of_the_measurement():
    """y(0) is a function of args, and a residual reads `u.args`."""
    rate, first, scale = 1.5, 2.0, 3.0

    def measured(u, row):
        time, value = row
        return u.args["scale"] * u(time) - value

    seen = first * np.exp(-rate * TIMES)
    solution = cx.solve(
        decay_problem(
            args={"rate": cx.Unknown(1.0), "first": cx.Unknown(1.0), "scale": cx.Unknown(1.0)},
            y0=lambda args: args["first"],
            data=[
                cx.Constraint(measured, over=cx.Data((TIMES, scale * seen), holdout=0.0)),
                cx.Data((TIMES[:3], seen[:3]), holdout=0.0),
            ],
        ),
        **SMALL,
    )
    for name, true in (("rate", rate), ("first", first), ("scale", scale)):
        assert abs(float(solution.model.args[name]) - true) < 1e-9
    assert not solution.estimates().undetermined


@pytest.mark.slow
def test_second_order_and_arrays_of_unknowns():
    def spring(t, y, args):
        position, velocity = y
        return -args[0] * position - args[1] * velocity

    times = np.linspace(0.0, 5.0, 30)
    w = np.sqrt(4.0 - 0.25**2)
    seen = np.exp(-0.25 * times) * (np.cos(w * times) + 0.25 / w * np.sin(w * times))
    problem = cx.ivp(
        spring,
        (1.0, 0.0),
        (0.0, 5.0),
        order=2,
        args=cx.Unknown([3.0, 0.1], low=0.0),
        data=cx.Data((times, seen), holdout=0.0),
    )
    found = cx.solve(problem, **SMALL).estimates()
    assert list(found.values) == ["args[0]", "args[1]"]
    np.testing.assert_allclose([i.value for i in found.values.values()], [4.0, 0.5], rtol=1e-9)


@pytest.mark.slow
def test_interval_is_mapped_back_and_stays_within_the_bounds():
    values = []
    for low, high in ((-np.inf, 4.0), (0.0, 4.0), (-np.inf, np.inf)):
        problem = decay_problem(args={"rate": cx.Unknown(1.0, low=low, high=high)})
        solution = cx.solve(problem, **SMALL)
        item = solution.estimates(level=0.99)["rate"]
        assert low < item.low < item.value < item.high < high
        narrow = solution.estimates()["rate"]
        assert item.low < narrow.low < narrow.high < item.high
        assert narrow.error == item.error
        values.append((item.value, item.error))
    np.testing.assert_allclose(values, values[:1] * 3, rtol=1e-6)  # whatever the scale is


@pytest.mark.slow
def test_given_sigma_scales_the_errors():
    solution = cx.solve(decay_problem(), **SMALL)
    own, given = solution.estimates(), solution.estimates(sigma=0.05)
    np.testing.assert_allclose(given["rate"].error, own["rate"].error * 0.05 / own.sigma)
    assert given.degrees == 0 and "(given)" in repr(given)
    with pytest.raises(ValueError, match="sigma must be finite and above zero"):
        solution.estimates(sigma=0.0)
    with pytest.raises(ValueError, match="level must lie in"):
        solution.estimates(level=1.0)


@pytest.mark.slow
def test_held_out_rows_do_not_count_in_the_estimate(solved):
    """Rows kept from training judge; an estimate from the others alone is the same."""
    seen = np.exp(-1.5 * TIMES) + 0.01 * np.random.default_rng(1).normal(size=12)
    first = cx.solve(decay_problem(data=cx.Data((TIMES, seen))), **SMALL)
    gap = first.gap["data"]
    assert (gap.points, gap.heldout.n) == (10, 2)
    rows = first.streams[1].train.points
    again = cx.solve(decay_problem(data=cx.Data(rows, holdout=0.0)), **SMALL)
    assert first.estimates()["rate"] == again.estimates()["rate"]


@pytest.mark.slow
def test_collocation_rows_are_no_data():
    """Wider windows have more rows of the equation; the standard errors stay."""
    errors = [
        cx.solve(decay_problem(width=width), **SMALL).estimates()["rate"].error
        for width in (16, 32)
    ]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-8)


@pytest.mark.slow
def test_equation_in_any_model_has_the_same_errors():
    """An unknown beside a network, which the physics determines; doubling that adds nothing."""

    def equation(u, t):
        return cx.derivative(u.path)(t) + u.rate.value * u.path(t)

    def seen(u, row):
        return u.path(row[0]) - row[1]

    class Model(cx.models.AbstractRecipe):
        def __call__(self, *, key):
            features = cx.RandomFeatures(cx.Interval(0, 2), "scalar", width=24)
            path = cx.with_output(features(key=key), lambda t, y: 1.0 + t * y)
            return Fitted(path, cx.Unknown(1.0))

    import equinox as eqx

    class Fitted(eqx.Module):
        path: object
        rate: cx.Unknown

    values = np.exp(-1.5 * TIMES) + 0.01 * np.random.default_rng(1).normal(size=12)

    def errors(points):
        problem = cx.Problem(
            [
                cx.Constraint(
                    equation,
                    over=cx.Interval(0, 2),
                    points=points,
                    weight=1e8,
                    sampler=cx.GaussQuadrature(),
                ),
                cx.Constraint(seen, over=cx.Data((TIMES, values), holdout=0.0)),
            ],
            Model(),
        )
        return cx.solve(problem, steps=60, **SMALL).estimates()["rate"]

    exact = cx.solve(decay_problem(), **SMALL).estimates()["rate"]
    once, twice = errors(48), errors(96)
    np.testing.assert_allclose(once.error, twice.error, rtol=1e-2)
    np.testing.assert_allclose(once.error, exact.error, rtol=1e-2)
    np.testing.assert_allclose(once.value, exact.value, atol=5e-2 * exact.error)


@pytest.mark.slow
def test_fit_does_not_depend_on_units():
    """A rate in other units takes the same steps, and one that starts at zero arrives too."""
    taken, values = [], []
    seen = cx.Data((TIMES, np.exp(-1.5 * TIMES)), holdout=0.0)

    def field(t, y, args):
        return -args["rate"] / args["unit"] * y

    for unit, start in ((1.0, 1.0), (1e-7, 1e-7), (1e9, 1e9), (1e-7, 0.0)):
        args = {"rate": cx.Unknown(start), "unit": unit}
        problem = cx.ivp(field, jnp.asarray(1.0), (0.0, 2.0), args=args, data=seen)
        solution = cx.solve(problem, **SMALL)
        assert solution.status == "converged"
        taken.append(solution.reason)
        values.append(solution.estimates()["rate"].value / unit)
    assert taken[0] == taken[1] == taken[2]
    np.testing.assert_allclose(values, 1.5, rtol=1e-12)


@pytest.mark.slow
def test_what_has_no_effect_and_what_is_truly_zero():
    def field(t, y, args):
        return -args["rate"] * y + args["offset"]

    args = {"rate": cx.Unknown(1.0), "offset": cx.Unknown(0.5), "unused": cx.Unknown(2.0)}
    data = cx.Data((TIMES, np.exp(-1.5 * TIMES)), holdout=0.0)
    problem = cx.ivp(field, jnp.asarray(1.0), (0.0, 2.0), args=args, data=data)
    found = cx.solve(problem, **SMALL).estimates()
    assert found["unused"].label == "not determined by the data"
    assert found.undetermined == ({"unused": 1.0},)
    assert "below the tolerance" in found["offset"].label  # the data have none
    assert abs(found["offset"].value) < 1e-13


@pytest.mark.slow
def test_number_at_its_bound_and_as_many_rows_as_unknowns():
    problem = decay_problem(args={"rate": cx.Unknown(1.0, low=0.0, high=1.2)})
    found = cx.solve(problem, **SMALL).estimates()
    assert found["rate"].label == "at its bound" and not found.undetermined
    assert abs(found["rate"].value - 1.2) < 1e-6
    one = decay_problem(data=cx.Data((TIMES[5:6], np.exp(-1.5 * TIMES[5:6])), holdout=0.0))
    found = cx.solve(one, **SMALL).estimates()
    assert abs(found["rate"].value - 1.5) < 1e-12 and np.isnan(found["rate"].low)
    assert "noise not known: as many unknowns as observed numbers" in repr(found)


@pytest.mark.slow
def test_fit_in_single_precision():
    with jax.enable_x64(False):
        item = cx.solve(decay_problem(), **SMALL).estimates()["rate"]
    exact = cx.solve(decay_problem(), **SMALL).estimates()["rate"]
    assert abs(item.value - exact.value) < 1e-2 * exact.error
    np.testing.assert_allclose(item.error, exact.error, rtol=1e-3)


@pytest.mark.slow
def test_first_unknowns_that_are_far_off_end_with_a_reason():
    far = cx.solve(decay_problem(args={"rate": cx.Unknown(-300.0)}), **SMALL)
    assert far.status == "stalled" and "no step lowers the sum of squares" in far.reason
    data = cx.Data((TIMES[1:], np.exp(-TIMES[1:])), holdout=0.0)

    def field(t, y, args):
        return args["rate"] * y**2

    early = cx.ivp(field, 1.0, (0.0, 2.0), args={"rate": cx.Unknown(1e6)}, data=data)
    solution = cx.solve(early, **SMALL)
    assert solution.status == "blow_up"
    assert "no data are reached with the initial unknowns" in solution.reason


def conduction(x, y, p):
    return jnp.stack([y[1], -2.0 / p["k"]])


def cooled(left, right, p):
    return jnp.stack([left[0], p["k"] * right[1] + p["h"] * (right[0] - 1.0)])


def temperature(u, row):
    return u(row[0])[0] - row[1]


def rod(x, k, h):
    return -(x**2) / k + (2 + h / k + h) / (k + h) * x


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_unknowns_in_the_equation_and_in_boundary_conditions(noise):
    x = np.linspace(0.0, 1.0, 15)
    seen = rod(x, 1.7, 0.8) + noise * np.random.default_rng(0).normal(size=15)
    problem = cx.bvp(
        conduction,
        cooled,
        (0.0, 1.0),
        [0.0, 1.0],
        p={"k": cx.Unknown(1.0, low=0.0), "h": cx.Unknown(0.3, low=0.0)},
        data=cx.Constraint(temperature, over=cx.Data((x, seen), holdout=0.0)),
    )
    solution = cx.solve(problem, **SMALL)
    assert solution.status == "converged"
    found = solution.estimates()
    if noise == 0.0:
        np.testing.assert_allclose([found["k"].value, found["h"].value], [1.7, 0.8], rtol=1e-12)
        return
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14, "jac": "3-point"}
    fit = least_squares(lambda z: rod(x, *np.exp(z)) - seen, np.log([1.7, 0.8]), **tight)
    error = np.sqrt(np.diag(2 * fit.cost / 13 * np.linalg.inv(fit.jac.T @ fit.jac)))
    for k, name in enumerate(("k", "h")):
        np.testing.assert_allclose(found[name].value, np.exp(fit.x[k]), rtol=1e-6)
        np.testing.assert_allclose(found[name].error, np.exp(fit.x[k]) * error[k], rtol=1e-5)
    assert "rounding" in repr(solution.error_estimate())


@pytest.mark.slow
def test_nonlinear_boundary_value_problem_from_data_goes_on_as_if_not_interrupted(tmp_path):
    import signal

    def bratu(x, y, p):
        return jnp.stack([y[1], -p["strength"] * jnp.exp(y[0])])

    def ends(left, right, p):
        return jnp.stack([left[0], right[0]])

    known = cx.bvp(
        lambda x, y: bratu(x, y, {"strength": 1.0}),
        lambda a, b: ends(a, b, None),
        (0.0, 1.0),
        [0.0, 0.0],
    )
    x = np.linspace(0.1, 0.9, 9)
    data = cx.Data((x, np.asarray(cx.solve(known, **SMALL)(x))), holdout=0.0)
    unknown = {"strength": cx.Unknown(0.3)}
    problem = cx.bvp(bratu, ends, (0.0, 1.0), [0.0, 0.0], p=unknown, data=data)
    whole = cx.solve(problem, **SMALL)
    assert abs(float(whole.model.args["strength"]) - 1.0) < 1e-12
    seen = itertools.count(1)

    def progress(now):
        if now.phase == "solving, %" and next(seen) == 5:
            signal.raise_signal(signal.SIGINT)

    part = cx.solve(problem, **SMALL, out=tmp_path / "a", progress=progress)
    assert part.status == "interrupted"
    rest = cx.resume(tmp_path / "a", problem)
    assert (rest.status, rest.reason, rest.steps) == ("converged", whole.reason, whole.steps)
    np.testing.assert_array_equal(rest.model.head, whole.model.head)
    with pytest.raises(ValueError, match="p holds unknowns, strength, and there is nothing"):
        cx.bvp(bratu, ends, (0.0, 1.0), [0.0, 0.0], p=unknown)
    with pytest.raises(ValueError, match="data has nothing to estimate: p holds no"):
        cx.bvp(bratu, ends, (0.0, 1.0), [0.0, 0.0], p=[1.0], data=data)


# NIST


def misra(u, row):
    x, y = row
    return u["b1"].value * (1 - jnp.exp(-u["b2"].value * x)) - y


def thurber(u, row):
    x, y = row
    b = [None, *(u[f"b{k}"].value for k in range(1, 8))]
    top = b[1] + x * (b[2] + x * (b[3] + x * b[4]))
    return top / (1 + x * (b[5] + x * (b[6] + x * b[7]))) - y


def mgh09(u, row):
    x, y = row
    b = [None, *(u[f"b{k}"].value for k in range(1, 5))]
    return b[1] * (x**2 + x * b[2]) / (x**2 + x * b[3] + b[4]) - y


# Statistical Reference Datasets, nonlinear regression, National Institute of Standards and
# Technology, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml (public domain): rows (y, x),
# both starts, certified values and their standard deviations, residual standard deviation.
NIST = {
    "Misra1a": (
        misra,
        """10.07 77.6 14.73 114.9 17.94 141.1 23.93 190.8 29.61 239.9 35.18 289.0 40.02 332.8
        44.82 378.4 50.76 434.8 55.05 477.3 61.01 536.8 66.40 593.1 75.47 689.1 81.78 760.0""",
        [(500, 250), (1e-4, 5e-4)],
        [(2.3894212918e02, 2.7070075241e00), (5.5015643181e-04, 7.2668688436e-06)],
        1.0187876330e-01,
    ),
    "Thurber": (
        thurber,
        """80.574 -3.067 84.248 -2.981 87.264 -2.921 87.195 -2.912 89.076 -2.840 89.608 -2.797
        89.868 -2.702 90.101 -2.699 92.405 -2.633 95.854 -2.481 100.696 -2.363 101.060 -2.322
        401.672 -1.501 390.724 -1.460 567.534 -1.274 635.316 -1.212 733.054 -1.100 759.087 -1.046
        894.206 -0.915 990.785 -0.714 1090.109 -0.566 1080.914 -0.545 1122.643 -0.400
        1178.351 -0.309 1260.531 -0.109 1273.514 -0.103 1288.339 0.010 1327.543 0.119
        1353.863 0.377 1414.509 0.790 1425.208 0.963 1421.384 1.006 1442.962 1.115
        1464.350 1.572 1468.705 1.841 1447.894 2.047 1457.628 2.200""",
        [(1000, 1300), (1000, 1500), (400, 500), (40, 75), (0.7, 1), (0.3, 0.4), (0.03, 0.05)],
        [
            (1.2881396800e03, 4.6647963344e00),
            (1.4910792535e03, 3.9571156086e01),
            (5.8323836877e02, 2.8698696102e01),
            (7.5416644291e01, 5.5675370270e00),
            (9.6629502864e-01, 3.1333340687e-02),
            (3.9797285797e-01, 1.4984928198e-02),
            (4.9727297349e-02, 6.5842344623e-03),
        ],
        1.3714600784e01,
    ),
    "MGH09": (
        mgh09,
        """1.957e-01 4 1.947e-01 2 1.735e-01 1 1.6e-01 5e-01 8.44e-02 2.5e-01 6.27e-02 1.67e-01
        4.56e-02 1.25e-01 3.42e-02 1e-01 3.23e-02 8.33e-02 2.35e-02 7.14e-02 2.46e-02 6.25e-02""",
        [(25, 0.25), (39, 0.39), (41.5, 0.415), (39, 0.39)],
        [
            (1.9280693458e-01, 1.1435312227e-02),
            (1.9128232873e-01, 1.9633220911e-01),
            (1.2305650693e-01, 8.0842031232e-02),
            (1.3606233068e-01, 9.0025542308e-02),
        ],
        5.2799099472e-03 * 0 + 6.6279236551e-03,
    ),
}


@pytest.mark.parametrize("start", [0, slow(1)])
@pytest.mark.parametrize("name", ["Misra1a", slow("Thurber"), slow("MGH09")])
def test_nist_certified_values(name, start):
    residual, text, starts, certified, deviation = NIST[name]
    y, x = np.array(text.split(), float).reshape(-1, 2).T
    model = {f"b{k}": cx.Unknown(pair[start]) for k, pair in enumerate(starts, 1)}
    problem = cx.Problem(cx.Constraint(residual, over=cx.Data((x, y), holdout=0.0)), model)
    solution = cx.solve(problem, steps=2000)
    found = solution.estimates()
    for k, (value, error) in enumerate(certified, 1):
        np.testing.assert_allclose(found[f"b{k}"].value, value, rtol=1e-6)
        np.testing.assert_allclose(found[f"b{k}"].error, error, rtol=1e-4)
    np.testing.assert_allclose(found.sigma, deviation, rtol=1e-6)


# Many repeats


@pytest.mark.slow
def test_coverage_of_the_intervals():
    """1,000 noisy repeats of inverse Lotka-Volterra in one batch: 95 % intervals, and the bias."""
    problem = LOTKA.problem(noise=0.02)
    scheme, constraint = problem.scheme, problem.constraints[1]
    times = constraint.over.rows[0]
    true = LOTKA.counts(times)
    names = sorted(LOTKA.TRUTH)
    truth = jnp.log(jnp.array([LOTKA.TRUTH[name] for name in names]))
    edges = cx.solve(LOTKA.problem(noise=1e-9), **SMALL).model.ends
    features = initial_values.features_of(scheme)
    monitor = Features(np.linspace(-0.9, 0.9, 8), scheme.width, 1)
    blank = stack_pieces(
        edges,
        np.zeros((len(edges) - 1, 1, 2)),
        np.zeros((len(edges) - 1, scheme.width, 2)),
        unravel=problem.model.unravel,
        parameters=np.asarray(truth),
        arguments=scheme.arguments,
    )
    import equinox as eqx

    def solved_for(z):
        evolution = Evolution(
            scheme.forward(z, scheme.span).field, features[0], features[1], monitor, features[2]
        )

        def window(state, ends):
            found = evolution.window(state, ends[0], ends[1] - ends[0])
            return found.end, found.piece

        start = jnp.array(LOTKA.START)[None]
        ends = jnp.asarray(np.stack([edges[:-1], edges[1:]], axis=1))
        _, (states, head) = jax.lax.scan(window, (start, jnp.abs(start)), ends)
        count = len(edges) - 1
        return eqx.tree_at(
            lambda u: (u.states, u.head, u.parameters),
            blank,
            (blank.states.at[:count].set(states), blank.head.at[:count].set(head), z),
        )

    def fitted(noisy):
        observed = (Observed(constraint.residual, (jnp.asarray(times), noisy), 1.0),)

        def linearised(z):
            return initial_values._linearised(scheme, *features, solved_for(z), observed)

        def step(z, _):
            r, S = linearised(z)
            return z - jnp.linalg.lstsq(S, r)[0], None

        z, _ = jax.lax.scan(step, truth, None, length=5)
        r, S = linearised(z)
        return z, r, S

    rng = np.random.default_rng(7)
    noise = 0.02 * true.mean() * rng.normal(size=(1000, *true.shape))
    with jax.numpy_rank_promotion("allow"):
        z, r, S = jax.jit(lambda all: jax.lax.map(fitted, all, batch_size=50))(true + noise)
    inside = np.zeros(4)
    for k in range(1000):
        rows, unknowns = (np.asarray(r[k]), np.asarray(S[k])), scheme.arguments.unknowns
        found = estimates_from(Regression(*rows, np.asarray(z[k]), unknowns, np.ones(r.shape[1])))
        inside += [found[name].low <= LOTKA.TRUTH[name] <= found[name].high for name in names]
    coverage = inside / 1000
    assert (np.abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)).all(), coverage
    # The bias is of second order in the noise: within its own four standard errors or a hundredth
    # of the spread.
    z = np.asarray(z) - np.asarray(truth)
    spread = z.std(axis=0, ddof=1)
    assert (np.abs(z.mean(axis=0)) < (4 / np.sqrt(1000) + 0.01) * spread).all()


# Bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": ()}, "args holds unknowns, rate, and there is nothing to estimate them from"),
        ({"args": {"rate": 1.5}}, "data has nothing to estimate: args holds no cx.Unknown"),
        ({"data": cx.Data(TIMES)}, r"data=cx.Data\(...\) needs rows \(t, y\)"),
        (
            {"data": cx.Constraint(lambda u, t: u(t), over=cx.Interval(0, 1), name="r")},
            r"data must be cx.Data\(\(t, y\)\), or cx.Constraint",
        ),
        ({"y0": lambda: 1.0}, r"y0 must take args, y0\(args\)"),
    ],
)
def test_what_cannot_be_estimated_is_refused_when_stated(change, words):
    with pytest.raises((TypeError, ValueError), match=words):
        decay_problem(**change)


@pytest.mark.slow
def test_data_outside_of_the_interval_and_too_few_of_them():
    late = np.append(TIMES, 3.0)
    problem = decay_problem(data=cx.Data((late, late), holdout=0.0))
    words = r"constraint 'data': 1 of 13 rows lie outside of the interval \[0, 2\].*point 12: "
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.solve(problem, **SMALL)
    args = {"rate": cx.Unknown(1.0), "other": cx.Unknown(1.0), "third": cx.Unknown(2.0)}
    problem = decay_problem(args=args, data=cx.Data((TIMES[:2], TIMES[:2]), holdout=0.0))
    words = "2 observed numbers cannot determine 3 unknowns, other, rate, third"
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.solve(problem, **SMALL)


@pytest.mark.slow
def test_rows_that_are_there_twice_are_said():
    twice = np.concatenate([TIMES, TIMES[:2]])
    problem = decay_problem(data=cx.Data((twice, np.exp(-twice)), holdout=0.0))
    with pytest.warns(cx.errors.ProblemWarning, match="2 of 14 rows of its data are there twice"):
        cx.solve(problem, **SMALL)


@pytest.mark.parametrize(
    ("start", "bounds", "words"),
    [
        (1.0, {"low": 1.0}, "must lie between low=1 and high=inf, got 1.0"),
        (1.0, {"high": 0.5}, "must lie between low=-inf and high=0.5"),
        (np.nan, {}, "start of Unknown must be finite"),
        ([1.0, 2.0], {"high": 1.5}, "must lie between"),
        ("x", {}, "start of Unknown must hold real numbers"),
    ],
)
def test_bounds_that_exclude_the_start(start, bounds, words):
    with pytest.raises((TypeError, ValueError), match=words):
        cx.Unknown(start, **bounds)


@pytest.mark.slow
def test_estimates_of_what_has_none():
    plain = cx.solve(cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0)), **SMALL)
    with pytest.raises(ValueError, match=r"estimates needs data: no constraint is over cx.Data"):
        plain.estimates()
    solution = cx.solve(decay_problem(), **SMALL)
    with pytest.raises(KeyError, match="no unknown is named 'x'; there is: rate"):
        solution.estimates()["x"]


@pytest.mark.slow
def test_run_without_estimates_is_saved_all_the_same(tmp_path):
    """A network beside an unknown, with fewer rows than numbers; and a fit that ended early."""

    def seen(u, row):
        return u["net"](row[0]) + u["shift"].value - row[1]

    model = {"net": cx.Linear("scalar", "scalar")(key=jax.random.key(0)), "shift": cx.Unknown(1.0)}
    over = cx.Data((TIMES[:2], TIMES[:2]), holdout=0.0)
    few = cx.solve(cx.Problem(cx.Constraint(seen, over=over), model), out=tmp_path / "a")
    assert "2 observed numbers cannot determine 1 unknowns and 2 numbers that are" in repr(few)
    assert (tmp_path / "a" / "report.json").exists()
    data = cx.Data((TIMES[1:], np.exp(-TIMES[1:])), holdout=0.0)
    field = lambda t, y, args: args["rate"] * y**2  # noqa: E731
    early = cx.ivp(field, 1.0, (0.0, 2.0), args={"rate": cx.Unknown(1e6)}, data=data)
    solution = cx.solve(early, **SMALL, out=tmp_path / "b")
    assert "no estimates: the solution does not reach all of the data" in repr(solution)
    assert (tmp_path / "b" / "report.json").exists()


# Runs


@pytest.mark.slow
def test_saved_and_loaded_estimates_are_the_same(tmp_path):
    problem = decay_problem()
    solution = cx.solve(problem, **SMALL)
    solution.save(tmp_path / "a")
    loaded = cx.load_solution(tmp_path / "a", problem)
    assert repr(loaded.estimates()) == repr(solution.estimates())
    assert '"estimates"' in (tmp_path / "a" / "report.json").read_text()


def test_equal_arguments_are_equal_and_compile_once():
    one, two = (Arguments({"a": cx.Unknown(s), "b": np.ones(2), "c": 3}) for s in (1.0, 2.0))
    assert one == two and hash(one) == hash(two)
    assert one != Arguments({"a": cx.Unknown(1.0), "b": np.zeros(2), "c": 3})
    assert one != Arguments({"a": cx.Unknown(1.0, low=0.0), "b": np.ones(2), "c": 3})
    filled = one(jnp.array([5.0]))
    assert float(filled["a"]) == 5.0 and filled["c"] == 3


@pytest.mark.slow
def test_blow_up_at_the_first_guess_is_survived():
    """With the first guess the solution does not reach the end; with the truth it does."""

    def growth(t, y, args):
        return args["rate"] * y**2

    times = np.linspace(0.0, 1.0, 15)
    problem = cx.ivp(
        growth,
        jnp.asarray(1.0),
        (0.0, 1.0),
        args={"rate": cx.Unknown(1.6)},  # infinite at 0.625
        data=cx.Data((times, 1 / (1 - 0.5 * times)), holdout=0.0),
    )
    solution = cx.solve(problem, **SMALL)
    assert solution.status == "converged"
    assert abs(float(solution.model.args["rate"]) - 0.5) < 1e-10


@pytest.mark.slow
def test_interrupted_fit_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    import signal

    monkeypatch.setattr(march, "_FIRST_TRIES", 2)
    monkeypatch.setattr(march, "_LOOK_EVERY", 0.0)
    problem = decay_problem()
    whole = cx.solve(problem, **SMALL)
    for looks in (2, 25):
        seen = itertools.count(1)

        def progress(now, seen=seen, looks=looks):
            if now.phase == "solving, %" and next(seen) == looks:
                signal.raise_signal(signal.SIGINT)

        out = tmp_path / str(looks)
        part = cx.solve(problem, **SMALL, out=out, progress=progress)
        assert part.status == "interrupted"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cx.errors.RunWarning)
            rest = cx.resume(out, problem)
        assert rest.status == "converged" and rest.reason == whole.reason
        assert rest.steps == whole.steps
        np.testing.assert_array_equal(rest.model.parameters, whole.model.parameters)
        np.testing.assert_array_equal(rest.model.head, whole.model.head)


@jax.custom_jvp
def without_slope_above_1_95(k):
    return k


@without_slope_above_1_95.defjvp
def _(primals, tangents):
    (k,), (dk,) = primals, tangents
    return k, jnp.where(k > 1.95, jnp.nan, dk)


@pytest.mark.slow
def test_step_to_where_a_derivative_is_nan_is_refused():
    """The first step goes from 1.5 to 1.99, where the rows are finite and fit better."""
    t = np.linspace(0.9, 1.0, 12)
    found = cx.solve(
        cx.ivp(
            lambda t, y, args: without_slope_above_1_95(args["k"]) * y,
            jnp.array([1.0]),
            (0.0, 1.0),
            args={"k": cx.Unknown(1.5)},
            data=cx.Data((t, np.exp(1.9 * t)[:, None])),
        )
    )
    assert found.status == "converged"
    assert abs(found.estimates()["k"].value - 1.9) < 1e-10


@pytest.mark.parametrize("values", [np.ones(12), np.ones((12, 1)), np.ones((12, 3))])
def test_data_of_another_number_of_components_are_refused(values):
    """Never one number against all components."""
    problem = cx.ivp(
        lambda t, y, args: jnp.stack([y[1], -args["k"] * y[0]]),
        jnp.array([1.0, 0.0]),
        (0.0, 2.0),
        args={"k": cx.Unknown(0.8)},
        data=cx.Data((np.linspace(0.1, 2.0, 12), values)),
    )
    with pytest.raises(ValueError, match=r"numbers at each time, but the state has 2.*NaN"):
        cx.solve(problem)
