"""What every driver returns, so that one place measures the gap and makes the solution."""

import dataclasses

from jaxtyping import PyTree

from constrainednn._gap.streams import Streams
from constrainednn.runs.history import History, Settings, Status


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A solution but for what is measured after the last step.

    Attributes:
        model: What was found.
        status: How the driver ended.
        reason: The same in a sentence.
        steps: Completed steps.
        parameters: Numbers that were trained.
        history: What was seen before the end; see `History.ended`.
        compile: Seconds of compiling.
        run: Seconds of taking steps.
        settings: What decided the run.
        streams: The points of each constraint, the held-out ones among them.
    """

    model: PyTree
    status: Status
    reason: str
    steps: int
    parameters: int
    history: History
    compile: float
    run: float
    settings: Settings
    streams: tuple[Streams, ...]
