"""Estimates with standard errors, intervals and correlations, from rows and their derivatives."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._common.tables import html_table, number
from constrainednn._gap.statistics import LEVEL, Estimate, t_quantile
from constrainednn._problem.unknowns import Unknown, each
from constrainednn.errors import BadValueError
from constrainednn.results.estimates.bounds import off_the_bounds
from constrainednn.results.estimates.intervals import JUMPS, interval_ends, jumps
from constrainednn.results.estimates.linear_rows import linear_rows
from constrainednn.results.estimates.regression import Regression

# Standard errors between the estimate and the least sum of squares of linear rows.
_STATIONARY = 0.1
_BELOW = "noise is below the tolerance to which the equation is solved"


@dataclasses.dataclass(frozen=True, eq=False)
class Estimates:
    """What data say about the unknowns of a problem.

    Attributes:
        values: Estimate of each number with its interval and standard error, by name.
        correlation: Their correlations, of shape (q, q) in the order of `values`; NaN where one is
            not determined.
        sigma: Standard deviation of the noise, of rows times the root of their weight.
        degrees: Rows less unknowns; 0 where sigma was given.
        singular_values: Of the derivative of the rows, its columns scaled to length one: how far
            the unknowns can be told apart.
        undetermined: Directions in which the unknowns may change together without a change of what
            was observed: shares of each concerned number, relative to itself.
        offset: How far from the least sum of squares, in standard errors; 0 for exact data.
        status: How the run ended; only one that converged is at the least sum of squares.
    """

    values: dict[str, Estimate]
    correlation: Float[np.ndarray, "q q"]
    sigma: float
    degrees: int
    singular_values: Float[np.ndarray, " q"]
    undetermined: tuple[dict[str, float], ...]
    offset: float = 0.0
    status: str = "converged"

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.values:
            raise KeyError(f"no unknown is named {name!r}; there is: {', '.join(self.values)}")
        return self.values[name]

    def __repr__(self) -> str:
        return "\n".join(estimate_lines(self))

    def _repr_html_(self) -> str:
        rows = [
            (
                name,
                f"{item.value:.6g}",
                "" if math.isnan(item.low) else f"[{item.low:.6g}, {item.high:.6g}]",
                f"{item.error:.2g}" if math.isfinite(item.error) else "",
                item.label,
            )
            for name, item in self.values.items()
        ]
        first, *others = estimate_lines(self)
        columns = ("unknown", "estimate", "interval", "standard error", "")
        return html_table(columns, rows, [first, *others[len(rows) :]])


def estimates_from(
    fit: Regression,
    *,
    unseen: float = 1e-9,
    sigma: float | None = None,
    level: float = LEVEL,
    status: str = "converged",
    tolerance: float = 0.0,
) -> Estimates:
    """Standard errors and profile intervals from rows and their derivatives.

    Args:
        fit: Rows of data and their derivatives, at the estimate.
        unseen: Directions with a singular value below this, of columns of length one, are not
            determined; above the rounding of S.
        sigma: Standard deviation of the noise, if it is known.
        level: Coverage in (0, 1).
        status: How the run ended.
        tolerance: Relative tolerance to which the equation behind the rows is solved.

    Raises:
        ValueError: If there are fewer rows than unknowns, or some are not finite.

    Source:
        Seber and Wild, Nonlinear Regression, Wiley (1989), sections 2.1 and 5.1. Where rows do not
        count alike, the covariance of the weighted estimate: White, Econometrica 48 (1980) 817.
    """
    if not 0 < level < 1:
        raise BadValueError(
            f"level must lie in (0, 1), got {level}. 0.95 asks for a 95 % interval."
        )
    if not (np.isfinite(fit.r).all() and np.isfinite(fit.S).all()):
        raise BadValueError(
            "there are no estimates: the solution does not reach all of the data, or is NaN there, "
            f"in a run that ended as {status}."
        )
    z, names = fit.z[: fit.own], fit.names
    fit = off_the_bounds(fit)
    # What neither misses anything nor depends on an unknown says nothing, missing values among it.
    N = int(((fit.r != 0) | (fit.S != 0).any(axis=1)).sum())
    sigma, degrees = _noise(fit, N, sigma)
    found = linear_rows(fit, z, sigma, unseen)
    quantile = math.nan if math.isnan(sigma) else t_quantile(level, degrees or math.inf)
    ends, labels = interval_ends(fit, found, sigma, quantile)
    switches = [direction for direction in found.open if jumps(fit, found, direction)]
    for name in (name for direction in switches for name in direction):
        labels[names.index(name)] = JUMPS
    if tolerance > 0 and 0 <= sigma <= tolerance * found.effect / math.sqrt(N):
        labels = [label or _BELOW for label in labels]
    if fit.rows is not None and found.offset > _STATIONARY:
        labels = [label or "not at a minimum" for label in labels]
    return Estimates(
        _values(fit, z, found.error, ends, labels, N),
        found.correlation,
        sigma,
        degrees,
        found.singular_values,
        tuple(direction for direction in found.open if direction not in switches),
        found.offset,
        status,
    )


def _noise(fit: Regression, N: int, sigma: float | None) -> tuple[float, int]:
    """Standard deviation of the noise, and its degrees of freedom: 0 where it was given."""
    q, besides = fit.z.size, fit.z.size - fit.own
    if q > N:
        more = f" and {besides} numbers that are fitted with them" * bool(besides)
        raise BadValueError(
            f"there are no estimates: {N} observed numbers cannot determine {fit.own} unknowns"
            f"{more}. Give more data."
        )
    if sigma is not None:
        return sigma, 0
    return math.sqrt(float(fit.r @ fit.r) / (N - q)) if q < N else math.nan, N - q


def _values(
    fit: Regression,
    z: Float[np.ndarray, " q"],
    error: Float[np.ndarray, " q"],
    ends: Float[np.ndarray, "2 q"],
    labels: list[str],
    N: int,
) -> dict[str, Estimate]:
    """The numbers with their errors and intervals, from those in the trained scale."""
    names, values, place = fit.names, {}, 0
    for item, at in each(z, fit.unknowns):
        cut = slice(place, place + at.size)
        by, shape = error[cut], item.raw.shape
        middle, *both = (
            np.asarray(_value(item, raw.reshape(shape)), float).ravel()
            for raw in (at, *ends[:, cut])
        )
        with np.errstate(invalid="ignore"):  # zero times infinity where there is no error
            by = np.where(np.isfinite(by), by * np.abs(_slope(item, at)), by)
        # Rows below the noise of a march could end an interval before it begins.
        low, high = np.minimum(middle, np.minimum(*both)), np.maximum(middle, np.maximum(*both))
        for k, name in enumerate(names[cut]):
            value, least, most = float(middle[k]), float(low[k]), float(high[k])
            values[name] = Estimate(value, least, most, N, float(by[k]), labels[place + k])
        place += at.size
    return values


def _slope(item: Unknown, raw: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Derivative of the number by the unconstrained parameter."""
    return np.asarray(jax.vmap(jax.grad(item.at))(jnp.asarray(raw)), float)


