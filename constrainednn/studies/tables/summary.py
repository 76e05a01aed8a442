"""The rows of a study as a short table, with what to know when reading it."""

import collections
from collections.abc import Sequence

import numpy as np

from constrainednn._common.tables import table_lines
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.rows import (
    UNFINISHED,
    endings,
    ends_shown,
    groups,
    has_failed,
    quantiles_of,
    values_of,
)

# Reasons of failures that are listed.
_REASONS = 5


def summary(rows: Sequence[Row], varied: Sequence[str], width: int | None) -> list[str]:
    """Lines of text: medians over seeds for each combination of settings, and the failures."""
    return table_lines(medians(rows, varied), len(varied), width) + notes(rows, varied)


def medians(rows: Sequence[Row], varied: Sequence[str]) -> list[list[str]]:
    """Medians over seeds for each combination of settings, below the titles of their columns."""
    table = [[*varied, "runs", "train", "held-out", "gap"]]
    for labels, group in groups(rows, varied):
        runs = ", ".join(filter(None, [f"{len(group)}", endings(group)]))
        cells = [*map(str, labels.values()), runs]
        for name in ("train_loss", "heldout_loss"):
            low, middle, high = quantiles_of(values_of(group, name))
            cells.append(f"{middle:.3g} [{low:.2g}, {high:.2g}]")
        cells.append(f"{np.median(values_of(group, 'gap')):.3g}")
        table.append(cells)
    return table


def notes(rows: Sequence[Row], varied: Sequence[str]) -> list[str]:
    """What to know when reading medians over seeds, and why runs failed."""
    fewest = min((len(group) for _, group in groups(rows, varied)), default=0)
    lines = [f"losses: median over seeds [{ends_shown(fewest)}]; a failed run counts as infinite"]
    if any(row["status"] in UNFINISHED for row in rows):
        lines.append(
            f"{', '.join(UNFINISHED)}: the run ended before its minimum; its numbers say how far "
            "it got"
        )
    reasons = collections.Counter(str(row.get("reason")) for row in rows if has_failed(row))
    for reason, count in reasons.most_common(_REASONS):
        lines.append(f"{count} failed: {reason.splitlines()[0] if reason else 'no reason'}")
    if len(reasons) > _REASONS:
        lines.append(f"{len(reasons) - _REASONS} further reasons: see `reason` in the rows")
    return lines
