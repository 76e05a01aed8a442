"""Unknowns of a differential equation, estimated from data by damped Gauss-Newton.

The driver knows no equation: a `Shooting` solves it for given unknowns and tells the rows of the
data and their derivatives along solutions.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows: residuals of the data times the root of their weights
    S       (N, q)  derivative of r by z along solutions of the equation

Source:
    Damping and scaled columns: More, LNM 630 (1977) 105; control of the damping: Nielsen,
    IMM-REP-1999-05. The end by relative offset: Bates and Watts, Technometrics 23 (1981) 179.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._blocks import flat_value
from constrainednn._domains import AbstractDomain, Data
from constrainednn._files import StoreError
from constrainednn._problem import Constraint
from constrainednn._samplers import Draw
from constrainednn._scheme import (
    AbstractScheme,
    Observed,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
)
from constrainednn._unknowns import Arguments, TracedArguments, entry_names, units
from constrainednn._validate import ProblemError, shown

# Until all data count, steps end once they lower the sum of squares by less than this share.
_ROUGH = 1e-2
# First damping and least one, of columns of length one.
_DAMPING, _LEAST_DAMPING = 1e-3, 1e-16
# An unknown that is zero is as good as one that makes up this share of the rows.
_SEEN = 1e-3
_MOST_TRIES = 200
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
        damping, nu, scale = _DAMPING, 2.0, np.zeros(z.size)
        taken = tries = before = stage = 0
        if resumed is not None:
            arrays, _ = resumed
            taken, tries, before, stage = counters_of(resumed, 4)
            sizes = {"z": z.shape, "scale": z.shape, "damping": (2,)}
            if stage >= len(shares) or any(
                name not in arrays or arrays[name].shape != shape for name, shape in sizes.items()
            ):
                raise StoreError("the checkpoint is damaged: its unknowns are not all there.")
            z, scale, (damping, nu) = arrays["z"], arrays["scale"], arrays["damping"].tolist()

        def look(rms: float) -> bool:
            done = (stage + tries / (tries + 10)) / len(shares)
            return watch(taken, done, rms, to_go_on)

        def to_go_on() -> Resumable:
            arrays = {"z": z, "scale": scale, "damping": np.asarray([damping, nu])}
            return arrays, {"counters": [taken, tries, before, stage]}

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
            seen, last = now.seen, stage == len(shares) - 1
            if now.found.status == "interrupted":
                return stopped()
            if not seen.any():
                return ended("stalled", "with the first unknowns no data are reached")
            if not np.isfinite(now.S[seen]).all():
                return ended("nonfinite", "a derivative of the data by the unknowns is NaN")
            top = np.abs(now.r[seen]).max() or 1.0  # squares of what is far off would overflow
            r, S = now.r[seen] / top, now.S[seen] / top
            rss, unit = float(r @ r), units(z, self.arguments.unknowns)
            scale = np.maximum(scale, top * np.linalg.norm(S, axis=0))
            # How much the rows vary by unknowns, and what of each of these would be seen in them.
            rows = float(np.linalg.norm(scale / top * unit))
            visible = max(rows, rss**0.5)
            # An unknown whose change is rounding to the rows stays where it is.
            blind = (scale == 0) | ((unit > 0) & (scale / top * unit <= 1e3 * eps * visible))
            columns = np.where(blind, np.inf, scale / top)
            sizes = np.maximum(unit, _SEEN * visible / columns)
            U, s, Vt = np.linalg.svd(S / columns, full_matrices=False)
            g = U.T @ r
            step = -Vt.T @ (s * g / (s**2 + damping)) / columns
            trial = shooting.at(z + step, shares[stage], steps - taken)
            if trial.found.status == "interrupted":
                return stopped()
            taken, tries = taken + trial.found.steps, tries + 1
            reached = np.isfinite(trial.r[seen]).all()
            trial_rss = float(np.sum((trial.r[seen] / top) ** 2)) if reached else np.inf
            predicted = float(np.sum(g**2 * s**2 * (s**2 + 2 * damping) / (s**2 + damping) ** 2))
            better, small = trial_rss < rss, bool(np.all(np.abs(step) <= eps**0.6 * sizes))
            # What the rows can still be lowered by, and whether there is anything left of them.
            offset = np.linalg.norm(g[s > eps**0.6 * s[0]]) / (rss**0.5 or 1.0)
            exact = rss**0.5 <= eps**0.6 * rows
            fitted = offset <= eps**0.5 or (small and (exact or damping <= _DAMPING))
            slow = better and rss - trial_rss <= _ROUGH * rss
            if better:
                gain = (rss - trial_rss) / predicted if predicted > 0 else 0.0
                damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), _LEAST_DAMPING)
                nu, z, now = 2.0, z + step, trial
            else:
                damping, nu = damping * nu, 2 * nu
            if not last and (slow or fitted or small or tries >= _MOST_TRIES_ROUGH):
                before, tries = before + tries, 0
                stage, damping, nu, scale = stage + 1, _DAMPING, 2.0, np.zeros(z.size)
                now = shooting.at(z, shares[stage], steps - taken)
            elif fitted:
                return ended("converged", f"the unknowns are fitted in {before + tries} steps")
            elif small or tries >= _MOST_TRIES:
                reason = f"no step lowers the sum of squares after {before + tries}"
                return ended("stalled", reason)
            if taken >= steps:
                return ended("max_steps", f"the limit of {steps} Newton steps")
            if look(top * rss**0.5):
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


def data_constraints(data: Any) -> list[Constraint]:
    """What a user gave as data, as constraints over `Data`.

    Raises:
        TypeError, ValueError: If it is something else.
    """
    found = []
    for item in data if isinstance(data, (list, tuple)) else [] if data is None else [data]:
        if isinstance(item, Data):
            if not (isinstance(item.rows, tuple) and len(item.rows) == 2):
                raise ValueError(
                    "data=cx.Data(...) needs rows (t, y) of times and whole states. For a part of "
                    "the state write cx.Constraint(residual, over=cx.Data((t, y)))."
                )
            item = Constraint(_whole_state, over=item, name="data")
        if not isinstance(item, Constraint) or not isinstance(item.over, Data):
            raise TypeError(
                f"data must be cx.Data((t, y)), or cx.Constraint(residual, over=cx.Data(...)), or "
                f"a list of such; got {shown(item)}."
            )
        found.append(item)
    return found


def _whole_state(u: Callable[[Array], PyTree], row: tuple[Array, PyTree]) -> Float[Array, " d"]:
    """What the model misses of an observed state."""
    t, y = row
    return ravel_pytree(u(t))[0] - ravel_pytree(y)[0]


def refuse_without(arguments: Arguments, observed: Sequence[Constraint], name: str) -> None:
    """Refuse unknowns without data, and data without unknowns.

    Raises:
        ValueError: Naming the argument that holds the unknowns, or should.
    """
    if arguments.unknowns and not observed:
        raise ValueError(
            f"{name} holds unknowns, {', '.join(arguments.unknowns)}, and there is nothing to "
            "estimate them from. Give data=cx.Data((t, y))."
        )
    if observed and not arguments.unknowns:
        raise ValueError(
            f"data has nothing to estimate: {name} holds no cx.Unknown. Write e.g. "
            f"{name}={{'rate': cx.Unknown(1.0)}}, or compare with known values by reference=."
        )


def observations(data: Sequence[tuple[Constraint, Draw]]) -> tuple[Observed, ...]:
    """Data as a scheme takes them."""
    return tuple(Observed(item.residual, points.points, item.weight**0.5) for item, points in data)


@eqx.filter_jit
def rows_of(model: PyTree, observed: tuple[Observed, ...]) -> Float[Array, " N"]:
    """The rows of all data, one below the other."""
    rows = [jnp.zeros(0)]
    for residual, points, root in observed:
        at = lambda x, residual=residual: flat_value(eqx.Partial(residual, model), x)  # noqa: E731
        rows.append(root * jnp.ravel(jax.vmap(at)(points)))
    return jnp.concatenate(rows)
