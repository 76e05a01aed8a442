"""The law c + a n^-b, fitted to losses over a number of points."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from constrainednn._gap.statistics import LEVEL, Estimate
from constrainednn.errors import BadValueError
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.rows import number_of

# An offset c is shown where it lowers the sum of squares more than chance does, at this level.
_BY_CHANCE = 0.05
# Exponents looked at lie in (-_STEEP, _STEEP): past it a law is a step between two levels.
_STEEP = 50.0


@dataclasses.dataclass(frozen=True)
class Law:
    """A fitted law: loss = c + a n^-b.

    Attributes:
        a: Factor.
        exponent: b, with its interval for any offset c >= 0; infinite where the last losses may
            all be the offset. It has no standard error.
        c: The limit for many points; 0 where the runs do not show one.
        lack_of_fit: Probability of a misfit as large as this one if the law held, by comparing the
            misfit of the levels with the spread within them; NaN where there are no more levels
            than parameters, or no seeds to compare.
        levels: The values of n that the fit is over.
        runs: Number of runs behind it.
        left_out: Values of n that are not in the fit, because a run there failed or its loss is
            not positive.
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
        """True where the interval of the exponent lies on one side of zero."""
        return self.exponent.low > 0 or self.exponent.high < 0

    def __repr__(self) -> str:
        b = self.exponent
        if math.isnan(b.low):
            text = f"no interval for the exponent of n^-b, b = {b.value:.3g}: give more seeds or n"
        elif not self.has_trend:
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


