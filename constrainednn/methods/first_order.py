"""First-order methods: any optax transformation on the squared norm of the residual."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.methods.base import (
    NONFINITE,
    RUNNING,
    AbstractMethod,
    AbstractResidual,
    StepInfo,
    loss_of,
)

# Trial steps that may leave the parameters where they are before a rate is taken for zero.
_TRIALS = 100


class Optax(AbstractMethod[PyTree]):
    """Any optax transformation: `Optax(optax.adam(1e-3))`, `Optax(optax.lbfgs())`.

    Full-batch on the training points. Line searches get the loss function they ask for.

    Args:
        tx: An `optax.GradientTransformation`, or `optax.MultiSteps`.

    Raises:
        TypeError, ValueError: If `tx` is no transformation, or its first updates of a trial
            quadratic are NaN, zero or uphill, as a learning rate that is no positive number makes
            them.
    """

    tx: optax.GradientTransformation

    def __init__(self, tx: optax.GradientTransformation | optax.MultiSteps):
        # Transformations are named tuples: test for the two methods, not for a sequence.
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            raise BadTypeError(
                f"Optax takes an optax transformation such as optax.adam(1e-3), got tx={shown(tx)}."
            )
        self.tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
        _check_descends(self.tx)

    def __repr__(self) -> str:
        return f"Optax({_described(self.tx.update)})"

    def init(self, residual: AbstractResidual, params: PyTree) -> PyTree:
        """The transformation's own state."""
        del residual
        return self.tx.init(params)

    def step(
        self, residual: AbstractResidual, params: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree, StepInfo]:
        """Differentiate the loss once and apply the update."""
        fn = lambda params: loss_of(residual, params)  # noqa: E731
        # A line search could hand its last value and gradient on, but they are stale after a
        # redraw of the points; one evaluation more is the price of not having to know.
        loss, grads = jax.value_and_grad(fn)(params)
        tx = optax.with_extra_args_support(self.tx)
        updates, new_state = tx.update(grads, state, params, value=loss, grad=grads, value_fn=fn)
        new_params = optax.apply_updates(params, updates)
        finite = jnp.isfinite(loss)
        for leaf in jax.tree.leaves((grads, new_params)):
            finite &= jnp.all(jnp.isfinite(leaf))
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        return (
            jax.tree.map(keep, new_params, params),
            jax.tree.map(keep, new_state, state),
            StepInfo(loss, jnp.where(finite, RUNNING, NONFINITE)),
        )


def _described(update: Callable) -> str:
    """A transformation with its numbers, read from what its closure holds: nowhere else are they.

    Whoever keeps a record of a run wants to know the learning rate.
    """
    name = getattr(update, "__qualname__", type(update).__name__).split(".")[0]
    if inspect.isfunction(update):
        held = inspect.getclosurevars(update).nonlocals
    else:
        held = vars(getattr(update, "__self__", update))
    parts, settings = [], []
    for key, value in held.items():
        if isinstance(value, optax.GradientTransformation):
            parts.append(_described(value.update))
        elif isinstance(value, tuple) and value and all(map(callable, value)):
            parts += map(_described, value)
        elif isinstance(value, (bool, int, float, str)) or value is None:
            settings.append(f"{key}={value!r}")
        elif callable(value):
            settings.append(f"{key}={getattr(value, '__qualname__', '?').split('.')[0]}")
    wrapper = name in ("chain", "with_extra_args_support") and not settings
    inside = ", ".join(parts + settings)
    return inside if wrapper else f"{name}({inside})"


def _check_descends(tx: optax.GradientTransformation) -> None:
    """Refuse a transformation whose learning rate cannot be right.

    optax hides the rate in a closure and accepts NaN, negative and zero. Updates of a constant
    gradient show it. A warm-up starts at zero and an accumulation waits: the first that moves
    counts.
    """
    params = {"trial": jnp.ones(2)}
    grads = {"trial": jnp.full(2, 0.5)}
    total = np.zeros(2)
    try:
        state = tx.init(params)
        update = jax.jit(tx.update)
        for _ in range(_TRIALS):
            updates, state = update(grads, state, params)
            total = np.asarray(updates["trial"])
            if total.any():
                break
    except (TypeError, OverflowError) as error:
        if "missing" in str(error):
            return  # a line search, which asks for the loss: its step length is its own affair
        raise BadTypeError(
            f"Optax: a trial step of tx fails: {shown(str(error))}. "
            "If the learning rate is text, write the number without quotes, e.g. optax.adam(1e-3)."
        ) from None
    except (ValueError, KeyError, AttributeError):
        return  # it needs the structure of the real parameters
    if not np.isfinite(total).all():
        raise BadValueError(
            "Optax: the update of a trial step is not finite. "
            "The learning rate must be finite, e.g. optax.adam(1e-3)."
        )
    if not total.any():
        raise BadValueError(
            f"Optax: {_TRIALS} trial steps did not move the parameters. "
            "The learning rate must be above zero, e.g. optax.adam(1e-3)."
        )
    if total.sum() > 0:
        raise BadValueError(
            "Optax: trial steps climb instead of descending. "
            "The learning rate must be above zero, e.g. optax.adam(1e-3)."
        )
