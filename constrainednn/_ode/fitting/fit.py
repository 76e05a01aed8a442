"""Unknowns of a differential equation, estimated from data by damped Gauss-Newton.

The driver knows no equation: a `Shooting` solves it for given unknowns and tells the rows of the
data and their derivatives along solutions.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows: residuals of the data times the root of their weights
    S       (N, q)  derivative of r by z along solutions of the equation

Source:
    Control of the damping: Nielsen, IMM-REP-1999-05.
"""

import abc
import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._ode.fitting.step import Linearised
from constrainednn._problem.scheme import Resumable, SchemeResult, Watch, counters_of
from constrainednn._problem.unknowns import Unknown
from constrainednn.errors import StoreError

# Until all data count, steps end once they lower the sum of squares by less than this share.
_ROUGH = 1e-2
# First damping and least one, of columns of length one.
_DAMPING, _LEAST_DAMPING = 1e-3, 1e-16
_MOST_TRIES_ROUGH = 30


class Trial(NamedTuple):
    """A solution for given unknowns; rows that it does not reach are NaN.

    Attributes:
        found: The solution.
        r: Rows.
        S: Their derivatives by the unknowns.
    """

    found: SchemeResult
    r: Float[np.ndarray, " N"]
    S: Float[np.ndarray, "N q"]

    @property
    def seen(self) -> np.ndarray:
        """The rows that it covers."""
        return np.isfinite(self.r)


class AbstractShooting(abc.ABC):
    """Solves an equation for given unknowns.

    Attributes:
        shares: Shares of the interval on which data are fitted, one after the other, up to all.
        rows: Number of rows of all data.
        compile: Seconds of compiling so far.
        run: Seconds of running so far.
    """

    shares: list[float]
    rows: int
    compile: float
    run: float

    @abc.abstractmethod
    def at(self, z: Float[np.ndarray, " q"], share: float, steps: int) -> Trial:
        """Solve on a share of the interval, in at most so many Newton steps."""


class _Tried(NamedTuple):
    """What a step was: rounding to the unknowns, a small gain, the last that was to be gained."""

    tiny: bool
    slow: bool
    fitted: bool


