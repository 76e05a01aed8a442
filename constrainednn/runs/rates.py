"""At what rate a loss still falls, and how many steps it would take to go on like that."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# A loss that falls more slowly than this power of the steps has levelled off: a decade halves it.
_LEVEL = -0.3
# A rate is steady if its first half tells the fall in the second half to this factor.
_STEADY = 2.0
# Nothing is told of more than so many times the steps that were seen.
_FARTHEST = 10.0


class Rate(NamedTuple):
    """How a loss falls over the last decade of steps.

    Attributes:
        power: The power of the steps that it follows.
        decades: Decades of the loss per step, if that describes the last decade better; otherwise
            zero. Negative for a loss that falls.
        steady: Whether the first half of the decade told what came in the second.
        last: The last step.
        loss: The loss there, by the fit.
    """

    power: float
    decades: float
    steady: bool
    last: float
    loss: float

    @property
    def level(self) -> bool:
        """True if the loss falls no longer."""
        return self.power > _LEVEL

    def steps_to(self, loss: float) -> float:
        """The number of steps, counted from the first, at which the loss would be reached.

        Infinite if that is too far to be told: the rate is not steady or zero, or it would take
        more than ten times the steps that were seen.
        """
        fall = np.log10(loss / self.loss)
        if self.level or not self.steady:
            return np.inf
        if self.decades:
            steps = self.last + fall / self.decades
        else:
            steps = self.last * 10 ** min(fall / self.power, 300.0)
        return float(steps) if steps <= _FARTHEST * self.last else np.inf


def rate_of(
    steps: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"], last: float
) -> Rate | None:
    """Fit the last decade of steps; None where fewer than three losses in it have a logarithm."""
    fit = (steps >= last / 10) & (losses > 0) & np.isfinite(losses)
    if fit.sum() < 3:
        return None
    k, y = steps[fit], np.log10(losses[fit])
    # Evenly in the logarithm of the steps, as a figure shows it.
    weights = 1 / k
    by_power, by_step = _line(np.log10(k), y, weights), _line(k, y, weights)
    geometric = by_step.scatter < by_power.scatter
    x, line = (k, by_step) if geometric else (np.log10(k), by_power)
    return Rate(
        by_power.slope,
        line.slope if geometric else 0.0,
        _is_steady(x, y, weights),
        last,
        float(10 ** line.at(x[-1])),
    )


class _Line(NamedTuple):
    """A weighted least-squares line, and the root mean square that it misses."""

    slope: float
    x0: float
    y0: float
    scatter: float

    def at(self, x: float) -> float:
        return self.y0 + self.slope * (x - self.x0)


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> _Line:
    x0, y0 = np.average(x, weights=weights), np.average(y, weights=weights)
    slope = (weights * (x - x0)) @ (y - y0) / ((weights * (x - x0)) @ (x - x0))
    missed = y - y0 - slope * (x - x0)
    return _Line(float(slope), x0, y0, float(np.sqrt(np.average(missed**2, weights=weights))))


def _is_steady(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> bool:
    """True if the slope of the first half is that of the second, to a factor."""
    early = x <= (x[0] + x[-1]) / 2
    if early.sum() < 2 or (~early).sum() < 2:
        return False
    first, second = (_line(x[part], y[part], weights[part]).slope for part in (early, ~early))
    return first < 0 and second < 0 and 1 / _STEADY <= first / second <= _STEADY
