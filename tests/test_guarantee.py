"""What is said of fresh points is right as often as it claims, and is not said where it may not be.

The exact coverage of each statement is a sum of binomial probabilities, or Kolmogorov's law for the
band. It is computed here by SciPy's distributions, not by what the package computes it with.
"""

import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import constrainednn as cx
from constrainednn._gap.holds.bounds import (
    band_half_width,
    draws_needed,
    rank_of_bound,
    share_bound,
)
from constrainednn._gap.holds.guarantee import guarantee
from constrainednn._gap.tables import notes

TAILS = {
    "normal": stats.halfnorm(),
    "exponential": stats.expon(),
    "Pareto 1.2": stats.pareto(1.2),
}


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def circle(points=20, **settings):
    constraint = cx.Constraint(on_circle, over=cx.Normal(2), points=points, **settings)
    return cx.Problem(constraint, cx.MLP(2, 2, width=8))


SMALL = {"monitor": 16, "heldout": 400}


@pytest.mark.parametrize(("violated", "n"), [(0, 1), (0, 59), (3, 300), (41, 4096), (298, 299)])
def test_share_bound_inverts_the_binomial_sum(violated, n):
    p = share_bound(violated, n, 0.95)
    assert stats.binom.cdf(violated, n, p) == pytest.approx(0.05, rel=1e-8)
    assert p == pytest.approx(
        stats.binomtest(violated, n, alternative="less").proportion_ci(0.95).high, rel=1e-8
    )


def test_share_bound_of_nothing_seen_is_the_root_and_of_everything_is_one():
    assert share_bound(0, 100, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-12)
    assert share_bound(7, 7, 0.95) == 1.0
    with pytest.raises(cx.errors.BadValueError, match="between 0 and n=7, got 8"):
        share_bound(8, 7, 0.95)
    with pytest.raises(cx.errors.BadValueError, match="a draw or more"):
        rank_of_bound(0, 0.99, 0.95)


@pytest.mark.parametrize("n", [299, 300, 473, 1000, 4096, 100_000])
def test_rank_is_the_smallest_that_has_the_confidence(n):
    k = rank_of_bound(n, 0.99, 0.95)
    assert stats.binom.cdf(k - 1, n, 0.99) >= 0.95 > stats.binom.cdf(k - 2, n, 0.99)


def test_a_bound_for_99_percent_needs_299_points():
    assert draws_needed(0.99, 0.95) == 299
    assert (rank_of_bound(298, 0.99, 0.95), rank_of_bound(299, 0.99, 0.95)) == (None, 299)
    few = guarantee(np.arange(298.0), tolerance=None)
    assert few.bound is None
    assert "needs 299 held-out points" in few.lines()[0]
    assert guarantee(np.arange(299.0), tolerance=None).bound == 298


def test_band_is_massarts_and_covers_by_kolmogorovs_law():
    assert band_half_width(200, 0.95) == pytest.approx(math.sqrt(math.log(40) / 400))
    for n in (1, 5, 50, 4096):
        assert stats.kstwo.cdf(min(band_half_width(n, 0.95), 1), n) >= 0.95


def test_shares_of_the_band_are_those_of_the_points():
    sizes = np.array([0.0, 0.001, 0.02, 0.3, 4.0] * 100)
    found = guarantee(sizes, tolerance=0.02)
    half = band_half_width(500, 0.95)
    expected = {10.0: 0.0, 1.0: 0.2, 0.1: 0.4, 0.01: 0.6}
    assert {item.level: (item.low, item.high) for item in found.band} == {
        level: pytest.approx((max(share - half, 0), share + half))
        for level, share in expected.items()
    }
    assert found.violated == 200  # 0.02 itself does not violate


def test_a_residual_that_is_not_finite_violates():
    sizes = np.array([math.nan, math.inf, *np.zeros(998)])
    found = guarantee(sizes, tolerance=1e300)
    assert (found.violated, found.bound, found.band) == (2, 0.0, ())
    assert guarantee(sizes[:300], tolerance=1.0).bound == math.inf


def test_shown_bounds_are_never_below_the_true_ones():
    found = guarantee(np.linspace(0, 1.2345678, 400), tolerance=0.5)
    first, second = found.lines()
    share, bound = float(first.split("no more than ")[1].split()[0]), first.split("|r| <= ")[1]
    assert (
        0 <= share / 100 - found.share < 1e-3 and 0 <= float(bound.split()[0]) - found.bound < 0.01
    )
    assert "> 0.1 at " in second


@pytest.mark.slow
def test_report_states_the_guarantee_for_the_tolerance_of_the_constraint():
    solution = cx.solve(circle(tolerance=0.05), steps=5, **SMALL)
    found = solution.gap["on_circle"].guarantee
    sizes = np.abs(
        np.linalg.norm(np.asarray(solution(solution.streams[0].heldout.points)), axis=1) - 1
    )
    assert solution.gap["on_circle"].holds.kind == "with probability"
    assert found.violated == (sizes > 0.05).sum()
    assert found.share == share_bound(found.violated, 400, 0.95)
    assert found.bound == pytest.approx(np.sort(sizes)[rank_of_bound(400, 0.99, 0.95) - 1])
    said = [line for line in notes(solution.gap) if "with 95 % confidence" in line]
    assert said == [f"on_circle: {line}" for line in found.lines()] and said[0] in repr(solution)
    for bad in (0, -1.0, math.nan):
        with pytest.raises(cx.errors.BadValueError, match="tolerance must be finite and above"):
            circle(tolerance=bad)


