"""Signals that stop a run at its next step."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


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
