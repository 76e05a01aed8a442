"""Saving and loading solutions."""

import dataclasses
import hashlib
import io
import itertools
import json
import math
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._files import StoreError, write_folder
from constrainednn._gap import gap_report, problem_streams
from constrainednn._problem import Problem
from constrainednn._scheme import PieceHistory
from constrainednn._solution import History, Settings, Solution, Status, Timings
from constrainednn._validate import as_count, as_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
# Sizes are checked before anything is allocated: a file may come from somebody else.
_MAX_BYTES = 1 << 34
_MAX_MANIFEST = 1 << 26


def save_solution(solution: Solution, path: Path) -> None:
    """Write a solution into a new or empty folder.

    Files: `model.npz` (parameters), `history.npz` (losses), `report.json` (settings, status and
    every number of the gap report), `overview.png` and `moments.png` (as `Solution.plot` and
    `Solution.plot_moments` draw them).

    A figure that cannot be drawn is a page that says why, and a warning; the numbers are kept.

    Raises:
        StoreError: If the folder is in use or cannot be written.
    """
    history = solution.history
    losses = {
        "loss": history.loss,
        "monitor_steps": history.monitor_steps,
        "monitor": history.monitor,
        "best_step": np.asarray(history.best_step),
        "redraws": np.asarray(history.redraws, int),
        **({} if history.pieces is None else _pieces_to_arrays(history.pieces)),
    }
    report = json.dumps(report_dict(solution), indent=2, allow_nan=False) + "\n"
    figures, failures = [], []
    for name, draw in (("overview.png", solution.plot), ("moments.png", solution.plot_moments)):
        content, failure = _png(draw)
        figures.append((name, content))
        failures += [f"{name} could not be drawn: {failure}"] if failure else []
    files = [
        ("model.npz", pack_arrays(_leaves(solution.model))),
        ("history.npz", pack_arrays(losses)),
        *figures,
        ("report.json", report.encode()),  # last: a folder with a report is complete
    ]
    write_folder(path, files)
    for failure in failures:
        warnings.warn(failure, stacklevel=3)


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
    report = _read_json(folder / "report.json")
    if report.get("format") != FORMAT:
        raise StoreError(
            f"{folder} was written in format {report.get('format')!r}; this version reads {FORMAT}."
        )
    arrays = read_arrays(folder / "history.npz")
    try:
        settings = Settings(**report["settings"])
        key = jax.random.key(as_seed(settings.seed))
        counts = {name: as_count(getattr(settings, name), name) for name in ("monitor", "heldout")}
        redraw = as_count(report["last_draw"], "last_draw", least=0)
        status, timings = Status(report["status"]), Timings(**report["timings"])
        reason, steps, parameters = report["reason"], report["steps"], report["parameters"]
        stored = report["gap"]
        history = History(
            arrays["loss"],
            arrays["monitor_steps"],
            arrays["monitor"],
            (),
            int(arrays["best_step"]),
            tuple(arrays["redraws"].tolist()),
            None if problem.scheme is None else _pieces_from_arrays(arrays),
        )
    except KeyError as error:
        raise StoreError(f"{folder}: the entry {error} is missing.") from None
    except (TypeError, ValueError) as error:
        raise StoreError(f"{folder / 'report.json'} is damaged: {error}") from None
    saved = read_arrays(folder / "model.npz")
    blank = problem.build_model(key=key)
    if problem.scheme is not None:
        blank = _with_pieces(blank, saved)
    model = _filled(blank, saved, folder)
    streams = problem_streams(problem, model, key=key, **counts, redraw=redraw)
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
    return {
        "format": FORMAT,
        "status": str(solution.status),
        "reason": solution.reason,
        "steps": solution.steps,
        "parameters": solution.parameters,
        "last_draw": len(solution.history.redraws),
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


def pack_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """Pack arrays into an uncompressed .npz with a manifest of names, types, shapes and a hash."""
    digest = hashlib.sha256()
    members = []
    for name, array in arrays.items():
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        members.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape)})
    manifest = {"format": FORMAT, "members": members, "sha256": digest.hexdigest()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for index, array in enumerate(arrays.values()):
            member = io.BytesIO()
            # Extension types such as bfloat16 come back as raw bytes: the manifest has their name.
            raw = np.frombuffer(array.tobytes(), np.uint8) if array.dtype.kind == "V" else array
            np.lib.format.write_array(member, raw, allow_pickle=False)
            archive.writestr(f"{index}.npy", member.getvalue())
    return buffer.getvalue()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `pack_arrays` wrote, refusing anything else. Never runs code from the file.

    Raises:
        StoreError: If the file is missing, damaged, too large or holds anything unexpected.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StoreError(f"{path} is larger than {_MAX_BYTES} bytes.")
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if names[:1] != ["manifest.json"] or any(info.compress_type for info in infos):
                raise StoreError(f"{path} was not written by this package.")
            if infos[0].file_size > _MAX_MANIFEST:
                raise StoreError(f"{path}: its manifest is too large.")
            manifest = json.loads(archive.read("manifest.json"))
            members = manifest["members"]
            if names[1:] != [f"{index}.npy" for index in range(len(members))]:
                raise StoreError(f"{path} holds unexpected members.")
            arrays, digest = {}, hashlib.sha256()
            for member, info in zip(members, infos[1:], strict=True):
                dtype = jnp.dtype(member["dtype"])
                if dtype.hasobject:
                    raise StoreError(f"{path}: {member['name']} holds objects.")
                expected = dtype.itemsize * math.prod(member["shape"])
                if not expected <= info.file_size <= expected + 1024:
                    raise StoreError(f"{path}: {member['name']} has the wrong size.")
                raw = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)
                array = np.ascontiguousarray(raw).view(dtype).reshape(member["shape"])
                digest.update(member["name"].encode() + array.tobytes())
                arrays[member["name"]] = array
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}.") from None
    # RuntimeError and NotImplementedError: zipfile takes damage for encryption or a new version.
    except (
        OSError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        EOFError,
    ) as error:
        raise StoreError(f"{path} is damaged or no file of this package: {error}") from None
    if digest.hexdigest() != manifest["sha256"]:
        raise StoreError(f"{path} is damaged: its checksum does not match.")
    return arrays


