"""Every file write of the package goes through here; needs nothing but the file system.

A file appears under its final name only when it is complete: it is written under a temporary name
in the same folder, flushed to the disk and renamed. Nothing is deleted that was not written here.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


class StoreError(Exception):
    """A file could not be written or is not what it should be."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be used, before hours are spent. Leaves nothing behind.

    Raises:
        StoreError: If the folder holds something, or cannot be made or written.
    """
    try:
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; results need a folder. Give a new name.")
        if path.is_dir() and any(path.iterdir()):
            raise StoreError(f"{path} is not empty. Nothing is overwritten: give a new folder.")
        nearest = path.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        handle, probe = tempfile.mkstemp(dir=nearest)
        os.close(handle)
        os.unlink(probe)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from None


def write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write all of the files into a new or empty folder, or none of them.

    Raises:
        StoreError: If the folder holds something, or cannot be made or written.
    """
    check_folder(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    written = []
    try:
        path.mkdir(parents=True, exist_ok=True)
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
            raise _refusal(path, error) from None
        raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a text file to a new place.

    Raises:
        StoreError: If the target exists or cannot be written.
    """
    if target.exists():
        raise StoreError(f"{target} exists. Nothing is overwritten: give a new name.")
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise _refusal(target, error) from None


def _refusal(path: Path, error: Exception) -> StoreError:
    reason = getattr(error, "strerror", None) or error
    return StoreError(f"cannot write to {path}: {reason}. Give a place that can be written.")
