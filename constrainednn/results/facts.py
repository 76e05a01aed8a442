"""The plain facts of a run: what everything that is derived from a solution is a function of."""

import dataclasses

from jaxtyping import PyTree

from constrainednn._gap.report import GapReport
from constrainednn._gap.streams import Streams
from constrainednn._problem.problem import Problem
from constrainednn.runs.history import History, Settings, Status, Timings


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Facts:
    """The fields of a `Solution`, which documents them, and none of its methods.

    A base class, against the rule, since a field would change how solutions are made: it holds no
    behaviour, and nothing is overridden.
    """

    problem: Problem
    model: PyTree
    gap: GapReport
    status: Status
    reason: str
    steps: int
    parameters: int
    history: History
    timings: Timings
    settings: Settings
    streams: tuple[Streams, ...]
