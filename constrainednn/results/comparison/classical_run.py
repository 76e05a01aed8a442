"""What a classical solver found and how long it took."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn.models.pieces import Pieces

# Uniform points that solutions are compared on, together with the steps of the classical solver.
UNIFORM = 2000


class ClassicalRun(NamedTuple):
    """A classical solver on the problem of a solution; fields as in `Comparison`."""

    difference: float
    solver: str
    status: str
    evaluations: int
    field: str
    seconds: float
    reached: float


class Timed(NamedTuple):
    """One way to call the classical solver, what it found and how long that took."""

    field: str
    arguments: dict[str, Any]
    found: Any
    seconds: float


def fastest(solver: Callable, ways: dict[str, dict[str, Any]]) -> Timed:
    """Call the solver with each set of arguments; the call that took the least time."""
    runs = []
    for field, arguments in ways.items():
        began = time.perf_counter()
        found = solver(**arguments)
        runs.append(Timed(field, arguments, found, time.perf_counter() - began))
    return min(runs, key=lambda run: run.seconds)


def difference(
    model: Pieces, t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n d"]
) -> float:
    """The largest over components of the relative L2 difference from the classical values."""
    ours = in_blocks(eqx.Partial(flat_value, model), t.astype(model.head.dtype))
    norm = np.linalg.norm(values, axis=0)
    return float(np.max(np.linalg.norm(ours - values, axis=0) / np.where(norm > 0, norm, 1.0)))
