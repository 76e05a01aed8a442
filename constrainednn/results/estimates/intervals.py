"""Ends of the intervals of unknowns, and where a fit jumps instead."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from constrainednn._problem.unknowns import limits
from constrainednn.results.estimates.linear_rows import LinearRows
from constrainednn.results.estimates.profile import Profile
from constrainednn.results.estimates.regression import Regression

# Half an interval of a logarithm for which the slope alone does not do.
_ROUGH = 0.3
# The change that shows whether rows jump where their derivatives are zero, and what is said then.
_LITTLE = 1e-3
JUMPS = "its derivative is zero though the data change with it: a switch at an unknown time?"


def interval_ends(
    fit: Regression, found: LinearRows, sigma: float, quantile: float
) -> tuple[Float[np.ndarray, "2 q"], list[str]]:
    """Both ends of each interval in the trained scale, and what to know of them.

    The ends of the t interval, where rows are linear; otherwise where the least sum of squares over
    the others has risen by as much.
    """
    q, bound, hidden, rows = fit.own, found.bound, found.hidden, fit.rows
    labels = [
        "at its bound" if at_bound else "not determined by the data" * bool(gone)
        for at_bound, gone in zip(bound, hidden, strict=True)
    ]
    half = np.where(hidden, np.inf, quantile * found.error)
    ends = np.stack([fit.z[:q] - half, fit.z[:q] + half])
    if math.isnan(sigma):
        return np.full((2, q), np.nan), labels
    if found.exact:  # what rises by the rounding of the rows cannot be followed
        return ends, labels
    if rows is None:
        rough = np.isfinite(limits(fit.unknowns)) & ~hidden & (half > _ROUGH)
        return ends, [
            label or "from the slope alone" * bool(doubtful)
            for label, doubtful in zip(labels, rough, strict=True)
        ]

    def weighted(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, S = rows(z)
        return dataclasses.replace(fit, z=z, r=r, S=S).weighted

    fixed = np.append(hidden, np.zeros(fit.z.size - q, bool))
    profile = Profile(weighted, fit.z, *fit.weighted, fit.unknowns, fixed=fixed)
    for i in np.flatnonzero(~hidden):
        rise = (quantile * sigma) ** 2
        if not bound[i]:  # where rows do not count alike, the variance is not that of the slope
            rise = half[i] ** 2 * profile.stiffness(int(i), bound)
        ends[:, i] = [profile.end(int(i), sign, rise) for sign in (-1, 1)]
        if bound[i] and np.isinf(ends[:, i]).all():
            labels[i] = "not determined by the data"
    return ends, labels


def jumps(fit: Regression, found: LinearRows, direction: dict[str, float]) -> bool:
    """Whether the rows change along a direction that their derivatives say they do not change with.

    By a small step, and half as much by half of it: what is of second order falls to a quarter.
    """
    rows, z, unit = fit.rows, fit.z, found.unit
    if rows is None:
        return False
    shares = np.array([direction.get(name, 0.0) for name in fit.names])
    step = np.zeros(z.size)
    step[: unit.size] = _LITTLE * shares * unit
    (before, S), (after, _), (between, _) = rows(z), rows(z + step), rows(z + step / 2)
    size = float(np.linalg.norm(before))
    if S.size:
        size = max(size, float((np.linalg.norm(S[:, : unit.size], axis=0) * unit).max(initial=0.0)))
    change, half = (float(np.linalg.norm(part - before)) for part in (after, between))
    return 30 * _LITTLE**2 * size < change < 3 * half
