"""Loading solutions."""

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_count, as_seed
from constrainednn._common.pytrees import arrays_to_tree
from constrainednn._gap.measure import gap_report
from constrainednn._gap.streams import drawn_again, problem_streams
from constrainednn._pde.conditions import IN_PIECES
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import PieceHistory
from constrainednn._storage.archive import MAX_BYTES, read_arrays, unseal
from constrainednn._storage.files import read_limited
from constrainednn._storage.run_folder import REPORT
from constrainednn.errors import BadValueError, StoreError
from constrainednn.models.space import PlaneTimePieces
from constrainednn.results.saving import LOSSES, MODEL, of_each, plain
from constrainednn.results.solution import Solution
from constrainednn.runs.history import History, Settings, Status, Timings


def load_solution(path: str | Path, problem: Problem) -> Solution:
    """Read a saved solution; its gap report is measured anew from the saved parameters.

    On the same machine and number of threads the numbers are those of `report.json` to the last
    bit: points are drawn again from the seed, and every number is evaluated in the same way.

    Args:
        path: Folder written by `Solution.save` or `--out`.
        problem: The problem that was solved. Its code is not stored with the solution.

    Raises:
        StoreError: If a file is missing or damaged, or the problem differs from the one that was
            saved: in a leaf of its model, or in a name, measure, weight or number of points of a
            constraint.
    """
    folder = Path(path)
    report = unseal(folder / REPORT)
    arrays, saved = (_read_own(folder / name, report) for name in (LOSSES, MODEL))
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
            raise BadValueError("its reason, steps, parameters or timings are of the wrong type")
        for item in stored["constraints"]:  # before as many points are drawn
            if item["sampler"] != "rows" and item["heldout"]["n"] != counts["heldout"]:
                raise BadValueError("its numbers of held-out points disagree")
        history = _history(arrays, redraw, problem)
    except KeyError as error:
        raise StoreError(f"{folder}: the entry {error} is missing.") from None
    except (TypeError, ValueError) as error:
        raise StoreError(f"{folder / 'report.json'} is damaged: {error}") from None
    blank = problem.build_model(key=key)
    if problem.scheme.in_pieces:
        if not isinstance(blank, IN_PIECES):
            _check_pieces(blank, saved, folder)
        blank = _with_pieces(blank, saved)
    model = arrays_to_tree(blank, saved, str(folder))
    # Known arguments are those of the problem.
    if isinstance(model, PlaneTimePieces):
        boxes = dataclasses.replace(model.boxes, arguments=problem.model.boxes.arguments)
        model = dataclasses.replace(model, boxes=boxes)
    elif isinstance(model, IN_PIECES):
        model = dataclasses.replace(model, arguments=problem.model.arguments)
    streams = problem_streams(problem, model, key=key, **counts, redraw=redraw)
    if redraw:
        try:
            drawn = drawn_again(
                problem.statements, [item.train for item in streams], arrays, "draw"
            )
        except ValueError as error:
            raise StoreError(f"{folder / LOSSES} is damaged: {error}.") from None
        pairs = zip(streams, drawn, strict=True)
        streams = tuple(dataclasses.replace(item, train=train) for item, train in pairs)
    gap = gap_report(problem, model, streams, looked=settings.looked)
    _refuse_another(plain(dataclasses.asdict(gap)), stored, folder)
    ended = status, reason, steps, parameters, history, timings, settings
    return Solution(problem, model, gap, *ended, streams)


def _history(arrays: dict[str, np.ndarray], last_draw: int, problem: Problem) -> History:
    """The history that was saved, without snapshots."""
    pieces = _pieces_from_arrays(arrays, problem.model) if problem.scheme.in_pieces else None
    return History(
        loss=arrays["loss"],
        monitor_steps=arrays["monitor_steps"],
        monitor=arrays["monitor"],
        snapshots=(),
        best_step=int(arrays["best_step"]),
        redraws=tuple(arrays["redraws"].tolist()),
        last_draw=last_draw,
        pieces=pieces,
    )


def _check_pieces(model: PyTree, saved: dict[str, np.ndarray], folder: Path) -> None:
    """Refuse pieces that do not belong together."""
    for part in of_each(model, ".parts"):
        edges = saved.get(f"{part}.edges", np.zeros(0))
        if edges.ndim != 1 or np.isfinite(edges).sum() < 2 or np.isnan(edges).any():
            raise StoreError(f"{folder / MODEL} is damaged: its pieces have no ends.")
        arrays_of = (saved.get(f"{part}.{name}", ()) for name in ("states", "head"))
        if any(len(array) != edges.size - 1 for array in arrays_of):
            raise StoreError(f"{folder / MODEL} is damaged: its pieces are not all there.")


def _refuse_another(found: dict[str, Any], stored: Any, folder: Path) -> None:
    """Name the first thing in which a problem differs from the one that was saved."""
    if _objective_of(stored) != _objective_of(found):
        was, now = _objective_of(stored), _objective_of(found)
        raise StoreError(
            f"{folder}: the objective was {was} in the file and is {now} in the problem. "
            "Load it with the problem and settings it was saved with."
        )
    for kind, keys in (
        ("constraints", ("name", "measure", "sampler", "points", "entries", "weight")),
        ("finite", ("name", "points", "entries", "weight")),
    ):
        try:
            old = [{key: item[key] for key in keys} | _tolerance(item) for item in stored[kind]]
        except (KeyError, TypeError):
            raise StoreError(f"{folder / 'report.json'} is damaged: no {kind} in gap.") from None
        new = [{key: item[key] for key in keys} | _tolerance(item) for item in found[kind]]
        for was, now in itertools.zip_longest(old, new, fillvalue={}):
            for key in (*keys, "tolerance"):
                if was.get(key) != now.get(key):
                    name = was.get("name") or now.get("name")
                    raise StoreError(
                        f"{folder}: constraint {name!r} has {key} {was.get(key)!r} in the file and "
                        f"{now.get(key)!r} in the problem. "
                        "Load it with the problem and settings it was saved with."
                    )


def _objective_of(gap: Any) -> dict[str, Any] | None:
    """What identifies an objective in a report; None without one."""
    stated = gap.get("objective") if isinstance(gap, dict) else None
    if not isinstance(stated, dict):
        return None
    return {key: stated.get(key) for key in ("name", "measure", "sampler", "points")}


def _tolerance(item: dict[str, Any]) -> dict[str, Any]:
    """The tolerance of a constraint: one that is named now was not named before the run."""
    return {"tolerance": (item.get("guarantee") or {}).get("tolerance")}


def _pieces_from_arrays(
    arrays: dict[str, np.ndarray], model: PyTree
) -> PieceHistory | tuple[PieceHistory, ...]:
    items = []
    for which in of_each(model, ""):
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
        if not eqx.is_array(leaf) or array is None or array.ndim != leaf.ndim:
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
