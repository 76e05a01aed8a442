"""Pages of one file: text that is escaped, tables that can be sorted, and nothing fetched."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from constrainednn._pages.drawing.plot import Plot

# A file that begins so was written here and may be written again.
MARK = '<!doctype html>\n<html lang="en">\n<head>\n<meta name="generator" content="constrainednn">'


class Link(NamedTuple):
    """A cell of a table that leads to another page."""

    text: str
    address: str


def text(value: Any) -> str:
    """Text of the user's, harmless in a page."""
    return html.escape(str(value), quote=True)


def items(lines: Iterable[str]) -> str:
    """A list of sentences; nothing where there are none."""
    found = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="notes">{found}</ul>' if found else ""


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    label: str,
    failed: Sequence[bool] = (),
    wide: Sequence[int] = (),
    tall: bool = False,
) -> str:
    """A table that is sorted by a click on a title, or Enter on it.

    Args:
        columns: Titles.
        rows: Cells.
        label: What it is, for those who cannot see it.
        failed: Which rows are marked as failures; none where it is empty.
        wide: Columns whose text may be broken into lines.
        tall: True for one of many rows, which scrolls.
    """
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{text(name)}</button></th>'
        for name in columns
    )
    lines = []
    for number, cells in enumerate(rows):
        marked = ' class="failed"' if failed and failed[number] else ""
        parts = (
            f'<td class="wide">{_cell(cell)}</td>' if k in wide else f"<td>{_cell(cell)}</td>"
            for k, cell in enumerate(cells)
        )
        lines.append(f"<tr{marked}>{''.join(parts)}</tr>")
    style = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{style}" tabindex="0" role="region" aria-label="{text(label)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Link):
        return f'<a href="{quote(value.address)}">{text(value.text)}</a>'
    return text(value)


def pairs(named: Iterable[tuple[str, Any]], label: str) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="wide">{text(value)}</td></tr>'
        for name, value in named
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">'
        f"<table><tbody>{rows}</tbody></table></div>"
    )


def figures(plots: Sequence[Plot], prefix: str) -> tuple[str, dict[str, Any]]:
    """Plots as elements of a page, and the data behind them by their names in it."""
    parts, data = [], {}
    for number, plot in enumerate(plots):
        name = f"{prefix}{number}"
        live = plot.data.get("kind") in ("curve", "field")
        keys = "".join(f"<li>{_sample(style)}{text(label)}</li>" for style, label in plot.keys)
        legend = f'<ul class="keys">{keys}</ul>' if keys else ""
        said = f"<span>{text(plot.text)}</span>" if plot.text else ""
        read = '<div class="read" aria-live="polite"></div>' if live else ""
        focus = f' data-plot="{name}" tabindex="0"' if live else ""
        parts.append(
            f"<figure{focus}><h3>{text(plot.title)}</h3>{plot.svg}"
            f"<figcaption>{legend}{said}{read}</figcaption></figure>"
        )
        data[name] = {"title": plot.title, **plot.data}
    return f'<div class="plots">{"".join(parts)}</div>', data


def numbers(cells: Iterable[tuple[str, str, str]]) -> str:
    """The few numbers that are looked for first: names, values, and what to know of them."""
    parts = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd>"
        + (f'<dd class="label">{text(label)}</dd>' if label else "")
        + "</div>"
        for name, value, label in cells
    )
    return f'<dl class="facts">{parts}</dl>'


def foot(file: str) -> str:
    """The end of a page, with the button that saves its numbers as a file of that name."""
    return (
        f'<footer><button type="button" class="action" data-download="{text(file)}">'
        'Save the numbers behind this page</button> <span class="soft">Made by constrainednn from '
        "saved files; this page fetches nothing.</span></footer>"
    )


def _sample(style: str) -> str:
    """A piece of a line, or a dot, for a legend."""
    if style.startswith("dot "):
        mark = f'<path class="{style}" stroke-width="6" d="M10 4h0"/>'
    else:
        mark = f'<path class="line {style}" d="M0 4H20"/>'
    return f'<svg viewBox="0 0 20 8" aria-hidden="true">{mark}</svg>'


def page(title: str, body: str, data: dict[str, Any]) -> str:
    """A whole page, which may neither fetch anything nor run anything but its own script.

    Args:
        title: Its title.
        body: What is in it, escaped where it is not ours.
        data: What its button saves, and its script reads.
    """
    style, script = (_resource(name) for name in ("page.css", "page.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # In a script element only "<" could end it, or begin a comment.
    held = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"{MARK}\n"
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="data">{held}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return (resources.files("constrainednn._pages") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
