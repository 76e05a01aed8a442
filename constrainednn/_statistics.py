"""Statistics of the gap: estimates with intervals, from arrays alone."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

LEVEL = 0.95


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

    Args:
        values: The quantity at each of n independent points, such as |r|^2.
        level: Coverage in (0, 1).

    Returns:
        The mean with a t interval, lower end clipped at zero. The label says when it cannot be
        trusted: the largest 1 % of the points carry more than half of the mean, there is one point
        only, or values are not finite.

    Raises:
        ValueError: If there is no value or `level` is out of range.

    Source:
        Student (1908); its coverage is checked by simulation in tests/test_statistics.py.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}. 0.95 asks for a 95 % interval.")
    n = len(values)
    if n == 0:
        raise ValueError("A mean needs at least one value, got none.")
    missing = int((~np.isfinite(values)).sum())
    if missing:
        label = f"not available: residual not finite at {missing} of {n} points"
        return Estimate(math.nan, math.nan, math.nan, n, math.nan, label)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1, math.nan, "one point: no interval")
    # Equal values have no spread, whatever the rounding of their mean.
    equal = values.min() == values.max()
    error = 0.0 if equal else float(values.std(ddof=1)) / math.sqrt(n)
    half = t_quantile(level, n - 1) * error
    top = max(1, round(n / 100))
    share = float(np.sort(values)[-top:].sum()) / (mean * n) if mean > 0 else 0.0
    label = "unreliable: ask for more held-out points" if share > 0.5 else ""
    if error == 0:
        label = "at rounding"
    return Estimate(mean, max(mean - half, 0.0), mean + half, n, error, label)


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


def total(parts: list[Estimate], *, level: float = LEVEL) -> Estimate:
    """Add independent estimates.

    Squared standard errors add; the degrees of freedom are those of Welch and Satterthwaite.

    Source:
        Satterthwaite, Biometrics Bulletin 2 (1946) 110.
    """
    value = sum(part.value for part in parts)
    error = math.sqrt(sum(part.error**2 for part in parts))
    n = sum(part.n for part in parts)
    labels = "; ".join(sorted({part.label for part in parts if part.label}))
    if math.isnan(error):
        return Estimate(value, math.nan, math.nan, n, error, labels)
    half = 0.0
    if error > 0:
        # Shares first: a fourth power of a small error would underflow.
        shares = [(part.error / error) ** 4 / (part.n - 1) for part in parts]
        half = t_quantile(level, 1 / sum(shares)) * error
    return Estimate(value, max(value - half, 0.0), value + half, n, error, labels)


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
