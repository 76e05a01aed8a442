"""The table of a study, and what can be read off it: a summary, pairs, laws, the best settings."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from constrainednn._common.arguments import as_path
from constrainednn._common.messages import known_names, shown
from constrainednn._common.tables import html_table
from constrainednn._pages.written import write_own_page
from constrainednn._storage.archive import unseal
from constrainednn._storage.files import write_atomically
from constrainednn.errors import BadValueError, StoreError
from constrainednn.studies.folder import RECORD, Row, read_rows
from constrainednn.studies.tables.figures import Figures, figures
from constrainednn.studies.tables.law import Law, law_along
from constrainednn.studies.tables.page import study_page
from constrainednn.studies.tables.paired import Paired, pairs_along
from constrainednn.studies.tables.rows import cell, flat, groups, number_of, quantiles_of
from constrainednn.studies.tables.summary import medians, notes, summary

_MONITORED = ("monitor_loss", "train_loss", "loss")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The table of a study.

    Attributes:
        rows: One dict per run, as in `runs.jsonl`: `given` (every keyword of the problem function
            and argument of `solve`), `seed`, `engine` and all of the run's report. Runs that failed
            have the status "error" and no gap.
        axes: Names of the settings that were varied.
        ended_by: The signal that ended the study before all runs were done, else empty.
        before: Number of runs that were in the folder of the study before it started.
        source: File, name and text of the problem, for the page of the study.
    """

    rows: tuple[Row, ...]
    axes: tuple[str, ...]
    ended_by: str = ""
    before: int = 0
    source: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if all runs are done."""
        return not self.ended_by

    @property
    def name(self) -> str:
        """What was run: its file, or the name of the function."""
        return self.source.get("file", "").removesuffix(".py") or self.source.get("name", "")

    def table(self) -> list[dict[str, Any]]:
        """Flat rows: settings, seed, status, and the numbers of the total gap.

        `violating` and `bound_99` are the largest `share` and `bound` of the guarantees of the
        constraints, each of them right with 95 % confidence for its row alone: who picks a row by
        its numbers loses it. `void` says why there is none. Runs that failed have infinite losses.
        """
        return [flat(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> None:
        """Write the flat rows; text that a spreadsheet would run is quoted."""
        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
        write_atomically(Path(path), buffer.getvalue().encode())

    def compare(self, axis: str, of: str = "heldout_loss") -> list[Paired]:
        """Compare the settings along an axis with the first one, seed by seed.

        Means over the pairs with 95 % t intervals; a single outlier can dominate a mean.

        Args:
            axis: Name of a setting that was varied.
            of: Name of a number of the table.
        """
        return pairs_along(axis, self.rows, self._others(axis), of)

    def laws(self, axis: str = "points", of: str = "heldout_loss") -> list[tuple[dict, Law]]:
        """Fit c + a n^-b along an axis of numbers, for each combination of the others.

        Raises:
            ValueError: If all runs finished at fewer than three values, if the axis is not one of
                numbers, or for the gap, which may be negative.
        """
        others = self._others(axis)
        if of == "gap":
            raise BadValueError(
                "a law is fitted to losses, and the gap may be negative: leave out of=."
            )
        return [(where, law_along(axis, rows, of)) for where, rows in groups(self.rows, others)]

    def best(self, by: str = "monitor_loss") -> "Study":
        """The runs of the settings with the lowest median of a training or monitor loss.

        Their guarantees for fresh points are void, as whoever sees the table has seen the held-out
        points of all settings: `Solution.evaluate` draws fresh ones for the winner.

        Raises:
            ValueError: For held-out numbers: once they choose, they no longer judge.
        """
        if by not in _MONITORED:
            raise BadValueError(
                f"settings cannot be chosen by {by!r}: held-out points judge the choice. "
                f"Choose by one of {', '.join(_MONITORED)}, and read the winner's held-out loss."
            )
        medians, settings = [], groups(self.rows, self.axes)
        for _, rows in settings:
            values = np.array([number_of(row, by) for row in rows])
            # Rows of data have no monitor points.
            medians.append(np.inf if np.isnan(values).any() else quantiles_of(values)[1])
        if not np.isfinite(medians).any():
            raise BadValueError(f"no settings have a {by}: choose by another of {_MONITORED}.")
        chosen = settings[int(np.argmin(medians))][1]
        marked = tuple({**row, "selected": len(settings)} for row in chosen)
        return Study(marked, self.axes, self.ended_by, source=self.source)

    def plot(self) -> Figures:
        """All figures that the axes of this study allow, by their names; a notebook shows them."""
        return figures(self.rows, self.axes, self.name)

    def report(self, path: str | Path) -> None:
        """Write one page to send: failures, losses, all runs, the problem's text.

        The page is a single HTML file that fetches nothing; `constrainednn report DIR` writes the
        same.

        Args:
            path: The file, ending in .html; only a page of this package is overwritten.

        Raises:
            StoreError: If the file cannot be written, or is no page of this package.
        """
        content = study_page(self.rows, self.axes, self.source, self.ended_by)
        write_own_page(as_path(path, "path of report"), content)

    def groups(self, *names: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Flat rows that agree in the named settings, with those."""
        for labels, rows in groups(self.rows, names):
            yield labels, [flat(row) for row in rows]

    def _others(self, axis: str) -> list[str]:
        if axis not in self.axes:
            raise BadValueError(f"study did not vary {shown(axis)}. {known_names(axis, self.axes)}")
        return [name for name in self.axes if name != axis]

    def __repr__(self) -> str:
        return self.shown()

    def _repr_html_(self) -> str:
        titles, *cells = medians(self.rows, self.axes)
        return html_table(titles, cells, [*notes(self.rows, self.axes), *self._remarks()])

    def shown(self, width: int | None = None) -> str:
        """The summary as text, stacked where a table would be wider than a terminal."""
        return "\n".join([*summary(self.rows, self.axes, width), *self._remarks()])

    def _remarks(self) -> list[str]:
        """What else to know of the runs as a whole."""
        lines = []
        if self.before:
            lines.append(f"{self.before} of {len(self.rows)} runs were there before")
        if not self.complete:
            lines.append(f"interrupted by {self.ended_by}: not all of the runs are done")
        return lines


def load_study(path: str | Path) -> Study:
    """Read the table of a study from its folder; the axes are what differs between rows.

    Whether more runs were asked for than are there, the folder does not say.

    Raises:
        StoreError: If the folder holds no study.
    """
    folder = as_path(path, "path of load_study")
    if not (folder / RECORD).exists():
        raise StoreError(f"{folder} holds no study: it has no {RECORD}.")
    record = unseal(folder / RECORD)
    rows = tuple(read_rows(folder).values())
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row["given"].items():
            seen.setdefault(name, set()).add(json.dumps(value))
    axes = tuple(name for name, values in seen.items() if len(values) > 1)
    source = record.get("source")
    known = source if isinstance(source, dict) else {"name": str(record.get("name"))}
    return Study(rows, axes, source={key: str(value) for key, value in known.items()})
