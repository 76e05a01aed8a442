"""The lock of a folder: one process at a time writes there."""

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
    """Hold the lock of a folder: no other process may write there.

    Gives a function that raises OSError once the lock is no longer in its place, as in a folder
    that was removed and made anew.

    The kernel gives the lock of a process that died to the next one. Where a file system has no
    such locks, the process id, host and start time in the file decide.

    Raises:
        StoreError: If another process holds it, naming it.
    """
    file = path / LOCK
    try:
        handle = _lock(file)
    except OSError as error:
        raise refusal(path, error) from None

    def check() -> None:
        if not _is_at(file, handle):
            raise OSError(errno.ESTALE, "the folder belongs to another run by now")

    try:
        yield check
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone, or be another's by now
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
            if _is_taken(file, handle, made=made):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed it between our two looks


def _is_taken(file: Path, handle: int, *, made: bool) -> bool:
    """True once the lock is ours; False if it was removed meanwhile, so that another try is due."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise StoreError(f"{file} is no file of its own; remove it.")
    taken = _kernel_lock(handle)
    holder = parse_holder(os.read(handle, _MAX_LOCK))
    elsewhere = holder and holder.get("host") != socket.gethostname()
    # Without locks of the kernel, who made the file has it. One that says nothing is being made.
    another = taken is None and not made and (not holder or _may_live(holder))
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
    if taken is None and not made:  # of those who found it only one may go on: who makes the next
        _remove_stale(file, handle)
        return False
    return True


def _remove_stale(file: Path, handle: int) -> None:
    """Remove a lock that was looked at, and no later one that another process made in its place."""
    guard = file.with_name(f".{LOCK}.0.constrainednn.tmp")  # one at a time looks and removes
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
    """What distinguishes a process from a later one of the same number; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:  # without /proc its number must do
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        pass
    return "unknown"


def parse_holder(content: bytes) -> dict[str, Any]:
    """What a lock file says of its holder; empty if it says nothing."""
    try:
        found = parse_json(content, LOCK)
    except StoreError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _may_live(holder: dict[str, Any]) -> bool:
    """False for a process of this machine that is gone. What another machine runs is not known."""
    if holder.get("host") != socket.gethostname():
        return True
    return _start_of(holder["pid"]) == holder.get("started")


def holder_of(path: Path) -> dict[str, Any]:
    """The process that holds the lock of a folder, if it may live; else empty."""
    try:
        holder = parse_holder(read_limited(path / LOCK, _MAX_LOCK))
    except StoreError:
        return {}
    return holder if holder and _may_live(holder) else {}


def describe_holder(holder: dict[str, Any]) -> str:
    """A process in words."""
    if not holder.get("pid"):
        return "another process"
    return (
        f"process {holder['pid']} on {holder.get('host')!s:.100} since {holder.get('since')!s:.40}"
    )
