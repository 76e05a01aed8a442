"""Rows of a study's table."""

import collections
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from constrainednn._common.messages import known_names, shown
from constrainednn.errors import BadValueError
from constrainednn.studies.folder import Row

# The status of a run that no worker finished.
LOST = "lost"
# Statuses of runs whose numbers mean nothing: they count as infinite.
FAILED = ("nonfinite", "out_of_memory", "blow_up", "error", LOST)
# Statuses of runs that ended before convergence: their numbers depend on where.
UNFINISHED = ("max_steps", "time_limit", "stalled", "interrupted")
# Up to so many runs, the quantiles of 10 and 90 % are the smallest and the largest.
_TENTH = 9


def groups(rows: Iterable[Row], names: Iterable[str]) -> list[tuple[dict[str, Any], list[Row]]]:
    """Rows that agree in the named settings, with those."""
    names, grouped = tuple(names), {}
    for row in rows:
        labels = {name: row["given"][name] for name in names}
        grouped.setdefault(json.dumps(labels), []).append(row)
    return [(json.loads(labels), rows) for labels, rows in grouped.items()]


def has_failed(row: Row) -> bool:
    """True for a run whose numbers mean nothing, or hold for a part of its domain only."""
    return row["status"] in FAILED or row.get("covered") is False


def flat(row: Row) -> dict[str, Any]:
    """Settings, seed, status, and the numbers of the gap in total."""
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
        **_least(gap, number),
        **_guaranteed(row, parts),
        "reference_error": number(max(errors, default=None)),
        "collapsed": any(verdicts) if verdicts else None,
        "seconds": timings.get("run"),
        "engine": row["engine"],
    }


def _least(gap: Row, number: Callable[[Any], float]) -> dict[str, float]:
    """The mean of an objective on fresh points, and how far it is above the reference's."""
    least = gap.get("objective")
    if not least:
        return {}
    excess, on_train = (least["excess"] or {}).get("value"), least.get("train_excess")
    return {
        "objective": number(least["heldout"]["value"]),
        "objective_gap": number(least["difference"]["value"]),
        "excess": number(excess),
        "train_excess": number(on_train),
    }


def _guaranteed(row: Row, parts: list[Row]) -> dict[str, Any]:
    """How constraints hold on fresh points, the weakest of them; NaN where nothing is proved."""
    found = [part["guarantee"] for part in parts if part.get("guarantee")]
    void = "; ".join(sorted({item["void"] for item in found if item["void"]}))
    if row.get("selected", 1) > 1:
        void = f"selected among {row['selected']} settings: draw fresh points for the winner"
    if has_failed(row):
        void = "the run failed"
    largest = {}
    for name, key in (("violating", "share"), ("bound_99", "bound")):
        values = [item[key] for item in found]
        there = bool(values) and not void and None not in values
        largest[name] = max(values) if there else math.nan
    kinds = sorted({part["holds"]["kind"] for part in parts if part.get("holds")})
    missed = [part["holds"]["missed"] for part in parts if part.get("holds")]
    return {
        "holds": ", ".join(kinds),
        "missed": max((share for share in missed if share is not None), default=math.nan),
        **largest,
        "void": void,
    }


def values_of(rows: Iterable[Row], name: str) -> np.ndarray:
    """One number of each flat row."""
    return np.array([flat(row)[name] for row in rows], float)


def cell(value: Any) -> Any:
    """A value as a spreadsheet may read it: text that it would run as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def number_of(row: Row, name: str) -> float:
    """A number of a flat row; NaN where the run has none.

    Raises:
        ValueError: If there is no such number in the table, listing those there are.
    """
    row = flat(row)
    if row.get(name, "") is None:  # such as the steps of a run that failed
        return math.nan
    if not isinstance(row.get(name), (int, float)):
        numbers = [key for key, value in row.items() if isinstance(value, (int, float))]
        raise BadValueError(
            f"{shown(name)} is not a number in the table. {known_names(name, numbers)}"
        )
    return float(row[name])


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """Quantiles of 10, 50 and 90 %; those of 10 and 90 % are values that occurred.

    Failed runs count as infinite: a median between a number and infinity is infinite.
    """
    low, high = np.quantile(values, [0.1, 0.9], method="inverted_cdf")
    return np.array([low, np.median(values), high])


def endings(rows: Iterable[Row]) -> str:
    """How many runs failed, ended before convergence, or collapsed."""
    found = [flat(row) for row in rows]
    counts = collections.Counter(
        "failed" if row["failed"] else row["status"]
        for row in found
        if row["failed"] or row["status"] in UNFINISHED
    )
    counts["collapsed"] = sum(row["collapsed"] is True for row in found)
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def ends_shown(fewest: float) -> str:
    """What the ends of a band over so many seeds are."""
    return "smallest to largest" if fewest <= _TENTH else "10 to 90 %"
