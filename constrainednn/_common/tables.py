"""Text for a terminal: lines wrap at words, and tables that are too wide are stacked."""

import html
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

# A label and what belongs to it are two spaces or more apart; what is wrapped stays in its column.
_LABEL = re.compile(r"\S(?:\S| (?! ))*\s{2,}(?=\S)")


# Columns of a table in a file, where no terminal is.
WIDEST = 160


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is, None if it is none: files keep whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, width: int | None) -> str:
    """Wrap long lines at words; words are not broken, and commands to copy stay whole."""
    if width is None:
        return text
    lines = []
    for line in text.splitlines():
        label = _LABEL.match(line)
        indent = label.end() if label and label.end() <= width // 3 else 2
        if len(line) <= width or line.startswith("continue"):
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line,
                width,
                subsequent_indent=" " * indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def table_lines(table: Sequence[Sequence[str]], keys: int, width: int | None) -> list[str]:
    """A table with its titles in the first row, in aligned columns.

    Where that is wider than `width`, each row is a block: the first `keys` cells in its first line,
    the others below with their titles.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
    if width is None or max(map(len, lines)) <= width:
        return lines
    titles, *rows = table
    size = max(map(len, titles[keys:]), default=0)
    lines = []
    for cells in rows:
        named = [f"{name} {cell}" for name, cell in zip(titles, cells, strict=True)]
        lines.append(", ".join(named[:keys]) or "all runs")
        pairs = zip(titles[keys:], cells[keys:], strict=True)
        lines += [f"  {title:{size}}  {cell}".rstrip() for title, cell in pairs]
    return lines


def html_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], lines: Iterable[object] = ()
) -> str:
    """A table with sentences below it, for notebooks; everything in it is escaped."""

    def elements(tag: str, texts: Iterable[object]) -> str:
        return "".join(f"<{tag}>{html.escape(str(text))}</{tag}>" for text in texts)

    body = "\n".join(f"<tr>{elements('td', cells)}</tr>" for cells in rows)
    below = elements("li", lines)
    return (
        f"<table><thead><tr>{elements('th', columns)}</tr></thead>\n<tbody>{body}</tbody></table>"
        + (f"\n<ul>{below}</ul>" if below else "")
    )


def number(value: float) -> str:
    """Three digits; a dash for what is not available."""
    return "-" if math.isnan(value) else f"{value:.3g}"
