"""JAX prepared before it is first imported."""

import os
import subprocess
import sys
import time

from constrainednn.cli.terminal import ENVIRONMENT, fail

STARTED = time.perf_counter()


def prepare_jax() -> None:
    """Switch float64 on unless the user decided, and check what jax would die of."""
    flags = os.environ.get("XLA_FLAGS")
    if flags:  # XLA ends the process where it does not know a flag: let it end another one
        trial = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], capture_output=True, text=True
        )
        if trial.returncode < 0 or "XLA_FLAGS" in trial.stderr:
            reason = (trial.stderr.strip().splitlines() or ["it ends the process"])[-1]
            fail(f"environment variable XLA_FLAGS={flags!r}: {reason}", ENVIRONMENT)
    for name in ("JAX_ENABLE_X64", "JAX_DISABLE_JIT", "JAX_DEBUG_NANS"):
        value = os.environ.get(name)
        if value is not None and value.lower() not in (
            "0",
            "1",
            "true",
            "false",
            "yes",
            "no",
            "on",
            "off",
            "t",
            "f",
            "y",
            "n",
        ):
            fail(f"environment variable {name}={value!r}: write 1 or 0.", ENVIRONMENT)
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    # Factorisations go through the BLAS of SciPy, which reads this when it is first imported. Its
    # threads wait for each other in busy loops: on two cores that others used, too, solves of any
    # size (100 x 322 to 1000 x 1502) took 4 to 60 times as long with the default.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # without its plugin a platform is asserted
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).splitlines() or ["it is not installed here"])[0]
        fail(
            f"jax finds no device for JAX_PLATFORMS={platforms!r}: {reason}. "
            "Unset it, or write JAX_PLATFORMS=cpu.",
            ENVIRONMENT,
        )
