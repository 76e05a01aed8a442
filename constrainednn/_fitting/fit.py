"""Unknowns of a differential equation, estimated from data by damped Gauss-Newton.

The driver is independent of the equation: an `AbstractShooting` solves it for given unknowns and
returns the rows of the data and their derivatives along solutions.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows: residuals of the data times the root of their weights
    S       (N, q)  dr/dz along solutions of the equation

Source:
    Control of the damping: Nielsen, IMM-REP-1999-05.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._fitting.step import Linearised
from constrainednn._problem.scheme import Resumable, SchemeResult, Watch, counters_of
from constrainednn._problem.unknowns import Unknown
from constrainednn.errors import StoreError

# Data are fitted up to these fractions of the interval, one after the other: far from the solution
# a long trajectory depends too wildly on the unknowns.
_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Until all data are used, steps end once they lower the sum of squares by less than this fraction.
_ROUGH = 1e-2
# Initial and least damping, for columns of length one.
_DAMPING, _LEAST_DAMPING = 1e-3, 1e-16
_MOST_TRIES_ROUGH = 30


class Trial(NamedTuple):
    """A solution for given unknowns; rows that it does not reach are NaN.

    Attributes:
        found: The solution.
        r: Rows.
        S: Their derivatives with respect to the unknowns.
    """

    found: SchemeResult
    r: Float[np.ndarray, " N"]
    S: Float[np.ndarray, "N q"]

    @property
    def reached(self) -> np.ndarray:
        """Which rows the solution reaches."""
        return np.isfinite(self.r)


class Part(NamedTuple):
    """A part of a fit.

    Attributes:
        share: The fraction of the interval on which data are fitted.
        tolerance: That of the solutions: rows are not better known than that.
    """

    share: float
    tolerance: float


class AbstractShooting(abc.ABC):
    """Solves an equation for given unknowns.

    Attributes:
        stages: One after the other, on increasing fractions of the interval.
        rows: Number of rows of all data.
        compile: Seconds of compiling so far.
        run: Seconds of running so far.
    """

    stages: list[Part]
    rows: int
    compile: float
    run: float

    @abc.abstractmethod
    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """Solve on the stage's fraction of the interval, in at most `steps` Newton steps."""


def useful_parts(
    reached: Callable[[float], int], unknowns: int, tolerance: float, rough: float = 0.0
) -> list[Part]:
    """Fractions of the interval with at least twice as many rows as unknowns, and all of it.

    Args:
        reached: The number of rows on a fraction of the interval.
        unknowns: Their number.
        tolerance: The tolerance of the last stage.
        rough: A looser one for those before; the last of them is on the whole interval, too.
    """
    parts = [share for share in _SHARES if share < 1.0 and reached(share) >= 2 * unknowns]
    if rough > tolerance:
        parts.append(1.0)
    return [*(Part(share, max(rough, tolerance)) for share in parts), Part(1.0, tolerance)]


class _Tried(NamedTuple):
    """Whether a step was at rounding, gained little on a part, or left nothing to gain."""

    tiny: bool
    slow: bool
    fitted: bool


