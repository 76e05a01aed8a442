"""Estimates of unknowns with standard errors, intervals and correlations.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows of the data, each times the root of its weight, an inverse variance
    S       (N, q)  derivative of r by z along solutions of the equation
    a       (N,)    how much a row counts in the fit
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._common.arguments import as_positive, as_real
from constrainednn._common.random_keys import stream
from constrainednn._common.tables import number
from constrainednn._gap.statistics import LEVEL, Estimate, t_quantile
from constrainednn._ode.fitting.observations import observations
from constrainednn._ode.fitting.scheme import AbstractFittedScheme
from constrainednn._problem.experiments import Found
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import Observed, goal
from constrainednn._problem.unknowns import Unknown, each, entry_names, units
from constrainednn.domains.finite import Data
from constrainednn.errors import BadValueError
from constrainednn.results.estimates.bounds import (
    JUMPS,
    STATIONARY,
    direction_of,
    interval_ends,
    jumps,
    off_the_bounds,
    seen_at_start,
    settled,
    slope_of,
    value_of,
)
from constrainednn.results.estimates.elimination import eliminated, trained_unknowns
from constrainednn.results.estimates.profile import Rows
from constrainednn.results.facts import Facts

# An unknown with less than this share of such a direction is not concerned by it.
_SHARE = 1e-3
_BELOW = "noise is below the tolerance, to which the equation is solved"


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


def has_unknowns(problem: Problem, model: PyTree) -> bool:
    """True if there are unknowns and data to estimate them from."""
    if not any(isinstance(item.over, Data) for item in problem.constraints):
        return False
    return isinstance(problem.scheme, AbstractFittedScheme) or bool(
        trained_unknowns(model, problem)
    )


def estimates(facts: Facts, *, sigma: float | None = None, level: float = LEVEL) -> Estimates:
    """Estimate the unknowns of a solved problem; `Solution.estimates` has the documentation."""
    problem, model = facts.problem, facts.model
    if isinstance(getattr(model, "arguments", None), Found):
        raise BadValueError("estimates are those of all experiments: ask the whole solution.")
    data = [
        (item, points.train)
        for item, points in zip(problem.constraints, facts.streams, strict=True)
        if isinstance(item.over, Data) and len(points.train)
    ]
    if not data:
        raise BadValueError(
            "estimates needs data: no constraint is over cx.Data. For rows that are all trained "
            "on write cx.Data(rows, holdout=0)."
        )
    nuisance, tolerance = None, 0.0
    if isinstance(problem.scheme, AbstractFittedScheme):
        tolerance = goal(facts.settings.tolerance, model.parameters.dtype)
        unknowns = problem.scheme.arguments.unknowns
        z = np.asarray(model.parameters, float)
        r, S = problem.scheme.sensitivities(model, observations(data))
        counts, again = np.ones(r.size), _solver(facts, observations(data))
    else:
        unknowns, z, nuisance, r, S, counts, again = eliminated(facts, data)
    return estimates_from(
        r,
        S,
        z,
        unknowns,
        counts=counts,
        nuisance=nuisance,
        rows=again,
        unseen=max(1e-9, 1e3 * float(jnp.finfo(jnp.result_type(float)).eps)),
        sigma=None if sigma is None else as_positive(sigma, "sigma"),
        level=as_real(level, "level"),
        status=str(facts.status),
        tolerance=tolerance,
    )


def _solver(facts: Facts, observed: tuple[Observed, ...]) -> Rows:
    """Rows and derivatives for other unknowns, each by a solution of the equation."""
    scheme, settings = facts.problem.scheme, facts.settings
    assert isinstance(scheme, AbstractFittedScheme)
    shooting = scheme.shooting(
        facts.model,
        observed,
        tolerance=settings.tolerance,
        key=stream(jax.random.key(settings.seed), "monitor/pieces"),
        watch=lambda *_: False,
    )

    def rows(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shot = shooting.at(z, 1.0, settings.steps)
        return shot.r, shot.S

    return rows


def estimates_from(
    r: Float[np.ndarray, " N"],
    S: Float[np.ndarray, "N columns"],
    z: Float[np.ndarray, " q"],
    unknowns: dict[str, Unknown],
    *,
    counts: Float[np.ndarray, " N"],
    nuisance: Float[np.ndarray, " k"] | None = None,
    rows: Rows | None = None,
    unseen: float = 1e-9,
    sigma: float | None = None,
    level: float = LEVEL,
    status: str = "converged",
    tolerance: float = 0.0,
) -> Estimates:
    """Standard errors and profile intervals from rows and their derivatives.

    Args:
        r: Rows at the estimate.
        S: Their derivatives; columns beyond those of z belong to what is fitted besides.
        z: The unknowns in the scale in which they are trained.
        unknowns: How numbers follow from z, by name, as they were before the fit.
        counts: How much each row counts in the fit.
        nuisance: Numbers that belong to the further columns.
        rows: Rows and derivatives at other numbers, those of the further columns included. Without
            it the intervals are t intervals by the slope alone, and at a bound there are none.
        unseen: Directions with a singular value below this, of columns of length one, are not
            determined; above the rounding of S.
        sigma: Standard deviation of the noise, if it is known.
        level: Coverage in (0, 1).
        status: How the run ended.
        tolerance: Relative size of what the equation behind the rows is solved to.

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
    if not (np.isfinite(r).all() and np.isfinite(S).all()):
        raise BadValueError(
            "there are no estimates: the solution does not reach all of the data, or is NaN there, "
            f"in a run that ended as {status}."
        )
    z_all = z if nuisance is None else np.concatenate([z, nuisance])
    if rows is not None and (inside := off_the_bounds(z, S, unknowns)) is not None:
        z_all = np.concatenate([inside, z_all[z.size :]])
        r, S = rows(z_all)
    # What neither misses anything nor depends on an unknown says nothing, missing values among it.
    counted = (r != 0) | (S != 0).any(axis=1)
    N, q, names = int(counted.sum()), S.shape[1], entry_names(unknowns)
    besides = q - z.size
    if q > N:
        besides = f" and {besides} numbers that are fitted besides" * bool(besides)
        raise BadValueError(
            f"there are no estimates: {N} observed numbers cannot determine {z.size} unknowns"
            f"{besides}. Give more data."
        )
    degrees = N - q if sigma is None else 0
    if sigma is None:
        sigma = math.sqrt(float(r @ r) / (N - q)) if q < N else math.nan
    root = np.sqrt(counts)
    weighted, slopes = root * r, root[:, None] * S
    bound, lost = settled(weighted, slopes[:, : z.size], z, unknowns)
    # Of an unknown that is next to a bound, and hardly seen, only rows elsewhere can tell more.
    if rows is not None and (bound & lost).any():
        lost &= ~(bound & seen_at_start(rows, z_all, lost, unknowns))
    bound &= ~lost
    # One that went to its bound is taken for known by the others.
    free = ~np.concatenate([bound, np.zeros(q - z.size, bool)])
    length = np.linalg.norm(slopes, axis=0)
    columns = np.where(length > 0, length, 1.0)
    shown = free & ~np.concatenate([lost, np.zeros(q - z.size, bool)])
    U, s, Vt = np.linalg.svd(np.where(shown, slopes / columns, 0.0), full_matrices=False)
    seen = s > unseen
    # From noise of the rows to changes of z.
    A = (Vt[seen].T / s[seen]) / columns[:, None] @ (U[:, seen].T * root)
    covariance = (sigma**2 * A @ A.T)[: z.size, : z.size]
    open_ = np.where(bound, 0.0, Vt[~seen, : z.size])
    hidden = (np.linalg.norm(open_, axis=0) > _SHARE) | lost
    error = np.where(hidden, np.inf, np.where(bound, np.nan, np.sqrt(np.diag(covariance))))
    moved = float(np.linalg.norm(U[:, seen].T @ weighted)) / sigma if sigma else 0.0
    exact = np.linalg.norm(r) <= unseen * np.linalg.norm(length[: z.size] * units(z, unknowns))
    offset = 0.0 if exact or math.isnan(moved) else moved
    ends, labels = interval_ends(
        z_all,
        weighted,
        slopes,
        unknowns,
        rows,
        root,
        exact=bool(exact),
        error=error,
        bound=bound,
        hidden=hidden,
        sigma=sigma,
        quantile=math.nan if math.isnan(sigma) else t_quantile(level, degrees or math.inf),
    )
    unit = units(z, unknowns)
    unit = np.where(unit > 0, unit, 1.0)
    directions = [
        direction_of(row / (columns[: z.size] * unit), np.abs(row) > _SHARE, names)
        for row in open_
        if np.linalg.norm(row) > _SHARE
    ]
    for concerned in list(directions):
        if rows is not None and jumps(rows, z_all, concerned, unit, names):
            directions.remove(concerned)
            for name in concerned:
                labels[names.index(name)] = JUMPS
    effect = float((length[: z.size] * unit).max(initial=0.0)) / math.sqrt(N)
    if tolerance > 0 and 0 <= sigma <= tolerance * effect:
        labels = [label or _BELOW for label in labels]
    if rows is not None and offset > STATIONARY:
        labels = [label or "not at a minimum" for label in labels]
    values, place = {}, 0
    for item, at in each(z, unknowns):
        cut = slice(place, place + at.size)
        by, shape = error[cut], item.raw.shape
        middle, *both = (
            np.asarray(value_of(item, raw.reshape(shape)), float).ravel()
            for raw in (at, *ends[:, cut])
        )
        with np.errstate(invalid="ignore"):  # zero times infinity where there is no error
            by = np.where(np.isfinite(by), by * np.abs(slope_of(item, at)), by)
        # Rows below the noise of a march could end an interval before it begins.
        low, high = np.minimum(middle, np.minimum(*both)), np.maximum(middle, np.maximum(*both))
        for k, name in enumerate(names[cut]):
            value, least, most = float(middle[k]), float(low[k]), float(high[k])
            values[name] = Estimate(value, least, most, N, float(by[k]), labels[place + k])
        place += at.size
    scale = np.where(hidden | bound, np.nan, np.sqrt(np.diag(covariance)))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(scale, scale)
    return Estimates(
        values,
        correlation,
        sigma,
        degrees,
        s,
        tuple(directions),
        offset,
        status,
    )


def estimate_lines(found: Estimates) -> list[str]:
    """What data say about unknowns, a line for each and for what they leave open."""
    width = max(map(len, found.values))
    lines = [found.status]
    if found.status != "converged" or found.offset > 0.1:
        lines[0] += f": {found.offset:.2g} standard errors from a minimum, as the slopes tell"
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
