"""Axes of a study and their combinations."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from constrainednn._common.arguments import as_count, as_seed
from constrainednn._common.messages import known_names, shown
from constrainednn._problem.problem import Problem
from constrainednn._solve.problem_functions import find_method
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.studies.engines import LANES
from constrainednn.studies.folder import Key, text_of
from constrainednn.studies.stated import Stated
from constrainednn.studies.tasks import ARGUMENTS, ENGINES, Task, goes_alone

MOST = 10**6


@dataclasses.dataclass
class Combination:
    """One combination of settings, and how far its runs are.

    Attributes:
        given: All settings of a row, by their labels.
        settings: The values that are not defaults.
        places: Seeds by their places in the list of seeds.
        engine: What runs them, None until it is decided.
        lanes: Width of one computation for "vmap", else 0.
        rows: Rows by seed.
        before: How many of them were there before.
    """

    given: dict[str, Any]
    settings: dict[str, Any]
    places: dict[int, int]
    engine: str | None
    lanes: int = 0
    rows: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    before: int = 0

    @staticmethod
    def of(
        stated: Stated,
        labels: dict[str, Any],
        axes: dict[str, dict[Any, Any]],
        seeds: list[int],
        engine: str | None,
    ) -> "Combination":
        plain = {name: label_of(value) for name, value in stated.defaults.items()}
        given = plain | dict.fromkeys(ARGUMENTS) | {"early_stopping": False} | labels
        settings = {name: axes[name][label] for name, label in labels.items()}
        if goes_alone(settings):
            engine = "loop"
        return Combination(given, settings, dict(enumerate(seeds)), engine)

    def take(self, known: Mapping[Key, dict[str, Any]]) -> None:
        """Take rows that are finished; the rest goes on with their engine."""
        text = text_of(self.given)
        for seed in self.places.values():
            row = known.get((text, seed))
            if row is not None:
                self.rows[seed] = row
        self.before = len(self.rows)
        for row in self.rows.values():
            if self.engine is None and row["engine"] in ENGINES and row["status"] != "error":
                self.engine, self.lanes = row["engine"], row.get("lanes", 0)

    def tasks(self) -> Iterator[Task]:
        """What is left to do; one task only while the engine is not known."""
        left = {p: seed for p, seed in self.places.items() if seed not in self.rows}
        width = 1 if self.engine == "loop" else self.lanes or LANES
        for _, group in itertools.groupby(left.items(), key=lambda item: item[0] // width):
            task = Task(self.settings, dict(group), self.engine, self.lanes, len(self.places))
            yield task
            if not task.decided:
                return


def label_of(value: Any) -> Any:
    """A setting as it stands in a row."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return label_of(value.item())
    # Addresses differ from process to process, and would make each its own setting.
    return re.sub(r" at 0x[0-9a-f]+", "", shown(value))


def as_axes(
    vary: Mapping[str, Any], arguments: dict[str, Any], stated: Stated, elsewhere: bool
) -> dict[str, dict[Any, Any]]:
    """Labels and values of each axis; what is the same for all runs is an axis of one."""
    axes = {}
    for name, values in [*vary.items(), *((name, [value]) for name, value in arguments.items())]:
        known = [*stated.defaults, *ARGUMENTS]
        if name not in known:
            ready = ""
            if isinstance(stated.problem, Problem):
                ready = " A problem has no keywords: give study the function that makes it."
            raise BadValueError(
                f"study cannot vary {shown(name)}. {known_names(str(name), known)}{ready}"
            )
        if name in axes:
            raise BadValueError(f"{name} is varied and given for all runs: leave out one.")
        if isinstance(values, Mapping):
            pairs = list(values.items())
        elif isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            raise BadTypeError(
                f"axis {name!r} must be a sequence of values, or a dict from labels to values, got "
                f"{shown(values)}."
            )
        else:
            pairs = [(label_of(value), value) for value in values]
        if not pairs:
            raise BadValueError(f"axis {name!r} is empty: give at least one value.")
        for _, value in pairs:
            if name == "method" and isinstance(value, str):
                find_method(value, stated.methods)
            if elsewhere and not (value is None or type(value) in (bool, int, float, str)):
                raise BadTypeError(
                    f"axis {name!r}: {shown(value)} cannot be told to another process. Give "
                    "numbers or text; a method by its name in the file's `methods`."
                )
        found = dict(pairs)
        if len(found) < len(pairs):
            raise BadValueError(f"axis {name!r} has a value twice: {shown([p[0] for p in pairs])}.")
        axes[name] = found
    return axes


def as_seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, (int, float, np.number)):
        return list(range(as_count(seeds, "seeds", most=10**6)))
    if isinstance(seeds, (str, bytes)) or not hasattr(seeds, "__iter__"):
        raise BadTypeError(f"seeds must be a number of seeds or a sequence, got {shown(seeds)}.")
    found = [as_seed(seed) for seed in list(seeds)]
    if not found:
        raise BadValueError("seeds is empty: give at least one.")
    if len(set(found)) < len(found):
        raise BadValueError(
            f"seeds repeat: {shown(found)}. Each is one run, and paired with itself."
        )
    return found
