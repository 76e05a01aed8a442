"""First-order methods: any optax transformation on the squared norm of the residual."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError
from constrainednn.methods.base import (
    NONFINITE,
    RUNNING,
    AbstractLagrangian,
    AbstractMethod,
    AbstractResidual,
    StepInfo,
    loss_of,
)


class Optax(AbstractMethod[PyTree]):
    """Any optax transformation: `Optax(optax.adam(1e-3))`, `Optax(optax.lbfgs())`.

    Full-batch on the training points. Line searches get the loss function they ask for.

    Args:
        tx: An `optax.GradientTransformation`, or `optax.MultiSteps`.

    Raises:
        TypeError: If `tx` is no transformation. A learning rate that is no positive number is
            refused by `check` and `solve`.
    """

    tx: optax.GradientTransformation

    def __init__(self, tx: optax.GradientTransformation | optax.MultiSteps):
        # Transformations are named tuples: test for the two methods, not for a sequence.
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            raise BadTypeError(
                f"Optax takes an optax transformation such as optax.adam(1e-3), got tx={shown(tx)}."
            )
        self.tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx

    def __repr__(self) -> str:
        return f"Optax({_described(self.tx.update)})"

    def init(self, residual: AbstractResidual | AbstractLagrangian, params: PyTree) -> PyTree:
        """The transformation's own state."""
        del residual
        return self.tx.init(params)

    def step(
        self, residual: AbstractResidual | AbstractLagrangian, params: PyTree, state: PyTree
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
