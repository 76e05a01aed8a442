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
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._ode.fitting.gauss_newton import Linearised
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import (
    AbstractScheme,
    Observed,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
    goal,
)
from constrainednn._problem.unknowns import entry_names
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import ProblemError, StoreError

# Until all data count, steps end once they lower the sum of squares by less than this share.
_ROUGH = 1e-2
# First damping and least one, of columns of length one.
_DAMPING, _LEAST_DAMPING = 1e-3, 1e-16
_MOST_TRIES_ROUGH = 30


class Shot(NamedTuple):
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
    def at(self, z: Float[np.ndarray, " q"], share: float, steps: int) -> Shot:
        """Solve on a share of the interval, in at most so many Newton steps."""


class AbstractFittedScheme(AbstractScheme):
    """A scheme whose equation holds unknowns that are estimated from data.

    Attributes:
        arguments: From the unknowns to the arguments of the equation.
    """

    arguments: eqx.AbstractVar[Arguments | TracedArguments]

    @abc.abstractmethod
    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> AbstractShooting:
        """What solves the equation for given unknowns."""

    @abc.abstractmethod
    def at(self, model: PyTree) -> AbstractScheme:
        """The problem for the unknowns that were found."""

    @abc.abstractmethod
    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data and their derivatives by the unknowns, for a solved model."""

    def solve(
        self,
        model: PyTree,
        *,
        tolerance: float,
        steps: int,
        key: Key[Array, ""],
        watch: Watch,
        resumed: Resumable | None = None,
        observed: Sequence[Observed] = (),
    ) -> SchemeResult:
        """Estimate the unknowns, on more and more of the interval."""
        given = {"tolerance": tolerance, "key": key, "watch": watch}
        shooting = self.shooting(model, tuple(observed), **given)
        z = np.asarray(model.parameters, float)
        if shooting.rows < z.size:
            raise ProblemError(
                f"data: {shooting.rows} observed numbers cannot determine {z.size} unknowns, "
                f"{', '.join(entry_names(self.arguments.unknowns))}. Give more data, or fix some."
            )
        shares, eps = shooting.shares, float(jnp.finfo(model.parameters.dtype).eps)
        noise, unknowns = goal(tolerance, model.parameters.dtype), self.arguments.unknowns
        damping, nu, scale = _DAMPING, 2.0, np.zeros(z.size)
        held = np.zeros(z.size, bool)
        taken = tries = before = stage = onto_failed = 0
        if resumed is not None:
            arrays, _ = resumed
            taken, tries, before, stage, onto_failed = counters_of(resumed, 5)
            sizes = {"z": z.shape, "scale": z.shape, "held": z.shape, "damping": (2,)}
            if stage >= len(shares) or any(
                name not in arrays or arrays[name].shape != shape for name, shape in sizes.items()
            ):
                raise StoreError("the checkpoint is damaged: its unknowns are not all there.")
            z, scale, (damping, nu) = arrays["z"], arrays["scale"], arrays["damping"].tolist()
            held = arrays["held"].astype(bool)

        def look(rms: float) -> bool:
            done = (stage + tries / (tries + 10)) / len(shares)
            return watch(taken, done, rms, to_go_on)

        def to_go_on() -> Resumable:
            arrays = {"z": z, "scale": scale, "damping": np.asarray([damping, nu])}
            return arrays | {"held": held}, {
                "counters": [taken, tries, before, stage, int(onto_failed)]
            }

        def ended(status: str, reason: str) -> SchemeResult:
            found = now.found
            share = "" if stage == len(shares) - 1 else f", on {shares[stage]:.0%} of the interval"
            return dataclasses.replace(
                found,
                status=status if found.status == "converged" else found.status,
                reason=f"{reason}{share}: {found.reason}",
                steps=taken,
                compile=shooting.compile,
                run=shooting.run,
            )

        def stopped() -> SchemeResult:
            look(np.nan)  # saves what a march began from: it is begun again
            return ended("interrupted", f"after {before + tries} steps on the unknowns")

        # Only marches that try something count; those that begin a stage a resume does again.
        now = shooting.at(z, shares[stage], steps)
        while True:
            last = stage == len(shares) - 1
            if now.found.status == "interrupted":
                return stopped()
            if not now.seen.any():
                return ended("stalled", "with the first unknowns no data are reached")
            if not np.isfinite(now.S[now.seen]).all():
                return ended("nonfinite", "a derivative of the data by the unknowns is NaN")
            here = Linearised(now.r, now.S, z, unknowns, scale=scale, held=held, eps=eps)
            scale, held = here.scale, here.held
            onto, expected = here.near_bounds()
            trying_bound = bool(onto.any()) and not onto_failed
            if trying_bound:
                step, tiny = onto, False
            else:
                step, damping = here.step(damping)
                tiny, expected = here.tiny(step), here.predicted(step)
            trial = shooting.at(z + step, shares[stage], steps - taken)
            if trial.found.status == "interrupted":
                return stopped()
            taken, tries = taken + trial.found.steps, tries + 1
            # No step leads on from where derivatives are not finite.
            usable = np.isfinite(trial.S[here.seen]).all()
            left = _sum_of_squares(trial.r[here.seen] / here.top) if usable else np.inf
            gain = here.rss - left
            better = gain > 0
            if trying_bound:
                onto_failed = not here.is_bound(gain, expected)
                if not onto_failed:
                    held, z, now = held | (onto != 0), z + step, trial
                slow = fitted = False
            else:
                onto_failed = onto_failed and not better
                undamped = damping <= _DAMPING
                fitted = here.ended(tiny=tiny, better=better, undamped=undamped, noise=noise)
                slow = better and gain <= _ROUGH * here.rss
                damping, nu = _damped(damping, nu, gain, expected)
                if better:
                    z, now = z + step, trial
            if (fitted or tiny) and here.shadowed:
                # Nothing but columns that were long once makes the steps short: they are forgotten.
                scale, damping, nu = np.zeros(z.size), _DAMPING, 2.0
            elif not last and (slow or fitted or tiny or tries >= _MOST_TRIES_ROUGH):
                before, tries = before + tries, 0
                stage, damping, nu = stage + 1, _DAMPING, 2.0
                scale, onto_failed = np.zeros(z.size), False
                now = shooting.at(z, shares[stage], steps - taken)
            elif last and here.blind.all():
                return ended("stalled", "the data do not change with any unknown where it is now")
            elif (fitted or tiny) and not now.seen.all():
                count = f"{int((~now.seen).sum())} of {now.seen.size} observed numbers"
                return ended("stalled", f"the residual of {count} is NaN at the solution")
            elif fitted:
                return ended("converged", f"the unknowns are fitted in {before + tries} steps")
            elif tiny:
                reason = f"no step lowers the sum of squares after {before + tries}"
                return ended("stalled", reason)
            if taken >= steps:
                reason = f"the limit of {steps} Newton steps, which steps= raises"
                return ended("max_steps", f"{reason}, after {before + tries} on the unknowns")
            if look(here.top * here.rss**0.5):
                return stopped()

    def known_at(self, model: PyTree) -> float:
        """Where the equation is defined."""
        return self.at(model).known_at(model)

    def training_points(self, model: PyTree) -> Draw:
        """Gauss nodes of all pieces."""
        return self.at(model).training_points(model)

    def covered(self, model: PyTree) -> AbstractDomain:
        """Where the model is defined."""
        return self.at(model).covered(model)


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