def _value(item: Unknown, raw: np.ndarray) -> Any:
    """The number at an unconstrained parameter; infinity is allowed."""
    with np.errstate(over="ignore"):
        return item.at(jnp.asarray(raw))


def estimate_lines(found: Estimates) -> list[str]:
    """What data say about unknowns, a line for each and for what they leave open."""
    width = max(map(len, found.values))
    lines = [found.status]
    if found.status != "converged" or found.offset > _STATIONARY:
        lines[0] += f": {found.offset:.2g} standard errors from a minimum, by the slopes"
    for name, item in found.values.items():
        text = f"{name:{width}}  {item.value:.6g}"
        if not math.isnan(item.low):
            text += f" [{item.low:.6g}, {item.high:.6g}]"
        if not math.isnan(item.low) and math.isfinite(item.error):
            text += f", standard error {item.error:.2g}"
        lines.append(text + f": {item.label}" * bool(item.label))
    for direction in found.undetermined:
        parts = " and ".join(f"{name} {share:+.2g} %" for name, share in direction.items())
        lines.append(f"unidentifiable: the data would be the same with {parts}")
    known = f"{found.degrees} degrees of freedom" if found.degrees else "given"
    if math.isnan(found.sigma):
        lines.append("noise not known: as many unknowns as observed numbers, so no intervals")
    else:
        lines.append(f"noise {number(found.sigma)} ({known})")
    return lines
