"""Arguments of `pde`, checked and brought into the forms that the scheme takes."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_arrays, as_count, as_function, as_pair, as_reals
from constrainednn._common.messages import in_plain_words, shown
from constrainednn.domains.boxes import Interval
from constrainednn.errors import BadTypeError, BadValueError

_SIDES = ("left", "right")
# Polynomials in time and in space: fewer cannot hold the derivatives, more lose their last digits.
_LEAST, _MOST = 6, 40


def as_space(value: Any) -> tuple[float, float]:
    """The interval of space."""
    if not isinstance(value, Interval):
        raise BadTypeError(
            "over of pde must be an interval such as cx.Interval(-1, 1), or a region such as "
            f"cx.Box([0, 0], [1, 1]), got {shown(value)}."
        )
    return value.low, value.high


def as_time(value: Any) -> tuple[float, float]:
    """Start and end."""
    start, end = as_pair(value, "time", "(0.0, 1.0)")
    if not (np.isfinite([start, end]).all() and start < end):
        raise BadValueError(
            f"time must go forwards and be finite, such as (0.0, 1.0), got ({start:g}, {end:g}). "
            "For an equation backwards in time write it in the time that is left."
        )
    return start, end


def as_sides(value: Any) -> dict[str, Callable[..., Any]] | None:
    """The condition at each end that has one; None if the interval is periodic."""
    if isinstance(value, str) and value == "periodic":
        return None
    if callable(value):
        return dict.fromkeys(_SIDES, value)
    if not isinstance(value, Mapping) or not set(value) <= set(_SIDES):
        raise BadValueError(
            'boundary must be a condition(u, p), {"left": condition, "right": condition} or '
            f'"periodic", got {shown(value)}.'
        )
    for side, condition in value.items():
        as_function(condition, f"boundary at the {side} end", "lambda u, p: u(p)")
    return dict(value)


def takes(fn: Callable[..., Any], count: int) -> bool:
    """True if a function asks for so many arguments; one with a default is the user's own."""
    try:
        given = inspect.signature(fn).parameters.values()
    except ValueError:  # some callables do not tell
        return False
    places = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(item.kind in places and item.default is item.empty for item in given) >= count


def as_invariants(value: Any) -> dict[str, Callable[..., Any]]:
    """Densities by name."""
    found = {}
    for number, fn in enumerate(value if isinstance(value, (list, tuple)) else [value], 1):
        as_function(fn, "invariants of pde", "lambda u, p: u(p) ** 2")
        name = getattr(fn, "__name__", type(fn).__name__)
        found[f"invariant {number}" if name == "<lambda>" or name in found else name] = fn
    return found


def as_mesh(value: Any, space: tuple[float, float]) -> tuple[float, ...]:
    """Ends of the elements to begin with."""
    if value is None:
        return tuple(np.linspace(*space, 5).tolist())
    edges = as_reals(value, "mesh").astype(float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadValueError(
            f"mesh must be ends of elements in ascending order, got {shown(value)}."
        )
    if (edges[0], edges[-1]) != space:
        raise BadValueError(
            f"mesh must begin and end where over= does, at {space[0]:g} and {space[1]:g}, got "
            f"{edges[0]:g} and {edges[-1]:g}."
        )
    return tuple(edges.tolist())


def as_widths(value: Any) -> tuple[int, int]:
    """Polynomials in time and in space."""
    if not isinstance(value, Sequence) or len(value) != 2:
        raise BadTypeError(
            "width of pde is the numbers of polynomials in time and in space, such as (12, 18), "
            f"got {shown(value)}."
        )
    names = "width of pde in time", "width of pde in space"
    Kt, Kx = (
        as_count(item, name, least=_LEAST, most=_MOST)
        for item, name in zip(value, names, strict=True)
    )
    return Kt, Kx


def as_start(start: Any, low: Any, high: Any, args: PyTree) -> PyTree:
    """What the start returns, as arrays, after a try at a few places between two corners."""
    along = np.ndim(low) == 0
    example = "lambda x: jnp.sin(x)" if along else "lambda x: jnp.sin(x[0]) * jnp.sin(x[1])"
    as_function(start, "start of pde", example)
    if takes(start, 2):
        start = functools.partial(_second_given, start, args)
    try:
        jax.eval_shape(start, jax.ShapeDtypeStruct(np.shape(low), jnp.result_type(float)))
    except Exception as error:
        raise BadValueError(
            f"start of pde takes a place of shape {np.shape(low)}, such as {example}: "
            f"{in_plain_words(error)}."
        ) from error
    value = None
    for share in (0.0, 0.37, 1.0):
        x = jnp.asarray(low + share * (np.asarray(high) - low))
        value = as_arrays(start(x), "what start returns")
        entries = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])
        if np.iscomplexobj(entries):
            raise BadValueError(
                "start of pde is complex: state the real and the imaginary part as a pair."
            )
        if not entries.size:
            raise BadValueError(f"start of pde returns nothing: write {example}.")
        if not np.isfinite(entries).all():
            where = f"x = {float(x):g}" if along else "(" + ", ".join(f"{a:g}" for a in x) + ")"
            raise BadValueError(f"start of pde is NaN or infinite at {where}.")
    return value


def _second_given(start: Callable[[Any, PyTree], PyTree], args: PyTree, x: Any) -> PyTree:
    return start(x, args)


def refuse_with_model(**given: Any) -> None:
    """Refuse arguments that a model which is trained has no use for."""
    for name, value in given.items():
        if value is not None and not (isinstance(value, (tuple, list)) and not value):
            raise BadValueError(
                f"{name}= is for elements, and model= is trained: leave out one of them."
            )
