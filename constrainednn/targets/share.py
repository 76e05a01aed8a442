"""The share of a set that some values reach, by balls around them."""

import math

import numpy as np
from jaxtyping import Float

# Points of a target that are asked whether a ball holds them.
SAMPLE = 2048
# A ball reaches as far as the so-many-th next value, but no further than it would if the values
# filled the target evenly, times the factor.
_NEXT, _FURTHEST = 4, 1.5
# Above, balls around a thousand values reach far beyond them: a share of 5 % would look like 10 %.
MOST_DIMENSIONS = 3


def share_reached(sample: Float[np.ndarray, "m dim"], values: Float[np.ndarray, "n dim"]) -> float:
    """Share of an even sample of a set that lies in a ball around one of the values.

    The radius of a ball follows the distance between values where it lies: values close together
    reach little, so a cluster, or a curve on a surface, covers next to nothing, however many there
    are. Even values leave out about exp(-4), two points of a hundred.

    Args:
        sample: Points spread evenly over the set.
        values: Points that may lie on it or not.

    Source:
        A union of balls as the estimate of a support: L. Devroye and G. L. Wise, SIAM J. Appl.
        Math. 38 (1980) 480, with radii by next neighbours.
    """
    n, m = len(values), len(sample)
    if n <= _NEXT:
        return 0.0
    even = min(m - 1, math.ceil(_NEXT * m / n))
    furthest = _FURTHEST * float(np.median(_nth_distance(sample, sample, even)))
    radius = np.minimum(_nth_distance(values, values, _NEXT), furthest)
    reached = np.zeros(m, bool)
    for rows in np.array_split(np.arange(m), max(1, m // 256)):
        reached[rows] = (_distances(sample[rows], values) <= radius).any(axis=1)
    return float(reached.mean())


def _nth_distance(points: np.ndarray, others: np.ndarray, n: int) -> np.ndarray:
    """The distance from each point to its n-th next among others, itself being the nought-th."""
    blocks = np.array_split(points, max(1, len(points) // 256))
    return np.concatenate(
        [np.partition(_distances(block, others), n, axis=1)[:, n] for block in blocks]
    )


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))
