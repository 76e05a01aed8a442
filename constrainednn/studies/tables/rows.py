"""Rows of a study's table."""

import collections
import math
from typing import Any

import numpy as np

from constrainednn._common.messages import known_names, shown
from constrainednn.errors import BadValueError
from constrainednn.studies.folder import Row

# A run that no worker finished.
LOST = "lost"
# Statuses of runs whose numbers mean nothing: they count as infinite.
FAILED = ("nonfinite", "out_of_memory", "blow_up", "error", LOST)
# Statuses of runs that were stopped on their way: their numbers depend on where.
UNFINISHED = ("max_steps", "time_limit", "stalled", "interrupted")
# Of so many runs the quantiles of 10 and 90 % are the ends; so many reasons of failures are shown.
_TENTH, REASONS = 9, 5


def has_failed(row: Row) -> bool:
    """True for a run whose numbers mean nothing, or hold for a part of its domain only."""
    return row["status"] in FAILED or row.get("covered") is False


def flat(row: Row) -> dict[str, Any]:
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


def cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def number_of(row: dict[str, Any], name: str) -> float:
    if row.get(name, "") is None:  # such as the steps of a run that failed
        return math.nan
    if not isinstance(row.get(name), (int, float)):
        numbers = [key for key, value in row.items() if isinstance(value, (int, float))]
        raise BadValueError(
            f"{shown(name)} is no number of the table. {known_names(name, numbers)}"
        )
    return float(row[name])


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
