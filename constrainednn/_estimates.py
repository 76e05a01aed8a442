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
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from constrainednn._domains import Data
from constrainednn._errors import BadValueError
from constrainednn._fit import AbstractFittedScheme, observations
from constrainednn._keys import stream
from constrainednn._models import trainable_mask
from constrainednn._problem import Problem
from constrainednn._profile import Profile, Rows
from constrainednn._residuals import ResidualVector, residual_vector, rows
from constrainednn._samplers import Draw
from constrainednn._scheme import Observed, goal
from constrainednn._statistics import LEVEL, Estimate, t_quantile
from constrainednn._unknowns import Unknown, each, entry_names, limits, reaches, units, unknowns_of
from constrainednn._validate import as_positive, as_real

if TYPE_CHECKING:
    from constrainednn._solution import Solution


# An unknown is at its bound where the way there is less than this share of its standard error.
_AT_BOUND = 1e-2
# Half an interval of a logarithm for which the slope alone does not do.
_ROUGH = 0.3
# Standard errors between the estimate and the least sum of squares of linear rows.
_STATIONARY = 0.1
# An unknown with less than this share of such a direction is not concerned by it.
_SHARE = 1e-3
# With more numbers beside the unknowns than this, intervals go by the slope alone.
_FEW = 100
# The change that shows whether rows jump where their derivatives are zero, and what is said then.
_LITTLE = 1e-3
_JUMPS = "no derivative tells, though the data change with it: a switch at an unknown time?"
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
        from constrainednn._report import estimate_lines

        return "\n".join(estimate_lines(self))


def has_unknowns(solution: "Solution") -> bool:
    """True if there are unknowns and data to estimate them from."""
    problem = solution.problem
    if not any(isinstance(item.over, Data) for item in problem.constraints):
        return False
    return isinstance(problem.scheme, AbstractFittedScheme) or bool(
        _trained_unknowns(solution.model, problem)
    )


def _trained_unknowns(model: PyTree, problem: Problem) -> dict[str, Unknown]:
    params = eqx.filter(model, trainable_mask(model, problem.trainable))
    return {name: item for name, item in unknowns_of(params).items() if item.raw is not None}


def estimates(
    solution: "Solution", *, sigma: float | None = None, level: float = LEVEL
) -> Estimates:
    """Estimate the unknowns of a solved problem; `Solution.estimates` has the documentation."""
    problem, model = solution.problem, solution.model
    data = [
        (item, points.train)
        for item, points in zip(problem.constraints, solution.streams, strict=True)
        if isinstance(item.over, Data) and len(points.train)
    ]
    if not data:
        raise BadValueError(
            "estimates needs data: no constraint is over cx.Data. For rows that are all trained "
            "on write cx.Data(rows, holdout=0)."
        )
    nuisance, tolerance = None, 0.0
    if isinstance(problem.scheme, AbstractFittedScheme):
        tolerance = goal(solution.settings.tolerance, model.parameters.dtype)
        unknowns = problem.scheme.arguments.unknowns
        z = np.asarray(model.parameters, float)
        r, S = problem.scheme.sensitivities(model, observations(data))
        counts, again = np.ones(r.size), _solver(solution, observations(data))
    else:
        unknowns, z, nuisance, r, S, counts, again = _eliminated(solution, data)
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
        status=str(solution.status),
        tolerance=tolerance,
    )


