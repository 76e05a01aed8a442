"""Intervals cover what they say, and say when they cannot be believed."""

import math

import numpy as np
import pytest
from scipy import stats

from constrainednn._statistics import estimate_mean, quantiles, total

UNRELIABLE = "unreliable: ask for more held-out points"


def coverage(draws, mean):
    """Share of rows whose interval covers the mean, and share that is labelled."""
    found = [estimate_mean(row) for row in draws]
    covered = np.mean([item.low <= mean <= item.high for item in found])
    return covered, np.mean([item.label == UNRELIABLE for item in found])


def test_interval_covers_95_percent_of_draws_of_1000_points():
    draws = np.random.default_rng(0).normal(size=(1000, 1000)) ** 2
    covered, labelled = coverage(draws, 1.0)
    assert 0.93 <= covered <= 0.97
    assert labelled == 0


def test_interval_of_25_squared_normals_covers_too_little():
    # The skew of a squared normal is not averaged out at 25 points: about 90 % are covered. The
    # standard error of this share is 0.5 %.
    draws = np.random.default_rng(1).normal(size=(4000, 25)) ** 2
    covered, _ = coverage(draws, 1.0)
    assert 0.88 < covered < 0.93


def test_heavy_tails_are_covered_too_little_and_labelled():
    # Log-normal with sigma 3: the largest 1 % of the population carry 75 % of the mean.
    draws = np.random.default_rng(2).lognormal(sigma=3.0, size=(500, 1000))
    covered, labelled = coverage(draws, math.exp(4.5))
    assert covered < 0.75  # 0.6 with a standard error of 0.02
    assert labelled > 0.8


def test_interval_is_students():
    values = np.random.default_rng(3).exponential(size=40)
    found = estimate_mean(values, level=0.8)
    low, high = stats.t.interval(0.8, 39, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert (found.value, found.n) == (values.mean(), 40)
    assert found.error == pytest.approx(stats.sem(values), rel=1e-12)


def test_lower_end_is_clipped_at_zero():
    found = estimate_mean(np.array([0.0, 0.0, 0.0, 1.0]))
    assert found.low == 0.0
    assert found.high > 1.0


def test_total_has_welchs_interval():
    generator = np.random.default_rng(4)
    one, other = generator.exponential(size=12), 30 * generator.exponential(size=40)
    found = total([estimate_mean(one), estimate_mean(other)])
    # The mean of one minus that of -other, variances unequal.
    known = stats.ttest_ind(one, -other, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(one.mean() + other.mean(), rel=1e-14)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-12)
    assert found.n == 52


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
    # Error propagation: the interval of the root is about 1.97 standard errors to each side.
    assert root.high - root.value == pytest.approx(1.97 * root.error, rel=0.05)
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
