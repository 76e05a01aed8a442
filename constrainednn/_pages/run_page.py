"""The page of a run, and of a few runs side by side."""

import math
from collections.abc import Sequence
from typing import Any

from constrainednn._pages.contents import Contents
from constrainednn._pages.drawing.history_plots import history_plots
from constrainednn._pages.drawing.plots import plots
from constrainednn._pages.evaluated import Evaluated
from constrainednn._pages.highlighted import highlighted
from constrainednn._pages.html import figures, foot, items, numbers, page, pairs, table, text
from constrainednn._pages.words import interval, place, short

_CLASSES = {"solved": "good", "not solved": "bad"}


def run_page(runs: Sequence[Contents]) -> str:
    """One page of one run, or of several that are compared."""
    titles = [run.said.title for run in runs]
    data: dict[str, Any] = {"runs": [run.report for run in runs], "plots": {}}
    parts = []
    for number, run in enumerate(runs):
        body, found = _run(run, number, alone=len(runs) == 1)
        parts.append(body)
        data["plots"] |= found
    if len(runs) == 1:
        return page(titles[0], f"<main>{parts[0]}</main>{foot(f'{titles[0]}.json')}", data)
    title = f"{len(runs)} runs: {', '.join(dict.fromkeys(titles))}"
    beside = "".join(f"<article>{part}</article>" for part in parts)
    body = f'<h1>{text(title)}</h1>{_differences(runs)}<div class="beside">{beside}</div>'
    return page(title, f"<main>{body}</main>{foot('runs.json')}", data)


def _run(run: Contents, number: int, *, alone: bool) -> tuple[str, dict[str, Any]]:
    """All sections of one run, and the data of its plots."""
    said, report = run.said, run.report
    title = said.title if alone else f"Run {number + 1}: {said.title}"
    several = len(run.views) > 1
    whose = "" if alone else f", run {number + 1}"
    drawn, data, history = [], {}, list(history_plots(run.history))
    for k, view in enumerate(run.views):
        found = list(plots(view)) + (history if k == len(run.views) - 1 else [])
        part, known = figures(found, f"r{number}v{k}p")
        drawn.append((f"<h3>{text(view.name)}</h3>" if several else "") + part + _undrawn(view))
        data |= known
    heading = "h1" if alone else "h2"
    parts = [
        f"<{heading}>{text(title)}</{heading}>",
        verdict(report),
        _numbers(run),
        items(said.lines),
        "<h2>Worst point</h2>",
        _worst(run, whose),
        "<h2>Solution and residual</h2>",
        *drawn,
        "<h2>Gap between training and fresh points</h2>",
        table(said.columns, said.rows, label=f"gap of each constraint{whose}"),
        items(said.notes),
        "<h2>Reference and time</h2>",
        _reference(run, whose),
        "<h2>What was solved</h2>",
        _sources(run),
        "<h2>Settings, versions and machine</h2>",
        _settings(report, whose),
        "<h2>Run it again</h2>",
        _again(run, number),
    ]
    return "".join(parts), data


def verdict(report: dict[str, Any]) -> str:
    """Whether the statement holds, in one sentence."""
    judged = report.get("verdict") or {}
    word = str(judged.get("word", "no verdict"))
    style = _CLASSES.get(word, "")
    ended = f"{report.get('status')}: {report.get('reason')}"
    return (
        f'<p class="verdict {style}"><strong>{text(word.capitalize())}</strong>: '
        f'{text(judged.get("reason", "-"))}.</p><p class="soft">{text(ended)}</p>'
    )


def _undrawn(view: Evaluated) -> str:
    """What is not drawn, and why."""
    said = []
    if names := ", ".join(item.name for item in view.residuals if item.at_rounding):
        said.append(f"{names}: residual at rounding, not drawn.")
    if view.reference.size and view.error_at_rounding:
        said.append("The error against the reference is at rounding, not drawn.")
    return f'<p class="soft">{text(" ".join(said))}</p>' if said else ""


