"""The folder of a study: a record of what it is, and a line for each run."""

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

from constrainednn._common.paths import in_gallery
from constrainednn._storage.archive import seal, unseal
from constrainednn._storage.files import (
    append_line,
    parse_json,
    read_limited,
    refusal,
    write_atomically,
)
from constrainednn._storage.folders import check_folder, make_folder, sweep
from constrainednn._storage.lock import locked
from constrainednn.errors import RunWarning, StoreError
from constrainednn.studies.tasks import Origin

Row = dict[str, Any]
# What identifies a run: every setting, whether it is varied or not, and its seed.
Key = tuple[str, int]

RECORD, ROWS = "study.json", "runs.jsonl"
_MOST_BYTES = 1 << 31
# A problem whose text is longer is named only.
_MOST_TEXT = 60_000


def text_of(given: dict[str, Any]) -> str:
    """Settings as text: 1, 1.0 and True are different ones."""
    return json.dumps(given, sort_keys=True)


class StudyFolder:
    """A folder that one study writes to, while it is entered.

    Attributes:
        path: The folder.
        rows: What was there before.
    """

    def __init__(self, path: Path, origin: Origin):
        self.path = path
        self.rows: dict[Key, Row] = {}
        self.record = {
            "problem": origin.digest or None,
            "name": origin.name,
            "dtype": origin.dtype,
            "constrainednn": origin.version,
        }
        self._source = source_of(origin)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "StudyFolder":
        if not (self.path / RECORD).exists():
            check_folder(self.path)
        try:
            make_folder(self.path)
            self._check_lock = self._open.enter_context(locked(self.path))
            sweep(self.path)
            if (self.path / RECORD).exists():
                self._compare(unseal(self.path / RECORD))
            else:
                record = self.record | {"source": self._source}
                write_atomically(self.path / RECORD, seal(record))
            self.rows = read_rows(self.path)
        except OSError as error:
            self._open.close()
            raise refusal(self.path, error) from None
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _compare(self, before: dict[str, Any]) -> None:
        for name, now in self.record.items():
            if before.get(name) != now:
                was, more = before.get(name), ""
                if name == "problem":
                    was, now = (f"{text:.12}" if text else "none" for text in (was, now))
                    more = " (SHA-256 of the file: an edit is another problem, be it in a comment)"
                raise StoreError(
                    f"{self.path} holds another study: its {name} was {was} and is {now} "
                    f"now{more}. Give a new folder."
                )

    def append(self, row: Row) -> None:
        """Add a row.

        Raises:
            StoreError: If it cannot be written; the rows before it are there.
        """
        try:
            self._check_lock()
            append_line(self.path / ROWS, json.dumps(row, allow_nan=False))
        except OSError as error:
            raise refusal(self.path / ROWS, error) from None


def source_of(origin: Origin) -> dict[str, str]:
    """File, name and text of the problem of a study, for its page; the name alone without a file.

    The file is read when the study starts, as its runs read it.
    """
    found = {"name": origin.name}
    if not origin.path:
        return found
    path = Path(origin.path)
    found |= {"file": path.name, "gallery": "yes" if in_gallery(path) else ""}
    with contextlib.suppress(StoreError):  # of a file that is too long, or gone
        found["text"] = read_limited(path, _MOST_TEXT).decode(errors="replace")
    return found


def read_rows(folder: Path) -> dict[Key, Row]:
    """The rows of a study by what tells them apart; of two of the same the first counts.

    A line that a fault cut short is left out, with a warning: its run is done again.

    Raises:
        StoreError: If the table cannot be read.
    """
    file = folder / ROWS
    if not file.exists():
        return {}
    rows, torn = {}, 0
    for line in read_limited(file, _MOST_BYTES).split(b"\n"):
        if not line:
            continue
        try:
            row = parse_json(line, str(file), once=False)
            rows.setdefault((text_of(row["given"]), row["seed"]), row)
        except (StoreError, TypeError, KeyError):
            torn += 1
    if torn:
        warnings.warn(
            f"{file}: {torn} lines are cut short or damaged and left out; their runs are done "
            "again.",
            RunWarning,
            stacklevel=4,
        )
    return rows
