"""The folder of a run: its settings, its progress, and checkpoints to resume from.

Files: `run.json` (what it was started with, and its present limit of steps), `history.jsonl` (a
line for every look at the clock), `checkpoint-STEP.npz` (the last two), `lock` (while it runs), and
at the end those of a saved solution.
"""

import contextlib
import dataclasses
import json
import re
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from constrainednn._storage.archive import pack_arrays, read_arrays, seal, unseal
from constrainednn._storage.files import append_line, refusal, write_atomically
from constrainednn._storage.folders import check_folder, make_folder, refuse_full, sweep
from constrainednn._storage.lock import locked
from constrainednn.errors import RunWarning, StoreError, UnreadableError

RECORD, HISTORY, REPORT = "run.json", "history.jsonl", "report.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d{9,})\.npz")
_KEPT = 2
# Seconds between two checkpoints at least; saving takes at most this share of the time.
_EVERY, _SHARE = 2.0, 0.05


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state that a run can be resumed from.

    Attributes:
        step: Completed steps.
        arrays: Everything that a run carries, by name.
        facts: The rest, as plain data.
    """

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]

    def check(self, kinds: dict[str, type], sizes: dict[str, int]) -> None:
        """Refuse facts of other kinds and arrays of other sizes than a run would have saved.

        Raises:
            StoreError: Naming the first; the file may be whole and yet not be ours.
        """
        where = f"checkpoint-{self.step:09d}.npz is damaged"
        for name, kind in kinds.items():
            fact = self.facts.get(name)
            parts = fact if kind is list and isinstance(fact, list) else [fact]
            wanted = (int, float) if kind is float else int if kind is list else kind
            if (kind is list) != isinstance(fact, list) or not all(
                isinstance(part, wanted) and not isinstance(part, bool) for part in parts
            ):
                raise StoreError(f"{where}: its {name} is {fact!r:.50}.")
        for name, size in sizes.items():
            if name not in self.arrays or self.arrays[name].shape != (size,):
                raise StoreError(f"{where}: it has no {name} of {size} numbers.")


class RunFolder:
    """A folder that a run writes to, under a lock from `begin` or `reopen` until `close`.

    A write that fails costs a warning, never the run, which continues and tries again.
    """

    def __init__(self, path: Path):
        self.path = path
        self.failure, self.saved = "", -1  # the step of the last checkpoint that was saved
        self._check_lock: Callable[[], None] = lambda: None
        self._open, self._begun = contextlib.ExitStack(), False
        self._saved_at = time.monotonic()
        self._cost = 0.0

    def begin(self, record: dict[str, Any]) -> None:
        """Make the folder and write what the run is started with.

        Raises:
            StoreError: If the folder holds something, is in use, or cannot be written.
        """
        check_folder(self.path)
        made, record_file = [], self.path / RECORD
        try:
            made = make_folder(self.path)
            self._check_lock = self._open.enter_context(locked(self.path))
            refuse_full(self.path, locked=True)  # another may have begun and ended meanwhile
            self._open.callback(lambda: self._begun or record_file.unlink(missing_ok=True))
            write_atomically(record_file, seal(record))
            self._begun = True
        except BaseException as error:
            self.close()
            for folder in made:  # the innermost first
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError):
                raise refusal(self.path, error) from None
            raise

    def reopen(self) -> dict[str, Any]:
        """Lock the folder of an earlier run, clean up after it and return its record.

        Raises:
            StoreError: If it holds no run, or another process writes to it.
        """
        record = read_record(self.path)
        self._check_lock = self._open.enter_context(locked(self.path))
        sweep(self.path)
        return record

    def rewrite(self, record: dict[str, Any]) -> None:
        """Replace the record of the run.

        Raises:
            StoreError: If it cannot be written.
        """
        try:
            write_atomically(self.path / RECORD, seal(record))
        except OSError as error:
            raise refusal(self.path, error) from None

    @property
    def reported(self) -> bool:
        """True once a report was written: its reader has seen the held-out points."""
        return (self.path / REPORT).exists()

    def close(self) -> None:
        """Release the lock."""
        self._open.close()

    @property
    def due(self) -> bool:
        """True when the next checkpoint should be saved."""
        return time.monotonic() - self._saved_at >= max(_EVERY, self._cost / _SHARE)

    def save(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Save a checkpoint and remove all but the last two."""
        started = time.monotonic()
        try:
            self._check_lock()
            content = pack_arrays(arrays, {"step": step, **facts})
            write_atomically(self.path / f"checkpoint-{step:09d}.npz", content)
            for old in checkpoints(self.path)[_KEPT:]:
                old.unlink(missing_ok=True)
            self.failure, self.saved = "", step
        except (OSError, StoreError) as error:
            self._warn(f"the checkpoint of step {step} could not be saved", error)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to the history."""
        try:
            self._check_lock()
            append_line(self.path / HISTORY, json.dumps(entry, allow_nan=False))
        except OSError as error:
            self._warn("a line of the history could not be written", error)

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write results, one after another."""
        self.failure = ""
        try:
            for name, content in files:
                self._check_lock()
                write_atomically(self.path / name, content)
        except (OSError, StoreError) as error:
            self._warn("the results could not be written", error)

    def _warn(self, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        kept = [file.name for file in checkpoints(self.path)[:1]]
        kept_text = f"{kept[0]} is kept" if kept else "there is no checkpoint yet"
        if not self.failure:  # one warning as long as it lasts
            message = f"{self.path}: {what}: {reason}; {kept_text}."
            warnings.warn(message, RunWarning, stacklevel=2)
        self.failure = f"{what}: {reason}"

    def newest(self) -> Checkpoint | None:
        """The last checkpoint that is whole; damaged ones are set aside, and that is said."""
        for file in checkpoints(self.path):
            try:
                arrays, facts = read_arrays(file)
                step = facts["step"]
                if type(step) is not int or f"checkpoint-{step:09d}.npz" != file.name:
                    raise StoreError(f"{file} is damaged: it holds step {step!r:.50}.")
                return Checkpoint(step, arrays, facts)
            except UnreadableError:
                raise  # a newer version or another moment may read it
            except (StoreError, KeyError) as error:
                aside = file.with_name(f"{file.name}.damaged")
                file.replace(aside)
                warnings.warn(
                    f"{error} It is set aside as {aside.name}; the one before it is used, or "
                    "the run starts anew where there is none.",
                    RunWarning,
                    stacklevel=2,
                )
        return None


def checkpoints(path: Path) -> list[Path]:
    """Checkpoint files, the newest first: by their steps, whatever the clock says."""
    try:
        found = [(_CHECKPOINT.fullmatch(file.name), file) for file in path.iterdir()]
    except OSError:
        return []
    steps = [(int(match[1]), file) for match, file in found if match]
    return [file for _, file in sorted(steps, reverse=True)]


def read_record(path: Path) -> dict[str, Any]:
    """What a run was started with.

    Raises:
        StoreError: If the folder holds no run, or one of a newer version.
    """
    if not path.is_dir():
        raise StoreError(f"there is no folder {path}.")
    if not (path / RECORD).exists():
        raise StoreError(f"{path} holds no run: it has no {RECORD}.")
    return unseal(path / RECORD)