def _constraints(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list((report.get("gap") or {}).get("constraints", []))


# Constraints whose numbers stand at the top of a page.
_TILES = 8


def _numbers(run: Contents) -> str:
    """The few numbers that one looks for first."""
    report, found = run.report, []
    parts = sorted(_constraints(report), key=lambda item: item["name"] in run.said.rounding)
    for item in parts[:_TILES]:
        rms = item["heldout_rms"]
        label = str(rms.get("label") or "").partition(":")[0]
        rounding = item["name"] in run.said.rounding
        label = f"interval {label}" if label and not rounding else ""
        found.append((f"held-out RMS of {item['name']}", interval(rms), label))
    if len(parts) > _TILES:
        found.append(("held-out RMS of others", f"{len(parts) - _TILES} more in the table", ""))
    # Of the first: on an edge where the solution vanishes a relative error means nothing.
    known = [item for item in _constraints(report) if item.get("error") is not None]
    if known:
        name = f"relative error against the reference, on the points of {known[0]['name']}"
        found.append((name, short(known[0]["error"]), ""))
    times = report.get("timings") or {}
    seconds = [f"{name} {times[name]:.3g} s" for name in ("compile", "run") if name in times]
    found.append(("time", ", ".join(seconds), ""))
    return numbers(found)


def _worst(run: Contents, whose: str) -> str:
    """Where each residual is largest, the largest multiple of its own RMS first."""
    found = [(_times_rms(run, item), item) for item in _constraints(run.report)]
    if not found:
        return "<p>No constraint has fresh points, so none was searched for.</p>"
    found.sort(key=lambda pair: pair[0], reverse=True)
    rows = []
    for ratio, item in found:
        worst, times = item["worst"], "at rounding" if ratio < 0 else short(ratio)
        rows.append((item["name"], short(worst["residual"]), place(worst["point"]), times))
    name, size, where, ratio = rows[0]
    sentence = f"The largest residual of {name} is {size}, at {where}"
    sentence += f": {ratio} times its RMS." if found[0][0] >= 0 else ", at rounding."
    head = f"<p>{text(sentence)}</p>"
    if len(rows) == 1:
        return head
    columns = ("constraint", "worst |r|", "at", "times RMS")
    return head + table(columns, rows, label=f"largest residuals{whose}")


def _times_rms(run: Contents, item: dict[str, Any]) -> float:
    """The largest residual over the RMS of its constraint; -1 where both are rounding."""
    rms, size = item["heldout_rms"]["value"], item["worst"]["residual"]
    if item["name"] in run.said.rounding:
        return -1.0
    return math.inf if size is None or not rms else size / rms


def _reference(run: Contents, whose: str) -> str:
    report, lines = run.report, []
    for item in _constraints(report):
        if item.get("error") is not None:
            error = short(item["error"])
            lines.append(f"{item['name']}: relative L2 error against the reference {error}")
    times = report.get("timings") or {}
    steps = [name for name in ("compile", "run", "report") if name in times]
    named = [(f"{name}, s", f"{times[name]:.3g}") for name in steps]
    return items(lines) + items(run.said.compared.splitlines()) + pairs(named, f"seconds{whose}")


def _sources(run: Contents) -> str:
    said = run.said
    about = f"<p>{text(said.about_source)}</p>" if said.about_source else ""
    files = "".join(
        f'<h3>{text(name)}</h3><pre tabindex="0"><code>{highlighted(content)}</code></pre>'
        for name, content in said.sources
    )
    return about + files


def _settings(report: dict[str, Any], whose: str) -> str:
    settings = dict(report.get("settings") or {})
    nested = {name: settings.pop(name, None) or {} for name in ("versions", "environment")}
    settings.pop("problem", None)
    named = [(name.replace("_", " "), value) for name, value in settings.items()]
    named += [("steps taken", report.get("steps")), ("parameters", report.get("parameters"))]
    for name, part in nested.items():
        if part:
            named.append((name, ", ".join(f"{key} {value}" for key, value in part.items())))
    return pairs(
        [(name, "none" if value is None else value) for name, value in named], f"settings{whose}"
    )


def _again(run: Contents, number: int) -> str:
    said, report = run.said, run.report
    name = f"again{number}"
    files = dict(report.get("files") or {})
    hashes = [("problem", (report.get("settings") or {}).get("problem") or "no file")]
    hashes += [(file, digest) for file, digest in files.items()]
    hashes.append(("report.json", report.get("sha256")))
    return (
        f'<pre id="{name}" tabindex="0">{text(said.again)}</pre>'
        f'<button type="button" class="action" data-copy="{name}">Copy</button>'
        "<h3>SHA-256</h3>" + pairs(hashes, f"hashes, run {number + 1}")
    )


def _differences(runs: Sequence[Contents]) -> str:
    """What differs between runs, and nothing else."""
    columns = ("what", *(f"run {k + 1}" for k in range(len(runs))))
    found = [_told(run) for run in runs]
    names = list(dict.fromkeys(name for item in found for name in item))
    rows = []
    for name in names:
        values = [item.get(name, "-") for item in found]
        if len(set(values)) > 1:
            rows.append((name, *values))
    wide = range(len(columns))
    return "<h2>What differs</h2>" + table(columns, rows, label="what differs", wide=tuple(wide))


def _told(run: Contents) -> dict[str, str]:
    """A run as names and texts."""
    report, settings = run.report, dict(run.report.get("settings") or {})
    told = {"problem": run.said.title, "verdict": str((report.get("verdict") or {}).get("word"))}
    told |= {"status": str(report.get("status")), "steps taken": str(report.get("steps"))}
    told["parameters"] = str(report.get("parameters"))
    told["run again by"] = run.said.again
    for item in _constraints(report):
        told[f"{item['name']}: training points"] = str(item["points"])
        told[f"{item['name']}: train RMS"] = short(item["train_rms"])
        told[f"{item['name']}: held-out RMS"] = interval(item["heldout_rms"])
        told[f"{item['name']}: worst |r|"] = short(item["worst"]["residual"])
        if item.get("error") is not None:
            told[f"{item['name']}: error"] = short(item["error"])
    for name, value in (report.get("timings") or {}).items():
        told[f"{name}, s"] = f"{value:.3g}"
    for name, value in settings.items():
        if isinstance(value, dict):
            told |= {f"{name}: {key}": str(part) for key, part in value.items()}
        else:
            told[name.replace("_", " ")] = str(value)[:80]
    return told
