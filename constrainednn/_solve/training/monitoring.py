"""What is recorded during a run: monitor losses, snapshots, and the best of them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import PyTree

from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn.domains.samplers.base import Draw
from constrainednn.runs.history import History

# Early stopping ends a run after so many times the steps of the lowest monitor loss.
_PATIENCE = 4


class Monitoring:
    """Monitor losses and snapshots at log-spaced steps; early stopping returns to the lowest loss.

    Attributes:
        losses: Pairs (step, monitor loss).
        snapshots: Pairs (step, model).
        best_draw: The redraw of the training points when the monitor loss was lowest.
        best_points: Those points.
    """

    def __init__(self, *, early_stopping: bool):
        self.early_stopping = early_stopping
        self.losses: list[tuple[int, float]] = []
        self.snapshots: list[tuple[int, PyTree]] = []
        self.best_draw = 0
        self.best_points: list[Draw] = []

    @property
    def lowest(self) -> tuple[int, float]:
        """The step with the lowest monitor loss so far, and that."""
        return min(self.losses, key=lambda item: np.nan_to_num(item[1], nan=np.inf))

    @property
    def last(self) -> float:
        """The last monitor loss, NaN before the first."""
        return self.losses[-1][1] if self.losses else np.nan

    def take(self, step: int, loss: float, model: PyTree, points: list[Draw], draw: int) -> None:
        """Keep a monitor loss, and a snapshot at some of the steps."""
        self.losses.append((step, loss))
        lowest = self.early_stopping and self.lowest[0] == step
        if lowest:  # of those that are there to be chosen only this one is kept
            self.thin_out()
            self.best_points, self.best_draw = points, draw
        if lowest or is_shown(step):
            self.snapshots.append((step, model))

    def history(
        self, losses: Sequence[np.ndarray], best_step: int, points: TrainingPoints
    ) -> History:
        """All that was recorded.

        Args:
            losses: Training losses, chunk by chunk.
            best_step: Of the parameters that are returned.
            points: The training points.
        """
        steps, monitor = zip(*self.losses, strict=True)
        return History(
            np.concatenate([np.zeros(0), *losses]),
            np.asarray(steps),
            np.asarray(monitor),
            tuple(self.snapshots),
            best_step,
            tuple(points.redraws),
            points.last_draw,
        )

    def thin_out(self) -> None:
        """Keep the snapshots that figures show."""
        self.snapshots = [item for item in self.snapshots if is_shown(item[0])]

    def past_the_best(self) -> bool:
        """True if training longer is only fitting the training points better."""
        # By the step that was watched last: chunks end where the clock says, too.
        seen = self.losses[-1][0]
        return self.early_stopping and seen >= max(_PATIENCE * self.lowest[0], 100)

    def is_better_than(self, loss: float) -> bool:
        """True if the lowest monitor loss is lower than this one, which may be NaN."""
        return math.isfinite(self.lowest[1]) and not loss <= self.lowest[1]


def is_shown(step: int) -> bool:
    """True for steps whose model is kept for figures: the first, then five a decade."""
    place = log_place(step)
    return step == 0 or (place is not None and (step < 10 or place % 2 == 0))


def log_place(step: int) -> int | None:
    """The index of `step` among the log-spaced steps, ten per decade, or None."""
    if step < 1:
        return None
    place = round(10 * np.log10(step))
    return place if round(10 ** (place / 10)) == step else None


def next_log_spaced(step: int) -> int:
    """The first log-spaced step after `step`."""
    place = int(np.floor(10 * np.log10(max(step, 1))))
    while round(10 ** (place / 10)) <= step:
        place += 1
    return round(10 ** (place / 10))


def lazy(fn: Callable[[], bool]) -> Callable[[], bool]:
    """The function evaluated when it is first called, and only then."""
    known: list[bool] = []

    def once() -> bool:
        if not known:
            known.append(fn())
        return known[0]

    return once
