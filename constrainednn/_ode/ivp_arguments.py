"""Arguments of `ivp`, checked and converted to what the schemes take."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import (
    as_arrays,
    as_function,
    as_pair,
    as_real,
    as_reals,
)
from constrainednn._common.messages import shown
from constrainednn._ode.functions import returned
from constrainednn._ode.schemes.field import Field
from constrainednn.errors import BadValueError

# Largest number of windows that the shortest delay, or `max_window`, may force.
_MOST_STEPS = 100_000


def as_delays(
    value: Any, history: Any, span: tuple[float, float], like: PyTree
) -> Float[np.ndarray, " k"] | None:
    """The delays; checks that the history is long enough for them."""
    if value is None:
        if history is not None:
            raise BadValueError("history= is for equations with delays: give delays=(1.0,) too.")
        return None
    delays = np.atleast_1d(as_reals(value, "delays")).astype(float)
    if delays.ndim != 1 or not delays.size or not ((delays > 0) & np.isfinite(delays)).all():
        raise BadValueError(
            f"delays must be positive and finite, got {shown(delays.tolist())}. The undelayed "
            "state is y."
        )
    start, end = span
    if end < start:
        raise BadValueError(
            "an equation with delays is solved forwards in time: span must be (low, high)."
        )
    with np.errstate(over="ignore"):
        many = end - start > _MOST_STEPS * delays.min()
    if many:
        raise BadValueError(
            f"delays: the shortest, {delays.min():g}, fits more than {_MOST_STEPS} times into span."
        )
    if history is None:
        raise BadValueError(
            "delays= needs the solution before the start: history=lambda t: ..., for t from "
            f"{start - delays.max():g} to {start:g}."
        )
    as_function(history, "history", "lambda t: jnp.array([1.0])")
    for t in np.linspace(start - delays.max(), start, 9):
        try:
            known = history(jnp.asarray(t))
        except ValueError as error:  # such as a solution outside its interval
            raise BadValueError(f"history cannot be evaluated at t={t:g}: {error}") from None
        known = as_arrays(known, "what history returns")
        shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (known, like)]
        if shapes[0] != shapes[1]:
            raise BadValueError(
                f"history must return the shape of y0, {shapes[1]}, but it returns {shapes[0]}."
            )
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(known)):
            raise BadValueError(
                f"history is NaN or infinite at t={t:g}; the delays reach back to "
                f"{start - delays.max():g}. A history shorter than a delay is not enough."
            )
    return delays


def as_mass(value: Any, d: int, order: int) -> Float[Array, "d d"]:
    """The mass matrix."""
    mass = as_reals(value, "mass").astype(float)
    if order != 1:
        raise BadValueError("mass= is for first-order equations: write y' = v as an equation.")
    if mass.shape not in ((d,), (d, d)) or not np.isfinite(mass).all():
        raise BadValueError(
            f"mass must be {d} finite numbers, its diagonal, or a matrix of shape ({d}, {d}), got "
            f"shape {mass.shape}."
        )
    mass = np.diag(mass) if mass.ndim == 1 else mass
    if not mass.any():
        raise BadValueError("mass is zero: there is no differential equation.")
    return jnp.asarray(mass, jnp.result_type(float))


def check_algebraic(field: Field, start: float, states: Float[np.ndarray, "p d"]) -> None:
    """Refuse inconsistent initial values, and algebraic equations of an index above 1.

    With L and R the left and right null vectors of M, 0 = L f must determine y along R.
    """
    assert field.mass is not None
    t, y = jnp.asarray(start, jnp.result_type(float)), jnp.asarray(states)
    U, s, Vt = np.linalg.svd(np.asarray(field.mass))
    null = s <= 1e-12 * s[0]
    if not null.any():
        return
    left, right = U[:, null].T, Vt[null].T
    slopes = np.asarray(jax.jacfwd(field, argnums=1)(t, y))[:, 0]
    terms = np.abs(left) @ (np.abs(slopes) @ np.abs(states[0]))
    g = left @ np.asarray(field(t, y))
    inner = left @ slopes @ right
    if np.linalg.cond(inner) > 1e12:
        raise BadValueError(
            "mass: at y0 the algebraic equations cannot be solved for the components without a "
            "derivative (the index is above 1). Differentiate them with respect to t until they "
            "can."
        )
    off = np.abs(g) > 1e-9 * np.maximum(terms, np.abs(g).max() * 1e-3)
    if off.any():
        step = right @ np.linalg.solve(inner, g)
        raise BadValueError(
            f"y0 does not satisfy the algebraic equations of mass=: their residual is "
            f"{shown(g[off].tolist())}. Near it, y0 = {shown((states[0] - step).tolist())} may."
        )


def as_order(value: Any) -> int:
    """One or two."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value not in (1, 2):
        raise BadValueError(
            f"order must be 1 or 2, got {shown(value)}. Write a higher order as a system."
        )
    return int(value)


