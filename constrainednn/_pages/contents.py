"""What a page says of a run, and the file of a run that holds it beside its report."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from constrainednn._pages.evaluated import Evaluated, put_together, taken_apart
from constrainednn._storage.archive import pack_arrays, read_arrays, unseal
from constrainednn._storage.run_folder import REPORT
from constrainednn.errors import BadValueError, StoreError

VALUES = "values.npz"


@dataclasses.dataclass(frozen=True)
class Said:
    """The words of a page, as plain data.

    Attributes:
        title: What was solved, in a few words.
        rounding: Names of the constraints whose residual is no larger than its rounding error.
        columns: Titles of the gap table.
        rows: Its cells.
        notes: What must be known to read it.
        lines: What else was found: estimates of errors and of unknowns.
        sources: Pairs of a file's name and its text.
        about_source: Why there is no text, or why it may be another one; empty otherwise.
        again: The command, or the lines of Python, that run it again.
        command: True if `again` is a command of a shell.
        compared: What the classical solver did; empty where it was not asked.
    """

    title: str = ""
    rounding: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    about_source: str = ""
    again: str = ""
    command: bool = False
    compared: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """All that a page shows of a run.

    Attributes:
        report: As in `report.json`.
        said: The words.
        views: What is seen of each solution.
        history: Losses of the training, or edges of pieces and their residuals, by name.
    """

    report: dict[str, Any]
    said: Said
    views: tuple[Evaluated, ...]
    history: dict[str, np.ndarray]


def packed(contents: Contents) -> bytes:
    """What a page needs besides the report, as one file that belongs to it."""
    arrays = {f"history.{name}": array for name, array in contents.history.items()}
    views = []
    for k, view in enumerate(contents.views):
        found, facts = taken_apart(view, f"views.{k}")
        arrays |= found
        views.append(facts)
    said = dataclasses.asdict(contents.said)
    return pack_arrays(arrays, {"report": contents.report["sha256"], "said": said, "views": views})


def read_contents(folder: Path) -> Contents:
    """What a run saved for its page.

    Raises:
        StoreError: If the folder holds no finished run, or was written before there were pages.
    """
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}.")
    if not (folder / REPORT).exists():
        raise StoreError(
            f"{folder} holds no finished run: it has no {REPORT}. "
            f"`constrainednn show {folder}` says how far it is."
        )
    report = unseal(folder / REPORT)
    if not (folder / VALUES).exists():
        raise StoreError(
            f"{folder} has no {VALUES}, which its page is drawn from: it was saved by an earlier "
            "version, or ended while it saved. Write the page from Python: "
            f"cx.load_solution({str(folder)!r}, problem).report('page.html')."
        )
    arrays, facts = read_arrays(folder / VALUES)
    if facts.get("report") != report.get("sha256"):
        raise StoreError(f"{folder / VALUES} does not belong to the {REPORT} beside it.")
    try:
        said = _said(facts["said"])
        views = tuple(
            put_together(arrays, item, f"views.{k}") for k, item in enumerate(facts["views"])
        )
        history = {
            name.removeprefix("history."): array
            for name, array in arrays.items()
            if name.startswith("history.")
        }
        return Contents(report, said, views, history)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{folder / VALUES} is damaged: {error}") from None


def _said(facts: dict[str, Any]) -> Said:
    """The words; those that an earlier version had none of are empty, those of a later left out."""
    blank = Said()
    known = {item.name: getattr(blank, item.name) for item in dataclasses.fields(Said)}
    found = {name: _frozen(facts.get(name, value)) for name, value in known.items()}
    for name, value in found.items():
        if type(value) is not type(known[name]):
            raise BadValueError(f"its {name} is {value!r:.50}")
    return Said(**found)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
