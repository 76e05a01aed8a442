"""What a running solve tells and hears: progress and numbers out, signals and the clock in."""

import contextlib
import dataclasses
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from constrainednn._errors import BadTypeError
from constrainednn._validate import as_function, shown

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
    """

    phase: str
    step: int
    steps: int
    train: float
    monitor: float


@runtime_checkable
class Sink(Protocol):
    """Where the numbers of a running solve may go, besides its own folder."""

    def log(self, step: int, values: dict[str, float], /) -> None:
        """Take the numbers seen at a step: "train" and "monitor", or in pieces "monitor" alone."""

    def close(self) -> None:
        """Called once, when the run has ended."""


class Listeners:
    """All that a run tells its numbers to. A sink that fails three times is told nothing more."""

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


class Stop:
    """What may end a run before its end: signals and a limit of time.

    Attributes:
        signals: Signals that came, in order.
        limit: Seconds from now on, or None. The clock goes on while the process is suspended and
            never jumps.
    """

    def __init__(self, limit: float | None = None):
        self.signals: list[int] = []
        self.limit = limit
        self._deadline = None if limit is None else time.monotonic() + limit

    def __bool__(self) -> bool:
        return bool(self.signals) or (
            self._deadline is not None and time.monotonic() >= self._deadline
        )

    @property
    def name(self) -> str:
        """The signal that came first, or the limit, in words."""
        if self.signals:
            return signal.Signals(self.signals[0]).name
        return f"the time limit of {self.limit:g} s"

    @property
    def status(self) -> str:
        """The value of `Status` of a run that ends for it."""
        return "interrupted" if self.signals else "time_limit"


@contextlib.contextmanager
def collected_signals(stop: Stop, *, any_number: bool = False) -> Iterator[None]:
    """Collect SIGINT and SIGTERM instead of dying; the second one raises KeyboardInterrupt.

    With `any_number`, for use inside of another such context, no number of them does: while a
    result is measured, a signal must not cost the training. Handlers are restored in the end; one
    of the user's own that was there before is then called for each signal. A signal that is
    ignored stays ignored, as for programs in general: shells start background jobs of scripts so,
    and what such a job should not hear must not end it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers cannot be set there
        return

    def note(number: int, frame: Any) -> None:
        stop.signals.append(number)
        if not any_number and len(stop.signals) > 1:
            raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None: handlers that were not set from Python, which could not be restored.
    heard = {
        number: handler
        for number, handler in before.items()
        if handler is not None and handler is not signal.SIG_IGN
    }
    for number in heard:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
    for number in [] if any_number else stop.signals:
        handler = heard[signal.Signals(number)]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)


def interrupted_late(name: str, status: str, reason: str) -> str:
    """The reason of a run that a signal met after its training."""
    return f"{name} while the gap was measured; before that {status}: {reason}"
