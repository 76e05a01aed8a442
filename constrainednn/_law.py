"""The law c + a n^-b, fitted to losses over a number of points."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from constrainednn._statistics import LEVEL, Estimate, t_quantile

# An offset c is taken where it lowers the sum of squares more than chance does, at this level.
_BY_CHANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Law:
    """A fitted law: loss = c + a n^-b.

    Attributes:
        a: Factor.
        exponent: b, with its interval.
        c: What remains for any number of points; 0 where the runs do not show one.
        lack_of_fit: Probability of a misfit as large as this one if the law held, by comparing the
            misfit of the levels with the spread within them; NaN where there are no more levels
            than parameters, or no seeds to compare.
        levels: The values of n that the fit is over.
        runs: Number of runs behind it.
        left_out: Values of n that are not in the fit, since a run there failed or its loss is not
            positive.
    """

    a: float
    exponent: Estimate
    c: float
    lack_of_fit: float
    levels: tuple[float, ...]
    runs: int
    left_out: tuple[float, ...]

    def __call__(self, n: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The loss that the law gives."""
        return self.c + self.a * np.asarray(n, float) ** -self.exponent.value

    @property
    def has_trend(self) -> bool:
        """False where the interval of the exponent holds zero: the loss may not depend on n."""
        return not self.exponent.low <= 0 <= self.exponent.high

    def __repr__(self) -> str:
        b = self.exponent
        if not self.has_trend:
            text = (
                f"no trend: exponent {b.value:.3g} [{b.low:.3g}, {b.high:.3g}] of n^-b holds zero, "
                f"over {len(self.levels)} values of n"
            )
        else:
            offset = f"{self.c:.3g} + " if self.c else ""
            text = f"{offset}{self.a:.3g} n^-b, b = {b.value:.3g} [{b.low:.3g}, {b.high:.3g}]"
        if math.isnan(self.lack_of_fit):
            text += "; lack of fit: not testable"
        else:
            wrong = self.lack_of_fit < _BY_CHANCE
            verdict = "the law does not hold" if wrong else "no sign of misfit"
            text += f"; lack of fit p = {self.lack_of_fit:.2g} ({verdict})"
        if self.left_out:
            text += (
                f"; left out, since a run failed or its loss is not positive: n = "
                f"{', '.join(f'{n:g}' for n in self.left_out)}"
            )
        return text


def fit_law(
    n: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    seeds: Int[np.ndarray, " runs"] | None = None,
) -> Law:
    """Fit c + a n^-b to the logarithms of losses by least squares.

    In logarithms, since losses spread over seeds by a factor. Levels where a run failed are left
    out whole: without it they would look better than they are. Runs of one seed share parameters
    and held-out points, so where each seed is there at all levels, what is common to its runs is
    taken out as an effect of blocks.

    Args:
        n: Number of points of each run; at least three levels of it.
        loss: Loss of each run; infinite for one that failed.
        seeds: Seed of each run.

    Raises:
        ValueError: If fewer than three levels remain.

    Source:
        Seber and Wild, Nonlinear Regression (1989), 2.1.2 (interval) and 2.8.1 (lack of fit).
    """
    from scipy.optimize import least_squares
    from scipy.special import fdtrc

    usable = np.isfinite(loss) & (loss > 0)
    failed = np.unique(n[~usable])
    kept = ~np.isin(n, failed)
    n, y = n[kept].astype(float), np.log(loss[kept])
    levels, index = np.unique(n, return_inverse=True)
    if len(levels) < 3:
        raise ValueError(
            f"a law needs runs at three numbers of points or more, all of them finished, got "
            f"{[f'{level:g}' for level in levels]}."
        )
    x = np.log(n)
    blocks = 0
    if seeds is not None:
        names, block = np.unique(seeds[kept], return_inverse=True)
        runs = np.zeros((len(names), len(levels)), int)
        np.add.at(runs, (block, index), 1)
        if (runs == 1).all():
            y = y - (np.bincount(block, y) / len(levels))[block] + y.mean()
            blocks = len(names) - 1

    def misfit(parameters: np.ndarray) -> np.ndarray:
        log_a, b, *log_c = parameters
        found = log_a - b * x
        return (np.logaddexp(found, log_c[0]) if log_c else found) - y

    slope, start = np.polyfit(x, y, 1)
    fit = least_squares(misfit, [start, -slope], x_scale="jac")
    starts = [
        (start, -slope * steeper, y.min() - less) for steeper in (1, 2, 4) for less in (0.1, 2)
    ]
    bent = min(
        (least_squares(misfit, guess, x_scale="jac") for guess in starts), key=lambda f: f.cost
    )
    free = len(y) - 3 - blocks
    ratio = (fit.cost - bent.cost) / max(bent.cost / max(free, 1), np.finfo(float).tiny)
    if free > 0 and len(levels) > 3 and fdtrc(1, free, max(ratio, 0.0)) < _BY_CHANCE:
        fit = bent
    log_a, b, *log_c = fit.x
    degrees = len(y) - len(fit.x) - blocks
    squares = 2 * float(fit.cost)
    # The pseudo-inverse, since an offset far below all losses has no slope.
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * squares / max(degrees, 1)
    error = math.sqrt(covariance[1, 1])
    half = t_quantile(LEVEL, degrees) * error if degrees > 0 else math.nan
    means = np.bincount(index, y) / np.bincount(index)
    within, between = float(((y - means[index]) ** 2).sum()), len(levels) - len(fit.x)
    lack = math.nan
    inside = len(y) - len(levels) - blocks
    if between > 0 and inside > 0 and within > 0:
        lack = float(fdtrc(between, inside, max(squares - within, 0) / between / (within / inside)))
    return Law(
        a=math.exp(log_a),
        exponent=Estimate(float(b), float(b - half), float(b + half), len(y), error),
        c=math.exp(log_c[0]) if log_c else 0.0,
        lack_of_fit=lack,
        levels=tuple(levels.tolist()),
        runs=len(y),
        left_out=tuple(failed.tolist()),
    )
