"""Statistics of the gap: estimates and intervals, computed from arrays."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from constrainednn.errors import BadValueError

LEVEL = 0.95
UNRELIABLE = "unreliable: ask for more held-out points, heldout="

# Fewer points than this always carry a label, or fewer rows in a cross-validation, whose folds hide
# how skewed the rows are.
_FEW, _FEW_ROWS = 25, 50
# From so many points on, the largest 45 or 1 % of them tell an infinite variance from that of
# squared normal numbers. A longer tail would reach beyond a layer that ten points fell into.
_TELLS, _TAIL = 1500, 45
# The largest 1 % of the points may carry so much of the mean. At one half, draws with few points in
# a layer, whose means are too small, would be those without a label.
_SHARE = 0.6
# Between the two, the inequality (Gini's) of what the largest 60 % of the points, at most 240, are
# above the next one: 1 / 2 for an exponential tail, 1 / (2 - 1 / index) for a power. With k of them
# it exceeds 0.55 (1 + 1 / sqrt(k)) in 3.9 to 4.7 % of draws of squared normal numbers up to 400
# points, in fewer of other light laws, and from 400 points on in 97 % for an index of 2.
_PART, _LARGEST, _UNEQUAL = 0.6, 240, 0.55
# It excludes an index of 2 or less where it is below 2 / 3 - 1.6 / sqrt(k). In between, a heavy
# tail may hide how large its mean is: in 93 % of draws up to 17 standard errors above that of the
# points for an index of 1.2, 10 for 1.35, 7.5 for 1.5 and 4.5 for 2, whatever the number of points.
# The label finds 95 % of these from 110, 130, 170 and 350 points on. So the upper end is 10 t or
# more away up to 100 points, and the distance falls towards 2.3 t as the cube of 100 / n.
_INDEX_2, _AWAY = 2 / 3, 1.6
_FAR, _NEAR, _HUNDRED = 10.0, 2.3, 100


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over independent points with its interval.

    Attributes:
        value: The estimate; NaN where it is not available.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of points behind it.
        error: Standard error of `value`.
        label: What to know before believing the interval; empty if nothing.
    """

    value: float
    low: float
    high: float
    n: int
    error: float
    label: str = ""

    def shifted(self, by: float) -> "Estimate":
        """The estimate of the mean plus a fixed number."""
        return dataclasses.replace(
            self, value=self.value + by, low=self.low + by, high=self.high + by
        )

    def times(self, unit: float) -> "Estimate":
        """The estimate in other units; labelled where those leave the range of the numbers."""
        value, low, high, error = (
            float(unit * part) for part in (self.value, self.low, self.high, self.error)
        )
        label = self.label
        if math.isfinite(self.value) and (math.isinf(value) or (value == 0) != (self.value == 0)):
            label = "beyond the range of floating-point numbers: read the RMS"
        return Estimate(value, low, high, self.n, error, label)

    def root(self, divisor: float) -> "Estimate":
        """Square root of value and ends, each divided by `divisor` first."""
        value, low, high = (
            math.sqrt(max(end, 0) / divisor) if not math.isnan(end) else math.nan
            for end in (self.value, self.low, self.high)
        )
        error = self.error / (2 * divisor * value) if value > 0 else math.nan
        return dataclasses.replace(self, value=value, low=low, high=high, error=error)