def law_along(axis: str, rows: Sequence[Row], of: str) -> Law:
    """The law of a number of the rows along an axis; errors as in `fit_law`."""
    n = [row["given"][axis] for row in rows]
    if not all(isinstance(value, (int, float)) for value in n):
        raise BadValueError(f"a law needs an axis of numbers, and {axis!r} is not one.")
    losses = np.array([number_of(row, of) for row in rows], float)
    return fit_law(np.array(n, float), losses, np.array([row["seed"] for row in rows]))


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

    The interval of b holds each exponent that the losses do not speak against, with the offset
    c >= 0 that suits it best: whether the data show an offset does not matter for it.

    Args:
        n: Number of points of each run; at least three levels of it.
        loss: Loss of each run; infinite for one that failed.
        seeds: Seed of each run.

    Raises:
        ValueError: If fewer than three levels remain.

    Source:
        Seber and Wild, Nonlinear Regression (1989), 5.2.2 (interval from the ratio of sums of
        squares) and 2.8.1 (lack of fit). Coverage is simulated in tests/test_coverage.py.
    """
    from scipy.special import fdtrc, fdtri

    usable = np.isfinite(loss) & (loss > 0)
    failed = np.unique(n[~usable])
    kept = ~np.isin(n, failed)
    n, y = n[kept].astype(float), np.log(loss[kept])
    levels, index = np.unique(n, return_inverse=True)
    if len(levels) < 3:
        raise BadValueError(
            f"a law needs runs at three numbers of points or more, all of them finished, got "
            f"{[f'{level:g}' for level in levels]}."
        )
    y, blocks = _without_blocks(y, index, None if seeds is None else seeds[kept])
    count = np.bincount(index)
    means = np.bincount(index, y) / count
    within = float(((y - means[index]) ** 2).sum())
    profile = _SquaresByExponent(np.log(levels), means, count)
    (plain, straight), (bent, between) = profile.straight(), profile.best()
    if straight < between:
        bent, between = plain, straight
    # At the middle of the logarithms: q is c over a n^-b there.
    b, q = bent, profile.at(bent)[1]
    free = len(y) - 3 - blocks
    squares, parameters = within + between, 3
    if (
        free <= 0
        or fdtrc(1, free, (straight - between) / max(squares / free, 1e-300)) >= _BY_CHANCE
    ):
        b, q = plain, 0.0
        squares, parameters = within + straight, 2
    low = high = math.nan
    if free > 0:
        least = within + between
        low, high = profile.interval(bent, between + least / free * float(fdtri(1, free, LEVEL)))
    tested, inside = len(levels) - parameters, len(y) - len(levels) - blocks
    lack = math.nan
    # Below, runs of a level differ by rounding.
    if tested > 0 and inside > 0 and within > len(y) * 1e-24:
        lack = float(fdtrc(tested, inside, (squares - within) / tested / (within / inside)))
    a, c = profile.factors(b, q)
    return Law(
        a=a,
        exponent=Estimate(b, low, high, len(y), math.nan),
        c=c,
        lack_of_fit=lack,
        levels=tuple(levels.tolist()),
        runs=len(y),
        left_out=tuple(failed.tolist()),
    )


def _without_blocks(
    y: Float[np.ndarray, " runs"],
    index: Int[np.ndarray, " runs"],
    seeds: Int[np.ndarray, " runs"] | None,
) -> tuple[Float[np.ndarray, " runs"], int]:
    """Take out what is common to the runs of a seed; with the degrees of freedom that it costs."""
    if seeds is None:
        return y, 0
    levels = index.max() + 1
    names, block = np.unique(seeds, return_inverse=True)
    runs = np.zeros((len(names), levels), int)
    np.add.at(runs, (block, index), 1)
    if not (runs == 1).all():
        return y, 0
    return y - (np.bincount(block, y) / levels)[block] + y.mean(), len(names) - 1


class _SquaresByExponent:
    """Sums of squares of log a + log(q + n^-b) about the means at the levels, the best a for each.

    q is the offset c over a n^-b in the middle of the levels.
    """

    def __init__(
        self,
        x: Float[np.ndarray, " levels"],
        means: Float[np.ndarray, " levels"],
        count: Int[np.ndarray, " levels"],
    ):
        # From the middle, so that n^-b neither overflows nor moves with b.
        self.middle = float(x.mean())
        self.x, self.means = x - self.middle, means
        self.weights = count / count.sum()
        self.runs = int(count.sum())

    def squares(self, b: float, log_q: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        shape = np.logaddexp(-b * self.x, log_q[:, None])
        misfit = self.means - shape
        return self.runs * ((misfit - (misfit @ self.weights)[:, None]) ** 2 @ self.weights)

    def at(self, b: float) -> tuple[float, float]:
        """The least sum of squares for an exponent, and the q that has it."""
        ends = np.sort(-b * self.x[[0, -1]])
        low, high = ends[0] - 20, ends[1] + 20
        found, tried = np.zeros(0), np.zeros(0)
        for _ in range(5):  # each time 32 times finer
            tried = np.append(np.linspace(low, high, 65), -np.inf)
            found = self.squares(b, tried)
            best = int(np.argmin(found[:65]))
            low, high = tried[max(best - 1, 0)], tried[min(best + 1, 64)]
        best = int(np.argmin(found))
        return float(found[best]), float(np.exp(tried[best]))

    def straight(self) -> tuple[float, float]:
        """The best b without offset, and its sum of squares."""
        w = self.weights
        x, y = self.x - self.x @ w, self.means - self.means @ w
        b = -float((w * x) @ y / ((w * x) @ x))
        return b, float(self.squares(b, np.array([-np.inf]))[0])

    def best(self) -> tuple[float, float]:
        """The best b with an offset, and its sum of squares."""
        from scipy.optimize import minimize_scalar

        tried = np.sinh(np.linspace(-np.arcsinh(_STEEP), np.arcsinh(_STEEP), 81))
        found = [self.at(b)[0] for b in tried]
        i = min(max(int(np.argmin(found)), 1), len(tried) - 2)
        result: Any = minimize_scalar(
            lambda b: self.at(b)[0], bounds=(tried[i - 1], tried[i + 1]), method="bounded"
        )
        return float(result.x), float(result.fun)

    def interval(self, best: float, limit: float) -> tuple[float, float]:
        """Where the least sum of squares is the limit, on both sides of the best b."""
        from scipy.optimize import brentq

        over = lambda b: self.at(b)[0] - limit  # noqa: E731
        ends = []
        for side in (-1, 1):
            step = 0.1
            while over(best + side * step) < 0 and step < _STEEP:
                step *= 2
            inner = best if step == 0.1 else best + side * step / 2
            if step >= _STEEP:
                ends.append(side * math.inf)
            elif over(inner) >= 0:
                ends.append(inner)
            else:
                root: Any = brentq(over, inner, best + side * step, xtol=1e-6)
                ends.append(float(root))
        return ends[0], ends[1]

    def factors(self, b: float, q: float) -> tuple[float, float]:
        """The a and c that suit b and q."""
        shape = np.log(q + np.exp(-b * self.x))
        log_a = float((self.means - shape) @ self.weights)
        return math.exp(log_a + b * self.middle), q * math.exp(log_a)