def as_span(span: Any) -> tuple[float, float]:
    start, end = as_pair(span, "span", "(t0, t1)")
    if not math.isfinite(end - start) or start == end:
        raise BadValueError(
            f"span must be two different finite times, got ({start:g}, {end:g}). "
            "To go backwards in time write (later, earlier)."
        )
    if abs(end - start) < 100 * float(jnp.finfo(jnp.result_type(float)).eps) * max(
        abs(start), abs(end)
    ):
        raise BadValueError(
            f"span=({start!r}, {end!r}) is so short that rounding merges the times in it. Measure "
            "time from its start."
        )
    return start, end


def as_breaks(value: Any, span: tuple[float, float]) -> tuple[float, ...]:
    """Times strictly within the span in the order in which they are reached, each once."""
    breaks = np.atleast_1d(as_reals(value, "breaks")).astype(float)
    start, end = span
    low, high = sorted(span)
    if breaks.ndim != 1 or not np.isfinite(breaks).all():
        raise BadValueError(f"breaks must be finite times, got {shown(breaks.tolist())}.")
    outside = (breaks < low) | (breaks > high)
    if outside.any():
        raise BadValueError(
            f"breaks must lie within span=({start:g}, {end:g}), got "
            f"{shown(breaks[outside].tolist())}. Leave them out."
        )
    # Breaks that differ by rounding only leave no room for a window between them.
    near = 100 * float(jnp.finfo(jnp.result_type(float)).eps) * max(abs(start), abs(end))
    kept = [start]
    for time in np.sort(breaks)[:: 1 if end > start else -1]:
        if abs(time - kept[-1]) > near and abs(end - time) > near:
            kept.append(float(time))
    return tuple(kept[1:])


def longest_window(value: Any, span: tuple[float, float]) -> float:
    """The largest length of a window."""
    longest = as_real(value, "max_window")
    if not longest > 0:
        raise BadValueError(f"max_window must be positive, got {shown(value)}.")
    many = abs(span[1] - span[0]) / longest
    if many > _MOST_STEPS:
        raise BadValueError(
            f"max_window={longest:g} fits {many:.3g} times into span, and more than {_MOST_STEPS} "
            "windows are too many."
        )
    return longest


def check_field(
    field: Callable, t: float, y: PyTree, args: PyTree, like: PyTree, past: list[PyTree]
) -> None:
    """Check the shapes that a vector field returns."""
    given = jnp.asarray(t, jnp.result_type(float)), y, args, *past
    takes = f"f(t, y, args{', delayed' * bool(past)}{', ...' * (len(past) > 1)})"
    try:
        found = returned(field, given, name="vector_field", takes=takes)
    except TypeError as error:
        if isinstance(like, list):
            error.add_note("y0 is a list, and so is y; for a vector write y0=jnp.array([...]).")
        raise
    shapes = lambda tree: jax.tree.map(lambda leaf: tuple(jnp.shape(leaf)), tree)  # noqa: E731
    if jax.tree.structure(found) != jax.tree.structure(like) or shapes(found) != shapes(like):
        raise BadValueError(
            f"vector_field must return the shape of y0, {shapes(like)}, but it returns "
            f"{shapes(found)}. For a vector write y0=jnp.array([...]) and return one array, by "
            "jnp.stack([...])."
        )
