"""Every file write of the package goes through here; needs nothing but the file system.

A file appears under its final name only when it is complete: it is written under a temporary name
in the same folder, flushed to the disk, read back and renamed. Nothing is deleted that was not
written here.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
import socket
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

LOCK = "lock"
_TEMPORARY = re.compile(r"\..+\.\d+\.constrainednn\.tmp")
_MAX_LOCK = 4096


class StoreError(Exception):
    """A file could not be written or is not what it should be."""


class UnreadableError(StoreError):
    """A file that is not damaged, as far as is known, and yet cannot be read here and now."""


class RunWarning(UserWarning):
    """Something went wrong with the files of a run; nothing that was saved before is lost."""


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
        _put(temporary, os.O_CREAT | os.O_EXCL, content, flush=True)
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
    _put(path, os.O_CREAT | os.O_APPEND, f"{chr(10) * torn}{line}\n".encode(), flush=False)


def _put(path: Path, flags: int, content: bytes, *, flush: bool) -> None:
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


def parse_json(text: str | bytes, what: str) -> Any:
    """Read strict JSON: no repeated keys, no NaN, no depth that a parser cannot bear.

    Raises:
        StoreError: Naming `what`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is repeated")
        return found

    def never(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=never)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is damaged: {error}") from None


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be used, before hours are spent. Leaves nothing behind.

    Raises:
        StoreError: If the folder holds something, or cannot be made or written.
    """
    try:
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; results need a folder. Give a new name.")
        # A lock and temporary files may be left of a start that was killed.
        left = {LOCK} if not holder_of(path) else set()
        if path.is_dir() and any(
            item.name not in left and not _TEMPORARY.fullmatch(item.name) for item in path.iterdir()
        ):
            if (path / "run.json").exists():
                raise StoreError(
                    f"{path} holds a run. Nothing is overwritten: go on with "
                    f"`constrainednn resume {path}`, or give a new folder."
                )
            raise StoreError(f"{path} is not empty. Nothing is overwritten: give a new folder.")
        nearest = path.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        _refuse_of_another(path, nearest)
        number = f"{os.getpid()}{threading.get_ident()}"  # threads may start together
        probe = nearest / f".probe.{number}.constrainednn.tmp"
        try:
            _put(probe, os.O_CREAT, b"", flush=False)
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise refusal(path, error) from None


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


def sweep(path: Path) -> None:
    """Remove the temporary files that a killed process left behind. Needs the lock."""
    for file in path.iterdir():
        if _TEMPORARY.fullmatch(file.name):
            file.unlink(missing_ok=True)


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
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(file, flags, 0o666)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise StoreError(f"{file} is no file of its own; remove it.")
            taken = _kernel_lock(handle)
            holder = parse_holder(os.read(handle, _MAX_LOCK))
            elsewhere = holder and holder.get("host") != socket.gethostname()
            if taken is False or elsewhere or (taken is None and holder and _may_live(holder)):
                hint = f" If it is gone, remove {file}." if elsewhere else ""
                raise StoreError(f"{file.parent} is in use by {describe_holder(holder)}.{hint}")
            with contextlib.suppress(FileNotFoundError):
                if _is_at(file, handle):
                    if holder:
                        warnings.warn(
                            f"{file.parent} was left locked by {describe_holder(holder)}, which is "
                            "gone: its lock is taken over.",
                            RunWarning,
                            stacklevel=4,
                        )
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed it between our two looks


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
    """What tells a process from a later one of the same number; empty if there is none such."""
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


def refusal(path: Path, error: Exception) -> StoreError:
    """The error that says why a place cannot be written."""
    reason = getattr(error, "strerror", None) or error
    name = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}..."
    return StoreError(f"cannot write to {name}: {reason}. Give a place that can be written.")
