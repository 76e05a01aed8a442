"""What residuals of an equation in time see of u, found by trying them beside its start."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._common.messages import in_plain_words
from constrainednn._pde.conditions import FlatStart
from constrainednn._pde.elements.germ import LocalResidual, local_residual
from constrainednn.domains.boundaries import Segment
from constrainednn.domains.boxes import Box
from constrainednn.domains.regions.faces import Flat
from constrainednn.errors import BadValueError, ProblemError

# Points at which it is tried which derivatives a residual sees.
_TRIED = 384


def structure(value: PyTree) -> Callable[[Array], PyTree]:
    """From a vector to the structure of a value, in floating point."""
    to_float = lambda leaf: jnp.asarray(leaf, jnp.result_type(float))  # noqa: E731
    return ravel_pytree(jax.tree.map(to_float, value))[1]


def equation_seen(
    residual: Callable,
    name: str,
    value: PyTree,
    start: FlatStart,
    box: Box,
    highest: tuple[int, ...],
) -> tuple[LocalResidual, Callable[[Array], PyTree]]:
    """The equation by its derivatives, and how the value of u is put together.

    For an equation of order two the start is a pair of such values; which it is, the residual
    tells: it is of order two for one of them, and of order one for the whole.
    """
    pair = isinstance(value, tuple) and len(value) == 2
    failed, misfit = None, None
    for order, like in ((1, value), *([(2, value[0])] if pair else [])):
        unravel = structure(like)
        p, values = _tried(box, dataclasses.replace(start, order=order))
        given = start.arguments, start.unknowns
        try:
            local = local_residual(residual, unravel, p, values, highest, name, *given)
        except ProblemError:
            raise
        except Exception as error:  # noqa: BLE001  (the user's residual)
            failed = failed or error
            continue
        if local.order(0) <= 1 == order or local.order(0) == order:
            return local, unravel
        misfit = local.order(0)
    if misfit is not None:
        wanted = "order one in time: start must return u alone."
        if misfit == 2:
            wanted = (
                "order two in time: start must return the pair (u, du/dt). If it should be of "
                "order one, look for cx.laplacian, which differentiates by time, too: write "
                "cx.partial(u, 1, order=2)(p) for each coordinate of space."
            )
        raise BadValueError(f"{name} is of {wanted}")
    raise ProblemError(_not_evaluated(name, failed, start, " for a u as start returns it")) from (
        failed
    )


def condition_seen(
    fn: Callable,
    name: str,
    unravel: Callable[[Array], PyTree],
    start: FlatStart,
    over: Box | Segment | Flat,
    highest: tuple[int, ...],
) -> LocalResidual:
    """A condition or a density by the derivatives that it sees."""
    points, values = _tried(over, start)
    given = start.arguments, start.unknowns
    try:
        return local_residual(fn, unravel, points, values, highest, name, *given)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(_not_evaluated(name, error, start)) from error


def _not_evaluated(name: str, error: BaseException | None, start: FlatStart, what: str = "") -> str:
    assert error is not None
    text = f"{name} cannot be evaluated{what}: {in_plain_words(error)}."
    if "NoneType" in text and start.arguments(start.unknowns) is None:
        text += " Does it read u.args? There are none: give args=."
    return text


def _tried(
    over: Box | Segment | Flat, start: FlatStart
) -> tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "n d"]]:
    """Points, the same ones each time, and the values of the start at their places."""
    low, high = _ends_of(over)
    points = np.random.default_rng(1).uniform(low, high, (_TRIED, len(low)))
    places = points[:, 1] if points.shape[1] == 2 else points[:, 1:]
    values = jax.vmap(start)(jnp.asarray(places))[:, 0]
    return points, np.asarray(values, float)


def _ends_of(over: Box | Segment | Flat) -> tuple[Any, Any]:
    if isinstance(over, Segment):
        return over.start, over.end
    if isinstance(over, Flat):
        return over.corner, np.sum([over.corner, *over.edges], axis=0)
    return over.low, over.high