class Fit:
    """Damped Gauss-Newton on the unknowns, on one share of the interval after the other.

    Attributes:
        z: The best unknowns so far.
        now: The solution for them.
        scale: Lengths of the columns so far.
        held: Unknowns that lie at a bound and stay there.
        damping: Of the next step; `nu` is what it grows by if that fails.
        onto_failed: Whether the last step onto a bound did.
        stage: Number of the share.
        taken: Newton steps of marches that tried something; those that begin a stage a resume does
            again.
        tries: Steps on the unknowns in this stage, and `before` in those before.
    """

    now: Trial
    noise: float
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
        self.scale, self.held = np.zeros(z.size), np.zeros(z.size, bool)
        self.damping, self.nu, self.onto_failed = _DAMPING, 2.0, False
        self.taken = self.tries = self.before = self.stage = 0

    @property
    def last(self) -> bool:
        """Whether all of the interval is fitted."""
        return self.stage == len(self.shooting.shares) - 1

    def resume(self, resumed: Resumable) -> None:
        """Go on from where a run was."""
        arrays, _ = resumed
        self.taken, self.tries, self.before, self.stage, failed = counters_of(resumed, 5)
        shape = self.z.shape
        sizes = {"z": shape, "scale": shape, "held": shape, "damping": (2,)}
        if self.stage >= len(self.shooting.shares) or any(
            name not in arrays or arrays[name].shape != size for name, size in sizes.items()
        ):
            raise StoreError("the checkpoint is damaged: its unknowns are not all there.")
        self.z, self.scale, self.held = arrays["z"], arrays["scale"], arrays["held"].astype(bool)
        self.damping, self.nu = arrays["damping"].tolist()
        self.onto_failed = bool(failed)

    def resumable(self) -> Resumable:
        """What `resume` takes."""
        arrays = {"z": self.z, "scale": self.scale, "held": self.held}
        counters = [self.taken, self.tries, self.before, self.stage, int(self.onto_failed)]
        damping = np.asarray([self.damping, self.nu])
        return arrays | {"damping": damping}, {"counters": counters}

    def run(self) -> SchemeResult:
        """Step until no step is left."""
        self.now = self._shot(self.z, self.steps)
        while True:
            if self.now.found.status == "interrupted":
                return self._stopped()
            if not self.now.seen.any():
                return self._ended("stalled", "with the first unknowns no data are reached")
            if not np.isfinite(self.now.S[self.now.seen]).all():
                reason = "a derivative of the data by the unknowns is NaN"
                return self._ended("nonfinite", reason)
            here = Linearised(
                *(self.now.r, self.now.S, self.z, self.unknowns),
                scale=self.scale,
                held=self.held,
                eps=self.eps,
            )
            self.scale, self.held = here.scale, here.held
            tried = self._try(here)
            if tried is None:
                return self._stopped()
            ending = self._ending(here, tried)
            if ending is not None:
                return self._ended(*ending)
            if self.taken >= self.steps:
                reason = f"the limit of {self.steps} Newton steps, which steps= raises"
                tries = self.before + self.tries
                return self._ended("max_steps", f"{reason}, after {tries} on the unknowns")
            if self._look(here.top * here.rss**0.5):
                return self._stopped()

    def _shot(self, z: Float[np.ndarray, " q"], steps: int) -> Trial:
        return self.shooting.at(z, self.shooting.shares[self.stage], steps)

    def _try(self, here: Linearised) -> _Tried | None:
        """Try a step, onto bounds that are near or else a damped one; None if it is cut short."""
        step, expected = here.near_bounds()
        onto = step != 0
        to_bound, tiny = bool(onto.any()) and not self.onto_failed, False
        if not to_bound:
            step, self.damping = here.step(self.damping)
            tiny, expected = here.tiny(step), here.predicted(step)
        trial = self._shot(self.z + step, self.steps - self.taken)
        if trial.found.status == "interrupted":
            return None
        self.taken, self.tries = self.taken + trial.found.steps, self.tries + 1
        # No step leads on from where derivatives are not finite.
        usable = np.isfinite(trial.S[here.seen]).all()
        left = _sum_of_squares(trial.r[here.seen] / here.top) if usable else np.inf
        gain = here.rss - left
        if to_bound:
            self.onto_failed = not here.is_bound(gain, expected)
            if not self.onto_failed:
                self.held, self.z, self.now = self.held | onto, self.z + step, trial
            return _Tried(tiny=False, slow=False, fitted=False)
        better = gain > 0
        self.onto_failed = self.onto_failed and not better
        undamped = self.damping <= _DAMPING
        fitted = here.ended(tiny=tiny, better=better, undamped=undamped, noise=self.noise)
        self.damping, self.nu = _damped(self.damping, self.nu, gain, expected)
        if better:
            self.z, self.now = self.z + step, trial
        return _Tried(tiny, better and gain <= _ROUGH * here.rss, fitted)

    def _ending(self, here: Linearised, tried: _Tried) -> tuple[str, str] | None:
        """Why to end, or None to go on: on more of the interval where this is done."""
        done, tries = tried.fitted or tried.tiny, self.before + self.tries
        if done and here.shadowed:
            # Nothing but columns that were long once makes the steps short: they are forgotten.
            self._forget()
        elif not self.last:
            if done or tried.slow or self.tries >= _MOST_TRIES_ROUGH:
                self.before, self.tries, self.stage = tries, 0, self.stage + 1
                self.onto_failed = False
                self._forget()
                self.now = self._shot(self.z, self.steps - self.taken)
        elif here.blind.all():
            return "stalled", "the data do not change with any unknown where it is now"
        elif done and not self.now.seen.all():
            seen = self.now.seen
            count = f"{int((~seen).sum())} of {seen.size} observed numbers"
            return "stalled", f"the residual of {count} is NaN at the solution"
        elif tried.fitted:
            return "converged", f"the unknowns are fitted in {tries} steps"
        elif tried.tiny:
            return "stalled", f"no step lowers the sum of squares after {tries}"
        return None

    def _forget(self) -> None:
        self.scale, self.damping, self.nu = np.zeros(self.z.size), _DAMPING, 2.0

    def _look(self, rms: float) -> bool:
        done = (self.stage + self.tries / (self.tries + 10)) / len(self.shooting.shares)
        return self.watch(self.taken, done, rms, self.resumable)

    def _stopped(self) -> SchemeResult:
        self._look(np.nan)  # saves what a march began from: it is begun again
        return self._ended("interrupted", f"after {self.before + self.tries} steps on the unknowns")

    def _ended(self, status: str, reason: str) -> SchemeResult:
        found, share = self.now.found, self.shooting.shares[self.stage]
        where = "" if self.last else f", on {share:.0%} of the interval"
        return dataclasses.replace(
            found,
            status=status if found.status == "converged" else found.status,
            reason=f"{reason}{where}: {found.reason}",
            steps=self.taken,
            compile=self.shooting.compile,
            run=self.shooting.run,
        )


def _sum_of_squares(r: Float[np.ndarray, " N"]) -> float:
    """Infinite where a row is not reached."""
    return float(r @ r) if np.isfinite(r).all() else np.inf


def _damped(damping: float, nu: float, gain: float, predicted: float) -> tuple[float, float]:
    """The next damping and its factor after a step that gained so much of what was predicted."""
    if gain <= 0:
        return damping * nu, 2 * nu
    # At most one: where hardly any decrease was predicted the ratio can be anything.
    ratio = min(gain / predicted, 1.0) if predicted > 0 else 0.0
    factor = max(1 / 3, 1 - (2 * ratio - 1) ** 3)
    return max(damping * factor, _LEAST_DAMPING), 2.0
