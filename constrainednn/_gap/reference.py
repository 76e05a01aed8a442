"""How far a model is from a known solution."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._problem.problem import Problem
from constrainednn.errors import ProblemError
from constrainednn.targets.image import OTHER_USE, model_inputs

# A reference of at most so many rounding errors of its size elsewhere is zero.
_ZERO = 1e3


class ReferenceErrors(NamedTuple):
    """Errors against the reference on held-out points.

    Attributes:
        relative: Relative L2 error; None where the reference is zero.
        absolute: Root mean square of the difference.
    """

    relative: float | None
    absolute: float


def _values(u: Callable[[PyTree], PyTree], points: PyTree) -> np.ndarray | None:
    """Values at points; None if it does not take them: those of an edge may lack coordinates."""
    try:
        return in_blocks(eqx.Partial(flat_value, u), model_inputs(points))
    except OTHER_USE:
        return None


def reference_errors(
    problem: Problem, model: PyTree, points: PyTree, everywhere: Sequence[PyTree]
) -> ReferenceErrors | None:
    """Compare with the reference; None without one, or where the points are none of the model's.

    Args:
        problem: What was solved.
        model: The model.
        points: Held-out points of one constraint.
        everywhere: Those of all constraints: the size of the reference there tells whether it is
            zero here, or only rounding.

    Raises:
        ProblemError: If the values have different numbers of entries.
    """
    if problem.reference is None or (found := _values(model, points)) is None:
        return None
    known = in_blocks(eqx.Partial(flat_value, problem.reference), model_inputs(points))
    if found.shape != known.shape:
        raise ProblemError(
            f"reference: its value has {known.shape[1]} entries, the model's {found.shape[1]}."
        )
    known = known.astype(found.dtype)  # a reference may be whole numbers
    rms = lambda values: float(np.sqrt(np.mean(values**2)))  # noqa: E731
    absolute, here = rms(found - known), rms(known)
    others = (_values(problem.reference, item) for item in everywhere if item is not points)
    sizes = [rms(values.astype(found.dtype)) for values in others if values is not None]
    zero = here <= _ZERO * float(np.finfo(known.dtype).eps) * max([here, *sizes])
    return ReferenceErrors(None if zero else absolute / here, absolute)
