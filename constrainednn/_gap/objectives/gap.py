"""The gap of an objective: its mean on training points and on fresh ones, and above the optimum."""

import dataclasses
import math

import numpy as np
from jaxtyping import PyTree

from constrainednn._common.tables import number
from constrainednn._gap.residuals import residuals_at
from constrainednn._gap.statistics import Estimate, mean_interval
from constrainednn._gap.streams import Streams, refuse_overlap
from constrainednn._gap.tables import interval
from constrainednn._problem.objective import Value
from constrainednn._problem.problem import Problem


@dataclasses.dataclass(frozen=True)
class ObjectiveGap:
    """An objective on training points and on held-out points, which are independent draws.

    Attributes:
        name: Name of the objective.
        measure: The measure that its points are drawn from.
        sampler: How the training points were drawn.
        points: Number of training points.
        train: Mean on the training points.
        heldout: Mean on held-out points, with its interval.
        difference: The gap, heldout - train, with its interval.
        optimum: Mean of the reference on the same held-out points; None without a reference.
        excess: How far the mean is above that of the reference, with an interval of the paired
            differences. Below zero where constraints are violated, or the reference is no optimum.
        train_excess: The same on the training points.
        largest: The largest excess at a held-out point.
    """

    name: str
    measure: str
    sampler: str
    points: int
    train: float
    heldout: Estimate
    difference: Estimate
    optimum: float | None
    excess: Estimate | None
    train_excess: float | None
    largest: float | None

    @property
    def relative(self) -> float:
        """The excess as a share of the optimum; NaN without a reference, or where that is zero."""
        if self.excess is None or not self.optimum:
            return math.nan
        return self.excess.value / abs(self.optimum)

    @property
    def excess_gap(self) -> Estimate | None:
        """How much larger the excess is on fresh points than on these training points.

        `difference` has the luck of the training points in it. The reference shares that luck, the
        more of it the closer the model is to it. The interval is over the held-out draw alone.
        """
        if self.excess is None or self.train_excess is None:
            return None
        return self.excess.shifted(-self.train_excess)

    def line(self) -> str:
        """What was measured, in a sentence."""
        text = f"mean {interval(self.heldout)} on fresh points"
        if self.excess is None or self.optimum is None or self.largest is None:
            return text
        text += f", {interval(self.excess)} above the reference's {number(self.optimum)}"
        if not math.isnan(self.relative):
            text += f" ({100 * self.relative:.2g} %)"
        return f"{text}, {number(self.largest)} at the worst point"


def objective_gap(problem: Problem, model: PyTree, points: Streams) -> ObjectiveGap:
    """Measure the objective of a problem.

    Args:
        problem: The problem.
        model: What is measured.
        points: The points of the objective.

    Raises:
        ProblemError: If training and held-out points overlap.
    """
    assert problem.objective is not None and points.heldout is not None
    stated = problem.objective.stated
    refuse_overlap(stated, points.train, points.heldout)
    function = stated.residual
    assert isinstance(function, Value)
    held = _values(function, model, points.heldout.points)
    train = float(points.train.weights @ _values(function, model, points.train.points))
    mean, optimum, excess, above, largest = _mean(held), None, None, None, None
    if problem.reference is not None:
        known = _values(function, problem.reference, points.heldout.points)
        optimum, excess = float(known.mean()), _mean(held - known)
        largest = float(np.max(held - known))
        at_train = _values(function, problem.reference, points.train.points)
        above = train - float(points.train.weights @ at_train)
    return ObjectiveGap(
        stated.name,
        repr(stated.over),
        repr(stated.sampler),
        len(points.train),
        train,
        mean,
        mean.shifted(-train),
        optimum,
        excess,
        above,
        largest,
    )


def _values(function: Value, u: PyTree, points: PyTree) -> np.ndarray:
    return residuals_at(function, u, points)[:, 0].astype(float)


def _mean(values: np.ndarray) -> Estimate:
    """The mean with a t interval; NaN where a value is not finite."""
    missing = int((~np.isfinite(values)).sum())
    if missing:
        label = f"not available: not finite at {missing} of {len(values)} points"
        return Estimate(math.nan, math.nan, math.nan, len(values), math.nan, label)
    return mean_interval(values)
