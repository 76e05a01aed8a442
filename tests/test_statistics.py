"""Intervals cover what they say, and say when they cannot be believed."""

import math

import numpy as np
import pytest
from scipy import stats

from constrainednn._gap.statistics import (
    UNRELIABLE,
    _inequality,
    estimate_mean,
    quantiles,
    total,
)


def test_interval_of_many_points_is_nearly_students():
    values = np.random.default_rng(3).exponential(size=4096)
    found = estimate_mean(values, level=0.8)
    low, high = stats.t.interval(0.8, 4095, loc=values.mean(), scale=stats.sem(values))
    assert found.low == pytest.approx(low, rel=1e-12)
    # An exponential mean has skewness 2/64: the upper end moves by (1 + 2 t^2) / 6 times as much.
    shift = (1 + 2 * 1.28**2) / 6 * 2 / 64
    assert (found.high - high) / found.error == pytest.approx(shift, rel=0.15)
    assert (found.value, found.n) == (values.mean(), 4096)
    assert found.error == pytest.approx(stats.sem(values), rel=1e-12)


def test_upper_end_is_halls_where_values_are_far_from_zero():
    values = 1000 + np.random.default_rng(8).exponential(size=24)
    found = estimate_mean(values)
    # With n - 1 in the deviation and n / ((n - 1) (n - 2)) before the sum of third powers.
    skewness = stats.skew(values, bias=False) / math.sqrt(24)

    # Hall's monotone cubic of a studentized mean takes the quantile of t at this end.
    def cubic(x):
        return x + skewness / 3 * x**2 + skewness**2 / 27 * x**3 + skewness / 6

    at_end = (values.mean() - found.high) / stats.sem(values)
    assert cubic(at_end) == pytest.approx(-stats.t.ppf(0.975, 23), rel=1e-9)
    mirrored = estimate_mean(2002 - values)
    assert mirrored.low == pytest.approx(2002 - found.high, rel=1e-9)


def test_upper_end_of_few_points_is_students_for_the_inverse_cube_root():
    values = np.array([0.5, 0.9, 1.0, 1.2, 0.7, 1.1, 0.8, 1.4])
    found = estimate_mean(values)
    half = stats.t.ppf(0.975, 7) * stats.sem(values) / 3 * values.mean() ** (-4 / 3)
    assert found.high ** (-1 / 3) == pytest.approx(values.mean() ** (-1 / 3) - half, rel=1e-12)


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e30, 1e200])
def test_interval_does_not_depend_on_the_unit(unit):
    values = np.random.default_rng(9).normal(size=100) ** 2
    plain, scaled = estimate_mean(values), estimate_mean(unit * values)
    assert (scaled.low / unit, scaled.high / unit) == pytest.approx((plain.low, plain.high))


def test_tails_of_infinite_variance_are_labelled_and_light_ones_are_not():
    generator = np.random.default_rng(2)
    heavy = [1 + generator.pareto(alpha, 4096) for alpha in (1.5, 2.0)]
    heavy += [generator.lognormal(sigma=sigma, size=4096) for sigma in (2.0, 2.2)]
    assert [estimate_mean(values).label for values in heavy] == [UNRELIABLE] * 4
    light = [generator.normal(size=4096) ** 2, generator.exponential(size=4096)]
    assert [estimate_mean(values).label for values in light] == ["", ""]


def test_heavy_tails_are_labelled_from_400_points_on_and_light_ones_are_not():
    generator = np.random.default_rng(2)
    heavy = [1 + generator.pareto(1.5, 400), generator.lognormal(sigma=2, size=400)]
    assert [estimate_mean(values).label for values in heavy] == [UNRELIABLE] * 2
    light = [generator.normal(size=400) ** 2, generator.uniform(size=400)]
    assert [estimate_mean(values).label for values in light] == ["", ""]


def test_inequality_is_half_the_mean_difference_over_the_mean():
    # The largest 60 % of these ten are 2 to 9, above 2; two are level with it and do not count.
    values = np.array([0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 5.0, 6.0, 9.0])
    excess = np.array([1.0, 3.0, 4.0, 7.0])
    differences = np.abs(excess[:, None] - excess).sum() / (4 * 3)
    assert _inequality(values) == pytest.approx((differences / 2 / excess.mean(), 4))
    assert _inequality(np.array([0.0, 1.0, 1.0, 1.0, 1.0])) == (0.0, 3)
    assert _inequality(np.array([1.0, 1.0, 1.0, 1.0, 2.0])) == (1.0, 1)
    # One value above level ones may be the first of a tail; none is not.
    level = np.ones(100)
    assert estimate_mean(np.append(level[1:], 100.0)).label == UNRELIABLE
    assert estimate_mean(np.append(level[:70], np.zeros(30))).high < 0.9
    # Of a generalised Pareto tail of index 2 it is 2 / 3.
    tail = (1 - (np.arange(1000) + 0.5) / 1000) ** -0.5
    assert _inequality(tail)[0] == pytest.approx(2 / 3, abs=0.03)


