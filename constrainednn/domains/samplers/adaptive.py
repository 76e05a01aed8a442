"""Points drawn where the residual is large."""

import jax
import numpy as np
from jaxtyping import Array, Key

from constrainednn._common.arguments import as_real
from constrainednn._common.random_keys import numpy_generator
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import AbstractSampler, Cube, Draw, Shares
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import BadValueError

# Points that `Adaptive` chooses one of.
CANDIDATES = 16


class Adaptive(AbstractSampler):
    """Independent draws; after a redraw more of them where the residual is large.

    With `redraw=k` in `solve` the new points are chosen among 16 times as many candidates, with a
    density, relative to the measure, of (1 - share) + share |r|^2 / mean |r|^2 at the parameters of
    that moment. Their weights are the inverse of it, so that the training loss still estimates the
    mean under the measure.

    Args:
        share: Share of the density that follows the residual, in (0, 1).

    Source:
        Wu, Zhu, Tan, Kartha and Lu, Comput. Methods Appl. Mech. Engrg. 403 (2023) 115671 (RAD, with
        k = 2); the weights are ours.
    """

    share: float

    def __init__(self, share: float = 0.5):
        self.share = as_real(share, "share of Adaptive")
        if not 0 < self.share < 1:
            raise BadValueError(f"share of Adaptive must be in (0, 1), got {self.share:g}.")

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` independent cube points of equal weight: there is no residual yet."""
        return Independent().fill(domain, n, key=key)

    @property
    def fills_cube(self) -> bool:
        """False."""
        return False

    def choose(self, candidates: "Draw", squares: Shares, *, key: Key[Array, ""]) -> "Draw":
        """Choose one of 16 candidates by their |r|^2, systematically."""
        assert candidates.cube is not None
        n = len(candidates) // CANDIDATES
        mean = squares.mean()
        even = not (np.isfinite(mean) and mean > 0)
        relative = np.ones(len(squares)) if even else squares / mean
        density = (1 - self.share) + self.share * relative
        ends = np.cumsum(density)
        at = (numpy_generator(key).random() + np.arange(n)) * ends[-1] / n
        index = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
        weights = 1 / density[index]
        weights = (weights / weights.sum()).astype(candidates.weights.dtype)
        points = jax.tree.map(lambda leaf: leaf[index], candidates.points)
        return Draw(points, weights, candidates.cube[index])