class Fit:
    """Damped Gauss-Newton for the unknowns, on one fraction of the interval after the other.

    Attributes:
        z: The best unknowns so far.
        current: The solution for them.
        begun: The unknowns at the beginning of the stage.
        scale: Largest lengths of the columns so far.
        held: Unknowns that are fixed at a bound.
        damping: Damping of the next step; `nu` is the factor by which it grows if that fails.
        bound_failed: Whether the last step onto a bound failed.
        stage: Index of the stage.
        taken: Newton steps of all trials; not of the solve at the start of a stage, which a resumed
            run repeats.
        tries: Steps of the unknowns in this stage, and `before` in earlier ones.
    """

    current: Trial
    eps: float

    def __init__(
        self,
        shooting: AbstractShooting,
        unknowns: dict[str, Unknown],
        z: Float[np.ndarray, " q"],
        steps: int,
        watch: Watch,
    ):
        self.shooting, self.unknowns, self.z = shooting, unknowns, z
        self.steps, self.watch = steps, watch
        self.scale, self.held, self.begun = np.zeros(z.size), np.zeros(z.size, bool), z
        self.damping, self.nu, self.bound_failed = _DAMPING, 2.0, False
        self.taken = self.tries = self.before = self.stage = 0

    @property
    def last(self) -> bool:
        """Whether the whole interval is fitted, to the tolerance."""
        return self.stage == len(self.shooting.stages) - 1

    def resume(self, resumed: Resumable) -> None:
        """Continue an earlier run."""
        arrays, _ = resumed
        self.taken, self.tries, self.before, self.stage, failed = counters_of(resumed, 5)
        shape = self.z.shape
        sizes = {"z": shape, "begun": shape, "scale": shape, "held": shape, "damping": (2,)}
        if self.stage >= len(self.shooting.stages) or any(
            name not in arrays or arrays[name].shape != size for name, size in sizes.items()
        ):
            raise StoreError("the checkpoint is damaged: its unknowns are not all there.")
        self.z, self.begun, self.scale = (arrays[name] for name in ("z", "begun", "scale"))
        self.held = arrays["held"].astype(bool)
        self.damping, self.nu = arrays["damping"].tolist()
        self.bound_failed = bool(failed)

    def resumable(self) -> Resumable:
        """The state for `resume`."""
        arrays = {"z": self.z, "begun": self.begun, "scale": self.scale, "held": self.held}
        counters = [self.taken, self.tries, self.before, self.stage, int(self.bound_failed)]
        damping = np.asarray([self.damping, self.nu])
        return arrays | {"damping": damping}, {"counters": counters}

    def run(self) -> SchemeResult:
        """Step until the fit ends."""
        self.current = self._shoot(self.z, self.steps)
        while True:
            if self.current.found.status == "interrupted":
                return self._interrupted()
            if not self.current.reached.any():
                return self._ended("stalled", "no data are reached with the initial unknowns")
            if not np.isfinite(self.current.S[self.current.reached]).all():
                reason = "a derivative of the data with respect to the unknowns is NaN"
                return self._ended("nonfinite", reason)
            local = Linearised(
                *(self.current.r, self.current.S, self.z, self.unknowns),
                scale=self.scale,
                held=self.held,
                eps=self.eps,
            )
            self.scale, self.held = local.scale, local.held
            tried = self._try(local)
            if tried is None:
                return self._interrupted()
            ending = self._ending(local, tried)
            if ending is not None:
                return self._ended(*ending)
            if self.taken >= self.steps:
                reason = f"the limit of {self.steps} Newton steps, which steps= raises"
                tries = self.before + self.tries
                return self._ended("max_steps", f"{reason}, after {tries} on the unknowns")
            if self._report(local.row_scale * local.rss**0.5):
                return self._interrupted()

    def _shoot(self, z: Float[np.ndarray, " q"], steps: int) -> Trial:
        return self.shooting.shoot(z, self.shooting.stages[self.stage], steps)

    def _try(self, local: Linearised) -> _Tried | None:
        """Try a step onto near bounds, or else a damped one; None if interrupted."""
        step, expected = local.near_bounds()
        onto = step != 0
        to_bound, tiny = bool(onto.any()) and not self.bound_failed, False
        if not to_bound:
            step, self.damping = local.step(self.damping)
            tiny, expected = local.tiny(step), local.predicted(step)
        trial = self._shoot(self.z + step, self.steps - self.taken)
        if trial.found.status == "interrupted":
            return None
        self.taken, self.tries = self.taken + trial.found.steps, self.tries + 1
        # No further step is possible from where derivatives are not finite.
        usable = np.isfinite(trial.S[local.reached]).all()
        left = _sum_of_squares(trial.r[local.reached] / local.row_scale) if usable else np.inf
        gain = local.rss - left
        if to_bound:
            self.bound_failed = not local.is_bound(gain, expected)
            if not self.bound_failed:
                self.held, self.z, self.current = self.held | onto, self.z + step, trial
            return _Tried(tiny=False, slow=False, fitted=False)
        better = gain > 0
        self.bound_failed = self.bound_failed and not better
        undamped = self.damping <= _DAMPING
        noise = self.shooting.stages[self.stage].tolerance
        fitted = local.ended(tiny=tiny, better=better, undamped=undamped, noise=noise)
        self.damping, self.nu = _damped(self.damping, self.nu, gain, expected)
        if better:
            self.z, self.current = self.z + step, trial
        part = self.shooting.stages[self.stage].share < 1.0
        slow = part and better and gain <= _ROUGH * local.rss
        return _Tried(tiny, slow, fitted)

    def _ending(self, local: Linearised, tried: _Tried) -> tuple[str, str] | None:
        """Status and reason to end, or None to continue, possibly on more of the interval."""
        done, tries = tried.fitted or tried.tiny, self.before + self.tries
        if done and local.shadowed:
            # Steps are short only because columns once were long: forget those lengths.
            self._reset()
        elif not self.last:
            if done or tried.slow or self.tries >= _MOST_TRIES_ROUGH:
                self.before, self.tries, self.stage = tries, 0, self.stage + 1
                self.bound_failed = False
                self._keep_what_is_told()
                self._reset()
                self.current = self._shoot(self.z, self.steps - self.taken)
        elif local.insensitive.all():
            return "stalled", "the data do not change with any unknown at its present value"
        elif done and not self.current.reached.all():
            reached = self.current.reached
            count = f"{int((~reached).sum())} of {reached.size} observed numbers"
            return "stalled", f"the residual of {count} is NaN at the solution"
        elif tried.fitted:
            return "converged", f"the unknowns are fitted in {tries} steps"
        elif tried.tiny:
            return "stalled", f"no step lowers the sum of squares after {tries}"
        return None

    def _keep_what_is_told(self) -> None:
        """Unknowns that moved no further than the noise of a part reaches are as before it."""
        reached = self.current.reached
        r, S = self.current.r[reached], self.current.S[reached]
        noise = np.linalg.norm(r) / max(r.size - self.z.size, 1) ** 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            told = np.abs(self.z - self.begun) > 2 * noise / np.linalg.norm(S, axis=0)
        self.z = np.where(told, self.z, self.begun)
        self.begun, self.held = self.z, self.held & told

    def _reset(self) -> None:
        self.scale, self.damping, self.nu = np.zeros(self.z.size), _DAMPING, 2.0

    def _report(self, rms: float) -> bool:
        done = (self.stage + self.tries / (self.tries + 10)) / len(self.shooting.stages)
        return self.watch(self.taken, done, rms, self.resumable)

    def _interrupted(self) -> SchemeResult:
        self._report(np.nan)  # saves the state before the march, which is repeated
        return self._ended("interrupted", f"after {self.before + self.tries} steps on the unknowns")

    def _ended(self, status: str, reason: str) -> SchemeResult:
        found, part = self.current.found, self.shooting.stages[self.stage]
        where = "" if self.last else f", on {part.share:.0%} of the interval"
        if not self.last and part.share == 1.0:
            where = f", to a tolerance of {part.tolerance:g}"
        return dataclasses.replace(
            found,
            status=status if found.status == "converged" else found.status,
            reason=f"{reason}{where}: {found.reason}",
            steps=self.taken,
            compile=self.shooting.compile,
            run=self.shooting.run,
        )


def _sum_of_squares(r: Float[np.ndarray, " N"]) -> float:
    """The sum of squares; infinite if a row is not reached."""
    return float(r @ r) if np.isfinite(r).all() else np.inf


def _damped(damping: float, nu: float, gain: float, predicted: float) -> tuple[float, float]:
    """The next damping and its growth factor, from actual and predicted gain of a step."""
    if gain <= 0:
        return damping * nu, 2 * nu
    # At most one: if hardly any decrease was predicted, the ratio can be anything.
    ratio = min(gain / predicted, 1.0) if predicted > 0 else 0.0
    factor = max(1 / 3, 1 - (2 * ratio - 1) ** 3)
    return max(damping * factor, _LEAST_DAMPING), 2.0
