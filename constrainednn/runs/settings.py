"""What decides a run besides the problem, written down."""

import functools
import importlib.metadata
import os
import sys

import jax

import constrainednn
from constrainednn._common.memory import usable_cores
from constrainednn._problem.problem import Source
from constrainednn.runs.history import Settings

# By name: the rest of an environment is nobody's business, and may hold secrets.
_VARIABLES = (
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DISABLE_JIT",
    "JAX_NUMPY_RANK_PROMOTION",
    "XLA_FLAGS",
    "NPROC",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
_BELOW = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


def record_settings(
    source: Source | None,
    *,
    method: str,
    steps: int,
    seed: int,
    tolerance: float,
    heldout: int,
    monitor: int,
    redraw: int | None,
    early_stopping: bool,
    dtype: str,
) -> Settings:
    """Settings of a run together with the machine and the versions it runs on."""
    device = jax.devices()[0]
    # Our own from the code that runs: a source tree on the path is not what may be installed.
    versions = {"constrainednn": constrainednn.__version__}
    versions |= _versions_below()
    versions["python"] = sys.version.split()[0]
    return Settings(
        method=method,
        steps=steps,
        seed=seed,
        tolerance=tolerance,
        heldout=heldout,
        monitor=monitor,
        redraw=redraw,
        early_stopping=early_stopping,
        dtype=dtype,
        device=f"{device.platform}: {device.device_kind}",
        threads=usable_cores(),
        versions=versions,
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        problem="" if source is None else source.digest,
    )


@functools.cache
def _versions_below() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _BELOW}
