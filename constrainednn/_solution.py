"""What a solve returns: the model, how it got there, and how well it holds."""

import dataclasses
import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._calculus import derivative
from constrainednn._domains import AbstractDomain, Interval
from constrainednn._errors import BadValueError
from constrainednn._evaluation import evaluated, point_of
from constrainednn._experiments import Experiments, Found
from constrainednn._gap import ConstraintGap, GapReport, Streams, evaluate_over
from constrainednn._one_experiment import one_of
from constrainednn._problem import Problem
from constrainednn._scheme import PieceHistory
from constrainednn._validate import as_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from constrainednn._compare import Comparison
    from constrainednn._error_estimate import ErrorEstimate
    from constrainednn._estimates import Estimates
    from constrainednn._verdict import Verdict


# Lines of a history on display.
_MOMENTS = 12


class Status(enum.StrEnum):
    """How a method ended; whether the statement holds is another matter, see `Verdict`."""

    CONVERGED = "converged"
    MAX_STEPS = "max_steps"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    EARLY_STOPPED = "early_stopped"
    BLOW_UP = "blow_up"
    NONFINITE = "nonfinite"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a run besides the problem.

    Attributes:
        method: The method or stages, as written.
        steps: Largest number of steps.
        seed: Seed of all streams.
        tolerance: Root of the training loss at which the run stops.
        heldout: Number of held-out points a constraint on a domain.
        monitor: Number of monitor points a constraint on a domain.
        redraw: Steps between new training draws, or None.
        dtype: Floating-point type.
        device: Platform and device kind.
        threads: CPU cores this process may use; results can differ where it does.
        versions: Versions of this package and those below it.
        environment: Those environment variables, if set, that JAX and the linear algebra heed.
        problem: SHA-256 of the file the problem was loaded from and of those it imports beside
            it; empty for a problem stated in Python.
        early_stopping: True if the parameters are those of the lowest monitor loss.
    """

    method: str
    steps: int
    seed: int
    tolerance: float
    heldout: int
    monitor: int
    redraw: int | None
    dtype: str
    device: str
    threads: int
    versions: dict[str, str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ""
    early_stopping: bool = False


@dataclasses.dataclass(frozen=True)
class History:
    """What was seen on the way.

    Attributes:
        loss: Training loss at the parameters before step 0, 1, 2, ...; the last entry, as that of
            `monitor` and `snapshots`, belongs to the parameters that were returned.
        monitor_steps: Steps at which the monitor loss was taken, log-spaced.
        monitor: Loss on monitor points at those steps; finite sets have none and count with their
            training points, so that it compares with `loss`. NaN if no constraint has any.
        snapshots: Models at a few of those steps, as pairs (step, model).
        best_step: Steps that led to the parameters that were returned.
        redraws: Steps before which new training points were drawn.
        last_draw: How many of the redraws there were before those parameters: 0 for the first draw.
        pieces: How the pieces came about, for a problem that is solved in pieces, of each
            experiment where there are several; `loss` and `monitor` then hold the final numbers
            only.
    """

    loss: np.ndarray
    monitor_steps: np.ndarray
    monitor: np.ndarray
    snapshots: tuple[tuple[int, PyTree], ...]
    best_step: int
    redraws: tuple[int, ...] = ()
    last_draw: int = 0
    pieces: PieceHistory | tuple[PieceHistory, ...] | None = None

    def __repr__(self) -> str:
        """A dozen moments, whatever the number of steps."""
        watched = dict(zip(self.monitor_steps.tolist(), self.monitor.tolist(), strict=True))
        steps = sorted(watched)
        some = np.unique(np.linspace(0, len(steps) - 1, _MOMENTS).round().astype(int))
        lines = ["  step  train loss  monitor loss"]
        for step in [steps[i] for i in some] if steps else []:
            # Of a problem in pieces only the end is kept.
            loss = float(self.loss[min(step, len(self.loss) - 1)])
            lines.append(f"{step:6}  {loss:10.3g}  {watched[step]:12.3g}")
        best = f"the best is step {self.best_step}"
        return "\n".join([*lines, f"{best}, {len(self.redraws)} redraws; arrays: .loss, .monitor"])


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds spent: compiling (first calls), running steps, measuring the gap."""

    compile: float
    run: float
    report: float


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """The result of `solve`. It is a function: `solution(x)` is its value at one point or many.

    Attributes:
        problem: What was solved.
        model: The best parameters found, by training loss, or by monitor loss with early stopping.
        gap: Train, held-out and their difference, with intervals.
        status: Why the run ended.
        reason: The same in a sentence.
        steps: Number of completed steps; of a problem in pieces all Newton steps, those of
            pieces that were given up too.
        parameters: Number of trained parameters.
        history: Losses and snapshots on the way.
        timings: Seconds, compile apart from run.
        settings: Everything that decides the run besides the problem.
        streams: The points: train, monitor and held-out of each constraint.
    """

    problem: Problem
    model: PyTree
    gap: GapReport
    status: Status
    reason: str
    steps: int
    parameters: int
    history: History
    timings: Timings
    settings: Settings
    streams: tuple[Streams, ...]

    @functools.cached_property
    def verdict(self) -> "Verdict":
        """Whether the statement holds, by what was measured after the last step."""
        from constrainednn._verdict import verdict

        return verdict(self)

    def __call__(self, x: Any) -> PyTree[Array]:
        """Evaluate the model at one point, or at many stacked along leading axes of any number.

        One point has the shape that the residuals call the model with.

        Raises:
            TypeError: If `x` holds no real numbers.
            ValueError: If its shape is not that of points, or one lies outside of what the pieces
                of the model cover, by more than rounding.
        """
        return self._evaluate(_value, x)

    def derivative(self, t: Any) -> PyTree[Array]:
        """Evaluate the derivative of a function of one number, at one place or at many."""
        return self._evaluate(_slope, t)

    def _evaluate(self, look: Callable[[Any, Any], Any], x: Any) -> PyTree[Array]:
        if isinstance(self.model, Experiments):
            raise BadValueError(self.model.asked_alone)
        fn = eqx.Partial(look, self.model)
        return evaluated(fn, x, self._point, self._refuse_outside)

    @functools.cached_property
    def _point(self) -> PyTree[jax.ShapeDtypeStruct]:
        return point_of(self.problem, self.model, self.streams)

    def _refuse_outside(self, t: np.ndarray) -> None:
        if self.problem.scheme is not None:
            covered = self.problem.scheme.covered(self.model)
            assert isinstance(covered, Interval)
            outside = t[~covered.holds(t)]
            if outside.size:
                raise BadValueError(
                    f"the solution is known from {covered.low:g} to {covered.high:g}, got "
                    f"{_beyond(outside.ravel()[0], covered)}."
                )

    def __getitem__(self, which: int | str) -> "Solution":
        """The solution of one of several experiments, by name or number.

        It is a function, with what the report says about that experiment: its part of the gap, its
        `error_estimate` and `compare`, its figures. Estimates are those of all.

        Raises:
            KeyError, IndexError: If there is none of that name or number.
            TypeError: If there are no experiments.
        """
        return one_of(self, which)

    def __repr__(self) -> str:
        from constrainednn._report import summary

        return summary(self)

    def evaluate(
        self,
        *,
        over: AbstractDomain,
        constraint: str | None = None,
        heldout: int = 4096,
        seed: int = 0,
    ) -> ConstraintGap:
        """Measure the residual under another measure; the result is named extrapolation.

        Args:
            over: The other measure.
            constraint: Name of the constraint, needed if there is more than one.
            heldout: Number of points drawn from `over`.
            seed: Seed of that draw.
        """
        return evaluate_over(
            self.problem,
            self.model,
            self.streams,
            over=over,
            name=constraint,
            heldout=heldout,
            key=jax.random.key(as_seed(seed)),
        )

    def estimates(self, *, sigma: float | None = None, level: float = 0.95) -> "Estimates":
        """Estimate the unknowns: values, standard errors, intervals and correlations.

        For a problem with `Unknown` leaves, in `args` of `ivp` or in the model, and constraints
        over `Data`. Only data have noise: what follows from the equations has none, so that more
        training points leave the standard errors as they are. Intervals are profile intervals with
        t quantiles, one-sided at a bound.

        Args:
            sigma: Standard deviation of the noise, if it is known; of the residual times the root
                of its weight. Otherwise it is that of the rows that were trained on.
            level: Coverage of the intervals, in (0, 1).
        """
        if isinstance(getattr(self.model, "arguments", None), Found):
            raise BadValueError("estimates are those of all experiments: ask the whole solution.")
        from constrainednn._estimates import estimates

        return estimates(self, sigma=sigma, level=level)

    def error_estimate(self, points: int = 200) -> "ErrorEstimate":
        """Estimate the error of a solution of `ivp` or `bvp` from its residual alone.

        Args:
            points: Number of uniform places to report at, besides the edges of the pieces.
        """
        from constrainednn._error_estimate import error_estimate

        return error_estimate(self, points)

    def compare(self) -> "Comparison":
        """Solve the same `ivp` or `bvp` with SciPy; report the difference and both times."""
        from constrainednn._compare import compare

        return compare(self)

    def plot(self) -> "Figure":
        """Draw loss, residual and map on one page."""
        from constrainednn._plots import overview

        return overview(self)

    def plot_moments(self) -> "Figure":
        """Draw the map at several moments of training, on train and monitor points."""
        from constrainednn._plots import moments

        return moments(self)

    def save(self, path: str | Path) -> None:
        """Write model, history, report and figures into a new folder."""
        from constrainednn._store import save_solution

        save_solution(self, Path(path))


def _value(model: PyTree, x: PyTree) -> PyTree:
    return model(x)


def _slope(model: PyTree, t: Array) -> PyTree:
    return derivative(model)(t)


def _beyond(t: float, covered: Interval) -> str:
    """A number in as many digits as tell it from the end that it is beyond."""
    end = covered.low if t < covered.low else covered.high
    digits = next((n for n in range(6, 17) if f"{t:.{n}g}" != f"{end:.{n}g}"), 17)
    return f"{t:.{digits}g}"


class SolveFailed(Exception):  # noqa: N818  (it names an outcome, like StopIteration)
    """The residual became NaN or infinite; `solution` holds the best finite parameters."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution
