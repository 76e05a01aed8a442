"""Standard errors and correlations: what rows say that are linear in all that was fitted."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import units
from constrainednn.results.estimates.bounds import seen_at_start, settled
from constrainednn.results.estimates.regression import Regression

# An unknown with less than this share of such a direction is not concerned by it.
_SHARE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class LinearRows:
    """What follows from rows and their derivatives at the estimate.

    Attributes:
        error: Standard error of each unknown in the trained scale; infinite where it is not
            determined, NaN at a bound.
        correlation: Correlations of the unknowns.
        singular_values: Of the derivative, its columns scaled to length one.
        bound: Which unknowns lie at a bound.
        hidden: Which are not determined.
        open: Directions in which the rows do not change, as shares of each concerned number.
        unit: Change of each trained value that is as large as the number.
        effect: The largest change of the rows by such a change, as a root mean square.
        offset: Distance from the least sum of squares, in standard errors.
        exact: True if what the rows miss is their rounding.
    """

    error: Float[np.ndarray, " q"]
    correlation: Float[np.ndarray, "q q"]
    singular_values: Float[np.ndarray, " columns"]
    bound: Bool[np.ndarray, " q"]
    hidden: Bool[np.ndarray, " q"]
    open: list[dict[str, float]]
    unit: Float[np.ndarray, " q"]
    effect: float
    offset: float
    exact: bool


def linear_rows(
    fit: Regression, z: Float[np.ndarray, " q"], sigma: float, unseen: float
) -> LinearRows:
    """Propagate the noise of the rows to the unknowns.

    Args:
        fit: Rows and derivatives, of unknowns on a bound just inside of it.
        z: The estimate in the trained scale.
        sigma: Standard deviation of the noise.
        unseen: Directions with a singular value below this are not determined.
    """
    q, (r, S) = fit.own, fit.weighted
    bound, lost = settled(r, S[:, :q], z, fit.unknowns)
    # Of an unknown that is next to a bound, and hardly seen, only rows elsewhere can tell more.
    if fit.rows is not None and (bound & lost).any():
        lost &= ~(bound & seen_at_start(fit, lost))
    bound &= ~lost
    # One that went to its bound is taken for known by the others.
    free = np.append(~bound & ~lost, np.ones(fit.z.size - q, bool))
    length = np.linalg.norm(S, axis=0)
    columns = np.where(length > 0, length, 1.0)
    U, s, Vt = np.linalg.svd(np.where(free, S / columns, 0.0), full_matrices=False)
    seen = s > unseen
    # From noise of the rows to changes of z.
    A = (Vt[seen].T / s[seen]) / columns[:, None] @ (U[:, seen].T * np.sqrt(fit.counts))
    covariance = (sigma**2 * A @ A.T)[:q, :q]
    directions = np.where(bound, 0.0, Vt[~seen, :q])
    hidden = (np.linalg.norm(directions, axis=0) > _SHARE) | lost
    deviation = np.sqrt(np.diag(covariance))
    scale = np.where(hidden | bound, np.nan, deviation)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(scale, scale)
    offset = float(np.linalg.norm(U[:, seen].T @ r)) / sigma if sigma else 0.0
    unit = units(z, fit.unknowns)
    exact = bool(np.linalg.norm(fit.r) <= unseen * np.linalg.norm(length[:q] * unit))
    unit = np.where(unit > 0, unit, 1.0)
    return LinearRows(
        error=np.where(hidden, np.inf, np.where(bound, np.nan, deviation)),
        correlation=correlation,
        singular_values=s,
        bound=bound,
        hidden=hidden,
        open=[
            _shares(row / (columns[:q] * unit), np.abs(row) > _SHARE, fit.names)
            for row in directions
            if np.linalg.norm(row) > _SHARE
        ],
        unit=unit,
        effect=float((length[:q] * unit).max(initial=0.0)),
        offset=0.0 if exact or math.isnan(offset) else offset,
        exact=exact,
    )


def _shares(change: np.ndarray, concerned: np.ndarray, names: list[str]) -> dict[str, float]:
    """Changes of the concerned numbers, relative to the largest of them."""
    change = change / change[concerned][np.argmax(np.abs(change[concerned]))]
    return {name: float(change[k]) for k, name in enumerate(names) if concerned[k]}
