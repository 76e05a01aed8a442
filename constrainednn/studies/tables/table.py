"""The table of a study, and what can be read off it: summaries, pairs, laws, a choice."""

import collections
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from constrainednn._common.arguments import as_path
from constrainednn._common.messages import known_names, shown
from constrainednn._common.tables import table_lines
from constrainednn._storage.archive import unseal
from constrainednn._storage.files import write_atomically
from constrainednn.errors import BadValueError, StoreError
from constrainednn.studies.folder import RECORD, Row, read_rows
from constrainednn.studies.tables.law import Law, fit_law
from constrainednn.studies.tables.paired import Paired, paired
from constrainednn.studies.tables.rows import (
    REASONS,
    UNFINISHED,
    cell,
    endings,
    ends_shown,
    flat,
    has_failed,
    number_of,
    quantiles_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MONITORED = ("monitor_loss", "train_loss", "loss")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The table of a study.

    Attributes:
        rows: One dict a run, as in `runs.jsonl`: `given` (every keyword of the problem function
            and argument of `solve`), `seed`, `engine` and all of the run's report. Runs that failed
            have the status "error" and no gap.
        axes: Names of what was varied.
        ended_by: The signal that ended the study before all runs were done, else empty.
        before: How many of the runs were there before, in the folder of the study.
    """

    rows: tuple[Row, ...]
    axes: tuple[str, ...]
    ended_by: str = ""
    before: int = 0

    @property
    def complete(self) -> bool:
        """True if all runs are done."""
        return not self.ended_by

    def table(self) -> list[dict[str, Any]]:
        """Flat rows: settings, seed, status, and the numbers of the gap in total.

        Runs that failed have infinite losses.
        """
        return [flat(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> None:
        """Write the flat rows; text that a spreadsheet would run is quoted."""
        import csv
        import io

        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
        write_atomically(Path(path), buffer.getvalue().encode())

    def compare(self, axis: str, of: str = "heldout_loss") -> list[Paired]:
        """Compare the settings along an axis with the first one, seed by seed.

        Means over the pairs, which one wild run may decide, with t intervals of 95 %.

        Args:
            axis: Name of what was varied.
            of: A number of the table.
        """
        self._known(axis)
        found = []
        for where, rows in self.groups(*(name for name in self.axes if name != axis)):
            by_label: dict[Any, dict[int, float]] = {}
            for row in rows:
                by_label.setdefault(row[axis], {})[row["seed"]] = number_of(row, of)
            first, *others = by_label
            for label in others:
                found.append(paired(first, label, where, of, by_label))
        return found

    def laws(self, axis: str = "points", of: str = "heldout_loss") -> list[tuple[dict, Law]]:
        """Fit c + a n^-b along an axis of numbers, for each combination of the others.

        Raises:
            ValueError: If there are fewer than three values with all runs finished, no numbers
                along the axis, or for the gap, which may be negative.
        """
        self._known(axis)
        if of == "gap":
            raise BadValueError(
                "a law is fitted to losses, and the gap may be negative: leave out of=."
            )
        found = []
        for where, rows in self.groups(*(name for name in self.axes if name != axis)):
            if not all(isinstance(row[axis], (int, float)) for row in rows):
                raise BadValueError(f"a law is over an axis of numbers, and {axis!r} is none.")
            n = np.array([row[axis] for row in rows], float)
            losses = np.array([number_of(row, of) for row in rows], float)
            found.append((where, fit_law(n, losses, np.array([row["seed"] for row in rows]))))
        return found

    def best(self, by: str = "monitor_loss") -> "Study":
        """The runs of the settings with the lowest median of a number that may choose.

        Raises:
            ValueError: For held-out numbers: what judges must not choose, or it judges no longer.
        """
        if by not in _MONITORED:
            raise BadValueError(
                f"settings cannot be chosen by {by!r}: held-out points judge the choice. "
                f"Choose by one of {', '.join(_MONITORED)}, and read the winner's held-out loss."
            )
        medians = []
        for _, rows in self.groups(*self.axes):
            values = np.array([number_of(row, by) for row in rows])
            # Rows of data have no monitor points.
            medians.append(np.inf if np.isnan(values).any() else quantiles_of(values)[1])
        if not np.isfinite(medians).any():
            raise BadValueError(f"no settings have a {by}: choose by another of {_MONITORED}.")
        winner = list(self.groups(*self.axes))[int(np.argmin(medians))][0]
        rows = tuple(
            row for row in self.rows if all(row["given"][k] == v for k, v in winner.items())
        )
        return Study(rows, self.axes, self.ended_by)

    def plot(self) -> "dict[str, Figure]":
        """All figures that the axes of this study allow, by their names."""
        from constrainednn.studies.tables.figures import figures

        return figures(self)

    def groups(self, *names: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Flat rows that agree in the named settings, with those."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for row in self.table():
            labels = {name: row[name] for name in names}
            grouped.setdefault(json.dumps(labels), []).append(row)
        for labels, rows in grouped.items():
            yield json.loads(labels), rows

    def _known(self, axis: str) -> None:
        if axis not in self.axes:
            raise BadValueError(f"study did not vary {shown(axis)}. {known_names(axis, self.axes)}")

    def __repr__(self) -> str:
        return self.shown()

    def shown(self, width: int | None = None) -> str:
        """The summary as text, stacked where a table would be wider than a terminal."""
        return "\n".join(_summary(self, width))


def load_study(path: str | Path) -> Study:
    """Read the table of a study from its folder; the axes are what differs between rows.

    Whether more runs were asked for than are there, the folder does not say.

    Raises:
        StoreError: If the folder holds no study.
    """
    folder = as_path(path, "path of load_study")
    if not (folder / RECORD).exists():
        raise StoreError(f"{folder} holds no study: it has no {RECORD}.")
    unseal(folder / RECORD)
    rows = tuple(read_rows(folder).values())
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row["given"].items():
            seen.setdefault(name, set()).add(json.dumps(value))
    axes = tuple(name for name, values in seen.items() if len(values) > 1)
    return Study(rows, axes)


def _summary(study: Study, width: int | None = None) -> list[str]:
    table = [[*study.axes, "runs", "train", "held-out", "gap"]]
    fewest = math.inf
    for labels, rows in study.groups(*study.axes):
        runs = ", ".join(filter(None, [f"{len(rows)}", endings(rows)]))
        cells = [*map(str, labels.values()), runs]
        for name in ("train_loss", "heldout_loss"):
            low, middle, high = quantiles_of(np.array([row[name] for row in rows], float))
            cells.append(f"{middle:.3g} [{low:.2g}, {high:.2g}]")
        cells.append(f"{np.median([row['gap'] for row in rows]):.3g}")
        table.append(cells)
        fewest = min(fewest, len(rows))
    lines = table_lines(table, len(study.axes), width)
    ends = ends_shown(fewest)
    lines.append(f"losses: median over seeds [{ends}]; a failed run is infinite")
    if any(row["status"] in UNFINISHED for row in study.rows):
        lines.append(
            f"{', '.join(UNFINISHED)}: the run ended there and not at its minimum; its numbers say "
            "how far it came"
        )
    reasons = collections.Counter(str(row.get("reason")) for row in study.rows if has_failed(row))
    for reason, count in reasons.most_common(REASONS):
        lines.append(f"{count} failed: {reason.splitlines()[0] if reason else 'no reason'}")
    if len(reasons) > REASONS:
        lines.append(f"and for {len(reasons) - REASONS} more reasons: see `reason` in the rows")
    if study.before:
        lines.append(f"{study.before} of {len(study.rows)} runs were there before")
    if not study.complete:
        lines.append(f"interrupted by {study.ended_by}: not all of the runs are done")
    return lines
