"""What the figures of a solution are drawn from."""

import dataclasses
from collections.abc import Callable

from jaxtyping import PyTree

from constrainednn._gap.report import ConstraintGap, GapReport
from constrainednn._gap.statistics import Estimate
from constrainednn._gap.streams import Streams
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn.runs.history import History


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """A solved problem with what was seen on the way and measured at the end.

    Attributes:
        problem: What was solved.
        model: Its solution.
        gap: Train and held-out residuals.
        history: Losses, snapshots and pieces on the way.
        streams: The points of each constraint.
        tolerance: What the residual of each piece was to be below; 0 for the default.
        experiments: The same for each of several experiments that fits on a page, by name.
        unknowns: Estimates the unknowns, by name; nothing where there are none to estimate.
    """

    problem: Problem
    model: PyTree
    gap: GapReport
    history: History
    streams: tuple[Streams, ...]
    tolerance: float
    experiments: "dict[str, Shown]"
    unknowns: Callable[[], dict[str, Estimate]]

    def first_with_heldout(self) -> tuple[Constraint, Streams, ConstraintGap] | None:
        """The first constraint with held-out points: what one page can show."""
        for constraint, points in zip(self.problem.constraints, self.streams, strict=True):
            if points.heldout is not None:
                return constraint, points, self.gap[constraint.name]
        return None

    def title_of(self, constraint: Constraint) -> str:
        """The name of a constraint, with its number where there are several."""
        names = [item.name for item in self.problem.constraints]
        if len(names) == 1:
            return constraint.name
        number = names.index(constraint.name) + 1
        return f"constraint {number} of {len(names)}: {constraint.name}"
