"""How much memory a solve will take, and how much there is."""

import contextlib
import ctypes
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from constrainednn.errors import BadValueError

# Where control groups are mounted.
_GROUPS = Path("/sys/fs/cgroup")

# How many maps a process may have, and those that this one has.
_MAP_LIMIT, _MAPS = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")

_calls = itertools.count(1)

# Bytes that are there on any machine: to ask it takes longer than many a draw of points.
_SMALL = 1 << 24


def available_memory() -> int | None:
    """Bytes that this process may still take on the default device; None if that is not known."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    found = [_of_machine(), *map(_of_group, _own_groups())]
    return min((size for size in found if size is not None), default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: value for name, _, value in (line.partition(":") for line in lines)}
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _own_groups() -> Iterator[Path]:
    """The control groups of this process, from its own to the root: each may have a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:  # of the second version
            group = _GROUPS / path.lstrip("/")
            yield from (part for part in (group, *group.parents) if part.is_relative_to(_GROUPS))


def _of_group(group: Path) -> int | None:
    try:  # "max" where there is no limit
        total, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return total - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def refuse_too_large(needed: int, what: str, hint: str) -> None:
    """Refuse what cannot fit, before anything is allocated.

    Raises:
        ValueError: With both numbers and what to lower.
    """
    if needed < _SMALL:
        return
    there = available_memory()
    if there is not None and needed > there:
        raise BadValueError(
            f"{what} needs about {needed / 1e9:.3g} GB of memory, and {max(there, 0) / 1e9:.3g} GB "
            f"are available. {hint}."
        )


def keep_below_map_limit(every: int = 1) -> None:
    """Forget compiled programs before Linux refuses this process further memory maps.

    Each compiled program has some. A residual that is made anew for each combination of a study, or
    in a loop, is compiled anew, too, and at the limit XLA ends the process without an exception.

    Args:
        every: Calls of which one looks: to count maps takes milliseconds.
    """
    if next(_calls) % every:
        return
    try:
        limit = int(_MAP_LIMIT.read_text())
        with _MAPS.open("rb") as lines:
            count = sum(1 for _ in lines)
    except (OSError, ValueError):  # another system, without such a limit
        return
    # Measured: programs with a quarter of all maps take about a gigabyte.
    if count > limit / 4:
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)


def equations_of(program: Any) -> Iterator[Any]:
    """The equations of a traced program and, once, of what is inside of them."""
    for equation in program.eqns:
        yield equation
        for part in equation.params.values():
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from equations_of(inner)


def bytes_computed(program: Any) -> int:
    """Bytes of all that a traced program computes, the inside of a loop counted once."""
    total = 0
    for equation in equations_of(program):
        for value in equation.outvars:
            size = getattr(value.aval, "size", 0)
            total += size * getattr(getattr(value.aval, "dtype", None), "itemsize", 0)
    return total


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
