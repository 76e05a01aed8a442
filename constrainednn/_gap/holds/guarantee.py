"""What held-out points prove of fresh ones, whatever the model and the measure."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from constrainednn._common.tables import number
from constrainednn._gap.holds.bounds import (
    band_half_width,
    draws_needed,
    rank_of_bound,
    share_bound,
)

# Every statement has this probability to be right, over the draw of the held-out points.
CONFIDENCE = 0.95
# The share of fresh points that the order-statistic bound is for.
MOST = 0.99
_LEVELS = 4


@dataclasses.dataclass(frozen=True)
class ShareAbove:
    """Between which shares of fresh points lie above a level.

    Attributes:
        level: Size of the residual, |r|.
        low: At least this share lies above.
        high: At most this share lies above.
    """

    level: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What the held-out points of one constraint prove of fresh points of the same measure.

    It assumes that the held-out points are independent draws, and nothing of the model, of the
    measure or of tails. Each statement is right with 95 % confidence, over the draw of those
    points. It says nothing of a mean, and nothing of the worst point.

    Attributes:
        points: Held-out points.
        tolerance: The tolerance of the constraint; None if it names none.
        violated: Held-out points with |r| above the tolerance, or not finite; None without one.
        share: At most this share of fresh points has |r| above the tolerance (Clopper-Pearson);
            None without tolerance.
        bound: |r| is at most this at 99 % of fresh points: an order statistic of the held-out
            points. None below 299 of them.
        band: Shares above some levels of |r|, right for all of them at once (Dvoretzky-Kiefer-
            Wolfowitz), as the levels were chosen after the points were seen.
        void: Why nothing is proved; empty otherwise. `share` and `bound` are then None, and `band`
            is empty.
    """

    points: int
    tolerance: float | None
    violated: int | None
    share: float | None
    bound: float | None
    band: tuple[ShareAbove, ...]
    void: str = ""

    def lines(self, *, band: bool = True) -> list[str]:
        """The statements as sentences, with the band of all levels or without it.

        Bounds are rounded upwards.
        """
        if self.void:
            return [f"no guarantee for fresh points: {self.void}"]
        said = []
        if self.share is not None and self.tolerance is not None:
            said.append(
                f"|r| > {self.tolerance:g} at no more than {_percent(self.share)} of fresh "
                f"points ({self.violated} of {self.points} held-out points)"
            )
        if self.bound is None:
            needed = draws_needed(MOST, CONFIDENCE)
            said.append(f"a bound for 99 % of fresh points needs {needed} held-out points")
        else:
            said.append(f"|r| <= {_upwards(self.bound)} at 99 % of fresh points")
        lines = [f"each with 95 % confidence: {'; '.join(said)}"]
        if band and self.band:
            shares = ", ".join(
                f"> {item.level:g} at {_downwards(100 * item.low)} to {_percent(item.high)}"
                for item in self.band
            )
            lines.append(f"all at once with 95 % confidence: |r| {shares} of fresh points")
        return lines


def guarantee(
    sizes: Float[np.ndarray, " n"], *, tolerance: float | None, void: str = ""
) -> Guarantee:
    """What the residuals at independent points prove of further points.

    Args:
        sizes: |r| at each point; one that is not finite counts as larger than any level.
        tolerance: Level that was named before the points were seen; None if none was.
        void: Why the points are no independent draws for this model; empty if they are.
    """
    n = len(sizes)
    ordered = np.sort(np.where(np.isfinite(sizes), sizes, np.inf).astype(float))
    above = lambda level: n - int(np.searchsorted(ordered, level, side="right"))  # noqa: E731
    violated = None if tolerance is None else above(tolerance)
    if void or not n:
        return Guarantee(n, tolerance, violated, None, None, (), void or "there are none to judge")
    share = None if violated is None else share_bound(violated, n, CONFIDENCE)
    rank, half = rank_of_bound(n, MOST, CONFIDENCE), band_half_width(n, CONFIDENCE)
    band = [
        ShareAbove(level, max(above(level) / n - half, 0.0), min(above(level) / n + half, 1.0))
        for level in _decades(ordered)
    ]
    bound = None if rank is None else float(ordered[rank - 1])
    return Guarantee(n, tolerance, violated, share, bound, tuple(band))


def _decades(ordered: Float[np.ndarray, " n"]) -> list[float]:
    """A few powers of ten, from the first that no finite size exceeds downwards."""
    finite = ordered[np.isfinite(ordered) & (ordered > 0)]
    if not finite.size:
        return []
    top = math.ceil(math.log10(finite[-1]))
    levels = [float(f"1e{top - i}") for i in range(_LEVELS)]
    return [level for level in levels if 0 < level < math.inf]


def _percent(share: float) -> str:
    return f"{_upwards(100 * share)} %"


def _upwards(value: float) -> str:
    """Three digits, never below the value."""
    if not 0 < value < math.inf:
        return number(value)
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.3g}"


def _downwards(value: float) -> str:
    if not 0 < value < math.inf:
        return number(value)
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.floor(value / unit * (1 + 1e-12)) * unit:.3g}"
