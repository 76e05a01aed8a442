"""What a stage trains can be trained, and its first steps descend."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._common.messages import shown
from constrainednn._problem.problem import Problem
from constrainednn.errors import BadTypeError, BadValueError, ProblemError
from constrainednn.methods.first_order import Optax
from constrainednn.methods.stages import Stage
from constrainednn.models.recipes import trainable_mask

# Trial steps that may leave the parameters where they are before a rate is taken for zero.
_TRIALS = 100


def check_stages(stages: Sequence[Stage], problem: Problem, model: PyTree) -> None:
    """Refuse a stage that trains nothing, or whose learning rate cannot be right.

    Raises:
        ProblemError: If nothing is selected, or leaves have another dtype than points.
        TypeError, ValueError: If the first updates of a trial are NaN, zero or uphill.
    """
    for stage in stages:
        params = _trained(model, stage.trainable or problem.trainable)
        if isinstance(stage.method, Optax):
            _check_descends(stage.method.tx, params)


def _trained(model: PyTree, select: Callable[[Any], Any] | None) -> PyTree:
    """The selected part of a model."""
    params = eqx.filter(model, trainable_mask(model, select))
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ProblemError("Nothing is trained: trainable= selects no floating-point array.")
    expected = jnp.result_type(float)
    for path, leaf in leaves:
        # An array of jax made before the switch keeps its dtype; others are cast when used.
        own = isinstance(leaf, jax.Array)
        if (leaf.dtype if own else jax.dtypes.canonicalize_dtype(leaf.dtype)) != expected:
            raise ProblemError(
                f"the model's leaf {jax.tree_util.keystr(path)} is {leaf.dtype}, but points are "
                f"{expected}. Cast it, leaf.astype({str(expected)!r}), or make the model after "
                "jax.config.update('jax_enable_x64', ...)."
            )
    return params


@compiled
def _updated(update: Callable, grads: PyTree, state: PyTree, params: PyTree) -> tuple:
    return update(grads, state, params)


def _check_descends(tx: optax.GradientTransformation, params: PyTree) -> None:
    """Refuse a transformation whose learning rate cannot be right.

    optax hides the rate in a closure and accepts NaN, negative and zero. Updates of a constant
    gradient show it. A warm-up starts at zero and an accumulation waits: the first that moves
    counts.
    """
    params = jax.tree.map(jnp.ones_like, params)
    # Not the same everywhere: what takes the mean away would leave nothing.
    grads = jax.tree.map(
        lambda leaf: jnp.linspace(0.25, 0.75, leaf.size, dtype=leaf.dtype).reshape(leaf.shape),
        params,
    )
    slope = 0.0
    try:
        state = tx.init(params)
        for _ in range(_TRIALS):
            updates, state = _updated(tx.update, grads, state, params)
            slope = sum(map(float, jax.tree.leaves(jax.tree.map(jnp.vdot, updates, grads))))
            if slope:
                break
    except (TypeError, OverflowError) as error:
        if "missing" in str(error):
            return  # a line search, which asks for the loss: its step length is its own affair
        raise BadTypeError(
            f"Optax: a trial step of tx fails: {shown(str(error))}. "
            "If the learning rate is text, write the number without quotes, e.g. optax.adam(1e-3)."
        ) from None
    if not math.isfinite(slope):
        found = "the update of a trial step is not finite"
    elif not slope:
        found = f"{_TRIALS} trial steps did not move the parameters"
    elif slope > 0:
        found = "trial steps climb instead of descending"
    else:
        return
    raise BadValueError(
        f"Optax: {found}. The learning rate must be finite and above zero, e.g. optax.adam(1e-3)."
    )
