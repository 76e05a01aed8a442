"""Saving and loading solutions."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._archive import MAX_BYTES, pack_arrays, read_arrays, seal, unseal
from constrainednn._errors import BadValueError, StoreError
from constrainednn._estimates import has_unknowns
from constrainednn._experiments import Experiments
from constrainednn._files import read_limited
from constrainednn._folders import write_folder
from constrainednn._gap import drawn_again, drawn_arrays, gap_report, problem_streams
from constrainednn._problem import Problem
from constrainednn._run_folder import REPORT
from constrainednn._scheme import PieceHistory
from constrainednn._solution import History, Settings, Solution, Status, Timings
from constrainednn._trees import arrays_to_tree, tree_to_arrays
from constrainednn._validate import as_count, as_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MODEL, _LOSSES = "model.npz", "history.npz"


def save_solution(solution: Solution, path: Path) -> None:
    """Write a solution into a new or empty folder.

    Files: `model.npz` (parameters), `history.npz` (losses), `report.json` (settings, status and
    every number of the gap report), `overview.png` and `moments.png` (as `Solution.plot` and
    `Solution.plot_moments` draw them).

    A figure that cannot be drawn is a page that says why, and a warning; the numbers are kept.

    Raises:
        StoreError: If the folder is in use or cannot be written.
    """
    write_folder(path, result_files(solution))


def result_files(solution: Solution) -> Iterator[tuple[str, bytes]]:
    """The files of a solution and what is in them, one after another."""
    history = solution.history
    losses = {
        "loss": history.loss,
        "monitor_steps": history.monitor_steps,
        "monitor": history.monitor,
        "best_step": np.asarray(history.best_step),
        "redraws": np.asarray(history.redraws, int),
        **drawn_arrays(
            solution.problem.constraints, [item.train for item in solution.streams], "draw"
        ),
        **_pieces_to_arrays(history.pieces),
    }
    arrays = {
        _MODEL: pack_arrays(tree_to_arrays(solution.model)),
        _LOSSES: pack_arrays(losses),
    }
    yield from arrays.items()
    report = report_dict(solution) | {
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in arrays.items()}
    }
    # With it, all numbers are there; the figures only show them.
    yield REPORT, seal(report)
    for name, draw in (("overview.png", solution.plot), ("moments.png", solution.plot_moments)):
        content, failure = _png(draw)
        yield name, content
        if failure:
            warnings.warn(f"{name} could not be drawn: {failure}", stacklevel=3)


def load_solution(path: str | Path, problem: Problem) -> Solution:
    """Read a saved solution; its gap report is measured anew from the saved parameters.

    On the same machine and thread count the numbers are those of `report.json` to the last bit:
    points are drawn again from the seed, and every number comes from the same evaluation.

    Args:
        path: Folder written by `Solution.save` or `--out`.
        problem: The problem that was solved. Its code is not stored with the solution.

    Raises:
        StoreError: If a file is missing or damaged, or the problem is another one: a leaf of its
            model, or a name, measure, weight or number of points of a constraint differs.
    """
    folder = Path(path)
    report = unseal(folder / REPORT)
    arrays, saved = (_read_own(folder / name, report) for name in (_LOSSES, _MODEL))
    try:
        settings = Settings(**report["settings"])
        key = jax.random.key(as_seed(settings.seed))
        counts = {name: as_count(getattr(settings, name), name) for name in ("monitor", "heldout")}
        redraw = as_count(report["last_draw"], "last_draw", least=0)
        status, timings = Status(report["status"]), Timings(**report["timings"])
        reason, steps, parameters = report["reason"], report["steps"], report["parameters"]
        stored = report["gap"]
        numbers = (*dataclasses.astuple(timings), steps, parameters)
        if not isinstance(reason, str) or not all(type(n) in (int, float) for n in numbers):
            raise BadValueError("its reason, steps, parameters or timings are of another kind")
        for item in stored["constraints"]:  # before as many points are drawn
            if item["sampler"] != "rows" and item["heldout"]["n"] != counts["heldout"]:
                raise BadValueError("it counts held-out points in two ways")
        history = History(
            arrays["loss"],
            arrays["monitor_steps"],
            arrays["monitor"],
            (),
            int(arrays["best_step"]),
            tuple(arrays["redraws"].tolist()),
            redraw,
            None if problem.scheme is None else _pieces_from_arrays(arrays, problem.model),
        )
    except KeyError as error:
        raise StoreError(f"{folder}: the entry {error} is missing.") from None
    except (TypeError, ValueError) as error:
        raise StoreError(f"{folder / 'report.json'} is damaged: {error}") from None
    blank = problem.build_model(key=key)
    if problem.scheme is not None:
        for part in _of_each(blank, ".parts"):
            edges = saved.get(f"{part}.edges", np.zeros(0))
            if edges.ndim != 1 or np.isfinite(edges).sum() < 2 or np.isnan(edges).any():
                raise StoreError(f"{folder / _MODEL} is damaged: its pieces have no ends.")
            arrays_of = (saved.get(f"{part}.{name}", ()) for name in ("states", "head"))
            if any(len(array) != edges.size - 1 for array in arrays_of):
                raise StoreError(f"{folder / _MODEL} is damaged: its pieces are not all there.")
        blank = _with_pieces(blank, saved)
    model = arrays_to_tree(blank, saved, str(folder))
    streams = problem_streams(problem, model, key=key, **counts, redraw=redraw)
    if redraw:
        try:
            drawn = drawn_again(
                problem.constraints, [item.train for item in streams], arrays, "draw"
            )
        except ValueError as error:
            raise StoreError(f"{folder / _LOSSES} is damaged: {error}.") from None
        pairs = zip(streams, drawn, strict=True)
        streams = tuple(dataclasses.replace(item, train=train) for item, train in pairs)
    gap = gap_report(problem, model, streams)
    _refuse_another(plain(dataclasses.asdict(gap)), stored, folder)
    return Solution(
        problem,
        model,
        gap,
        status,
        reason,
        steps,
        parameters,
        history,
        timings,
        settings,
        streams,
    )


def _refuse_another(found: dict[str, Any], stored: Any, folder: Path) -> None:
    """Name the first thing in which a problem differs from the one that was saved."""
    for kind, keys in (
        ("constraints", ("name", "measure", "sampler", "points", "entries", "weight")),
        ("finite", ("name", "points", "entries", "weight")),
    ):
        try:
            old = [{key: item[key] for key in keys} for item in stored[kind]]
        except (KeyError, TypeError):
            raise StoreError(f"{folder / 'report.json'} is damaged: no {kind} in gap.") from None
        new = [{key: item[key] for key in keys} for item in found[kind]]
        for was, now in itertools.zip_longest(old, new, fillvalue={}):
            for key in keys:
                if was.get(key) != now.get(key):
                    name = was.get("name") or now.get("name")
                    raise StoreError(
                        f"{folder}: constraint {name!r} has {key} {was.get(key)!r} in the file and "
                        f"{now.get(key)!r} in the problem. "
                        "Load it with the problem and settings it was saved with."
                    )


def report_dict(solution: Solution) -> dict[str, Any]:
    """Every reported number as plain data; what is not finite becomes null."""
    unknown = {}
    if has_unknowns(solution):
        with contextlib.suppress(ValueError):  # the data may not suffice
            unknown["estimates"] = plain(dataclasses.asdict(solution.estimates()))
    return unknown | {
        "verdict": {"word": solution.verdict.word, "reason": solution.verdict.reason},
        "status": str(solution.status),
        "reason": solution.reason,
        "steps": solution.steps,
        "parameters": solution.parameters,
        "last_draw": solution.history.last_draw,
        "timings": dataclasses.asdict(solution.timings),
        "settings": dataclasses.asdict(solution.settings),
        "gap": plain(dataclasses.asdict(solution.gap)),
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


def _of_each(model: PyTree, name: str) -> list[str]:
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


def _pieces_from_arrays(
    arrays: dict[str, np.ndarray], model: PyTree
) -> PieceHistory | tuple[PieceHistory, ...]:
    items = []
    for which in _of_each(model, ""):
        at = lambda name, which=which: arrays[f"pieces{which}_{name}"]  # noqa: E731
        # Folders from before equations were looked at again have no spacing.
        spacing = float(arrays.get(f"pieces{which}_spacing", np.nan))
        found = tuple(arrays.get(f"pieces{which}_found", np.zeros(0)).tolist())
        given = at("edges"), at("monitor"), at("steps"), int(at("rejected"))
        items.append(PieceHistory(*given, spacing, found))
    return tuple(items) if isinstance(model, Experiments) else items[0]


def _with_pieces(model: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """Give a model as many pieces as the saved one has."""

    def sized(path, leaf):
        array = arrays.get(jax.tree_util.keystr(path))
        if not eqx.is_array(leaf) or array is None or array.shape[1:] != leaf.shape[1:]:
            return leaf
        return jnp.zeros(array.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(sized, model)


def _read_own(path: Path, report: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays that belong to a report: a run that was killed while it saved leaves others."""
    arrays, _ = read_arrays(path)
    files = report.get("files")
    expected = files.get(path.name) if isinstance(files, dict) else None
    if hashlib.sha256(read_limited(path, MAX_BYTES)).hexdigest() != expected:
        raise StoreError(
            f"{path} does not belong to {REPORT}: the run was ended while it saved, or a file was "
            f"replaced. Where there is a run, `constrainednn resume {path.parent}` saves again."
        )
    return arrays


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
    buffer = io.BytesIO()
    # No date and no version inside: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
