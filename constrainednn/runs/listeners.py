"""What a running solve tells and hears: progress and numbers out, signals and the clock in."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from constrainednn._common.arguments import as_function
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError

_FAILURES = 3


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a progress display may see: never held-out points.

    Attributes:
        phase: "compiling", "training", "solving, %" or "measuring the gap".
        step: Completed steps, or, where a problem is solved in pieces, the share that is done in %.
        steps: Largest number of steps, or 100.
        train: Latest training loss; NaN where a problem is solved in pieces.
        monitor: Latest monitor loss, or the monitor residual of the last piece.
        part: What of the problem is trained, such as "window 2 of 3"; empty where all of it is.
    """

    phase: str
    step: int
    steps: int
    train: float
    monitor: float
    part: str = ""


@runtime_checkable
class Sink(Protocol):
    """Where the numbers of a running solve may go, besides its own folder."""

    def log(self, step: int, values: dict[str, float], /) -> None:
        """Take the numbers seen at a step: "train" and "monitor", or in pieces "monitor" alone."""

    def close(self) -> None:
        """Called once, when the run has ended."""


class Listeners:
    """The listeners of a run. A sink that fails three times is dropped."""

    def __init__(self, progress: Callable[[Progress], None] | None, sinks: Sequence[Sink]):
        if progress is not None:
            as_function(progress, "progress", "print")
        if not isinstance(sinks, (list, tuple)):
            raise BadTypeError(f"sinks must be a list, got {shown(sinks)}.")
        self.progress = (lambda _: None) if progress is None else progress
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise BadTypeError(
                    f"sinks holds {shown(sink)}; a sink has log(step, values) and close()."
                )
        self._failures = [(sink, 0) for sink in sinks]

    def tell(self, seen: Progress, step: int, values: dict[str, float]) -> None:
        """Show progress, and pass on the numbers that were seen after a step, if there are any."""
        self.progress(seen)
        if values:
            self._each(lambda sink: sink.log(step, values))

    def close(self) -> None:
        """End all sinks."""
        self._each(lambda sink: sink.close())

    def _each(self, call: Callable[[Sink], Any]) -> None:
        for index, (sink, failures) in enumerate(self._failures):
            if failures >= _FAILURES:
                continue
            try:
                call(sink)
            except Exception as error:  # noqa: BLE001  (whatever it is, it must not cost the run)
                self._failures[index] = sink, failures + 1
                if failures + 1 == _FAILURES:
                    warnings.warn(
                        f"the sink {type(sink).__name__} failed {_FAILURES} times and is told "
                        f"nothing more: {type(error).__name__}: {error}",
                        UserWarning,
                        stacklevel=2,
                    )
