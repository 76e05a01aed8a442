"""Least squares of data at the estimate: what intervals are derived from."""

import dataclasses

import numpy as np
from jaxtyping import Float

from constrainednn._problem.unknowns import Unknown, entry_names
from constrainednn.results.estimates.profile import Rows


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
    """Rows of data and their derivatives, at the estimate.

    Attributes:
        r: Rows, each times the root of its weight.
        S: Their derivatives by z.
        z: The unknowns in the scale in which they are trained, followed by further numbers that
            were fitted with them.
        unknowns: How numbers follow from z, by name, as they were before the fit.
        counts: How much each row counts in the fit.
        rows: Rows and derivatives at another z. Without it the intervals are t intervals by the
            slope alone, and at a bound there are none.
    """

    r: Float[np.ndarray, " N"]
    S: Float[np.ndarray, "N columns"]
    z: Float[np.ndarray, " columns"]
    unknowns: dict[str, Unknown]
    counts: Float[np.ndarray, " N"]
    rows: Rows | None = None

    @property
    def names(self) -> list[str]:
        """A name for each entry of an unknown."""
        return entry_names(self.unknowns)

    @property
    def own(self) -> int:
        """How many entries of z are those of the unknowns."""
        return len(self.names)

    @property
    def weighted(self) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N columns"]]:
        """Rows and derivatives times the root of how much they count."""
        root = np.sqrt(self.counts)
        return root * self.r, root[:, None] * self.S
