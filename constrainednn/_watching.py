"""What a running solve tells and hears: progress out, signals in."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a progress display may see: never held-out points.

    Attributes:
        phase: "compiling", "training" or "measuring the gap".
        step: Completed steps.
        steps: Largest number of steps.
        train: Latest training loss.
        monitor: Latest monitor loss.
    """

    phase: str
    step: int
    steps: int
    train: float
    monitor: float


def interrupted_late(caught: list[int], status: str, reason: str) -> str:
    """The reason of a run that a signal met after its training."""
    name = signal.Signals(caught[0]).name
    return f"{name} while the gap was measured; before that {status}: {reason}"


@contextlib.contextmanager
def collected_signals(noted: list[int] | None = None) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; the second one raises KeyboardInterrupt.

    Given the list of an outer call, any number is only noted there: while a result is measured,
    a signal must not cost the training.
    """
    caught = [] if noted is None else noted
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number, frame):
        caught.append(number)
        if noted is None and len(caught) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
