"""What a solve returns: the model, how it got there, and how well it holds."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_path, as_seed
from constrainednn._common.tables import terminal_width
from constrainednn._figures.moments import moments
from constrainednn._figures.overview import one_figure
from constrainednn._gap.measure import evaluate_over
from constrainednn._gap.report import ConstraintGap
from constrainednn._ode.trained.scheme import TrainedEquation
from constrainednn._pde.trained import TrainedField
from constrainednn._problem.experiments import Experiments
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.errors import BadValueError
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.operators.derivatives import derivative
from constrainednn.results.comparison.comparison import Comparison, compare
from constrainednn.results.error_estimate.error_estimate import ErrorEstimate
from constrainednn.results.error_estimate.field import FieldErrorEstimate
from constrainednn.results.error_estimate.from_residual import error_estimate
from constrainednn.results.error_estimate.plane_time import plane_time_error
from constrainednn.results.error_estimate.space import space_error
from constrainednn.results.error_estimate.space_time import space_time_error
from constrainednn.results.error_estimate.trained import trained_error
from constrainednn.results.estimates.estimates import estimates
from constrainednn.results.estimates.from_rows import Estimates
from constrainednn.results.evaluation import evaluated, point_of
from constrainednn.results.facts import Facts
from constrainednn.results.one_experiment import one_experiment
from constrainednn.results.saving import save_solution, write_film, write_page
from constrainednn.results.shown import shown
from constrainednn.results.summary import summary, summary_html
from constrainednn.results.verdict.judge import verdict
from constrainednn.results.verdict.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Solution(Facts):
    """The result of `solve`. It is a function: `solution(x)` is its value at one point or many.

    Attributes:
        problem: What was solved.
        model: The best parameters found, by training loss, or by monitor loss with early stopping.
        gap: Train, held-out and their difference, with intervals.
        status: Why the run ended.
        reason: The same in a sentence.
        steps: Number of completed steps; for a problem in pieces, of all Newton steps, those of
            rejected pieces included.
        parameters: Number of trained parameters.
        history: Losses and snapshots on the way.
        timings: Seconds, compile apart from run.
        settings: Everything that decides the run besides the problem.
        streams: The points: train, monitor and held-out of each constraint.
    """

    @functools.cached_property
    def verdict(self) -> Verdict:
        """Whether the statement holds, by what was measured after the last step."""
        return verdict(self)

    def __call__(self, x: Any) -> PyTree[Array]:
        """Evaluate the model at one point, or at many, stacked along any number of leading axes.

        One point has the shape that the residuals call the model with.

        Raises:
            TypeError: If `x` holds no real numbers.
            ValueError: If its shape is not that of points, or a point lies outside the interval
                that the pieces cover, by more than rounding.
        """
        return self._evaluate(_value, x)

    def derivative(self, t: Any) -> PyTree[Array]:
        """Evaluate the derivative of a function of one number, at one point or at many."""
        return self._evaluate(_slope, t)

    def _evaluate(self, look: Callable[[Any, Any], Any], x: Any) -> PyTree[Array]:
        if isinstance(self.model, Experiments):
            raise BadValueError(self.model.asked_alone)
        fn = eqx.Partial(look, self.model)
        return evaluated(fn, x, self._point, self._refuse_outside)

    @functools.cached_property
    def _point(self) -> PyTree[jax.ShapeDtypeStruct]:
        return point_of(self.problem, self.model, self.streams)

    def _refuse_outside(self, x: np.ndarray) -> None:
        first, _, known = self._first_outside(x)
        if first is not None:
            raise BadValueError(f"the solution is known {known}.")

    def _refuse_over_outside(self, x: PyTree) -> None:
        """Refuse points of `over` that no piece reaches: residuals there are those of nothing."""
        if isinstance(self.model, Experiments) or not isinstance(x, np.ndarray):
            return
        # Of points of another shape the residual says what is wrong.
        if [x.shape[1:]] != [leaf.shape for leaf in jax.tree.leaves(self._point)]:
            return
        first, count, known = self._first_outside(x)
        if first is not None:
            raise BadValueError(
                f"over= reaches beyond the solution: {count} of {len(x)} points drawn from it lie "
                f"outside. It is known {known}. Choose over= within that."
            )

    def _first_outside(self, x: np.ndarray) -> tuple[np.ndarray | None, int, str]:
        """The first point that no piece reaches, how many there are, and where the pieces are."""
        scheme, equation = self.problem.scheme, self.problem.constraints[0]
        if not (scheme.in_pieces or isinstance(scheme, TrainedEquation)):
            return None, 0, ""
        covered = scheme.covered(self.model, equation) or equation.over
        assert isinstance(covered, (Interval, AbstractShape))
        outside = x[~covered.holds(x)]
        if not outside.size:
            return None, 0, ""
        if not isinstance(covered, (Interval, Box)):
            got = ", ".join(f"{number:.9g}" for number in outside[0])
            return outside[0], len(outside), f"in {covered!r}, got ({got})"
        ends = np.atleast_2d(np.transpose([covered.low, covered.high]))
        first = np.atleast_1d(outside[0] if isinstance(covered, Box) else outside.ravel()[0])
        within = " and ".join(f"from {low:g} to {high:g}" for low, high in ends)
        got = ", ".join(_beyond(*both) for both in zip(first, ends, strict=True))
        return first, len(outside), f"{within}, got {got}"

    def __getitem__(self, which: int | str) -> "Solution":
        """The solution of one of several experiments, by name or number.

        It is a function with its own part of the gap, `error_estimate`, `compare` and figures.
        Estimates are those of all experiments together.

        Raises:
            KeyError, IndexError: If there is none of that name or number.
            TypeError: If there are no experiments.
        """
        return one_experiment(self, which)

    def __repr__(self) -> str:
        return summary(self, self.verdict, terminal_width())

    def _repr_html_(self) -> str:
        return summary_html(self, self.verdict)

    def evaluate(
        self,
        *,
        over: AbstractDomain,
        constraint: str | None = None,
        heldout: int = 4096,
        seed: int = 0,
    ) -> ConstraintGap:
        """Measure the residual under another measure; the result is labelled extrapolation.

        Args:
            over: The other measure.
            constraint: Name of the constraint, needed if there is more than one.
            heldout: Number of points drawn from `over`.
            seed: Seed of that draw.

        Raises:
            TypeError: If `over` is no domain.
            ValueError: If there is no such constraint, or points of `over` lie where no piece of a
                solution in pieces is, such as after the time that a march got to.
        """
        return evaluate_over(
            self.problem,
            self.model,
            self.streams,
            over=over,
            name=constraint,
            heldout=heldout,
            key=jax.random.key(as_seed(seed)),
            check=self._refuse_over_outside,
        )

    def estimates(self, *, sigma: float | None = None, level: float = 0.95) -> Estimates:
        """Estimate the unknowns: values, standard errors, intervals and correlations.

        For a problem with `Unknown` leaves, in `args` of `ivp` or in the model, and constraints
        over `Data`. Only data have noise: what follows from the equations has none, so that more
        training points leave the standard errors as they are. Intervals are profile intervals with
        t quantiles, one-sided at a bound.

        Args:
            sigma: Standard deviation of the noise, if it is known, of the residual times the root
                of its weight. By default it is estimated from the rows that were trained on.
            level: Coverage of the intervals, in (0, 1).
        """
        return estimates(self, sigma=sigma, level=level)

    def error_estimate(self, points: int = 200) -> ErrorEstimate | FieldErrorEstimate:
        """Estimate the error of a solution in pieces from its residual alone.

        A network that was trained on a `pde` in time and one coordinate is compared with the same
        statement solved in pieces, which is done here and takes seconds.

        Args:
            points: For `ivp` and `bvp`, the number of uniform points to report at, besides the
                edges of the pieces.
        """
        if isinstance(self.model, SpaceTimePieces):
            return space_time_error(self)
        if isinstance(self.model, SpacePieces):
            return space_error(self)
        if isinstance(self.model, PlaneTimePieces):
            return plane_time_error(self)
        if isinstance(self.problem.scheme, TrainedField):
            return trained_error(self)
        return error_estimate(self, points)

    def compare(self) -> Comparison:
        """Solve the same `ivp`, `bvp` or `pde` with SciPy; report the difference and both times."""
        return compare(self)

    def plot(
        self,
        kind: str | None = None,
        *,
        constraint: str | None = None,
        component: int | None = None,
        names: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Draw the solution and its residual: all there is on one page, or one panel.

        Args:
            kind: One panel: "solution" (of three coordinates or more in a plane through the worst
                point), "slices", "vectors" (two components as arrows), "residual" (with training
                points and the worst point), "error" against the reference, "phase" (the path of
                two components over time), "parameters" (unknowns with intervals), "spread"
                (quantiles of |r|), "distance" to the nearest training point, or "history".
            constraint: Whose residual is drawn; by default the first that is no rounding.
            component: The one component that is drawn; by default all, and the first of a field.
            names: What the components of u are called, one text for each.
            ax: Axes of yours to draw one panel into.

        Raises:
            ValueError: If there is no such kind, constraint or component, or nothing to draw of it.
        """
        return one_figure(shown(self), kind, constraint, component, names, ax)

    def plot_moments(self) -> "Figure":
        """Draw the map at several moments of training, on train and monitor points."""
        return moments(shown(self))

    def animate(self, path: str | Path) -> None:
        """Write a GIF of the solution over time, or of its training step by step.

        A solution in pieces is shown over time: curves that grow, u against x, or maps. A trained
        one is shown at the steps whose models were kept: the image of a map, a curve or a field.

        Args:
            path: The file, ending in .gif; only a film of this package is overwritten.

        Raises:
            ValueError: If nothing moves, or there are no models of the training, as there are none
                of a loaded solution.
            StoreError: If the file cannot be written, or is no film of this package.
        """
        write_film(self, as_path(path, "path of animate"))

    def save(self, path: str | Path) -> None:
        """Write model, history, report and figures into a new folder."""
        save_solution(self, self.verdict, Path(path))

    def report(self, path: str | Path, *, comparison: Comparison | None = None) -> None:
        """Write one page to send: verdict, figures, numbers, the problem's text, how to run it.

        The page is a single HTML file that fetches nothing. `constrainednn report` writes the same
        from a saved run.

        Args:
            path: The file, ending in .html; only a page of this package is overwritten.
            comparison: What `compare` returned, to be shown with both times.

        Raises:
            StoreError: If the file cannot be written, or is no page of this package.
        """
        write_page(self, self.verdict, as_path(path, "path of report"), comparison)


def _value(model: PyTree, x: PyTree) -> PyTree:
    return model(x)


def _slope(model: PyTree, t: Array) -> PyTree:
    return derivative(model)(t)


def _beyond(t: float, ends: np.ndarray) -> str:
    """A number in as many digits as tell it from the end that it lies beyond."""
    end = ends[0] if t < ends[0] else ends[1]
    digits = next((n for n in range(6, 17) if f"{t:.{n}g}" != f"{end:.{n}g}"), 17)
    return f"{t:.{digits}g}"


class SolveFailed(Exception):  # noqa: N818  (it names an outcome, like StopIteration)
    """The residual became NaN or infinite; `solution` holds the best finite parameters."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution
