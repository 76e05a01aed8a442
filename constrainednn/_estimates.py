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
from jaxtyping import Bool, Float, PyTree

from constrainednn._domains import Data
from constrainednn._fit import AbstractFittedScheme, observations
from constrainednn._models import trainable_mask
from constrainednn._residuals import residual_vector, rows
from constrainednn._samplers import Draw
from constrainednn._statistics import LEVEL, Estimate, t_quantile
from constrainednn._unknowns import Unknown, entry_names, units, unknowns_of
from constrainednn._validate import as_positive, as_real

if TYPE_CHECKING:
    from constrainednn._solution import Solution

# An unknown is at its bound where it changes by less than this share of what it did at the start.
_AT_BOUND = 1e-6
# An unknown with less than this share of such a direction is not concerned by it.
_SHARE = 1e-3


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
    """

    values: dict[str, Estimate]
    correlation: Float[np.ndarray, "q q"]
    sigma: float
    degrees: int
    singular_values: Float[np.ndarray, " q"]
    undetermined: tuple[dict[str, float], ...]

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
    return isinstance(problem.scheme, AbstractFittedScheme) or bool(_trained_unknowns(solution))


def _trained_unknowns(solution: "Solution") -> dict[str, Unknown]:
    mask = trainable_mask(solution.model, solution.problem.trainable)
    params = eqx.filter(solution.model, mask)
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
        raise ValueError(
            "estimates needs data: no constraint is over cx.Data. For rows that are all trained "
            "on write cx.Data(rows, holdout=0)."
        )
    if isinstance(problem.scheme, AbstractFittedScheme):
        unknowns = problem.scheme.arguments.unknowns
        z = np.asarray(model.parameters, float)
        r, S = problem.scheme.sensitivities(model, observations(data))
        counts, nuisance = np.ones(r.size), 0
    else:
        unknowns, z, r, S, counts = _eliminated(solution, data)
        nuisance = S.shape[1] - z.size
    return estimates_from(
        r,
        S,
        z,
        unknowns,
        counts=counts,
        nuisance=nuisance,
        unseen=max(1e-9, 1e3 * float(jnp.finfo(jnp.result_type(float)).eps)),
        sigma=None if sigma is None else as_positive(sigma, "sigma"),
        level=as_real(level, "level"),
    )


def estimates_from(
    r: Float[np.ndarray, " N"],
    S: Float[np.ndarray, "N columns"],
    z: Float[np.ndarray, " q"],
    unknowns: dict[str, Unknown],
    *,
    counts: Float[np.ndarray, " N"],
    nuisance: int = 0,
    unseen: float = 1e-9,
    sigma: float | None = None,
    level: float = LEVEL,
) -> Estimates:
    """Standard errors and t intervals from rows and their derivatives.

    Args:
        r: Rows at the estimate.
        S: Their derivatives; columns beyond those of z belong to what is fitted besides.
        z: The unknowns in the scale in which they are trained.
        unknowns: How numbers follow from z, by name.
        counts: How much each row counts in the fit.
        nuisance: Number of the further columns.
        unseen: Directions with a singular value below this, of columns of length one, are not
            determined; above the rounding of S.
        sigma: Standard deviation of the noise, if it is known.
        level: Coverage in (0, 1).

    Raises:
        ValueError: If there are fewer rows than unknowns, or some are not finite.

    Source:
        Seber and Wild, Nonlinear Regression, Wiley (1989), sections 2.1 and 5.1. Where rows do not
        count alike, the covariance of the weighted estimate: White, Econometrica 48 (1980) 817.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}. 0.95 asks for a 95 % interval.")
    if not (np.isfinite(r).all() and np.isfinite(S).all()):
        raise ValueError("there are no estimates: the solution does not reach all of the data.")
    (N, q), names = S.shape, entry_names(unknowns)
    if q > N:
        besides = f" and {nuisance} numbers that are fitted besides" * bool(nuisance)
        raise ValueError(
            f"there are no estimates: {N} observed numbers cannot determine {z.size} unknowns"
            f"{besides}. Give more data."
        )
    degrees = N - q if sigma is None else 0
    if sigma is None:
        sigma = math.sqrt(float(r @ r) / (N - q)) if q < N else math.nan
    root = np.sqrt(counts)
    # One that went to its bound is taken for known: nothing can be said from one side.
    bound = np.concatenate([_at_bound(item, raw) for item, raw in _each(z, unknowns)])
    S = np.where(np.append(bound, np.zeros(nuisance, bool)), 0.0, S)
    length = np.linalg.norm(root[:, None] * S, axis=0)
    columns = np.where(length > 0, length, 1.0)
    U, s, Vt = np.linalg.svd(root[:, None] * S / columns, full_matrices=False)
    seen = s > unseen
    # From noise of the rows to changes of z.
    A = (Vt[seen].T / s[seen]) / columns[:, None] @ (U[:, seen].T * root)
    covariance = (sigma**2 * A @ A.T)[: z.size, : z.size]
    open_ = np.where(bound, 0.0, Vt[~seen, : z.size])
    hidden = np.linalg.norm(open_, axis=0) > _SHARE
    error = np.where(hidden, np.inf, np.where(bound, np.nan, np.sqrt(np.diag(covariance))))
    quantile = t_quantile(level, degrees if degrees else math.inf) if not math.isnan(sigma) else 0
    values, place = {}, 0
    for item, at in _each(z, unknowns):
        size, shape = at.size, item.raw.shape
        cut = slice(place, place + size)
        by = error[cut]
        with np.errstate(invalid="ignore"):  # zero times infinity where there is no interval
            ends = at, at - quantile * by, at + quantile * by
        middle, low, high = (
            np.asarray(_value(item, raw.reshape(shape)), float).ravel() for raw in ends
        )
        slope = _slope(item, at)
        low, high = np.minimum(low, high), np.maximum(low, high)
        for k, name in enumerate(names[cut]):
            label = "not determined by the data" if hidden[place + k] else ""
            label = "at its bound" if bound[place + k] else label
            values[name] = Estimate(
                float(middle[k]),
                math.nan if math.isnan(sigma) else float(low[k]),
                math.nan if math.isnan(sigma) else float(high[k]),
                N,
                float(by[k] * abs(slope[k])) if by[k] < math.inf else math.inf,
                label,
            )
        place += size
    unit = units(z, unknowns)
    unit = np.where(unit > 0, unit, 1.0)
    scale = np.where(hidden | bound, np.nan, np.sqrt(np.diag(covariance)))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(scale, scale)
    return Estimates(
        values,
        correlation,
        sigma,
        degrees,
        s,
        tuple(
            _direction(row / (columns[: z.size] * unit), np.abs(row) > _SHARE, names)
            for row in open_
            if np.linalg.norm(row) > _SHARE
        ),
    )


