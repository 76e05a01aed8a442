"""Meshes of boxes in any dimension, intervals in one, and the sides that neighbours share."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from constrainednn._pieces.condensation import Numbers


def places(
    low: Float[Numbers, "N ..."], high: Float[Numbers, "N ..."], s: Float[Numbers, "n ..."]
) -> Float[Numbers, "N n ..."]:
    """From places in [-1, 1], or in a cube of that, to those in all elements."""
    return low[:, None] + (high - low)[:, None] * (s + 1)[None] / 2


class Side(NamedTuple):
    """What two boxes share: all of a side of one of them at least.

    Attributes:
        below: Number of the box at whose upper side it lies, along `axis`.
        above: Number of the box at whose lower side it lies.
        axis: The direction across.
        low: Lower corner.
        high: Upper corner.
    """

    below: int
    above: int
    axis: int
    low: Float[np.ndarray, " dim"]
    high: Float[np.ndarray, " dim"]


def shared_sides(low: Float[np.ndarray, "N dim"], high: Float[np.ndarray, "N dim"]) -> list[Side]:
    """Sides between boxes; one may meet several smaller ones at one of its own."""
    digits = 64 * np.finfo(low.dtype).eps * np.maximum(np.abs(low), np.abs(high)).max(axis=0)
    found = []
    for axis in range(low.shape[1]):
        for i, j in _touching(high[:, axis], low[:, axis], digits[axis]):
            least, most = np.maximum(low[i], low[j]), np.minimum(high[i], high[j])
            least[axis] = most[axis] = low[j, axis]
            if (np.delete(most - least - digits, axis) > 0).all():
                found.append(Side(int(i), int(j), axis, least, most))
    return found


def _touching(
    upper: Float[np.ndarray, " N"], lower: Float[np.ndarray, " N"], digits: float
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs (i, j) where the upper end of i is the lower end of j."""
    order = np.argsort(lower, kind="stable")
    first = np.searchsorted(lower[order], upper - digits, side="left")
    last = np.searchsorted(lower[order], upper + digits, side="right")
    pairs = [(i, j) for i, (a, b) in enumerate(zip(first, last, strict=True)) for j in order[a:b]]
    return np.array(pairs, int).reshape(-1, 2)


def divided(
    low: Float[np.ndarray, "N dim"],
    high: Float[np.ndarray, "N dim"],
    across: Bool[np.ndarray, "N dim"],
) -> tuple[Float[np.ndarray, "M dim"], Float[np.ndarray, "M dim"], Int[np.ndarray, " M"]]:
    """Boxes halved across some axes.

    Returns:
        Corners of the new boxes, the parts of one next to each other, and the number of the box
        that each was part of.
    """
    parent = np.arange(len(low))
    for axis in range(low.shape[1]):
        cut = across[parent, axis]
        parts = np.repeat(np.arange(len(low)), 1 + cut)
        second = np.zeros(len(parts), bool)
        second[1:] = parts[1:] == parts[:-1]
        middle = (low[:, axis] + high[:, axis]) / 2
        low, high, halved = low[parts].copy(), high[parts].copy(), cut[parts]
        low[:, axis] = np.where(halved & second, middle[parts], low[:, axis])
        high[:, axis] = np.where(halved & ~second, middle[parts], high[:, axis])
        parent = parent[parts]
    return low, high, parent
