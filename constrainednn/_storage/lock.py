"""Folder locks: only one process at a time writes to a folder."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from constrainednn._storage.files import parse_json, read_limited, refusal
from constrainednn.errors import RunWarning, StoreError

LOCK = "lock"
_MAX_LOCK = 4096


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder, so that no other process writes there.

    Yields a function that raises OSError once the lock file is gone or replaced, as after the
    folder was removed and created again.

    The kernel releases the lock of a process that died. On a file system without locks, the process
    id, host and start time in the file decide whether the holder is still running.

    Raises:
        StoreError: If another process holds the lock; the message names it.
    """
    file = path / LOCK
    try:
        handle = _lock(file)
    except OSError as error:
        raise refusal(path, error) from None

    def check() -> None:
        if not _is_at(file, handle):
            raise OSError(errno.ESTALE, "the folder now belongs to another run")

    try:
        yield check
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone, or belong to another run
            if _is_at(file, handle):
                file.unlink()
        os.close(handle)


def _lock(file: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            handle, made = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                handle, made = os.open(file, flags), False
            except FileNotFoundError:
                continue
        try:
            if _acquired(file, handle, made=made):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder ended and removed it after we opened it


def _acquired(file: Path, handle: int, *, made: bool) -> bool:
    """True if the lock is ours; False if the file was removed meanwhile: try again."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise StoreError(f"{file} is not a regular file with a single link; remove it.")
    taken = _kernel_lock(handle)
    holder = parse_holder(os.read(handle, _MAX_LOCK))
    elsewhere = holder and holder.get("host") != socket.gethostname()
    # Without kernel locks, whoever created the file holds it; an empty one is still being written.
    another = taken is None and not made and (not holder or _may_be_running(holder))
    if taken is False or elsewhere or another:
        hint = f" If it is gone, remove {file}." if elsewhere or taken is None else ""
        raise StoreError(f"{file.parent} is in use by {describe_holder(holder)}.{hint}")
    try:
        if not _is_at(file, handle):
            return False
    except FileNotFoundError:
        return False
    if holder:
        warnings.warn(
            f"{file.parent} was left locked by {describe_holder(holder)}, which is gone: its lock "
            "is taken over.",
            RunWarning,
            stacklevel=5,
        )
    if taken is None and not made:  # several may have found it stale: whoever creates the next wins
        _remove_stale(file, handle)
        return False
    return True


def _remove_stale(file: Path, handle: int) -> None:
    """Remove the stale lock, but not a new one that another process created in its place."""
    guard = file.with_name(f".{LOCK}.0.constrainednn.tmp")  # one process at a time may remove
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    except FileExistsError:
        raise StoreError(
            f"{file.parent} is being taken over by another process. If it is gone, remove {guard}."
        ) from None
    try:
        with contextlib.suppress(FileNotFoundError):
            if _is_at(file, handle):
                file.unlink()
    finally:
        guard.unlink()


def _is_at(file: Path, handle: int) -> bool:
    return os.path.samestat(os.stat(file), os.fstat(handle))


def _kernel_lock(handle: int) -> bool | None:
    """True if the lock is ours, False if it is another's, None where there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _start_of(os.getpid()),
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _start_of(pid: int) -> str:
    """Tells a process from a later one with the same id; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:  # without /proc the id alone must do
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        pass
    return "unknown"


def parse_holder(content: bytes) -> dict[str, Any]:
    """The holder recorded in a lock file; empty if there is none."""
    try:
        found = parse_json(content, LOCK)
    except StoreError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _may_be_running(holder: dict[str, Any]) -> bool:
    """False if the process ran on this machine and has ended; other hosts cannot be checked."""
    if holder.get("host") != socket.gethostname():
        return True
    return _start_of(holder["pid"]) == holder.get("started")


def holder_of(path: Path) -> dict[str, Any]:
    """The process that holds the lock of a folder; empty if none does, or it has ended."""
    try:
        holder = parse_holder(read_limited(path / LOCK, _MAX_LOCK))
    except StoreError:
        return {}
    return holder if holder and _may_be_running(holder) else {}


def describe_holder(holder: dict[str, Any]) -> str:
    """A process in words."""
    if not holder.get("pid"):
        return "another process"
    return (
        f"process {holder['pid']} on {holder.get('host')!s:.100} since {holder.get('since')!s:.40}"
    )
