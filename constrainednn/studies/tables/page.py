"""The page of a study, from its rows alone."""

import collections
import json
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from constrainednn._pages.drawing.plot import Plot
from constrainednn._pages.drawing.strip_plots import strips
from constrainednn._pages.highlighted import highlighted
from constrainednn._pages.html import figures, foot, items, numbers, page, pairs, table, text
from constrainednn._pages.words import place, short
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.rows import (
    UNFINISHED,
    endings,
    flat,
    groups,
    has_failed,
    quantiles_of,
    values_of,
)
from constrainednn.studies.tables.summary import notes

# Runs in the table of a page, and settings that its plots have columns for.
_MOST_RUNS, _COLUMNS = 1000, 24
# The longest name of a column, and so many that there is room for names.
_NAME, _NAMES = 8, 8


def study_page(
    rows: Sequence[Row], varied: Sequence[str], source: dict[str, str], ended_by: str
) -> str:
    """One page of a study.

    Args:
        rows: Those of its table.
        varied: Names of the settings that differ between them.
        source: File, name and text of the problem, as its folder holds them; may be empty.
        ended_by: The signal that ended it, else empty.
    """
    grouped = groups(rows, varied)
    file = source.get("file", "")
    title = f"Study of {file.removesuffix('.py') or source.get('name', 'a problem')}"
    drawn, data = figures(_plots(grouped, varied), "s")
    parts = [
        f"<h1>{text(title)}</h1>",
        _verdict(rows, grouped, varied, ended_by),
        "<h2>Worst run</h2>",
        _worst(rows, varied),
        "<h2>Losses</h2>",
        drawn,
        "<h2>Settings</h2>",
        _settings_table(grouped, varied),
        items(notes(rows, varied)),
        "<h2>Seeds</h2>",
        _runs_table(rows, varied),
        "<h2>What was solved</h2>",
        _source(source),
        "<h2>Settings of all runs, versions and machine</h2>",
        _same(rows, varied),
        "<h2>Run it again</h2>",
        _again(rows, varied, source),
    ]
    held = {"rows": [_plain(flat(row)) for row in rows], "plots": data}
    name = f"{file.removesuffix('.py') or 'study'}.json"
    return page(title, f"<main>{''.join(parts)}</main>{foot(name)}", held)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A flat row as JSON can hold it."""
    finite = lambda value: not isinstance(value, float) or np.isfinite(value)  # noqa: E731
    return {key: value if finite(value) else None for key, value in row.items()}


def _verdict(
    rows: Sequence[Row],
    grouped: list[tuple[dict[str, Any], list[Row]]],
    varied: Sequence[str],
    ended_by: str,
) -> str:
    failed = sum(map(has_failed, rows))
    unfinished = sum(row["status"] in UNFINISHED and not has_failed(row) for row in rows)
    word = "All runs finished" if not failed else f"{failed} of {len(rows)} runs failed"
    style = "bad" if failed else "good"
    if not failed and unfinished:
        word, style = f"No run failed, {unfinished} ended before convergence", ""
    if ended_by:
        word, style = f"Interrupted by {ended_by}, {failed} of {len(rows)} runs failed", "bad"
    seeds = len({row["seed"] for row in rows})
    over = f"{len(grouped)} settings of {', '.join(varied)}" if varied else "one setting"
    judged = collections.Counter(
        str((row.get("verdict") or {}).get("word", row["status"])) for row in rows
    )
    words = ", ".join(f"{count} {name}" for name, count in judged.most_common())
    held = quantiles_of(values_of(rows, "heldout_loss")) if rows else np.full(3, np.nan)
    cells = [
        ("runs", f"{len(rows)}: {over}, {seeds} seeds", ""),
        ("verdicts", words, ""),
        ("median held-out loss of all runs", short(float(held[1])), ""),
    ]
    return f'<p class="verdict {style}"><strong>{text(word)}</strong>.</p>{numbers(cells)}'


def _worst(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """The run with the largest held-out loss of those that have one, and where it is worst."""
    known = [row for row in rows if not has_failed(row) and row.get("gap")]
    if not known:
        return "<p>No run has numbers.</p>"
    row = max(known, key=lambda item: _sortable(flat(item)["heldout_loss"]))
    found = flat(row)
    where = ", ".join(f"{name} {row['given'][name]}" for name in varied)
    parts = (row["gap"].get("constraints") or []) if row.get("gap") else []
    line = f"Seed {row['seed']}{f' with {where}' if where else ''}: "
    line += f"held-out loss {short(found['heldout_loss'])}"
    if parts:
        part = max(parts, key=lambda item: _sortable(item["worst"]["residual"]))
        size = short(part["worst"]["residual"])
        line += f"; largest residual {size} of {part['name']}, at {place(part['worst']['point'])}"
    return f"<p>{text(line)}.</p>"


def _sortable(value: float | None) -> float:
    return np.inf if value is None or np.isnan(value) else value


def _names(grouped: list[tuple[dict[str, Any], list[Row]]], varied: Sequence[str]) -> list[str]:
    """Values of the one axis where they are short and few, else numbers."""
    values = [", ".join(map(str, labels.values())) for labels, _ in grouped]
    few = len(varied) == 1 and len(values) <= _NAMES
    if few and all(len(value) <= _NAME for value in values):
        return values
    return [str(k + 1) for k in range(len(values))]


def _plots(grouped: list[tuple[dict[str, Any], list[Row]]], varied: Sequence[str]) -> list[Plot]:
    names = _names(grouped, varied)[:_COLUMNS]
    axis = varied[0] if len(varied) == 1 and names[0] != "1" else "setting, as numbered below"
    axis = axis if varied else ""
    shown = grouped[:_COLUMNS]
    values = {
        name: [values_of(rows, name) for _, rows in shown]
        for name in ("train_loss", "heldout_loss", "reference_error", "seconds")
    }
    more = f"the first {_COLUMNS} of {len(grouped)} settings" if len(grouped) > _COLUMNS else ""
    losses = [
        ("train", "train", values["train_loss"]),
        ("heldout", "held-out", values["heldout_loss"]),
    ]
    failed = any(has_failed(row) for _, rows in shown for row in rows)
    note = "; ".join(filter(None, [more, "failed runs at the top" if failed else ""]))
    made = [strips("Loss of each run", names, axis, "loss", losses, note)]
    # Training at rounding leaves no room for the differences between what was held out.
    made.append(strips("Held-out loss", names, axis, "held-out loss", losses[1:], note))
    errors = [("train", "runs", values["reference_error"])]
    if any(np.isfinite(part).any() for part in values["reference_error"]):
        made.append(strips("Error against the reference", names, axis, "relative", errors, note))
    times = [("train", "runs", values["seconds"])]
    made.append(strips("Seconds of each run", names, axis, "s", times, more))
    return [plot for plot in made if plot is not None]


def _settings_table(grouped: list[tuple[dict[str, Any], list[Row]]], varied: Sequence[str]) -> str:
    columns = [
        "#",
        *varied,
        "runs",
        "train loss",
        "held-out loss",
        "gap (loss)",
        "seconds",
        "ended",
    ]
    cells = []
    for number, (labels, rows) in enumerate(grouped):
        line = [number + 1, *labels.values(), len(rows)]
        for name in ("train_loss", "heldout_loss"):
            low, middle, high = map(float, quantiles_of(values_of(rows, name)))
            line.append(f"{short(middle)} [{short(low)}, {short(high)}]")
        line += [short(float(np.median(values_of(rows, name)))) for name in ("gap", "seconds")]
        cells.append([*line, endings(rows) or "all converged"])
    return table(columns, cells, label="medians over seeds")


def _runs_table(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """A line for each run; those that failed come first."""
    columns = [
        *varied,
        *("seed", "status", "train loss", "held-out loss", "worst |r|", "error", "seconds", "why"),
    ]
    order = sorted(range(len(rows)), key=lambda k: not has_failed(rows[k]))[:_MOST_RUNS]
    cells, failed = [], []
    for k in order:
        row, found = rows[k], flat(rows[k])
        names = ("train_loss", "heldout_loss", "worst", "reference_error", "seconds")
        values = [short(found[name]) if found[name] is not None else "-" for name in names]
        reason = str(row.get("reason") or "").splitlines()
        settings = [row["given"][name] for name in varied]
        cells.append([*settings, row["seed"], row["status"], *values, reason[0] if reason else ""])
        failed.append(has_failed(row))
    more = ""
    if len(rows) > _MOST_RUNS:
        more = f'<p class="soft">{_MOST_RUNS} of {len(rows)} runs; the button below saves all.</p>'
    wide = (len(columns) - 1,)
    return table(columns, cells, label="runs", failed=failed, wide=wide, tall=True) + more


def _source(source: dict[str, str]) -> str:
    content = source.get("text")
    if not content:
        return "<p>Stated in Python; its text was not saved.</p>"
    name = source.get("file", "")
    return f'<h3>{text(name)}</h3><pre tabindex="0"><code>{highlighted(content)}</code></pre>'


def _same(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """Settings that all runs share, and those of the first one that are recorded with it."""
    if not rows:
        return "<p>No runs.</p>"
    given = {key: value for key, value in rows[0]["given"].items() if key not in varied}
    named = [(key.replace("_", " "), value) for key, value in given.items() if value is not None]
    recorded = next((row["settings"] for row in rows if row.get("settings")), {})
    named += [(key, recorded[key]) for key in ("method", "dtype", "device") if key in recorded]
    for name in ("versions", "environment"):
        part = recorded.get(name) or {}
        if part:
            named.append((name, ", ".join(f"{key} {value}" for key, value in part.items())))
    return pairs(dict(named).items(), "settings")


def _again(rows: Sequence[Row], varied: Sequence[str], source: dict[str, str]) -> str:
    if not rows or not source.get("file"):
        return "<p>Stated in Python: run its script again.</p>"
    name = source["file"]
    if source.get("gallery"):
        name = name.removesuffix(".py")
    if source.get("name", "problem") != "problem":
        name += f":{source['name']}"
    words = ["constrainednn", "study", name]
    values: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row["given"].items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    for key in varied:
        words += ["--vary", f"{key}={','.join(map(str, values[key]))}"]
    for key, found in values.items():
        if key not in varied and found[0] not in (None, False):
            words += ["--set", f"{key}={found[0]}"]
    seeds = sorted({row["seed"] for row in rows})
    words += ["--seeds", str(len(seeds))]
    usual = seeds == list(range(len(seeds)))
    digest = next((row["settings"].get("problem") for row in rows if row.get("settings")), "")
    note = "" if usual else f"<p>Its seeds were {text(json.dumps(seeds)[:200])}.</p>"
    return (
        f'<pre id="again" tabindex="0">{text(shlex.join(words))}</pre>'
        '<button type="button" class="action" data-copy="again">Copy</button>'
        f"{note}<h3>SHA-256</h3>" + pairs([("problem", digest or "no file")], "hashes")
    )
