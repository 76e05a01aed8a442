"""Whether losses were still falling when the limit of steps was reached."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Of fewer steps nothing is said: the first ones are typical of nothing.
_LEAST = 50
# A loss that falls more slowly than this power of the steps has levelled off: a decade halves it.
_LEVEL = -0.3
# The monitor loss has parted from the training loss where it is so many times as large.
_PARTED = 4.0


def why_max_steps(
    limit: int, losses: Float[np.ndarray, " steps"], monitor: Sequence[tuple[int, float]]
) -> str:
    """What the last decade of steps says of more of them, more points, or a wider model.

    Args:
        limit: Number of steps taken.
        losses: Training loss before each step.
        monitor: Pairs (step, monitor loss).
    """
    reason = f"the limit of {limit} steps is reached"
    if limit < _LEAST:
        return reason
    steps = np.arange(1, len(losses) + 1)
    train = _power(steps, losses, limit)
    watched = np.array(monitor, float).reshape(-1, 2)
    fresh = _power(watched[:, 0], watched[:, 1], limit)
    if train is None:
        return reason
    if fresh is not None and watched[-1, 1] > _PARTED * losses[-1]:
        behind = "no longer falls" if fresh > _LEVEL else "stays behind"
        return (
            f"{reason}: the monitor loss {behind}, {watched[-1, 1]:.1e} against {losses[-1]:.1e} "
            "on the training points. More points, points= or redraw=, help more than steps"
        )
    if train > _LEVEL:
        return (
            f"{reason}: the training loss has levelled off. Not more steps but a wider model, "
            "another start (seed=) or another method may help"
        )
    slower = train if fresh is None else max(train, fresh)
    return (
        f"{reason}: the losses still fall, over the last decade of steps as steps^{slower:.1f}. "
        f"At this rate ten times the steps divide the root of the loss by {10 ** (-slower / 2):.2g}"
    )


def _power(
    steps: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"], limit: int
) -> float | None:
    """The power of the steps that a loss follows in the last decade; None where it has none."""
    fit = (steps >= limit / 10) & (losses > 0) & np.isfinite(losses)
    if fit.sum() < 3:
        return None
    # Evenly in the logarithm of the steps, as a figure shows it.
    x, y = np.log10(steps[fit]), np.log10(losses[fit])
    density = 1 / steps[fit]
    x0, y0 = np.average(x, weights=density), np.average(y, weights=density)
    return float((density * (x - x0)) @ (y - y0) / ((density * (x - x0)) @ (x - x0)))
