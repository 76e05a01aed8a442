"""The initial value: given numbers, unknowns, or a function of the arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_argument, as_reals, check_takes, few_leaves_of
from constrainednn._common.messages import refuse_traced, shown
from constrainednn._ode.fitting.initial_values import raveled_rows
from constrainednn._problem.equation_arguments import Arguments
from constrainednn._problem.unknowns import is_unknown, unknowns_of
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.pieces import Pieces, stack_pieces


class Start(NamedTuple):
    """An initial value in which unknowns have their first values.

    Attributes:
        arguments: Arguments of the equation, with the unknowns in them and in the initial value.
        args: The same with the first values of unknowns.
        state: Argument of the field: the value or, for order two, value and velocity.
        flat: The same as one array.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        states_from: From arguments and the initial value to the flat state.
    """

    arguments: Arguments
    args: PyTree
    state: PyTree
    flat: Float[np.ndarray, "p d"]
    unravel: Callable[[Array], PyTree]
    states_from: Callable[[PyTree, PyTree], Float[Array, "p d"]]

    @property
    def value(self) -> PyTree:
        """The state without the velocity."""
        return self.state if len(self.flat) == 1 else self.state[0]

    def model(self, span: tuple[float, float], width: int) -> Pieces:
        """One window over the whole span with the initial value throughout."""
        return stack_pieces(
            np.asarray(span),
            self.flat[None],
            np.zeros((1, width, self.flat.shape[1])),
            unravel=self.unravel,
            parameters=self.arguments.start,
            arguments=self.arguments if self.arguments.unknowns else None,
        )


def start_of(y0: Any, args: PyTree, order: int) -> Start:
    """The initial value given by `y0`, and by `args` if it depends on them.

    Raises:
        ValueError, TypeError: If it is not valid.
    """
    few_leaves_of(args, "args")
    few_leaves_of(y0, "y0")
    refuse_traced(args, "args")
    args = jax.tree.map(as_argument, args)
    unknown = None if callable(y0) or not unknowns_of(y0) else _as_start(y0)
    arguments = Arguments(args, unknown)
    first = y0
    if arguments.unknowns:
        args, filled = arguments.both(jnp.asarray(arguments.start))
        first = _called(y0, args) if callable(y0) else y0 if unknown is None else filled
    elif callable(y0):
        raise BadTypeError(
            f"y0 is a function, {shown(y0)}, but args holds no cx.Unknown that it could depend on: "
            "give its value."
        )
    if order == 2 and not (isinstance(first, (tuple, list)) and len(first) == 2):
        raise BadValueError(
            f"order=2 needs y0=(value, velocity), got {shown(y0)}. Write e.g. y0=(1.0, 0.0)."
        )
    first = _as_start(first)
    parts = (first,) if order == 1 else tuple(first)
    vectors, unravels = zip(*map(_flat_start, parts), strict=True)
    if len({len(vector) for vector in vectors}) > 1:
        raise BadValueError("the value and the velocity in y0 must have the same shapes.")
    flat = np.stack(vectors)
    if unknown is not None:
        states_from = eqx.Partial(_from_unknowns, order)
    elif callable(y0):
        states_from = eqx.Partial(_from_args, y0, order)
    else:
        states_from = eqx.Partial(_constant, jnp.asarray(flat))
    state = first if order == 1 else parts
    return Start(arguments, args, state, flat, unravels[0], states_from)


def _from_args(
    fn: Callable[[PyTree], PyTree], order: int, args: PyTree, y0: PyTree
) -> Float[Array, "p d"]:
    del y0
    return raveled_rows(fn(args), order)


def _constant(states: Float[Array, "p d"], args: PyTree, y0: PyTree) -> Float[Array, "p d"]:
    del args, y0
    return states


def _from_unknowns(order: int, args: PyTree, y0: PyTree) -> Float[Array, "p d"]:
    del args
    return raveled_rows(y0, order)


def _called(y0: Callable[[PyTree], PyTree], args: PyTree) -> PyTree:
    check_takes(y0, (args,), "y0 must take args, y0(args), if it is a function")
    return y0(args)


def _as_start(y0: PyTree) -> PyTree[Array]:
    """The initial value as arrays; unknowns stay as they are."""
    if not few_leaves_of(y0, "y0"):
        raise BadTypeError(f"y0 must hold real numbers, got {shown(y0)}.")
    dtype = jnp.result_type(float)
    return jax.tree.map(
        lambda leaf: leaf if is_unknown(leaf) else jnp.asarray(as_reals(leaf, "y0"), dtype),
        y0,
        is_leaf=is_unknown,
    )


def _flat_start(value: PyTree[Array]) -> tuple[np.ndarray, Callable[[Array], PyTree]]:
    """The initial value as a vector, and the inverse of that."""
    vector, unravel = ravel_pytree(value)
    if not vector.size:
        raise BadValueError("y0 holds no numbers.")
    if not np.isfinite(vector).all():
        raise BadValueError(f"y0 must be finite, got {shown(np.asarray(vector).tolist())}.")
    return np.asarray(vector), unravel