def estimate_mean(values: Float[np.ndarray, " n"], *, level: float = LEVEL) -> Estimate:
    """Estimate the mean of a non-negative quantity from independent draws.

    Student's interval misses a skewed mean on one side. So its lower end goes down where the values
    are skewed to the left, and the upper end is the larger of two: Hall's, which corrects for the
    skewness seen, and Student's on the scale of mean^(-1/3), on which the likelihood of an
    exponential mean is nearly normal: few points hardly show their own skewness.

    A heavy tail is what points may hide altogether: the few that carry the mean are not among them.
    The inequality of the largest values tells such a tail from squared normal numbers, the better
    the more there are. Where it shows one, there is a label; where it can neither show nor exclude
    one, the upper end is larger, several times so below 150 points.

    Args:
        values: The quantity at each of n independent points, such as |r|^2.
        level: Coverage in (0, 1).

    Returns:
        The mean with its interval, lower end at least zero. The label says when it cannot be
        trusted: there are fewer than 25 points, the largest 1 % of them carry more than 60 % of the
        mean, the largest are too unequal for squared normal numbers, from 1,500 points on they do
        not show that the variance is finite, or values are not finite.

    Raises:
        ValueError: If there is no value or `level` is out of range.

    Source:
        P. Hall, J. R. Statist. Soc. B 54 (1992) 221 (skewness); Sprott, Biometrika 60 (1973) 457
        (cube root); Gail and Gastwirth, J. R. Statist. Soc. B 40 (1978) 350 (Gini's statistic
        against an exponential law); Hosking, J. R. Statist. Soc. B 52 (1990) 105 (its value for a
        generalised Pareto law, as the ratio of the first two L-moments); Hill,
        Ann. Statist. 3 (1975) 1163 (tail index). Coverage is simulated in tests/test_coverage.py.
    """
    if not 0 < level < 1:
        raise BadValueError(
            f"level must lie in (0, 1), got {level}. 0.95 asks for a 95 % interval."
        )
    n = len(values)
    if n == 0:
        raise BadValueError("A mean needs at least one value, got none.")
    missing = int((~np.isfinite(values)).sum())
    if missing:
        label = f"not available: residual not finite at {missing} of {n} points"
        return Estimate(math.nan, math.nan, math.nan, n, math.nan, label)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1, math.nan, "one point: no interval")
    # Equal values have no spread, whatever the rounding of their mean.
    if values.min() == values.max():
        return Estimate(mean, mean, mean, n, 0.0, "at rounding")
    # Divided first: powers of small residuals underflow.
    scaled = values / values.max()
    deviation = float(scaled.std(ddof=1))
    deviations = (scaled - scaled.mean()) / deviation
    skewness = float((deviations**3).mean()) * n**2 / (max(n - 2, 1) * (n - 1))
    error, t = deviation * float(values.max()) / math.sqrt(n), t_quantile(level, n - 1)
    below, above = (max(t, _in_tail(t, side * skewness / math.sqrt(n))) for side in (-1, 1))
    label, least = _tail(np.sort(scaled))
    root = 1 - t * deviation / math.sqrt(n) / float(scaled.mean()) / 3
    high = mean + max(above, least * t) * error
    high = max(high, mean / root**3 if root > 0 else math.inf)
    return Estimate(mean, max(mean - below * error, 0.0), high, n, error, label)


def _in_tail(t: float, skewness: float) -> float:
    """Distance to the end in standard errors, on the side of the tail of a mean of this skewness.

    The inverse of Hall's cubic, whose slope is nowhere zero.
    """
    if skewness < 1e-6:
        return t
    return 3 / skewness * float(1 + np.cbrt(skewness * (t + skewness / 6) - 1))


def _tail(ordered: Float[np.ndarray, " n"]) -> tuple[str, float]:
    """What to know of an interval for the mean, and the least distance of its upper end.

    Args:
        ordered: The values from the smallest to the largest, in units of the largest.

    Returns:
        The label, and the distance in units of half the width of Student's interval.
    """
    n = len(ordered)
    if n < _FEW:
        return f"rests on {n} points: right only if no rare one is much larger", 0.0
    carried = float(ordered[-max(1, round(n / 100)) :].sum() / ordered.sum())
    if n >= _TELLS:
        k = max(_TAIL, round(n / 100))
        # The mean of log(value / threshold) is 1 / index for a tail of P(value > v) ~ v^-index; its
        # standard error is a share 1/sqrt(k) of it. At an index of 2 the variance turns infinite.
        threshold = max(float(ordered[-k - 1]), np.finfo(float).tiny)
        inverse = float(np.log(np.maximum(ordered[-k:] / threshold, 1.0)).mean())
        heavy, least = inverse > 0.5 * (1 - 1.9 / math.sqrt(k)), 0.0
    else:
        inequality, k = _inequality(ordered)
        heavy = inequality > min(_UNEQUAL * (1 + 1 / math.sqrt(k)), 0.99)  # one above others: 1
        excluded = inequality < _INDEX_2 - _AWAY / math.sqrt(k)
        far = _NEAR + (_FAR - _NEAR) * min(_HUNDRED / n, 1.0) ** 3
        least = 0.0 if excluded else far
    return UNRELIABLE if heavy or carried > _SHARE else "", least


