"""Which elements are divided, from their residuals at monitor points.

Least squares spreads a residual that some elements cannot avoid over all others: each gets a part
that is small, smooth and of one sign, and that dividing it does not reduce. Collocation at half of
the nodes leaves the residual where it arises. A Newton step for collocation, from the least-squares
solution, therefore shows which elements are too long. How far it moves the values that elements
share estimates their error, since the two methods agree only where both resolve the solution.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Elements at most, and parts of one in a round.
MOST_ELEMENTS, MOST_PARTS = 2048, 4
# Elements with a residual below this share of the largest wait for the next round.
_SPOILT = 1e-2
# A residual above this says that an element is far too long, and not how much.
_UNRESOLVED = 1e-3
# Where more than this share of so many elements would be divided, the residual was spread.
_SPREAD, _FEW = 0.5, 16


class Round(NamedTuple):
    """What a round found on all elements.

    Attributes:
        error: Residual of each at monitor points, relative to the solution.
        noise: How much of it may be rounding.
        solved: Whether Newton's method ended at rounding.
        condition: Smallest over largest singular value of the linearised problem.
        off: Estimated error, where the residual is small enough everywhere; else NaN.
    """

    error: Float[np.ndarray, " N"]
    noise: Float[np.ndarray, " N"]
    solved: bool
    condition: float
    off: float

    @property
    def worst(self) -> int:
        """The element with the largest residual."""
        return int(np.argmax(np.where(np.isfinite(self.error), self.error, np.inf)))

    @property
    def rounded(self) -> bool:
        """Whether smaller elements would have no smaller residuals."""
        return bool((self.error <= 2 * self.noise).all())


def half_of(weights: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Weights of every other node from both ends: as many nodes as features, so collocation."""
    m = len(weights)
    chosen = np.arange(0, 2 * (m // 4), 2)
    mask = np.zeros(m)
    mask[chosen] = 1.0
    mask[-1 - chosen] = 1.0
    if mask.sum() < m // 2:  # an odd number of features
        mask[m // 2] = 1.0
    return 2 * weights * mask


def spread(parts: Int[np.ndarray, " N"]) -> bool:
    """Whether so many elements have too large a residual that it is hardly their own."""
    return len(parts) >= _FEW and float(np.mean(parts > 1)) > _SPREAD


def parts_of(found: Round) -> Int[np.ndarray, " N"]:
    """Into how many parts each element is divided; one where others have to come first.

    What is asked for does not enter, only when to end: so a looser tolerance ends on the way of a
    tighter one, with no more elements.
    """
    error = found.error
    # An unresolved layer spoils its neighbours too; they come right once it is resolved.
    own = np.isfinite(error) & (error > 2 * found.noise)
    limit = np.maximum(2 * found.noise, _SPOILT * np.max(error, initial=0, where=own))
    parts = np.where(error <= _UNRESOLVED, 2, MOST_PARTS)
    return np.where(error <= limit, 1, parts)
