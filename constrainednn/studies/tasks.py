"""What is sent to a worker, and what comes back."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

# What may be an axis, or the same for all runs, besides keywords of the problem: arguments of
# `solve`, and the number of members of an ensemble. With the last two runs go one by one.
ONE_BY_ONE = ("time_limit", "members")
ARGUMENTS = (
    *("method", "steps", "tolerance", "heldout", "monitor", "redraw", "early_stopping"),
    *ONE_BY_ONE,
)
ENGINES = ("loop", "vmap")


@dataclasses.dataclass(frozen=True)
class Task:
    """Runs of one combination of settings.

    Attributes:
        settings: Values of keywords and arguments; methods of a file by their names.
        places: Seeds by their places in the list of all seeds.
        engine: "loop", "vmap", or None: to be decided.
        lanes: Width of one computation for "vmap", else 0.
        runs: How many runs of this combination there are.
    """

    settings: dict[str, Any]
    places: dict[int, int]
    engine: str | None
    lanes: int
    runs: int

    @property
    def decided(self) -> bool:
        """True if it is known how to run it."""
        return self.engine == "loop" or self.lanes > 0

    def one_by_one(self, done: set[int]) -> "Iterator[Task]":
        """A task for each seed that is not done."""
        for place, seed in self.places.items():
            if seed not in done:
                yield dataclasses.replace(self, places={place: seed}, engine="loop", lanes=0)


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        rows: Reports by seed; some of the seeds only, where the engine was not known before.
        engine: What was used.
        lanes: Width of one computation for "vmap", else 0.
        interrupted: True if a signal ended it.
    """

    rows: dict[int, dict[str, Any]]
    engine: str
    lanes: int
    interrupted: bool = False


@dataclasses.dataclass(frozen=True)
class Origin:
    """All that another process needs to know of what is studied: no code, where it is."""

    path: str
    name: str
    digest: str
    dtype: str
    version: str


def goes_alone(settings: Mapping[str, Any]) -> bool:
    """True for settings whose runs are no part of a batch."""
    return settings.get("time_limit") is not None or settings.get("members") not in (None, 1)


@dataclasses.dataclass(frozen=True)
class StudyProgress:
    """How far a study is: runs done and in all, and seconds that the rest may take."""

    done: int
    runs: int
    left: float
