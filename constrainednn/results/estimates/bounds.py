"""Ends of intervals, and unknowns at their bounds or where the fit jumps."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import Unknown, each, limits, reaches, units
from constrainednn.results.estimates.profile import Profile, Rows

# An unknown is at its bound where the way there is less than this share of its standard error.
_AT_BOUND = 1e-2
# Half an interval of a logarithm for which the slope alone does not do.
_ROUGH = 0.3
# Standard errors between the estimate and the least sum of squares of linear rows.
STATIONARY = 0.1
# The change that shows whether rows jump where their derivatives are zero, and what is said then.
_LITTLE = 1e-3
JUMPS = "no derivative tells, though the data change with it: a switch at an unknown time?"


def off_the_bounds(
    z: Float[np.ndarray, " q"], S: Float[np.ndarray, "N columns"], unknowns: dict[str, Unknown]
) -> Float[np.ndarray, " q"] | None:
    """Trained values from which numbers on a bound are just inside; None if there is none.

    On the bound itself the derivative by what is trained is zero, and tells nothing.
    """
    inside = np.concatenate([item.off_the_bounds(at) for item, at in each(z, unknowns)])
    on = (inside != z) & ~S[:, : z.size].any(axis=0)
    return np.where(on, inside, z) if on.any() else None


def seen_at_start(
    rows: Rows,
    z: Float[np.ndarray, " columns"],
    lost: Bool[np.ndarray, " q"],
    unknowns: dict[str, Unknown],
) -> Bool[np.ndarray, " q"]:
    """True for those of the lost unknowns whose effect is no rounding where they started."""
    start = np.concatenate([np.ravel(np.asarray(item.raw, float)) for item in unknowns.values()])
    there = np.where(lost, start, z[: lost.size])
    r, S = rows(np.concatenate([there, z[lost.size :]]))
    if not (np.isfinite(r).all() and np.isfinite(S).all()):
        return np.zeros(lost.size, bool)
    return ~settled(r, S[:, : lost.size], there, unknowns)[1]


def settled(
    r: Float[np.ndarray, " N"],
    S: Float[np.ndarray, "N q"],
    z: Float[np.ndarray, " q"],
    unknowns: dict[str, Unknown],
) -> tuple[Bool[np.ndarray, " q"], Bool[np.ndarray, " q"]]:
    """The unknowns that lie at a bound, and those that the rows do not see.

    At a bound: all of the way there is nothing beside the standard error. Not seen: the change of
    the rows by that of the number is their rounding.
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


def interval_ends(
    z: Float[np.ndarray, " columns"],
    r: Float[np.ndarray, " N"],
    S: Float[np.ndarray, "N columns"],
    unknowns: dict[str, Unknown],
    rows: Rows | None,
    root: Float[np.ndarray, " N"],
    *,
    exact: bool,
    error: Float[np.ndarray, " q"],
    bound: Bool[np.ndarray, " q"],
    hidden: Bool[np.ndarray, " q"],
    sigma: float,
    quantile: float,
) -> tuple[Float[np.ndarray, "2 q"], list[str]]:
    """Both ends of each interval in the trained scale, and what to know of them.

    The ends of the t interval, where rows are linear; otherwise where the least sum of squares over
    the others has risen by as much.
    """
    q = error.size
    at, labels = z[:q], ["not determined by the data" if gone else "" for gone in hidden]
    half = np.where(hidden, np.inf, quantile * error)
    ends = np.stack([at - half, at + half])
    if math.isnan(sigma):
        labels = ["at its bound" if bound[i] else labels[i] for i in range(q)]
        return np.full((2, q), np.nan), labels
    logarithm = np.isfinite(limits(unknowns))
    if exact:  # what rises by the rounding of the rows cannot be followed
        return ends, ["at its bound" if bound[i] else labels[i] for i in range(q)]
    if rows is None:
        for i in range(q):
            if bound[i]:
                labels[i] = "at its bound"
            elif logarithm[i] and not hidden[i] and half[i] > _ROUGH:
                labels[i] = "from the slope alone"
        return ends, labels
    fixed = np.concatenate([hidden, np.zeros(z.size - q, bool)])

    def weighted(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, S = rows(at)
        return r * root, S * root[:, None]

    profile = Profile(weighted, z, r, S, unknowns, fixed=fixed)
    for i in np.flatnonzero(~hidden):
        rise = (quantile * sigma) ** 2
        if not bound[i]:  # where rows do not count alike, the variance is not that of the slope
            rise = half[i] ** 2 * profile.stiffness(int(i), bound)
        ends[:, i] = [profile.end(int(i), sign, rise) for sign in (-1, 1)]
        labels[i] = "at its bound" if bound[i] else ""
        if bound[i] and np.isinf(ends[:, i]).all():
            labels[i] = "not determined by the data"
    return ends, labels


def slope_of(item: Unknown, raw: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Derivative of the number by the unconstrained parameter."""
    return np.asarray(jax.vmap(jax.grad(item.at))(jnp.asarray(raw)), float)


def value_of(item: Unknown, raw: np.ndarray) -> Any:
    """The number at an unconstrained parameter; infinity is allowed."""
    with np.errstate(over="ignore"):
        return item.at(jnp.asarray(raw))


def direction_of(change: np.ndarray, concerned: np.ndarray, names: list[str]) -> dict[str, float]:
    """Shares of the concerned numbers, the largest one."""
    change = change / change[concerned][np.argmax(np.abs(change[concerned]))]
    return {name: float(change[k]) for k, name in enumerate(names) if concerned[k]}


def jumps(
    rows: Rows,
    z: Float[np.ndarray, " columns"],
    direction: dict[str, float],
    unit: Float[np.ndarray, " q"],
    names: list[str],
) -> bool:
    """Whether the rows change along a direction that their derivatives say they do not change with.

    By a small step, and half as much by half of it: what is of second order falls to a quarter.
    """
    shares = np.array([direction.get(name, 0.0) for name in names])
    step = np.zeros(z.size)
    step[: unit.size] = _LITTLE * shares * unit
    (before, S), (after, _), (between, _) = rows(z), rows(z + step), rows(z + step / 2)
    size = float(np.linalg.norm(before))
    if S.size:
        size = max(size, float((np.linalg.norm(S[:, : unit.size], axis=0) * unit).max(initial=0.0)))
    change, half = (float(np.linalg.norm(part - before)) for part in (after, between))
    return 30 * _LITTLE**2 * size < change < 3 * half
