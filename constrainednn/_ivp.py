"""Initial value problems, stated as SciPy and diffrax do."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from constrainednn._domains import Data, Interval
from constrainednn._inverse import FittedScheme, raveled_rows
from constrainednn._pieces import as_width, stack_pieces, training_nodes
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import GaussQuadrature
from constrainednn._signatures import returned
from constrainednn._unknowns import Arguments
from constrainednn._validate import as_arrays, as_pair, as_reals, few_leaves_of, shown
from constrainednn._windows import EquationResidual, Field, InitialValueScheme


def ivp(
    vector_field: Callable[[Any, Any, Any], PyTree],
    y0: PyTree,
    span: tuple[float, float],
    *,
    args: PyTree = None,
    data: Data | Constraint | Sequence[Data | Constraint] | None = None,
    order: int = 1,
    width: int = 16,
    reference: Callable[[Any], Any] | None = None,
) -> Problem:
    """State an initial value problem: y' = f(t, y, args), or y'' = f(t, (y, y'), args).

    `solve` marches from `span[0]` to `span[1]`, backwards if that is less. In each window the
    model is a linear head on frozen Legendre features in scaled time that starts exactly at the
    end of the window before; the head minimises the residual in least squares, and the window is as
    long as the residual at monitor points allows (`tolerance` of `solve`, relative to the size of
    each component; 1e-12 by default).

    Args:
        vector_field: `f(t, y, args)`, the argument order of SciPy and diffrax. Returns the
            structure of y: y' or, for order two, y''.
        y0: Initial value: a number, an array or a pytree of arrays, or a function of `args` that
            returns one, where it depends on unknowns. For order two the pair (value, velocity).
        span: Start and end.
        args: Handed to `vector_field`. Floats in it become arrays, so that other values need no
            compilation; whole numbers, flags, strings and functions are constants. An `Unknown`
            in it is estimated from `data`; the function gets its value.
        data: What unknowns are estimated from: `Data((t, y))` with whole states y, or constraints
            over `Data` with a residual `residual(u, row)` of one's own, in which `u(t)` is the
            solution and `u.args` the arguments. Rows count alike in all of them, each times the
            weight of its constraint, an inverse variance.
        order: Order of the equation, 1 or 2.
        width: Number of features in a window.
        reference: A known solution, called like the model.

    Returns:
        A problem; `solve` returns a solution that is a function of t.

    Raises:
        ValueError, TypeError: If y0 is not finite, the span is empty, or the field does not return
            the shape of y0.

    Source:
        Least-squares collocation with hard initial values, e.g. Ascher, SIAM J. Numer. Anal. 15
        (1978) 478; windows with random features as the basis in Dong and Li, CMAME 387 (2021)
        114129. The features here are orthonormal polynomials, measured against tanh features in
        docs/benchmarks.
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order not in (1, 2):
        raise ValueError(
            f"order must be 1 or 2, got {shown(order)}. Write higher ones as a system."
        )
    order, span, width = int(order), _span(span), as_width(width)
    few_leaves_of(args, "args")
    args = jax.tree.map(_argument, args)
    arguments = Arguments(args)
    known = arguments(jnp.asarray(arguments.start))
    first = _called(y0, known) if callable(y0) else y0
    if order == 2 and not (isinstance(first, (tuple, list)) and len(first) == 2):
        raise ValueError(
            f"order=2 needs y0=(value, velocity), got {shown(y0)}. Write e.g. y0=(1.0, 0.0)."
        )
    first = _start(first)
    parts = (first,) if order == 1 else tuple(first)
    flat = [_flat_start(part) for part in parts]
    if len({len(vector) for vector, _ in flat}) > 1:
        raise ValueError("the value and the velocity in y0 must have the same shapes.")
    unravel = flat[0][1]
    _check_field(vector_field, span[0], first if order == 1 else parts, known, parts[0])
    states = np.stack([vector for vector, _ in flat])
    observed = _observed(data)
    if arguments.unknowns:
        if not observed:
            raise ValueError(
                f"args holds unknowns, {', '.join(arguments.unknowns)}, and there is nothing to "
                "estimate them from. Give data=cx.Data((t, y))."
            )
        field = Field(vector_field, None, unravel, order)
        begin = (
            eqx.Partial(_from_args, y0, order)
            if callable(y0)
            else eqx.Partial(_given, jnp.asarray(states))
        )
        scheme = FittedScheme(field, arguments, begin, span, width)
    elif observed:
        raise ValueError(
            "data has nothing to estimate: args holds no cx.Unknown. Write e.g. "
            "args={'rate': cx.Unknown(1.0)}, or compare with known values by reference=."
        )
    else:
        field = Field(vector_field, args, unravel, order)
        scheme = InitialValueScheme(field, span, width)
    name = getattr(vector_field, "__name__", type(vector_field).__name__)
    constraint = Constraint(
        EquationResidual(field),
        over=Interval(*sorted(span)),
        points=len(training_nodes(width)[0]),
        sampler=GaussQuadrature(),
        name="equation" if name == "<lambda>" else name,
    )
    # One window over the whole span that stays at the initial value.
    model = stack_pieces(
        np.asarray(span),
        states[None],
        np.zeros((1, width, states.shape[1])),
        unravel=unravel,
        parameters=arguments.start,
        arguments=arguments if arguments.unknowns else None,
    )
    return Problem(
        [constraint, *observed],
        model,
        trainable=lambda u: (u.head, u.parameters),
        reference=reference,
        scheme=scheme,
    )


