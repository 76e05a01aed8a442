"""Folders that results are written to: new or empty ones, never another user's."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from constrainednn._storage.files import is_temporary, put, refusal, write_atomically
from constrainednn._storage.lock import LOCK, holder_of
from constrainednn.errors import StoreError


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be used, before hours are spent. Leaves nothing behind.

    Raises:
        StoreError: If the folder holds something, or cannot be made or written.
    """
    try:
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; results need a folder. Give a new name.")
        if path.is_dir():
            refuse_full(path, locked=not holder_of(path))
        nearest = path.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        _refuse_of_another(path, nearest)
        number = f"{os.getpid()}{threading.get_ident()}"  # threads may start together
        probe = nearest / f".probe.{number}.constrainednn.tmp"
        try:
            put(probe, os.O_CREAT, b"", flush=False)
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise refusal(path, error) from None


def refuse_full(path: Path, *, locked: bool) -> None:
    """Refuse a folder that holds anything but what a start that was killed may leave behind.

    Args:
        path: The folder.
        locked: True if a lock in it is nobody else's.

    Raises:
        StoreError: If it holds something.
    """
    left = {LOCK} if locked else set()
    if any(item.name not in left and not is_temporary(item.name) for item in path.iterdir()):
        if (path / "run.json").exists():
            raise StoreError(
                f"{path} holds a run. Nothing is overwritten: continue it with "
                f"`constrainednn resume {path}`, or give a new folder."
            )
        raise StoreError(f"{path} is not empty. Nothing is overwritten: give a new folder.")


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; private where everybody may write. Returns the new ones."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(made):
        folder.mkdir(0o700 if _is_shared(folder.parent) else 0o777)
    return made


def _is_shared(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IWOTH)


def _refuse_of_another(path: Path, nearest: Path) -> None:
    """In a folder where everybody may write, one that somebody else prepared is a trap."""
    found = nearest.stat()
    if nearest == path.absolute() and _is_shared(nearest.parent) and found.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user. Give a new folder.")


def write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write all of the files into a new or empty folder, or none of them.

    Raises:
        StoreError: If the folder holds something, or cannot be made or written.
    """
    check_folder(path)
    made, written = [], []
    try:
        made = make_folder(path)
        for name, content in files:
            written.append(path / name)
            write_atomically(path / name, content)
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
        for folder in made:  # the innermost first
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise refusal(path, error) from None
        raise


def sweep(path: Path) -> None:
    """Remove the temporary files that a killed process left behind. Needs the lock."""
    for file in path.iterdir():
        if is_temporary(file.name):
            file.unlink(missing_ok=True)
