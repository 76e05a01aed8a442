"""Saving and loading solutions."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._figures.animation import FILM, animation
from constrainednn._figures.moments import moments
from constrainednn._figures.overview import overview
from constrainednn._gap.streams import drawn_arrays
from constrainednn._pages.contents import VALUES, packed
from constrainednn._pages.run_page import run_page
from constrainednn._pages.written import write_own_page
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.scheme import PieceHistory
from constrainednn._storage.archive import pack_arrays, seal
from constrainednn._storage.files import read_limited, refusal, write_atomically
from constrainednn._storage.folders import write_folder
from constrainednn._storage.run_folder import REPORT
from constrainednn.errors import StoreError
from constrainednn.results.comparison.comparison import Comparison
from constrainednn.results.estimates.estimates import estimates, has_unknowns
from constrainednn.results.facts import Facts
from constrainednn.results.page.contents import contents
from constrainednn.results.shown import shown
from constrainednn.results.verdict.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MODEL, LOSSES = "model.npz", "history.npz"
# A film is read to see whether it is one of ours.
_MOST_BYTES = 1 << 26


def save_solution(facts: Facts, judged: Verdict, path: Path) -> None:
    """Write a solution into a new or empty folder.

    Files: `model.npz` (parameters), `history.npz` (losses), `report.json` (settings, status and
    every number of the gap report), `values.npz` (values, reference and residuals on a grid, the
    text of the problem: what `constrainednn report` draws), `overview.png` and `moments.png` (as
    `Solution.plot` and `Solution.plot_moments` draw them).

    A figure that cannot be drawn is a page that says why, and a warning; the numbers are kept.

    Raises:
        StoreError: If the folder is in use or cannot be written.
    """
    write_folder(path, result_files(facts, judged))


def write_page(
    facts: Facts, judged: Verdict, path: Path, comparison: Comparison | None = None
) -> None:
    """Write the page of a solution; the same as from its saved files, but for the comparison.

    Raises:
        StoreError: If the file is no page of an earlier time, or cannot be written.
    """
    report = json.loads(dict(_numbers(facts, judged))[REPORT])
    write_own_page(path, run_page([contents(facts, judged, report, comparison)]))


def write_film(facts: Facts, path: Path) -> None:
    """Write the animation of a solution.

    Raises:
        StoreError: If the file is no film of an earlier time, or cannot be written.
    """
    if path.suffix != ".gif":
        raise StoreError(f"{path} must end in .gif, or no viewer would show it.")
    if path.exists() and FILM not in read_limited(path, _MOST_BYTES):
        raise StoreError(f"{path} is no film of this package and is not overwritten: give another.")
    content = animation(shown(facts))
    try:
        write_atomically(path, content)
    except OSError as error:
        raise refusal(path, error) from None


def result_files(facts: Facts, judged: Verdict) -> Iterator[tuple[str, bytes]]:
    """The files of a solution and what is in them, one after another."""
    numbers = dict(_numbers(facts, judged))
    yield from numbers.items()
    try:
        values = packed(contents(facts, judged, json.loads(numbers[REPORT])))
    except Exception as error:  # noqa: BLE001  (as for figures: the numbers are kept)
        warnings.warn(
            f"{VALUES} could not be written: {type(error).__name__}: {error}", stacklevel=3
        )
    else:
        yield VALUES, values
    drawn = shown(facts)
    for name, draw in (("overview.png", overview), ("moments.png", moments)):
        content, failure = _png(lambda draw=draw: draw(drawn))
        yield name, content
        if failure:
            warnings.warn(f"{name} could not be drawn: {failure}", stacklevel=3)


def _numbers(facts: Facts, judged: Verdict) -> Iterator[tuple[str, bytes]]:
    """The files of numbers; the report is the last of them."""
    history = facts.history
    losses = {
        "loss": history.loss,
        "monitor_steps": history.monitor_steps,
        "monitor": history.monitor,
        "best_step": np.asarray(history.best_step),
        "redraws": np.asarray(history.redraws, int),
        **drawn_arrays(facts.problem.statements, [item.train for item in facts.streams], "draw"),
        **_pieces_to_arrays(history.pieces),
    }
    arrays = {
        MODEL: pack_arrays(tree_to_arrays(facts.model)),
        LOSSES: pack_arrays(losses),
    }
    yield from arrays.items()
    report = report_dict(facts, judged) | {
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in arrays.items()}
    }
    # With it, all numbers are there; the figures only show them.
    yield REPORT, seal(report)


def report_dict(facts: Facts, judged: Verdict) -> dict[str, Any]:
    """Every reported number as plain data; what is not finite becomes null."""
    unknown = {}
    if has_unknowns(facts.problem, facts.model):
        with contextlib.suppress(ValueError):  # the data may not suffice
            unknown["estimates"] = plain(dataclasses.asdict(estimates(facts)))
    return unknown | {
        "verdict": {"word": judged.word, "reason": judged.reason},
        "status": str(facts.status),
        "reason": facts.reason,
        "steps": facts.steps,
        "parameters": facts.parameters,
        "last_draw": facts.history.last_draw,
        "timings": dataclasses.asdict(facts.timings),
        "settings": dataclasses.asdict(facts.settings),
        "gap": plain(dataclasses.asdict(facts.gap)),
    }


def plain(value: Any) -> Any:
    """Turn arrays, tuples and NumPy scalars into what JSON knows; NaN and infinity into null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, (np.generic,)):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def of_each(model: PyTree, name: str) -> list[str]:
    """The name for each of several experiments; without them "" for the whole."""
    if not isinstance(model, Experiments):
        return [""]
    return [f"{name}[{k}]" for k in range(len(model.parts))]


def _pieces_to_arrays(
    pieces: PieceHistory | tuple[PieceHistory, ...] | None,
) -> dict[str, np.ndarray]:
    if pieces is None:
        return {}
    several = isinstance(pieces, tuple)
    return {
        f"pieces{f'[{k}]' * several}_{name}": np.asarray(value)
        for k, item in enumerate(pieces if several else [pieces])
        for name, value in dataclasses.asdict(item).items()
    }


def _png(draw: "Callable[[], Figure]") -> tuple[bytes, str]:
    """Draw a figure, or a page with the reason why it could not be drawn and the reason itself."""
    from matplotlib.figure import Figure

    try:
        with np.errstate(over="ignore"):  # the axes of a run that diverged
            return rendered(draw()), ""
    except Exception as error:  # noqa: BLE001  (whatever it is, it must not cost hours of training)
        reason = f"{type(error).__name__}: {error}"
        page = Figure(figsize=(6, 3))
        page.text(0.5, 0.5, textwrap.fill(reason, 60), ha="center", va="center", parse_math=False)
        return rendered(page), reason


def rendered(figure: "Figure") -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    # No date and no version inside: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
