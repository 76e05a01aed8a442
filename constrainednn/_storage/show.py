"""The state of a run from its files alone. Runs none of its code, also while it is running."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from constrainednn._storage.archive import read_arrays, unseal
from constrainednn._storage.lock import describe_holder, holder_of
from constrainednn._storage.run_folder import HISTORY, RECORD, REPORT, checkpoints, read_record
from constrainednn.errors import StoreError

_TAIL = 1 << 16
# After these there is nothing to continue.
_ENDED = ("converged", "blow_up")


def show(path: Path) -> str:
    """Say what a run was started with, how far it is, and how to continue it.

    Raises:
        StoreError: If the folder holds neither a run nor a saved solution.
    """
    if not path.is_dir():
        raise StoreError(f"there is no folder {path}.")
    if not (path / RECORD).exists() and not (path / REPORT).exists():
        raise StoreError(f"{path} holds no run: it has neither {RECORD} nor {REPORT}.")
    lines, faults, running = [], [], holder_of(path)
    record = _tried(lambda: read_record(path), faults) if (path / RECORD).exists() else {}
    report = _tried(lambda: unseal(path / REPORT), faults) if (path / REPORT).exists() else {}
    lines += _started(record or report)
    reported = report["steps"] if isinstance(report.get("steps"), int) else 0
    steps = [reported]
    for file in checkpoints(path):
        found: list[str] = []
        facts = _tried(lambda file=file: read_arrays(file)[1], found)
        if file.exists():  # a run under way removes the older ones
            faults += found
        if facts:
            lines.append(f"checkpoint  {file.name}, step {facts.get('step')}")
            steps.append(int(file.stem.partition("-")[2]))
    if last := _last_line(path / HISTORY, faults):
        lines.append(f"last seen   step {last.get('step')}: {_seen(last)}")
    if report:
        verdict = report.get("verdict")
        if isinstance(verdict, dict):
            lines.append(f"verdict     {verdict.get('word')}: {verdict.get('reason')}")
        lines.append(f"result      {report.get('status')}: {report.get('reason')}")
        lines += _gap(report.get("gap"))
    if running:
        lines.append(f"running     {describe_holder(running)}")
    unsaved = not report or max(steps) > reported
    if record and not running and unsaved:
        lines.append("stopped     before it could save its results")
    lines += [f"fault       {fault}" for fault in faults]
    if record and not running and (unsaved or report.get("status") not in _ENDED):
        command = f"constrainednn resume {shlex.quote(str(path))}"
        if not record.get("source"):
            command = f"cx.resume({str(path)!r}, problem)"
        elif not unsaved and report.get("status") == "max_steps":
            command += " --steps N"
        lines.append(f"continue    {command}")
    # One line each, whatever was written into the files.
    return "\n".join(" ".join(line.splitlines()) for line in lines)


def _tried(read: Any, faults: list[str]) -> dict[str, Any]:
    try:
        return read()
    except StoreError as error:
        faults.append(str(error))
        return {}


def _started(stated: dict[str, Any]) -> list[str]:
    """What the run was asked for."""
    source, settings = stated.get("source"), stated.get("settings")
    lines = []
    if isinstance(source, dict):
        keywords = source.get("settings")
        given = keywords.items() if isinstance(keywords, dict) else ()
        chosen = "".join(f" {key}={value}" for key, value in given)
        lines.append(f"problem     {source.get('path')}:{source.get('name')}{chosen}")
    elif stated:
        lines.append("problem     stated in Python")
    if isinstance(settings, dict):
        lines.append(f"method      {settings.get('method')}")
        names = ("steps", "seed", "tolerance", "redraw", "dtype", "device", "threads")
        unset = [name for name in ("tolerance", "redraw") if not settings.get(name)]
        names = [name for name in names if name not in unset]
        lines.append("settings    " + ", ".join(f"{name} {settings.get(name)}" for name in names))
        versions = settings.get("versions")
        if isinstance(versions, dict):
            known = ("constrainednn", "jax", "numpy", "python")
            lines.append(
                "versions    " + ", ".join(f"{name} {versions.get(name)}" for name in known)
            )
    return lines


def _seen(last: dict[str, Any]) -> str:
    """The numbers of a line of the history; of pieces there is one, no training loss."""
    words = {"train": "train loss", "monitor": "monitor loss"}
    if "train" not in last:
        words = {"monitor": "monitor residual"}
    return ", ".join(f"{word} {_digits(last.get(name))}" for name, word in words.items())


def _gap(gap: Any) -> list[str]:
    """Train and held-out RMS of each constraint."""
    rows = gap.get("constraints") if isinstance(gap, dict) else None
    lines = []
    for row in rows if isinstance(rows, list) else []:
        heldout = row.get("heldout_rms") if isinstance(row, dict) else None
        if isinstance(heldout, dict):
            value, low, high = (_digits(heldout.get(key)) for key in ("value", "low", "high"))
            lines.append(
                f"gap         {row.get('name')}: train RMS {_digits(row.get('train_rms'))}, "
                f"held-out RMS {value} [{low}, {high}] on {heldout.get('n')} points"
            )
    return lines


def _digits(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else value or "-"


def _last_line(path: Path, faults: list[str]) -> dict[str, Any]:
    """The last whole line of a history; the run may be writing the next one."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    with os.fdopen(handle, "rb") as stream:
        try:
            stream.seek(max(0, os.fstat(handle).st_size - _TAIL))
            tail = stream.read(_TAIL)
        except OSError as error:
            faults.append(f"cannot read {path}: {error.strerror}.")
            return {}
    for line in reversed(tail.split(b"\n")[:-1]):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}
