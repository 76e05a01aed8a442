"""The degree of a map of a circle or sphere around all points, counted on a mesh of it."""

import numpy as np
from jaxtyping import Float, Int

# Steps of the angle along a circle; rings and steps of a sphere.
_STEPS, _RINGS, _MERIDIANS = 4096, 40, 80


def circle_points() -> Float[np.ndarray, "n 2"]:
    """The unit circle in 4,096 steps."""
    t = np.linspace(0, 2 * np.pi, _STEPS + 1)[:-1]
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def winding_number(values: Float[np.ndarray, "n 2"]) -> int | None:
    """How often values along a closed curve turn around the origin; None if one is not finite."""
    if not np.isfinite(values).all():
        return None
    angles = np.arctan2(values[:, 1], values[:, 0])
    steps = np.roll(angles, -1) - angles
    turns = np.mod(steps + np.pi, 2 * np.pi) - np.pi
    return round(float(turns.sum()) / (2 * np.pi))


def sphere_triangles() -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Corners and triangles of the unit sphere, these in the order that faces outwards."""
    polar = np.pi * np.arange(1, _RINGS) / _RINGS
    angle = 2 * np.pi * np.arange(_MERIDIANS) / _MERIDIANS
    grid = np.stack(
        [
            np.outer(np.sin(polar), np.cos(angle)),
            np.outer(np.sin(polar), np.sin(angle)),
            np.outer(np.cos(polar), np.ones(_MERIDIANS)),
        ],
        axis=-1,
    )
    corners = np.concatenate([[[0.0, 0.0, 1.0]], grid.reshape(-1, 3), [[0.0, 0.0, -1.0]]])
    here = 1 + np.arange((_RINGS - 1) * _MERIDIANS).reshape(_RINGS - 1, _MERIDIANS)
    beside, last = np.roll(here, -1, axis=1), len(corners) - 1
    top = np.stack([np.zeros_like(here[0]), here[0], beside[0]], axis=1)
    bottom = np.stack([np.full_like(here[0], last), beside[-1], here[-1]], axis=1)
    below, across = here[1:], beside[1:]
    first = np.stack([here[:-1], below, across], axis=-1).reshape(-1, 3)
    second = np.stack([here[:-1], across, beside[:-1]], axis=-1).reshape(-1, 3)
    return corners, np.concatenate([top, first, second, bottom])


def times_covered(
    values: Float[np.ndarray, "n 3"], triangles: Int[np.ndarray, "m 3"]
) -> int | None:
    """How often the image of a closed surface covers the sphere, by solid angles with their sign.

    None where a value is not finite, or zero.

    Source:
        A. van Oosterom and J. Strackee, IEEE Trans. Biomed. Eng. 30 (1983) 125, equation 8.
    """
    size = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(size) & (size > 0)).all():
        return None
    a, b, c = (values / size)[triangles.T]
    volume = (a * np.cross(b, c)).sum(axis=1)
    dots = (a * b).sum(axis=1), (b * c).sum(axis=1), (c * a).sum(axis=1)
    return round(float(np.arctan2(volume, 1 + sum(dots)).sum()) / (2 * np.pi))