def _leaves(model: PyTree) -> dict[str, np.ndarray]:
    paths, _ = jax.tree.flatten_with_path(model)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths if eqx.is_array(leaf)
    }


def _pieces_to_arrays(pieces: PieceHistory) -> dict[str, np.ndarray]:
    return {f"pieces_{name}": np.asarray(v) for name, v in dataclasses.asdict(pieces).items()}


def _pieces_from_arrays(arrays: dict[str, np.ndarray]) -> PieceHistory:
    names = [field.name for field in dataclasses.fields(PieceHistory)]
    found = {name: arrays[f"pieces_{name}"] for name in names}
    return PieceHistory(**{**found, "rejected": int(found["rejected"])})


def _with_pieces(model: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """Give a model as many pieces as the saved one has."""

    def sized(path, leaf):
        array = arrays.get(jax.tree_util.keystr(path))
        if not eqx.is_array(leaf) or array is None or array.shape[1:] != leaf.shape[1:]:
            return leaf
        return jnp.zeros(array.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(sized, model)


def _filled(model: PyTree, arrays: dict[str, np.ndarray], folder: Path) -> PyTree:
    """Put saved arrays into a model of the same structure, or name the first leaf that differs."""
    remaining = dict(arrays)

    def fill(path, leaf):
        if not eqx.is_array(leaf):
            return leaf
        name = jax.tree_util.keystr(path)
        if name not in remaining:
            raise StoreError(f"{folder}: the problem's model has a leaf {name} that was not saved.")
        array = remaining.pop(name)
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise StoreError(
                f"{folder}: leaf {name} is {array.dtype}{list(array.shape)} in the file and "
                f"{leaf.dtype}{list(leaf.shape)} in the problem's model. "
                "Load it with the problem and settings it was saved with."
            )
        return jnp.asarray(array)

    filled = jax.tree_util.tree_map_with_path(fill, model)
    if remaining:
        raise StoreError(
            f"{folder}: the file has a leaf {next(iter(remaining))} that the problem's model lacks."
        )
    return filled


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise StoreError(f"{path} is too large.")
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}") from None
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged: it holds no JSON object.")
    return content


def _png(draw: "Callable[[], Figure]") -> tuple[bytes, str]:
    """Draw a figure, or a page with the reason why it could not be drawn and the reason itself."""
    from matplotlib.figure import Figure

    try:
        with np.errstate(over="ignore"):  # the axes of a run that diverged
            return _rendered(draw()), ""
    except Exception as error:  # noqa: BLE001  (whatever it is, it must not cost hours of training)
        reason = f"{type(error).__name__}: {error}"
        page = Figure(figsize=(6, 3))
        page.text(0.5, 0.5, textwrap.fill(reason, 60), ha="center", va="center", parse_math=False)
        return _rendered(page), reason


def _rendered(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # No date and no version inside: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
