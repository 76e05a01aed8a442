"""How far a march of trained windows has come, and how it ended."""

import dataclasses
from typing import Any

import numpy as np

from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._ode.trained.models import Windowed
from constrainednn._ode.trained.scheme import TrainedWindows
from constrainednn._problem.scheme import Resumable
from constrainednn._storage.run_folder import Checkpoint
from constrainednn.errors import BadValueError, StoreError
from constrainednn.runs.history import History, Status
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Run

# A window that ends otherwise is the last.
GOES_ON = (Status.CONVERGED, Status.MAX_STEPS, Status.STALLED, Status.EARLY_STOPPED)
# Names of what a checkpoint keeps of the windows before the one that is trained.
_MODEL, _LOSSES = "windows", "before"
_ARRAYS = ("loss", "monitor_steps", "monitor")


@dataclasses.dataclass(frozen=True)
class Window:
    """How one window went; its arrays and numbers as in `Outcome` and `History`."""

    status: Status
    reason: str
    steps: int
    parameters: int
    compile: float
    run: float
    best_step: int
    loss: np.ndarray
    monitor_steps: np.ndarray
    monitor: np.ndarray


class MarchOfWindows:
    """The windows that have been trained, and the model they are in.

    Attributes:
        scheme: How the problem is cut.
        model: The model of all windows; those to come are as they were built.
        found: The windows so far.
    """

    def __init__(self, scheme: TrainedWindows, model: Windowed):
        self.scheme, self.model = scheme, model
        self.found: list[Window] = []
        # The status that ended the march where a window could not be started, and why.
        self._failure: tuple[Status, str] | None = None

    @property
    def count(self) -> int:
        """Windows that have ended."""
        return len(self.found)

    @property
    def steps(self) -> int:
        """Steps of all of them."""
        return sum(item.steps for item in self.found)

    @property
    def goes_on(self) -> bool:
        """True while there is a window to train."""
        stopped = self.found and self.found[-1].status not in GOES_ON
        return not stopped and self._failure is None and self.count < self.scheme.windows

    def name(self, k: int) -> str:
        """A window in words."""
        return f"window {k + 1} of {self.scheme.windows}"

    def take(self, outcome: Outcome) -> None:
        """Put a window that was trained into the model."""
        history = outcome.history
        self.model = self.scheme.joined(self.model, self.count, outcome.model)
        numbers = {name: getattr(outcome, name) for name in ("steps", "parameters")}
        seconds = {name: getattr(outcome, name) for name in ("compile", "run")}
        arrays = {name: getattr(history, name) for name in _ARRAYS}
        ended = outcome.status, outcome.reason
        self.found.append(
            Window(*ended, **numbers, **seconds, best_step=history.best_step, **arrays)
        )

    def failed(self, status: Status, reason: str) -> None:
        """End the march before a window that cannot be started."""
        self._failure = status, f"cannot be started: {reason.removesuffix('.')}"

    @property
    def result(self) -> Windowed:
        """The model, without a last window that no step was taken in, or whose values blew up."""
        if self._reached == self.scheme.windows:
            return self.model
        return self.model.cut(self._reached)

    @property
    def _reached(self) -> int:
        last = self.found[-1]
        useless = last.status is Status.NONFINITE or not last.steps
        return max(1, self.count - (last.status not in GOES_ON and useless))

    def ending(self) -> tuple[Status, str]:
        """How the march ended: as the window that ended it, else as the first cut short."""
        found, windows = self.found, self.scheme.windows
        if self._failure is not None:
            status, reason = self._failure
            return status, f"{self.name(self.count)}: {reason}{self._rest}"
        if found[-1].status not in GOES_ON:
            reason = f"{self.name(self.count - 1)}: {found[-1].reason}{self._rest}"
            return found[-1].status, reason
        for k, item in enumerate(found):
            if item.status is not Status.CONVERGED:
                return item.status, f"{self.name(k)}: {item.reason}"
        return Status.CONVERGED, f"{found[-1].reason}, in each of {windows} windows"

    @property
    def _rest(self) -> str:
        """How far the march came, where it did not come to the end."""
        reached, windows = self._reached, self.scheme.windows
        if reached == windows:
            return ""
        rest = f"{reached + 1} to {windows} are" if reached + 1 < windows else f"{windows} is"
        plural = "s" * (reached + 1 < windows)
        end = f"the solution ends at t = {self.scheme.edges[reached]:.6g}"
        return f"; {end}, window{plural} {rest} not trained"

    def history(self) -> History:
        """The losses of all windows, one after another."""
        found = self.found
        ends = np.cumsum([0, *(item.steps for item in found)])
        shifted = [item.monitor_steps + end for item, end in zip(found, ends, strict=False)]
        # The last look of a window and the first of the next are at one step: the first stays.
        steps, first = np.unique(np.concatenate(shifted), return_index=True)
        return History(
            np.concatenate([item.loss for item in found]),
            steps,
            np.concatenate([item.monitor for item in found])[first],
            (),
            int(ends[-2]) + found[-1].best_step,
        )

    def contents(self) -> Resumable:
        """What a checkpoint keeps besides the state of the window that is trained."""
        arrays = tree_to_arrays(self.model, _MODEL)
        for k, item in enumerate(self.found):
            arrays |= {f"{_LOSSES}{k}.{name}": getattr(item, name) for name in _ARRAYS}
        plain = [field.name for field in dataclasses.fields(Window) if field.name not in _ARRAYS]
        windows = [{name: getattr(item, name) for name in plain} for item in self.found]
        return arrays, {"before": self.steps, "windows": windows}

    def restore(self, run: Run, checkpoint: Checkpoint) -> None:
        """Set everything to what it was when the window of a checkpoint began.

        Raises:
            StoreError: If the checkpoint is damaged.
        """
        self.model = run.restored(self.model, checkpoint, _MODEL)
        try:
            for k, facts in enumerate(checkpoint.facts["windows"]):
                self.found.append(_window(k, facts, checkpoint.arrays))
            if checkpoint.facts["before"] != self.steps or not self.goes_on:
                raise BadValueError("their number is wrong")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{run.where} is damaged, in its windows: {error}.") from None

    def own_part(self, checkpoint: Checkpoint) -> Checkpoint:
        """What a checkpoint says of the window that is trained."""
        return Checkpoint(checkpoint.step - self.steps, checkpoint.arrays, checkpoint.facts)


def _window(k: int, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Window:
    """A window as a checkpoint keeps it."""
    given = {name: arrays[f"{_LOSSES}{k}.{name}"] for name in _ARRAYS}
    window = Window(**{**facts, **given, "status": Status(facts["status"])})
    numbers = window.steps, window.parameters, window.best_step
    if not isinstance(window.reason, str) or not all(type(number) is int for number in numbers):
        raise BadValueError(f"window {k + 1} says {facts!r:.200}")
    if (len(window.loss), len(window.monitor)) != (window.steps, len(window.monitor_steps)):
        raise BadValueError(f"window {k + 1} has other losses than steps")
    return window
