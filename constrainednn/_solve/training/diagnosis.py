"""Why a run ended: memory, precision, steps that cannot be taken."""

import re
import warnings
from collections.abc import Sequence

import jax.numpy as jnp

from constrainednn._common.memory import refuse_too_large
from constrainednn._common.messages import shown
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.stages import Stage

SMALLER = (
    "Lower points= or the width, or take a first-order method: cx.Optax(optax.lbfgs()), "
    "--method lbfgs"
)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def raised_at(error: Exception, step: int) -> str:
    """One line of what a callback or a check inside of a residual raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Tracebacks are quoted, with advice around them: the last line that names an error says what.
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    line = named[-1] if named else (lines or [type(error).__name__])[0]
    return f"at step {step}: the residual raised {shown(line)}. The best parameters are kept"


def out_of_memory(error: Exception, step: int) -> str:
    detail = (str(error).splitlines() or [""])[0][:200]
    return f"out of memory after step {step}: {detail}. Lower points or width."


def refuse_step(needed: int, what: str) -> None:
    refuse_too_large(
        needed,
        f"A step of Levenberg-Marquardt {what}",
        SMALLER,
    )


def warn_of_float32(stages: Sequence[Stage], tolerance: float) -> None:
    if jnp.result_type(float) != jnp.float32:
        return
    if 0 < tolerance < float(jnp.finfo(jnp.float32).eps):
        warnings.warn(
            f"tolerance={tolerance:g} is below the rounding of float32, 1.2e-07: it may never be "
            "reached. Write jax.config.update('jax_enable_x64', True) before the first array.",
            stacklevel=7,
        )
    elif any(isinstance(stage.method, LevenbergMarquardt) for stage in stages):
        warnings.warn(
            "Levenberg-Marquardt in float32 stops near a relative residual of 1e-7. For float64 "
            "write jax.config.update('jax_enable_x64', True) before the first array.",
            stacklevel=7,
        )
