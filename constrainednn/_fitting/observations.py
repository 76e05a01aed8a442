"""Data from which unknowns are estimated, as constraints and as rows."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import flat_value
from constrainednn._common.compilation.closures import compiled
from constrainednn._common.messages import shown
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments
from constrainednn._problem.scheme import Observed
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadTypeError, BadValueError, ProblemError


def data_constraints(data: Any) -> list[Constraint]:
    """The user's data as constraints over `Data`.

    Raises:
        TypeError, ValueError: If it is anything else.
    """
    found = []
    for item in data if isinstance(data, (list, tuple)) else [] if data is None else [data]:
        if isinstance(item, Data):
            if not (isinstance(item.rows, tuple) and len(item.rows) == 2):
                raise BadValueError(
                    "data=cx.Data(...) needs rows (t, y) of times, or points (t, x), and full "
                    "states. For a part write cx.Constraint(residual, over=cx.Data((t, y)))."
                )
            item = Constraint(_whole_state, over=item, name="data")
        if not isinstance(item, Constraint) or not isinstance(item.over, Data):
            raise BadTypeError(
                f"data must be cx.Data((t, y)), or cx.Constraint(residual, over=cx.Data(...)), or "
                f"a list of these; got {shown(item)}."
            )
        found.append(item)
    return found


def _whole_state(u: Callable[[Array], PyTree], row: tuple[Array, PyTree]) -> Float[Array, " d"]:
    """The difference between the model and an observed state."""
    t, y = row
    state, measured = ravel_pytree(u(t))[0], ravel_pytree(y)[0]
    if state.size != measured.size:  # no broadcasting of one number against all
        raise ProblemError(
            f"data holds {measured.size} numbers at each time, but the state has {state.size}. For "
            "a part of the state write cx.Constraint(residual, over=cx.Data((t, y))), or NaN for "
            "what was not measured."
        )
    return state - measured


def refuse_without(arguments: Arguments, observed: Sequence[Constraint], name: str) -> None:
    """Refuse unknowns without data, and data without unknowns.

    Raises:
        ValueError: Naming the argument that holds the unknowns, or should.
    """
    if arguments.unknowns and not observed:
        raise BadValueError(
            f"{name} holds unknowns, {', '.join(arguments.unknowns)}, and there is nothing to "
            "estimate them from. Give data=cx.Data((t, y))."
        )
    if observed and not arguments.unknowns:
        raise BadValueError(
            f"data has nothing to estimate: {name} holds no cx.Unknown. Write e.g. "
            f"{name}={{'rate': cx.Unknown(1.0)}}, or compare with known values by reference=."
        )


def observations(data: Sequence[tuple[Constraint, Draw]]) -> tuple[Observed, ...]:
    """Data in the form that a scheme takes."""
    return tuple(Observed(item.residual, points.points, item.weight**0.5) for item, points in data)


@compiled
def rows_of(model: PyTree, observed: tuple[Observed, ...]) -> Float[Array, " N"]:
    """The rows of all data, concatenated."""
    rows = [jnp.zeros(0)]
    for residual, points, root in observed:
        at = lambda x, residual=residual: flat_value(eqx.Partial(residual, model), x)  # noqa: E731
        rows.append(root * jnp.ravel(jax.vmap(at)(points)))
    return jnp.concatenate(rows)


@compiled
def rows_along(
    model: PyTree, C: Float[Array, "*c q"], observed: tuple[Observed, ...]
) -> tuple[Float[Array, " N"], Float[Array, "N q"]]:
    """The rows of a model on elements, and their derivatives by the unknowns.

    Args:
        model: Polynomials on elements, with `coefficients` and `parameters`, the unknowns.
        C: Derivatives of the coefficients by the unknowns.
        observed: The data.
    """

    def rows(coefficients: Array, z: Array) -> Array:
        parts = lambda u: (u.coefficients, u.parameters)  # noqa: E731
        return rows_of(eqx.tree_at(parts, model, (coefficients, z)), observed)

    at = model.coefficients, model.parameters
    along = lambda *change: jax.jvp(rows, at, change)[1]  # noqa: E731
    unit = jnp.eye(model.parameters.size, dtype=model.parameters.dtype)
    return rows(*at), jax.vmap(along, in_axes=-1, out_axes=-1)(C, unit)
