"""Where training starts: at the scale of the inner weights at which the head alone fits best.

Measured on Helmholtz's equation, the wave equation and Poisson's in five dimensions: errors after
as many steps are six to a hundred thousand times smaller than from one scale for all.
"""

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._gap.objectives.lagrangian import Minimised, Soft, minimised
from constrainednn._gap.residuals import monitor_loss, residuals_at
from constrainednn._problem.default_sampler import is_differentiated
from constrainednn._problem.problem import Problem
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import Independent
from constrainednn.methods.variable_projection import Fitted, head_fitted
from constrainednn.models.networks import head_of, hidden_network
from constrainednn.models.recipes import AbstractRecipe, trainable_mask

# What the inner weights are multiplied by, the sharpest first. It is found once the head alone
# leaves no more than this share of the residual, or the next factor more than that share of this.
_FACTORS, _SMALL, _LOWER = (1.0, 0.5, 0.25, 0.125), 0.05, 0.8
# Gauss-Newton steps of a head that does not enter linearly.
_ROUNDS = 5
# Damping, relative to the largest singular value squared. Without it small scales win with heads of
# 1e9 whose terms cancel, and training does not get far from there.
_DAMPING = 1e-10
# A step that leaves more of the loss than this was the last.
_ENOUGH = 0.99
# Points of each constraint at which a statement is asked whether it is affine.
_FEW = 8


class Started(NamedTuple):
    """A model to train from, and seconds that it took to find."""

    model: PyTree
    compile: float
    run: float


def right_start(
    problem: Problem, model: PyTree, points: TrainingPoints, unit: float, soft: Soft
) -> Started:
    """Fit the head for a few scales of the inner weights; the monitor loss decides.

    Args:
        problem: The problem.
        model: The model as it was drawn.
        points: Points to fit on, and to be monitored on.
        unit: What rows are divided by.
        soft: The constraints that are rows.
    """
    monitored = lambda u: monitor_loss(problem, u, points.train, points.monitor)  # noqa: E731
    head, static = eqx.partition(model, trainable_mask(model, head_of))
    none = eqx.combine(jax.tree.map(jnp.zeros_like, head), static)
    found, least, size = model, monitored(model), monitored(none)
    compiling = running = 0.0
    for factor in _FACTORS:
        scaled = eqx.tree_at(_first, model, replace_fn=lambda leaf, factor=factor: factor * leaf)
        head, static = eqx.partition(scaled, trainable_mask(scaled, head_of))
        residual = minimised(problem, static, points.train, unit, soft)
        started = time.perf_counter()
        if not compiling:
            jax.block_until_ready(_fitted(residual, head, jnp.asarray(0)))
            compiling = time.perf_counter() - started
            started = time.perf_counter()
        fitted = eqx.combine(_fitted(residual, head, jnp.asarray(_ROUNDS)), static)
        loss = monitored(fitted)
        running += time.perf_counter() - started
        if not loss < (1.0 if factor == 1.0 else _LOWER**2) * least:
            break
        found, least = fitted, loss
        if loss < _SMALL**2 * size:
            break
    return Started(found, compiling, running)


def applies(problem: Problem, seed: int) -> bool:
    """True for a network that we draw, all of it trained, in a differential equation."""
    if problem.objective is not None or not isinstance(problem.model, AbstractRecipe):
        return False
    model = problem.build_model(key=jax.random.key(seed))
    if hidden_network(model) is None:
        return False
    trained = trainable_mask(model, problem.trainable)
    return all(jax.tree.leaves((_first(trained), head_of(trained)))) and any(
        isinstance(item.over, AbstractDomain) and is_differentiated(item.residual, item.over, model)
        for item in problem.constraints
    )


def is_affine(problem: Problem, seed: int) -> bool:
    """True if the rows are affine in the head of the network, as of a linear equation.

    Found from the rows of a few points with no head, with the one that was drawn, and with twice
    that. What cannot be evaluated is not.
    """
    key = jax.random.key(seed)
    model = problem.build_model(key=key)
    head, static = eqx.partition(model, trainable_mask(model, head_of))
    models = [eqx.combine(jax.tree.map(lambda leaf, k=k: k * leaf, head), static) for k in range(3)]
    for item in problem.constraints:
        if isinstance(item.over, AbstractDomain):
            points = draw(item.over, _FEW, Independent(), key=key).points
        else:
            # Of rows that judge later, too, nothing is learnt here but the form of the residual.
            rows = item.over.rows if isinstance(item.over, Data) else item.over.points
            points = jax.tree.map(lambda leaf: leaf[:_FEW], rows)
        try:
            none, once, twice = (residuals_at(item.residual, u, points) for u in models)
        except Exception:  # noqa: BLE001  (the user's own, which the checks before a solve report)
            return False
        size = max(np.abs(r).max(initial=0.0) for r in (none, once, twice))
        bend = np.abs(none - 2 * once + twice).max(initial=0.0)
        if not bend <= float(jnp.finfo(once.dtype).eps) ** 0.5 * size:
            return False
    return True


def _first(model: PyTree) -> PyTree:
    network = hidden_network(model)
    assert network is not None
    return network.layers[0].weight, network.layers[0].bias


@compiled
def _fitted(residual: Minimised, params: PyTree, rounds: Int[Array, ""]) -> PyTree:
    """Lightly damped Gauss-Newton steps, as long as they lower the loss."""

    def goes_on(carry: tuple[Fitted, Array, Array]) -> Array:
        _, taken, lower = carry
        return lower & (taken < rounds)

    def step(carry: tuple[Fitted, Array, Array]) -> tuple[Fitted, Array, Array]:
        now, taken, _ = carry
        found = head_fitted(residual, now.params, _DAMPING)
        return found, taken + 1, found.loss < _ENOUGH * now.loss

    r = residual(params)
    first = (Fitted(params, r @ r), jnp.asarray(0), jnp.array(True))
    return lax.while_loop(goes_on, step, first)[0].params
