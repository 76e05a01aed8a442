"""What decides a run besides the problem, written down."""

import importlib.metadata
import os
import sys

import jax

from constrainednn._solution import Settings

_PACKAGES = ("constrainednn", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


def record_settings(
    method: str,
    *,
    steps: int,
    seed: int,
    tolerance: float,
    heldout: int,
    monitor: int,
    redraw: int | None,
    dtype: str,
) -> Settings:
    """Settings of a run together with the machine and the versions it runs on."""
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = sys.version.split()[0]
    return Settings(
        method=method,
        steps=steps,
        seed=seed,
        tolerance=tolerance,
        heldout=heldout,
        monitor=monitor,
        redraw=redraw,
        dtype=dtype,
        device=f"{device.platform}: {device.device_kind}",
        threads=_usable_cores(),
        versions=versions,
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