def test_upper_end_is_far_where_few_points_do_not_exclude_a_heavy_tail():
    generator = np.random.default_rng(7)
    exponential, uniform = generator.exponential(size=100), generator.uniform(size=100)
    t = stats.t.ppf(0.975, 99)
    found = estimate_mean(exponential)
    assert found.label == ""
    assert found.high - found.value == pytest.approx(10 * t * found.error, rel=1e-12)
    assert found.value - found.low == pytest.approx(t * found.error, rel=1e-12)
    # Uniform numbers exclude it, and so do exponential ones when there are more.
    for values in (uniform, generator.exponential(size=400)):
        found = estimate_mean(values)
        assert found.high - found.value < 1.5 * t * found.error


def test_few_points_are_always_labelled():
    assert "rests on 24 points" in estimate_mean(np.arange(24.0)).label
    assert estimate_mean(np.arange(25.0)).label == ""


def test_lower_end_is_clipped_at_zero():
    found = estimate_mean(np.array([0.0, 0.0, 0.0, 1.0]))
    assert found.low == 0.0
    assert found.high > 1.0


def test_ends_of_a_total_add_as_independent_errors_do():
    generator = np.random.default_rng(4)
    one, other = (estimate_mean(generator.exponential(size=n)) for n in (30, 400))
    found = total([one, other])
    assert found.value == one.value + other.value
    above = math.hypot(one.high - one.value, other.high - other.value)
    below = math.hypot(one.value - one.low, other.value - other.low)
    assert (found.low, found.high) == pytest.approx((found.value - below, found.value + above))
    # Of equal and symmetric parts it is the interval of independent normal estimates.
    many = estimate_mean(5 + generator.normal(size=10_000))
    half = 1.96 * math.sqrt(2) * many.error
    assert total([many, many]).high - 2 * many.value == pytest.approx(half, rel=0.01)
    assert found.n == 430


def test_total_of_one_part_is_that_part():
    part = estimate_mean(np.random.default_rng(5).normal(size=100) ** 2)
    found = total([part])
    assert (found.low, found.high) == pytest.approx((part.low, part.high), rel=1e-12)


def test_total_is_not_available_where_a_part_is_not():
    good = estimate_mean(np.arange(10.0))
    bad = estimate_mean(np.array([1.0, np.inf]))
    found = total([good, bad])
    assert math.isnan(found.value)
    assert math.isnan(found.high)
    assert "not finite at 1 of 2 points" in found.label


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1e-33])
@pytest.mark.parametrize("n", [2, 3, 1000])
def test_zero_spread_has_zero_width_and_is_called_rounding(value, n):
    found = estimate_mean(np.full(n, value))
    assert found.label == "at rounding"
    assert found.low == found.high == found.value == pytest.approx(value, rel=1e-15)


def test_total_of_zero_spreads_has_zero_width():
    found = total([estimate_mean(np.full(10, 0.25)), estimate_mean(np.zeros(5))])
    assert found.low == found.high == 0.25
    assert found.label == "at rounding"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values_are_counted_instead_of_averaged(bad):
    values = np.ones(100)
    values[[3, 50]] = bad
    found = estimate_mean(values)
    assert math.isnan(found.value)
    assert found.label == "not available: residual not finite at 2 of 100 points"


def test_one_point_has_no_interval():
    found = estimate_mean(np.array([2.0]))
    assert (found.value, found.label) == (2.0, "one point: no interval")
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_root_and_shift_move_the_ends_with_the_value():
    part = estimate_mean(np.random.default_rng(6).normal(size=400) ** 2)
    root = part.root(4.0)
    assert np.square([root.value, root.low, root.high]) * 4 == pytest.approx(
        [part.value, part.low, part.high], rel=1e-14
    )
    # Error propagation: the lower end of the root is about 1.97 standard errors below it.
    assert root.value - root.low == pytest.approx(1.97 * root.error, rel=0.05)
    moved = part.shifted(-0.5)
    assert moved.value == part.value - 0.5
    assert (moved.low, moved.high) == (part.low - 0.5, part.high - 0.5)


def test_quantiles_are_those_of_the_finite_values():
    values = np.append(np.arange(101.0), [np.nan, np.inf])
    assert quantiles(values) == {"50%": 50.0, "90%": 90.0, "99%": 99.0, "max": 100.0}
    assert all(math.isnan(item) for item in quantiles(np.array([np.nan])).values())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        estimate_mean(np.zeros(0))
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got 95\. 0\.95 asks"):
        estimate_mean(np.ones(3), level=95)
