"""The table of a study, and what can be read off it: summaries, pairs, laws, a choice."""

import collections
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from constrainednn._archive import unseal
from constrainednn._errors import BadValueError, StoreError
from constrainednn._files import write_atomically
from constrainednn._law import Law, fit_law
from constrainednn._statistics import Estimate, mean_interval
from constrainednn._study_folder import RECORD, Row, read_rows
from constrainednn._terminal import table_lines
from constrainednn._validate import as_path, known_names, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# A run that no worker finished.
LOST = "lost"
# Statuses of runs whose numbers mean nothing: they count as infinite.
FAILED = ("nonfinite", "out_of_memory", "blow_up", "error", LOST)
# Statuses of runs that were stopped on their way: their numbers depend on where.
UNFINISHED = ("max_steps", "time_limit", "stalled", "interrupted")
# Of so many runs the quantiles of 10 and 90 % are the ends; so many reasons of failures are shown.
_TENTH, _REASONS = 9, 5
_MONITORED = ("monitor_loss", "train_loss", "loss")


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two settings compared run by run: the same seed, so the same points and first parameters.

    Attributes:
        first: Label of the setting that is compared with.
        second: Label of the other one.
        where: The other settings.
        of: What is compared.
        pairs: Seeds where both runs finished.
        others: Seeds where one of them, or both, failed.
        difference: Mean of second - first, with its interval.
        ratio: Geometric mean of second / first, with its interval; None where a number is not
            positive, as gaps may be.
    """

    first: Any
    second: Any
    where: dict[str, Any]
    of: str
    pairs: int
    others: int
    difference: Estimate
    ratio: Estimate | None

    def __repr__(self) -> str:
        where = "".join(f"{name} {value}; " for name, value in self.where.items())
        text = f"{where}{self.second} against {self.first}, {self.of}, {self.pairs} pairs"
        if self.others:
            text += f" ({self.others} more where a run failed)"
        if not self.pairs:
            return text
        d = self.difference
        text += f": mean of {self.second} - {self.first} {d.value:.3g} [{d.low:.3g}, {d.high:.3g}]"
        if self.ratio is not None:
            r = self.ratio
            text += f", geometric mean of {self.second} / {self.first} {r.value:.3g}"
            text += f" [{r.low:.3g}, {r.high:.3g}]"
        return text


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
        return [_flat(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> None:
        """Write the flat rows; text that a spreadsheet would run is quoted."""
        import csv
        import io

        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
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
                by_label.setdefault(row[axis], {})[row["seed"]] = _number(row, of)
            first, *others = by_label
            for label in others:
                found.append(_paired(first, label, where, of, by_label))
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
            losses = np.array([_number(row, of) for row in rows], float)
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
            values = np.array([_number(row, by) for row in rows])
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
        from constrainednn._study_plots import figures

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


def has_failed(row: Row) -> bool:
    """True for a run whose numbers mean nothing, or hold for a part of its domain only."""
    return row["status"] in FAILED or row.get("covered") is False


def _flat(row: Row) -> dict[str, Any]:
    gap = row.get("gap") or {}
    heldout, difference = gap.get("heldout") or {}, gap.get("difference") or {}
    parts = gap.get("constraints") or []
    failed = has_failed(row)
    number = lambda value: math.inf if failed else math.nan if value is None else value  # noqa: E731
    # A loss that is there and not finite.
    infinite = lambda value: math.inf if failed or value is None else value  # noqa: E731
    timings = row.get("timings") or {}
    monitor = (row.get("history") or {}).get("monitor") or [None]
    verdicts = [(part.get("image") or {}).get("collapsed") for part in parts]
    verdicts = [verdict for verdict in verdicts if verdict is not None]
    errors = [part["error"] for part in parts if part.get("error") is not None]
    return {
        **row["given"],
        "seed": row["seed"],
        "status": row["status"],
        "failed": failed,
        "reason": row.get("reason"),
        "taken": row.get("steps"),
        "parameters": row.get("parameters"),
        "loss": number(gap.get("loss")),
        "train_loss": number(gap.get("train")),
        "monitor_loss": number(monitor[-1]),
        "heldout_loss": infinite(heldout.get("value")) if heldout else number(None),
        "heldout_low": number(heldout.get("low")),
        "heldout_high": number(heldout.get("high")),
        "gap": infinite(difference.get("value")) if difference else number(None),
        "worst": number(max((infinite(part["worst"]["residual"]) for part in parts), default=None)),
        "reference_error": number(max(errors, default=None)),
        "collapsed": any(verdicts) if verdicts else None,
        "seconds": timings.get("run"),
        "engine": row["engine"],
    }


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _number(row: dict[str, Any], name: str) -> float:
    if row.get(name, "") is None:  # such as the steps of a run that failed
        return math.nan
    if not isinstance(row.get(name), (int, float)):
        numbers = [key for key, value in row.items() if isinstance(value, (int, float))]
        raise BadValueError(
            f"{shown(name)} is no number of the table. {known_names(name, numbers)}"
        )
    return float(row[name])


def _paired(
    first: Any, second: Any, where: dict[str, Any], of: str, values: dict[Any, dict[int, float]]
) -> Paired:
    seeds = [seed for seed in values[first] if seed in values[second]]
    both = np.array([(values[first][seed], values[second][seed]) for seed in seeds])
    both = both.reshape(-1, 2)
    finished = both[np.isfinite(both).all(axis=1)]
    ratio = None
    if len(finished) and (finished > 0).all():
        logs = mean_interval(np.diff(np.log(finished), axis=1)[:, 0])
        value, low, high = (math.exp(end) for end in (logs.value, logs.low, logs.high))
        ratio = dataclasses.replace(logs, value=value, low=low, high=high, error=value * logs.error)
    difference = mean_interval(np.diff(finished, axis=1)[:, 0])
    others = len(both) - len(finished)
    return Paired(first, second, where, of, len(finished), others, difference, ratio)


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """Of 10, 50 and 90 %; outside of the median values that were seen.

    With infinite values for failed runs: a median between a number and infinity is infinite.
    """
    low, high = np.quantile(values, [0.1, 0.9], method="inverted_cdf")
    return np.array([low, np.median(values), high])


def endings(rows: list[dict[str, Any]]) -> str:
    """How many of some flat rows are no plain results: failed, stopped on their way, collapsed."""
    counts = collections.Counter(
        "failed" if row["failed"] else row["status"]
        for row in rows
        if row["failed"] or row["status"] in UNFINISHED
    )
    counts["collapsed"] = sum(row["collapsed"] is True for row in rows)
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def ends_shown(fewest: float) -> str:
    """What the ends of a band over so many seeds are."""
    return "smallest to largest" if fewest <= _TENTH else "10 to 90 %"


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
    for reason, count in reasons.most_common(_REASONS):
        lines.append(f"{count} failed: {reason.splitlines()[0] if reason else 'no reason'}")
    if len(reasons) > _REASONS:
        lines.append(f"and for {len(reasons) - _REASONS} more reasons: see `reason` in the rows")
    if study.before:
        lines.append(f"{study.before} of {len(study.rows)} runs were there before")
    if not study.complete:
        lines.append(f"interrupted by {study.ended_by}: not all of the runs are done")
    return lines
