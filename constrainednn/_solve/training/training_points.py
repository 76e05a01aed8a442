"""The points of a run that is trained step by step, and their redraws."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from constrainednn._gap.residual_vector import common_unit
from constrainednn._gap.residuals import loss_at, residuals_at, root_mean_square
from constrainednn._gap.streams import (
    Streams,
    draw_training,
    draw_where_large,
    drawn_again,
    drawn_arrays,
    streams_of_all,
)
from constrainednn._problem.constraint import Constraint, is_drawn_again
from constrainednn._problem.objective import Value
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.domains.samplers.base import Draw


class TrainingPoints:
    """Points to train on and to be monitored on, and held-out points, kept apart until the end.

    Args:
        constraints: The statements of a problem: its constraints and, last, its objective.
        key: Key of the run.
        counts: Numbers of monitor and held-out points.

    Attributes:
        train: Training points of each constraint.
        monitor: Monitor points of each constraint, or None.
        digest: A digest that identifies the points of a seed.
        redraws: Steps before which training points were drawn again.
        last_draw: How many redraws there were before the points in `train`.
    """

    def __init__(
        self, constraints: Sequence[Constraint], key: Key[Array, ""], counts: Mapping[str, int]
    ):
        self.constraints, self.key = constraints, key
        streams = streams_of_all(constraints, key=key, **counts)
        self.train = [points.train for points in streams]
        self.monitor = [points.monitor for points in streams]
        # What judges: nothing that trains or steers is handed it.
        self._heldout = [points.heldout for points in streams]
        self.digest = _digest(streams)
        self.redraws: list[int] = []
        self.last_draw = 0

    @property
    def drawn_at(self) -> int:
        """The step of the last redraw, 0 before the first."""
        return self.redraws[-1] if self.redraws else 0

    @property
    def pairs(self) -> Iterator[tuple[Constraint, Draw]]:
        """Each constraint with its training points."""
        return zip(self.constraints, self.train, strict=True)

    def streams(self) -> tuple[Streams, ...]:
        """All points, for the report at the end."""
        points = zip(self.train, self.monitor, self._heldout, strict=True)
        return tuple(Streams(*each) for each in points)

    def losses(self, model: PyTree, unit: float) -> dict[str, float]:
        """Training losses by constraint, in squares of a unit."""
        return {item.name: loss_at(item, model, drawn, unit=unit) for item, drawn in self.pairs}

    def common_unit(self, model: PyTree) -> float:
        """What all residuals are divided by while they are squared: one, but for extreme units.

        An objective is no square: with one, nothing is divided.
        """
        if any(isinstance(item.residual, Value) for item in self.constraints):
            return 1.0
        sizes = [
            math.sqrt(item.weight)
            * root_mean_square(residuals_at(item.residual, model, drawn.points))
            for item, drawn in self.pairs
        ]
        return common_unit(sizes)

    def redraw(self, model: PyTree, step: int) -> None:
        """Draw new training points before a step."""
        self.redraws.append(step)
        self.last_draw = len(self.redraws)
        self._draw(self.last_draw, model)

    def arrays(self, train: Sequence[Draw], name: str) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of training points: those that the seed alone does not give."""
        return drawn_arrays(self.constraints, train, name)

    def restored(
        self,
        first: list[Draw],
        number: int,
        model: PyTree,
        arrays: dict[str, np.ndarray],
        name: str,
    ) -> list[Draw]:
        """The training points of a redraw, as they were.

        Raises:
            ValueError: If the arrays of the checkpoint do not fit.
        """
        self.train = first
        if number:
            self._draw(number, model)
            self.train = drawn_again(self.constraints, self.train, arrays, name)
        return self.train

    def _draw(self, number: int, model: PyTree) -> None:
        train = list(self.train)  # the list before may be kept: that of the lowest monitor loss
        for i, item in enumerate(self.constraints):
            if isinstance(item.sampler, Adaptive) and is_drawn_again(item):
                train[i] = draw_where_large(item, model, key=self.key, redraw=number)
            elif is_drawn_again(item):
                train[i] = draw_training(item, key=self.key, redraw=number)
        self.train = train


def _digest(streams: Sequence[Streams]) -> str:
    """A digest that identifies the points; a resumed run must draw those that it drew before.

    By sums to nine digits, since another version or machine may round the last ones otherwise.
    """
    draws = [(points.train, points.monitor, points.heldout) for points in streams]
    parts = []
    for leaf in jax.tree.leaves(draws):
        x = np.asarray(leaf, float).ravel()
        sums = np.abs(x) @ np.linspace(1, 2, x.size), np.abs(x + 1).sum()
        parts.append(f"{np.shape(leaf)} {sums[0]:.9e} {sums[1]:.9e}")
    return hashlib.sha256("; ".join(parts).encode()).hexdigest()
