"""Where data of an equation in space may lie."""

from collections.abc import Sequence

import numpy as np

from constrainednn._common.messages import shown
from constrainednn._pde.stationary.region import Region
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.finite import Data
from constrainednn.errors import ProblemError

# Places measured on a boundary lie on it within this share of the size of the region.
_BESIDE = 1e-6


def refuse_beyond(observed: Sequence[Constraint], region: Region) -> None:
    """Refuse places of pairs (place, values) outside of a region that cuts its elements.

    A polynomial on an element that is cut has values beyond the boundary, which mean nothing. Where
    elements end with the region the model itself is NaN beyond.

    Raises:
        ProblemError: Naming the first of them.
    """
    if region.curved is None:
        return
    low, high = region.curved.ends
    for constraint in observed:
        assert isinstance(constraint.over, Data)
        rows = constraint.over.rows
        places = np.asarray(rows[0] if isinstance(rows, tuple) else rows, float)
        if places.ndim != 2 or places.shape[1] != region.dim:
            continue
        beyond = region.curved.shape.distance(places) > _BESIDE * (high - low).max()
        if beyond.any():
            raise ProblemError(
                f"constraint {constraint.name!r}: {int(beyond.sum())} of {len(places)} places of "
                f"its data lie outside of over=, the first at {shown(places[beyond][0].tolist())}."
            )
