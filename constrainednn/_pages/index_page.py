"""The page that lists the runs and studies in a folder, with a link to the page of each."""

from collections.abc import Sequence
from pathlib import Path

from constrainednn._pages.contents import Contents
from constrainednn._pages.html import Link, foot, page, table, text
from constrainednn._pages.words import interval, short

_COLUMNS = ("run", "problem", "verdict", "held-out RMS", "worst |r|", "run, s", "seed", "method")


def index_page(title: str, runs: Sequence[tuple[str, str, Contents]]) -> str:
    """A table of runs.

    Args:
        title: Its title.
        runs: Name, address and contents of each.
    """
    rows = []
    for name, address, run in runs:
        report, settings = run.report, run.report.get("settings") or {}
        gaps = (report.get("gap") or {}).get("constraints") or []
        first = gaps[0] if gaps else None
        rows.append(
            (
                Link(name, address),
                run.said.title,
                (report.get("verdict") or {}).get("word", "-"),
                interval(first["heldout_rms"]) if first else "-",
                short(first["worst"]["residual"]) if first else "-",
                short((report.get("timings") or {}).get("run")),
                settings.get("seed", "-"),
                settings.get("method", "-"),
            )
        )
    failed = [row[2] == "not solved" for row in rows]
    body = f"<h1>{text(title)}</h1>" + table(_COLUMNS, rows, label="runs", failed=failed, wide=(7,))
    data = {"runs": [run.report for _, _, run in runs], "plots": {}}
    return page(title, f"<main>{body}</main>" + foot("runs.json"), data)


def runs_in(folder: Path) -> list[Path]:
    """The finished runs in the folders of a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(item.parent for item in folder.glob("*/report.json"))