def _from_args(y0: Callable[[PyTree], PyTree], order: int, args: PyTree) -> Float[Array, "p d"]:
    return raveled_rows(y0(args), order)


def _given(states: Float[Array, "p d"], args: PyTree) -> Float[Array, "p d"]:
    del args
    return states


def _called(y0: Callable[[PyTree], PyTree], args: PyTree) -> PyTree:
    try:
        inspect.signature(y0).bind(args)
    except TypeError as error:
        raise TypeError(f"y0 must take args, y0(args), where it is a function: {error}.") from None
    return y0(args)


def _observed(data: Any) -> list[Constraint]:
    """Data as constraints."""
    found = []
    for item in data if isinstance(data, (list, tuple)) else [] if data is None else [data]:
        if isinstance(item, Data):
            if not (isinstance(item.rows, tuple) and len(item.rows) == 2):
                raise ValueError(
                    "data=cx.Data(...) needs rows (t, y) of times and whole states. For a part of "
                    "the state write cx.Constraint(residual, over=cx.Data((t, y)))."
                )
            item = Constraint(_whole_state, over=item, name="data")
        if not isinstance(item, Constraint) or not isinstance(item.over, Data):
            raise TypeError(
                f"data must be cx.Data((t, y)), or cx.Constraint(residual, over=cx.Data(...)), or "
                f"a list of such; got {shown(item)}."
            )
        found.append(item)
    return found


def _whole_state(u: Callable[[Array], PyTree], row: tuple[Array, PyTree]) -> Float[Array, " d"]:
    """What the model misses of an observed state."""
    t, y = row
    return ravel_pytree(u(t))[0] - ravel_pytree(y)[0]


def _span(span: Any) -> tuple[float, float]:
    start, end = as_pair(span, "span", "(t0, t1)")
    if not math.isfinite(end - start) or start == end:
        raise ValueError(
            f"span must be two different finite times, got ({start:g}, {end:g}). "
            "Backwards in time is (later, earlier)."
        )
    if abs(end - start) < 100 * float(jnp.finfo(float).eps) * max(abs(start), abs(end)):
        raise ValueError(
            f"span=({start!r}, {end!r}) is so short that times in it cannot be told apart. Count "
            "time from its start."
        )
    return start, end


def _argument(leaf: Any) -> Any:
    """A leaf of args: numbers become arrays, and other constants stay what they are."""
    return as_arrays(leaf, "args") if isinstance(leaf, (float, np.ndarray)) else leaf


def _start(y0: PyTree) -> PyTree[Array]:
    """The initial value as arrays."""
    if not few_leaves_of(y0, "y0"):
        raise TypeError(f"y0 must hold real numbers, got {shown(y0)}.")
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jnp.asarray(as_reals(leaf, "y0"), dtype), y0)


def _flat_start(value: PyTree[Array]) -> tuple[np.ndarray, Callable[[Array], PyTree]]:
    """The initial value as a vector, and the way back."""
    vector, unravel = ravel_pytree(value)
    if not vector.size:
        raise ValueError("y0 holds no numbers.")
    if not np.isfinite(vector).all():
        raise ValueError(f"y0 must be finite, got {shown(np.asarray(vector).tolist())}.")
    return np.asarray(vector), unravel


def _check_field(field: Callable, t: float, y: PyTree, args: PyTree, like: PyTree) -> None:
    """Evaluate the shapes that a vector field returns."""
    given = jnp.asarray(t, jnp.result_type(float)), y, args
    try:
        found = returned(field, given, name="vector_field", takes="f(t, y, args)")
    except TypeError as error:
        if isinstance(like, list):
            error.add_note("y0 is a list, and so is y; for a vector write y0=jnp.array([...]).")
        raise
    shapes = lambda tree: jax.tree.map(lambda leaf: tuple(jnp.shape(leaf)), tree)  # noqa: E731
    if jax.tree.structure(found) != jax.tree.structure(like) or shapes(found) != shapes(like):
        raise ValueError(
            f"vector_field must return the shape of y0, {shapes(like)}, but it returns "
            f"{shapes(found)}."
        )
