"""Meshes of boxes in any dimension, intervals in one, and the sides that neighbours share."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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
    for (i, j), axis in itertools.product(
        itertools.permutations(range(len(low)), 2), range(low.shape[1])
    ):
        if abs(high[i, axis] - low[j, axis]) > digits[axis]:
            continue
        least, most = np.maximum(low[i], low[j]), np.minimum(high[i], high[j])
        least[axis] = most[axis] = low[j, axis]
        if (np.delete(most - least - digits, axis) > 0).all():
            found.append(Side(i, j, axis, least, most))
    return found
