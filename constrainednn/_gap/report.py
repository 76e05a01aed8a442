"""The gap report: the measured values."""

import dataclasses
import math

import numpy as np
from jaxtyping import PyTree

from constrainednn._common.tables import terminal_width
from constrainednn._gap.holds.guarantee import Guarantee
from constrainednn._gap.holds.kind import Holds
from constrainednn._gap.objectives.gap import ObjectiveGap
from constrainednn._gap.statistics import Estimate
from constrainednn._gap.tables import gap_html, gap_text, is_rounding
from constrainednn.targets.image import Image


@dataclasses.dataclass(frozen=True)
class Worst:
    """The largest residual found.

    Attributes:
        residual: |r|.
        point: Where it occurs.
        ended: True if the search was stopped while the residual still grew.
    """

    residual: float
    point: PyTree[np.ndarray]
    ended: bool = False


@dataclasses.dataclass(frozen=True)
class Distance:
    """Held-out residual against the distance to the nearest training point.

    Attributes:
        edges: Ends of five classes of distance with equally many held-out points.
        rms: Root mean square residual in each class.
    """

    edges: tuple[float, ...]
    rms: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ConstraintGap:
    """The gap of one constraint.

    Losses are weight * mean |r|^2; the RMS values are sqrt(loss / (weight * entries)), in the
    residual's own units.

    Attributes:
        name: Name of the constraint.
        measure: The measure that held-out points are drawn from.
        sampler: How the training points were drawn.
        points: Number of training points.
        entries: Number of entries of the residual at a point.
        weight: Factor in the total loss.
        train: Loss on the training points of the last completed step.
        heldout: Loss on independent points of the measure, with its interval.
        difference: The gap, heldout - train, with its interval.
        train_rms: Root mean square residual on the training points.
        heldout_rms: The same on held-out points, with its interval.
        ratio: heldout_rms / train_rms; NaN where both are at rounding.
        floor: RMS change of the residual when the parameters change in their last digits.
        terms: RMS size of the terms of the residual on held-out points: how much it changes per
            relative change of the model's value and slopes. NaN where the model is not a function
            of points, or is solved piece by piece.
        worst: Largest residual, searched from the worst held-out points.
        train_quantiles: Quantiles of |r| on training points.
        heldout_quantiles: Quantiles of |r| on held-out points.
        holds: In which way it holds at points that nobody tried.
        guarantee: What the held-out points prove of fresh ones, assuming independent draws alone.
        distance: Residual against distance to the nearest training point.
        image: Rank and spread of the model's values, where it can be called on a point and is not
            made of pieces.
        error: Relative L2 error against the reference on held-out points. None without a reference,
            where it is zero, and where the model takes no such points.
        absolute_error: Root mean square of the same error; None without a reference, and where
            the model takes no such points.
        note: What to know when reading the numbers.
    """

    name: str
    measure: str
    sampler: str
    points: int
    entries: int
    weight: float
    train: float
    heldout: Estimate
    difference: Estimate
    train_rms: float
    heldout_rms: Estimate
    ratio: float
    floor: float
    terms: float
    worst: Worst
    train_quantiles: dict[str, float]
    heldout_quantiles: dict[str, float]
    holds: Holds
    guarantee: Guarantee
    distance: Distance | None
    image: Image | None
    error: float | None
    absolute_error: float | None
    note: str

    @property
    def at_rounding(self) -> bool:
        """True if train and held-out residual are no larger than their rounding error."""
        return is_rounding(self.train_rms, self.floor) and is_rounding(
            self.heldout_rms.value, self.floor
        )

    @property
    def relative(self) -> float:
        """Held-out RMS over the size of the residual's terms; about one if nothing is solved."""
        return self.heldout_rms.value / self.terms if self.terms > 0 else math.nan

    def __str__(self) -> str:
        return str(self._alone)

    def _repr_html_(self) -> str:
        return gap_html(self._alone)

    @property
    def _alone(self) -> "GapReport":
        """The report of a problem that has this constraint only."""
        return GapReport((self,), (), self.train, self.heldout, self.difference, self.train)


@dataclasses.dataclass(frozen=True)
class FiniteLoss:
    """A constraint on a finite set used whole: a loss, no population, no gap."""

    name: str
    points: int
    entries: int
    weight: float
    loss: float
    rms: float


@dataclasses.dataclass(frozen=True)
class GapReport:
    """Train, held-out and their difference, in total and for each constraint.

    Attributes:
        constraints: One entry per constraint with a population behind it.
        finite: Constraints on finite sets, which count in the loss and have no gap.
        train: Total loss on training points, of constraints with a population only.
        heldout: Total loss on held-out points, with its interval.
        difference: The gap in total, heldout - train.
        loss: All of the training loss, finite sets and the objective included: the number that
            was minimised, but for multipliers.
        objective: The mean of the objective, and how far it is above that of the reference.
    """

    constraints: tuple[ConstraintGap, ...]
    finite: tuple[FiniteLoss, ...]
    train: float
    heldout: Estimate | None
    difference: Estimate | None
    loss: float
    objective: ObjectiveGap | None = None

    @property
    def worst(self) -> dict[str, Worst]:
        """Largest residual of each constraint and where it occurs."""
        return {item.name: item.worst for item in self.constraints}

    def __getitem__(self, name: str) -> ConstraintGap:
        for item in self.constraints:
            if item.name == name:
                return item
        known = ", ".join(item.name for item in self.constraints)
        raise KeyError(f"no gap for a constraint named {name!r}; there is: {known}")

    def __str__(self) -> str:
        return gap_text(self, terminal_width())

    def _repr_html_(self) -> str:
        return gap_html(self)