def _each(
    z: Float[np.ndarray, " q"], unknowns: dict[str, Unknown]
) -> list[tuple[Unknown, Float[np.ndarray, " k"]]]:
    """Each unknown with its part of z."""
    ends = np.cumsum([item.raw.size for item in unknowns.values()])
    return list(zip(unknowns.values(), np.split(z, ends[:-1]), strict=True))


def _slope(item: Unknown, raw: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return np.asarray(jax.vmap(jax.grad(item.at))(jnp.asarray(raw)), float)


def _at_bound(item: Unknown, raw: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """True where the number hardly changes with what is trained, beside how it did at the start."""
    start = np.asarray(item.raw, float).ravel()
    return _slope(item, raw) ** 2 < _AT_BOUND**2 * _slope(item, start) ** 2


def _value(item: Unknown, raw: np.ndarray) -> Any:
    with np.errstate(over="ignore"):
        return item.at(jnp.asarray(raw))


def _direction(change: np.ndarray, concerned: np.ndarray, names: list[str]) -> dict[str, float]:
    """Shares of the concerned numbers, the largest one."""
    change = change / change[concerned][np.argmax(np.abs(change[concerned]))]
    return {name: float(change[k]) for k, name in enumerate(names) if concerned[k]}


def _eliminated(
    solution: "Solution", data: list[tuple[Any, Draw]]
) -> tuple[dict[str, Unknown], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and derivatives of any model whose leaves hold unknowns.

    The other trained parameters follow the unknowns as the constraints that are not data demand,
    in least squares. Without such constraints they are fitted to the data besides.
    """
    problem, model = solution.problem, solution.model
    params, static = eqx.partition(model, trainable_mask(model, problem.trainable))
    unknowns = _trained_unknowns(solution)
    if not unknowns:
        raise ValueError(
            "estimates needs unknowns: no trained leaf of the model is a cx.Unknown. Write e.g. "
            "rate: cx.Unknown and u.rate.value in the residual."
        )
    is_raw = ravel_pytree(_marked(params))[0].astype(bool)
    theta = np.asarray(ravel_pytree(params)[0], float)
    equal = [dataclasses.replace(points, share=np.ones(len(points))) for _, points in data]
    constraints = [item for item, _ in data]
    r, J = residual_vector(constraints, static, rows(constraints, equal)).jacobian(params)
    r, J = np.asarray(r, float), np.asarray(J, float)
    # Each constraint's rows count as one mean.
    sizes = [
        jax.eval_shape(residual_vector([item], static, rows([item], [points])), params).size
        for item, points in zip(constraints, equal, strict=True)
    ]
    counts = np.concatenate([np.full(n, 1 / len(e)) for n, e in zip(sizes, equal, strict=True)])
    D, w = J[:, is_raw], J[:, ~is_raw]
    rest = [
        (item, points.train)
        for item, points in zip(problem.constraints, solution.streams, strict=True)
        if not isinstance(item.over, Data)
    ]
    if rest and w.shape[1]:
        items, draws = zip(*rest, strict=True)
        vector = residual_vector(items, static, rows(items, draws))
        P = np.asarray(vector.jacobian(params)[1], float)
        follow, *_ = np.linalg.lstsq(P[:, ~is_raw], -P[:, is_raw], rcond=None)
        S = D + w @ follow
    else:
        S = np.concatenate([D, w], axis=1)
    return unknowns, theta[is_raw], r, S, counts / counts.max()


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
