"""Every file write of the package goes through here; needs nothing but the file system.

A file appears under its final name only when it is complete: it is written under a temporary name
in the same folder, flushed to the disk, read back and renamed. Nothing is deleted that was not
written here.
"""

import contextlib
import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from constrainednn.errors import BadValueError, StoreError, UnreadableError

_TEMPORARY = re.compile(r"\..+\.\d+\.constrainednn\.tmp")


# The calls through which every byte reaches the disk. Tests make each of them fail in turn.
def _open(path: Path, flags: int) -> int:
    # Never through a link that somebody put in the place of a file.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _write(handle: int, content: bytes | memoryview) -> int:
    return os.write(handle, content)


def _fsync(handle: int) -> None:
    os.fsync(handle)


def _replace(source: Path, target: Path) -> None:
    os.replace(source, target)


def _close(handle: int) -> None:
    os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power loss."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.constrainednn.tmp"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a process with the same number that was killed
    try:
        put(temporary, os.O_CREAT | os.O_EXCL, content, flush=True)
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "what was written reads back as something else")
        _replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line of text; one that was cut short by a fault before it is ended first."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        torn = False
    else:
        with os.fdopen(handle, "rb"):
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise OSError(errno.EINVAL, "it is no file of its own")
            torn = found.st_size > 0 and os.pread(handle, 1, found.st_size - 1) != b"\n"
    put(path, os.O_CREAT | os.O_APPEND, f"{chr(10) * torn}{line}\n".encode(), flush=False)


def put(path: Path, flags: int, content: bytes, *, flush: bool) -> None:
    """Open a file, write all of `content` and close it."""
    handle = _open(path, os.O_WRONLY | flags)
    try:
        rest = memoryview(content)
        while rest:  # a write may take a part only
            rest = rest[_write(handle, rest) :]
        if flush:
            _fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(handle)
        raise
    _close(handle)  # some disks report here that they were full


def _flush_folder(path: Path) -> None:
    """Make a rename last: the folder that lists the name is a file of its own."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def is_temporary(name: str) -> bool:
    """True for the name of a file being written, or left behind by an interrupted write."""
    return bool(_TEMPORARY.fullmatch(name))


def read_limited(path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes, never through a link.

    Raises:
        StoreError: If it is missing, too large, a link, or no regular file such as a pipe.
    """
    try:
        # Opening a pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path} is a link; links are not followed.") from None
        raise UnreadableError(f"cannot read {path}: {error.strerror}.") from None
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is no regular file.")
        if found.st_size > most:
            raise StoreError(
                f"{path} is too large: {found.st_size} bytes, at most {most} are read."
            )
        try:
            content = stream.read(most + 1)
        except OSError as error:
            raise UnreadableError(f"cannot read {path}: {error.strerror}.") from None
    if len(content) > most:  # it grew in the meantime
        raise StoreError(f"{path} is too large: more than {most} bytes.")
    return content


def parse_json(text: str | bytes, what: str, *, once: bool = True) -> Any:
    """Read strict JSON: no repeated keys, no NaN, no depth that a parser cannot bear.

    Without `once` of keys that are repeated the last one counts, in half of the time.

    Raises:
        StoreError: Naming `what`.
    """

    def different(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise BadValueError("a key is repeated")
        return found

    def never(constant: str) -> None:
        raise BadValueError(f"{constant} is no JSON")

    try:
        hook = different if once else None
        return json.loads(text, object_pairs_hook=hook, parse_constant=never)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is damaged: {error}") from None


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
        raise refusal(target, error) from None


def refusal(path: Path, error: Exception) -> StoreError:
    """The error that says why a place cannot be written."""
    reason = getattr(error, "strerror", None) or error
    name = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}..."
    return StoreError(f"cannot write to {name}: {reason}. Give a place that can be written.")