@pytest.mark.slow
def test_a_tolerance_named_after_the_run_is_refused(tmp_path):
    cx.solve(circle(), steps=2, **SMALL).save(tmp_path / "a")
    with pytest.raises(cx.errors.StoreError, match=r"tolerance None in the file and 0\.05"):
        cx.load_solution(tmp_path / "a", circle(tolerance=0.05))


@pytest.mark.slow
def test_void_where_points_were_looked_at_before_the_run_went_on(tmp_path):
    out, problem = tmp_path / "a", circle(tolerance=0.05)
    first = cx.solve(problem, steps=2, **SMALL, out=out)
    same = cx.resume(out, problem)  # nothing new was asked for
    more = cx.resume(out, problem, steps=4)
    assert (first.settings.looked, same.settings.looked, more.settings.looked) == (0, 0, 1)
    void = more.gap["on_circle"].guarantee
    assert "looked at once before" in void.void and (void.share, void.bound) == (None, None)
    assert "no guarantee for fresh points" in repr(more)
    assert cx.load_solution(out, problem).gap["on_circle"].guarantee == void
    fresh = more.evaluate(over=cx.Normal(2), heldout=400)
    assert fresh.guarantee.void == "" and fresh.guarantee.share < 1 and fresh.note == ""


@pytest.mark.slow
def test_void_for_rows_of_data():
    x = np.linspace(0, 1, 40)
    fit = cx.Constraint(lambda u, row: u(row[0]) - row[1], over=cx.Data((x, x**2)), name="fit")
    solution = cx.solve(cx.Problem(fit, cx.Linear("scalar", "scalar")), steps=5)
    assert "rows of data" in solution.gap["fit"].guarantee.void


@pytest.mark.slow
def test_columns_of_a_study_and_void_where_settings_were_chosen():
    def problem(points=10):
        return circle(points, tolerance=0.05)

    found = cx.study(problem, vary={"points": [10, 20]}, seeds=1, steps=2, **SMALL)
    parts = [row["gap"]["constraints"][0]["guarantee"] for row in found.rows]
    table = found.table()
    assert [row["violating"] for row in table] == [part["share"] for part in parts]
    assert [row["bound_99"] for row in table] == [part["bound"] for part in parts]
    assert [row["void"] for row in table] == ["", ""]
    assert {row["holds"] for row in table} == {"with probability"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = found.best().table()
    assert "selected among 2 settings" in best[0]["void"]
    assert math.isnan(best[0]["violating"]) and math.isnan(best[0]["bound_99"])


def exact_share_coverage(n, p):
    """Probability that the bound from a binomial number of violations is at least p."""
    k = np.arange(n + 1)
    bounds = np.array([share_bound(int(i), n, 0.95) for i in k])
    return stats.binom.pmf(k, n, p)[bounds >= p].sum()


@pytest.mark.slow
@pytest.mark.parametrize("n", [299, 1000, 4096])
@pytest.mark.parametrize("name", TAILS)
def test_statements_are_right_as_often_as_the_exact_sum_says(name, n):
    law, runs, p = TAILS[name], 1000, 0.02
    tolerance, top, higher = law.ppf([1 - p, 0.99, 0.995])
    rank = rank_of_bound(n, 0.99, 0.95)
    exact = {
        "share": exact_share_coverage(n, p),
        "bound": stats.binom.cdf(rank - 1, n, 0.99),
        "band": stats.kstwo.cdf(band_half_width(n, 0.95), n),
    }
    generator = np.random.default_rng(0)
    right = dict.fromkeys(exact, 0)
    sharp = 0
    for _ in range(runs):
        sizes = np.sort(law.ppf(generator.uniform(size=n)))
        found = guarantee(sizes, tolerance=tolerance)
        right["share"] += found.share >= p
        right["bound"] += found.bound >= top
        # All levels at once: the farthest of the share below from its probability, at every size.
        below, true = np.arange(1, n + 1) / n, law.cdf(sizes)
        farthest = max((below - true).max(), (true - below + 1 / n).max())
        right["band"] += farthest <= band_half_width(n, 0.95)
        assert farthest > band_half_width(n, 0.95) or all(
            item.low <= law.sf(item.level) <= item.high for item in found.band
        )
        sharp += found.bound < higher
    for what, coverage in exact.items():
        assert coverage >= 0.95
        error = math.sqrt(coverage * (1 - coverage) / runs)
        assert abs(right[what] / runs - coverage) <= 4 * error, what
    if n == 4096:
        assert sharp >= 0.9 * runs


@pytest.mark.slow
def test_statements_cover_where_the_law_has_atoms():
    """Most sizes are zero and the rest one: the confidence may only be larger."""
    generator = np.random.default_rng(1)
    right = 0
    for _ in range(1000):
        found = guarantee((generator.uniform(size=500) < 0.0101).astype(float), tolerance=0.5)
        right += found.share >= 0.0101 and found.bound == 1.0
    # Both statements at once, each with 95 %.
    assert right >= 900