def _inequality(ordered: Float[np.ndarray, " n"]) -> tuple[float, int]:
    """Gini's index of what the largest values are above the next one, and their number.

    It is half the mean difference of two of them over their mean. Those level with the next one,
    such as zeros, do not count.
    """
    largest = min(int(_PART * len(ordered)), _LARGEST)
    excess = ordered[-largest:] - ordered[-largest - 1]
    excess = excess[excess > 0]
    k = len(excess)
    if k < 2:
        return float(k), k or largest
    weights = np.arange(1 - k, k, 2)
    return float(weights @ excess / ((k - 1) * excess.sum())), k


def mean_interval(
    values: Float[np.ndarray, " n"], *, overlap: float = 0.0, level: float = LEVEL
) -> Estimate:
    """Estimate the mean of numbers of any sign by a t interval.

    Args:
        values: The numbers, of equal standing.
        overlap: What is added to 1/n in the variance of the mean for numbers that are not
            independent; for k folds the held-out rows over the training rows, 1/(k - 1).
        level: Coverage in (0, 1).

    Source:
        Nadeau and Bengio, Machine Learning 52 (2003) 239, eq. 9, for `overlap`.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, math.nan, "fewer than two: no interval")
    error = float(np.std(values, ddof=1)) * math.sqrt(1 / n + overlap)
    half = t_quantile(level, n - 1) * error
    return Estimate(mean, mean - half, mean + half, n, error)


def loss_interval(
    values: Float[np.ndarray, " n"], *, rows: int, overlap: float, level: float = LEVEL
) -> Estimate:
    """Estimate the mean of positive losses of folds, with an interval that stays above zero.

    The t interval of `mean_interval` is taken on the scale of mean^(-1/3), as for points.

    Args:
        values: The losses, of equal standing.
        rows: Rows that they are means over; fewer than 50 carry a label.
        overlap: As in `mean_interval`.
        level: Coverage in (0, 1).
    """
    found = mean_interval(values, overlap=overlap, level=level)
    if math.isnan(found.low) or found.error == 0:
        return found
    third = (found.high - found.value) / found.value / 3
    high = found.value / (1 - third) ** 3 if third < 1 else math.inf
    label = (
        f"rests on {rows} rows: right only if no rare one is much larger"
        if rows < _FEW_ROWS
        else ""
    )
    return dataclasses.replace(found, low=found.value / (1 + third) ** 3, high=high, label=label)


def total(parts: list[Estimate]) -> Estimate:
    """Add independent estimates: the squares of their distances to their ends add.

    Source:
        Zou and Donner, Statistics in Medicine 27 (2008) 1693, eqs. 3 and 4.
    """
    value = sum(part.value for part in parts)
    below = math.hypot(*(part.value - part.low for part in parts))
    above = math.hypot(*(part.high - part.value for part in parts))
    error = math.hypot(*(part.error for part in parts))
    n = sum(part.n for part in parts)
    labels = "; ".join(sorted({part.label for part in parts if part.label}))
    return Estimate(value, max(value - below, 0.0), value + above, n, error, labels)


def total_over_same(parts: list[Estimate]) -> Estimate:
    """Add estimates over the same points: errors add, which is never too little."""
    low, high, error = (
        sum(getattr(part, name) for part in parts) for name in ("low", "high", "error")
    )
    labels = "; ".join(sorted({part.label for part in parts if part.label}))
    return Estimate(sum(p.value for p in parts), low, high, parts[0].n, error, labels)


def quantiles(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Median, 90 %, 99 % and largest of the finite values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return dict.fromkeys(("50%", "90%", "99%", "max"), math.nan)
    levels = np.quantile(finite, [0.5, 0.9, 0.99, 1.0])
    return dict(zip(("50%", "90%", "99%", "max"), levels.tolist(), strict=True))


def t_quantile(level: float, degrees: float) -> float:
    """Half the width of a two-sided t interval in standard errors; normal for infinite degrees."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2))
