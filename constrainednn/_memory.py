"""How much memory a solve will take, and how much there is."""

import os
from pathlib import Path

import jax

_CGROUPS = (  # limit and use, of the second and the first version
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Bytes that this process may still take on the default device; None if that is not known."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    found = [_of_machine(), *(_of_group(*files) for files in _CGROUPS)]
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


def _of_group(limit: str, used: str) -> int | None:
    try:  # "max" where there is no limit
        return int(Path(limit).read_text()) - int(Path(used).read_text())
    except (OSError, ValueError):
        return None


def refuse_too_large(needed: int, what: str, hint: str) -> None:
    """Refuse what cannot fit, before anything is allocated.

    Raises:
        ValueError: With both numbers and what to lower.
    """
    there = available_memory()
    if there is not None and needed > there:
        raise ValueError(
            f"{what} needs about {needed / 1e9:.3g} GB of memory, and {max(there, 0) / 1e9:.3g} GB "
            f"are available. {hint}."
        )
