"""Unknowns at their bounds, where derivatives say nothing or little."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import Unknown, each, reaches, units
from constrainednn.results.estimates.regression import Regression

# An unknown is at its bound where the way there is less than this share of its standard error.
_AT_BOUND = 1e-2


def off_the_bounds(fit: Regression) -> Regression:
    """The same with numbers on a bound just inside of it, if there are any.

    On the bound itself the derivative by what is trained is zero, and tells nothing.
    """
    z = fit.z[: fit.own]
    inside = np.concatenate([item.off_the_bounds(at) for item, at in each(z, fit.unknowns)])
    on = (inside != z) & ~fit.S[:, : z.size].any(axis=0)
    if fit.rows is None or not on.any():
        return fit
    moved = np.concatenate([np.where(on, inside, z), fit.z[z.size :]])
    r, S = fit.rows(moved)
    return dataclasses.replace(fit, r=r, S=S, z=moved)


def seen_at_start(fit: Regression, lost: Bool[np.ndarray, " q"]) -> Bool[np.ndarray, " q"]:
    """True for those of the lost unknowns whose effect is no rounding where they started."""
    assert fit.rows is not None
    raw = [np.ravel(np.asarray(item.raw, float)) for item in fit.unknowns.values()]
    there = np.where(lost, np.concatenate(raw), fit.z[: lost.size])
    r, S = fit.rows(np.concatenate([there, fit.z[lost.size :]]))
    if not (np.isfinite(r).all() and np.isfinite(S).all()):
        return np.zeros(lost.size, bool)
    return ~settled(r, S[:, : lost.size], there, fit.unknowns)[1]


def settled(
    r: Float[np.ndarray, " N"],
    S: Float[np.ndarray, "N q"],
    z: Float[np.ndarray, " q"],
    unknowns: dict[str, Unknown],
) -> tuple[Bool[np.ndarray, " q"], Bool[np.ndarray, " q"]]:
    """The unknowns that lie at a bound, and those that the rows do not see.

    At a bound: the distance to it is nothing beside the standard error. Not seen: a change of the
    number by its own size changes the rows by no more than their rounding.
    """
    length, noise = np.linalg.norm(S, axis=0), float(np.linalg.norm(r))
    way = np.minimum(*(reaches(z, np.full(z.size, sign), unknowns) for sign in (-1.0, 1.0)))
    effect = length * units(z, unknowns)
    near = np.isfinite(way) & (length > 0)
    deviation = noise / max(len(r) - z.size, 1) ** 0.5
    bound = near & (length * np.where(near, way, 0.0) <= _AT_BOUND * deviation)
    visible = max(noise, float(effect.max(initial=0.0)))
    lost = (units(z, unknowns) > 0) & (effect <= np.finfo(float).eps * visible)
    return bound, lost
