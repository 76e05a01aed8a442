"""Rows of data and their derivatives by the unknowns, with what is trained besides eliminated."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._gap.residual_vector import ResidualVector, residual_vector, rows
from constrainednn._problem.problem import Problem
from constrainednn._problem.unknowns import Unknown, unknowns_of
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadValueError
from constrainednn.models.recipes import trainable_mask
from constrainednn.results.estimates.regression import Regression
from constrainednn.results.facts import Facts

# With more numbers beside the unknowns than this, intervals go by the slope alone.
_FEW = 100


def trained_unknowns(model: PyTree, problem: Problem) -> dict[str, Unknown]:
    """Unknowns of the model that are trained, by name."""
    params = eqx.filter(model, trainable_mask(model, problem.trainable))
    return {name: item for name, item in unknowns_of(params).items() if item.raw is not None}


def eliminated(facts: Facts, data: list[tuple[Any, Draw]]) -> Regression:
    """Rows and derivatives of any model whose leaves hold unknowns.

    The other trained parameters follow the unknowns as the constraints that are not data demand,
    in least squares. Without such constraints they are fitted to the data, too.
    """
    problem, model = facts.problem, facts.model
    params, static = eqx.partition(model, trainable_mask(model, problem.trainable))
    first = problem.build_model(key=jax.random.key(facts.settings.seed))
    unknowns = trained_unknowns(first, problem)
    if not unknowns:
        raise BadValueError(
            "estimates needs unknowns: no trained leaf of the model is a cx.Unknown. Write e.g. "
            "rate: cx.Unknown and u.rate.value in the residual."
        )
    is_raw = ravel_pytree(_marked(params))[0].astype(bool)
    theta = np.asarray(ravel_pytree(params)[0], float)
    equal = [dataclasses.replace(points, weights=np.ones(len(points))) for _, points in data]
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
        for item, points in zip(problem.statements, facts.streams, strict=True)
        if not isinstance(item.over, Data)
    ]
    if rest and w.shape[1]:
        items, draws = zip(*rest, strict=True)
        P = _jacobian(residual_vector(items, static, rows(items, draws)), params)[1]
        follow, *_ = np.linalg.lstsq(P[:, ~is_raw], -P[:, is_raw], rcond=None)
        return Regression(r, D + w @ follow, theta[is_raw], unknowns, counts)
    order = np.concatenate([np.flatnonzero(is_raw), np.flatnonzero(~is_raw)])
    unravel = ravel_pytree(params)[1]

    def again(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = np.empty_like(theta)
        moved[order] = z
        r, J = _jacobian(vector, unravel(jnp.asarray(moved, jnp.result_type(float))))
        return r, J[:, order]

    few = w.shape[1] <= _FEW
    return Regression(r, J[:, order], theta[order], unknowns, counts, again if few else None)


def _jacobian(vector: ResidualVector, params: PyTree) -> tuple[np.ndarray, np.ndarray]:
    r, J = _compiled_jacobian(vector, params)
    return np.asarray(r, float), np.asarray(J, float)


@compiled
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