def _solver(solution: "Solution", observed: tuple[Observed, ...]) -> Rows:
    """Rows and derivatives for other unknowns, each by a solution of the equation."""
    scheme, settings = solution.problem.scheme, solution.settings
    assert isinstance(scheme, AbstractFittedScheme)
    shooting = scheme.shooting(
        solution.model,
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
    if rows is not None and (inside := _off_the_bounds(z, S, unknowns)) is not None:
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
    bound, lost = _settled(weighted, slopes[:, : z.size], z, unknowns)
    # Of an unknown that is next to a bound, and hardly seen, only rows elsewhere can tell more.
    if rows is not None and (bound & lost).any():
        lost &= ~(bound & _seen_at_start(rows, z_all, lost, unknowns))
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
    ends, labels = _ends(
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
        _direction(row / (columns[: z.size] * unit), np.abs(row) > _SHARE, names)
        for row in open_
        if np.linalg.norm(row) > _SHARE
    ]
    for concerned in list(directions):
        if rows is not None and _jumps(rows, z_all, concerned, unit, names):
            directions.remove(concerned)
            for name in concerned:
                labels[names.index(name)] = _JUMPS
    effect = float((length[: z.size] * unit).max(initial=0.0)) / math.sqrt(N)
    if tolerance > 0 and 0 <= sigma <= tolerance * effect:
        labels = [label or _BELOW for label in labels]
    if rows is not None and offset > _STATIONARY:
        labels = [label or "not at a minimum" for label in labels]
    values, place = {}, 0
    for item, at in each(z, unknowns):
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


def _off_the_bounds(
    z: Float[np.ndarray, " q"], S: Float[np.ndarray, "N columns"], unknowns: dict[str, Unknown]
) -> Float[np.ndarray, " q"] | None:
    """Trained values from which numbers on a bound are just inside; None if there is none.

    On the bound itself the derivative by what is trained is zero, and tells nothing.
    """
    inside = np.concatenate([item.off_the_bounds(at) for item, at in each(z, unknowns)])
    on = (inside != z) & ~S[:, : z.size].any(axis=0)
    return np.where(on, inside, z) if on.any() else None


def _seen_at_start(
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
    return ~_settled(r, S[:, : lost.size], there, unknowns)[1]


def _settled(
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


def _ends(
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


def _slope(item: Unknown, raw: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return np.asarray(jax.vmap(jax.grad(item.at))(jnp.asarray(raw)), float)


def _value(item: Unknown, raw: np.ndarray) -> Any:
    with np.errstate(over="ignore"):
        return item.at(jnp.asarray(raw))


def _direction(change: np.ndarray, concerned: np.ndarray, names: list[str]) -> dict[str, float]:
    """Shares of the concerned numbers, the largest one."""
    change = change / change[concerned][np.argmax(np.abs(change[concerned]))]
    return {name: float(change[k]) for k, name in enumerate(names) if concerned[k]}


def _jumps(
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


def _eliminated(
    solution: "Solution", data: list[tuple[Any, Draw]]
) -> tuple[
    dict[str, Unknown],
    np.ndarray,
    np.ndarray | None,
    np.ndarray,
    np.ndarray,
    np.ndarray,
    Rows | None,
]:
    """Rows and derivatives of any model whose leaves hold unknowns.

    The other trained parameters follow the unknowns as the constraints that are not data demand,
    in least squares. Without such constraints they are fitted to the data besides.
    """
    problem, model = solution.problem, solution.model
    params, static = eqx.partition(model, trainable_mask(model, problem.trainable))
    first = problem.build_model(key=jax.random.key(solution.settings.seed))
    unknowns = _trained_unknowns(first, problem)
    if not unknowns:
        raise BadValueError(
            "estimates needs unknowns: no trained leaf of the model is a cx.Unknown. Write e.g. "
            "rate: cx.Unknown and u.rate.value in the residual."
        )
    is_raw = ravel_pytree(_marked(params))[0].astype(bool)
    theta = np.asarray(ravel_pytree(params)[0], float)
    equal = [dataclasses.replace(points, share=np.ones(len(points))) for _, points in data]
    constraints = [item for item, _ in data]
    vector = residual_vector(constraints, static, rows(constraints, equal))
    r, J = _jacobian(vector, params)
    # Each constraint's rows count as one mean.
    sizes = [
        jax.eval_shape(residual_vector([item], static, rows([item], [points])), params).size
        for item, points in zip(constraints, equal, strict=True)
    ]
    counts = np.concatenate([np.full(n, 1 / len(e)) for n, e in zip(sizes, equal, strict=True)])
    counts = counts / counts.max()
    D, w = J[:, is_raw], J[:, ~is_raw]
    rest = [
        (item, points.train)
        for item, points in zip(problem.constraints, solution.streams, strict=True)
        if not isinstance(item.over, Data)
    ]
    if rest and w.shape[1]:
        items, draws = zip(*rest, strict=True)
        P = _jacobian(residual_vector(items, static, rows(items, draws)), params)[1]
        follow, *_ = np.linalg.lstsq(P[:, ~is_raw], -P[:, is_raw], rcond=None)
        return unknowns, theta[is_raw], theta[:0], r, D + w @ follow, counts, None
    order = np.concatenate([np.flatnonzero(is_raw), np.flatnonzero(~is_raw)])
    unravel = ravel_pytree(params)[1]

    def again(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = np.empty_like(theta)
        moved[order] = z
        r, J = _jacobian(vector, unravel(jnp.asarray(moved, jnp.result_type(float))))
        return r, J[:, order]

    S = np.concatenate([D, w], axis=1)
    few = w.shape[1] <= _FEW
    return unknowns, theta[is_raw], theta[~is_raw], r, S, counts, again if few else None


def _jacobian(vector: ResidualVector, params: PyTree) -> tuple[np.ndarray, np.ndarray]:
    r, J = _compiled_jacobian(vector, params)
    return np.asarray(r, float), np.asarray(J, float)


@eqx.filter_jit
def _compiled_jacobian(vector: ResidualVector, params: PyTree) -> tuple[Array, Array]:
    return vector.jacobian(params)


def _marked(params: PyTree) -> PyTree:
    """Ones in the place of unknowns, zeros elsewhere."""
    unknown = lambda node: isinstance(node, Unknown)  # noqa: E731
    return jax.tree.map(
        lambda node: jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, float(unknown(node)), leaf.dtype), node
        ),
        params,
        is_leaf=unknown,
    )
