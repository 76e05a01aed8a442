"""Initial value problems, stated as SciPy and diffrax do."""

import functools
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

from constrainednn._calculus import taylor
from constrainednn._delay import DelayedField, DelayResidual, DelayScheme, step_ends
from constrainednn._domains import Data, Interval
from constrainednn._errors import BadTypeError, BadValueError
from constrainednn._experiments import Experiment
from constrainednn._field import EquationResidual, Field
from constrainednn._fit import data_constraints, refuse_without
from constrainednn._inverse import FittedScheme, raveled_rows
from constrainednn._pieces import Pieces, as_width, stack_pieces, training_nodes
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import GaussQuadrature
from constrainednn._signatures import returned
from constrainednn._state_experiments import of_experiments
from constrainednn._unknowns import Arguments, is_unknown, unknowns_of
from constrainednn._validate import (
    as_argument,
    as_arrays,
    as_function,
    as_pair,
    as_real,
    as_reals,
    few_leaves_of,
    refuse_traced,
    shown,
)
from constrainednn._windows import InitialValueScheme

# Steps as long as the shortest delay at most.
_MOST_STEPS = 100_000


def ivp(
    vector_field: Callable[..., PyTree],
    y0: PyTree = None,
    span: tuple[float, float] | None = None,
    *,
    args: PyTree = None,
    data: Data | Constraint | Sequence[Data | Constraint] | None = None,
    experiments: Sequence[Experiment] | None = None,
    order: int = 1,
    mass: Any = None,
    delays: Any = None,
    history: Callable[[Any], PyTree] | None = None,
    breaks: Any = (),
    max_window: float = math.inf,
    invariants: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
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
        y0: Initial value: a number, an array or a pytree of arrays; an `Unknown` in it is
            estimated. Or a function of `args` that returns one, where it depends on unknowns. For
            order two the pair (value, velocity).
        span: Start and end.
        args: Handed to `vector_field`. Floats in it become arrays, so that other values need no
            compilation; whole numbers, flags, strings and functions are constants. An `Unknown`
            in it is estimated from `data`; the function gets its value.
        data: What unknowns are estimated from: `Data((t, y))` with whole states y, or constraints
            over `Data` with a residual `residual(u, row)` of one's own, in which `u(t)` is the
            solution and `u.args` the arguments. Rows count alike in all of them, each times the
            weight of its constraint, an inverse variance.
        experiments: Instead of `data`: several experiments that share the unknowns in `args`, each
            with data, and its own initial value, span and arguments where it states them. Each is
            marched alone. The solution has one for each, `solution["name"]` or `solution[0]`, and
            its estimates are those of all.
        order: Order of the equation, 1 or 2.
        mass: A matrix M of shape (d, d), or its diagonal, where the equation is M y' = f(t, y,
            args). It may be singular: a row of zeros states an algebraic equation 0 = f, which
            must be solvable for the components without a derivative (index 1).
        delays: Positive numbers; the equation is y' = f(t, y, args, y(t - delays[0]), ...).
        history: The solution up to the start, a function of t, where there are delays.
        breaks: Times within the span at which the field or a derivative of it jumps, such as doses
            and switches. Windows end there, and on each side the field is seen from that side only.
        max_window: Length that no window exceeds, in the units of time; no limit by default.
        invariants: Functions `fn(t, y, args)`, such as an energy, that should stay what they are at
            the start. Nothing is trained on them: how far they drift is reported as a gap of its
            own, and is a measure of the error that needs no reference.
        width: Number of features in a window.
        reference: A known solution, called like the model.

    Returns:
        A problem; `solve` returns a solution that is a function of t.

    Raises:
        ValueError, TypeError: If y0 is not finite, the span is empty, breaks lie outside of it,
            max_window is not positive, or the field does not return the shape of y0.

    Source:
        Least-squares collocation with hard initial values, e.g. Ascher, SIAM J. Numer. Anal. 15
        (1978) 478; windows with random features as the basis in Dong and Li, CMAME 387 (2021)
        114129. The features here are orthonormal polynomials, measured against tanh features in
        docs/benchmarks.
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order not in (1, 2):
        raise BadValueError(
            f"order must be 1 or 2, got {shown(order)}. Write higher ones as a system."
        )
    if experiments is not None:
        alone = ("data", data), ("reference", reference), ("delays", delays), ("history", history)
        for name, value in alone:
            if value is not None:
                raise BadValueError(f"experiments= goes without {name}=: leave one of them out.")
        state = functools.partial(
            *(ivp, vector_field),
            order=order,
            mass=mass,
            max_window=max_window,
            invariants=invariants,
            width=width,
        )
        return of_experiments(state, experiments, y0=y0, span=span, args=args, breaks=breaks)
    if y0 is None or span is None:
        raise BadTypeError(
            "ivp needs y0 and span, as in cx.ivp(field, y0, (t0, t1)), or experiments=[...]."
        )
    order, span, width = int(order), _span(span), as_width(width)
    breaks, longest = _breaks(breaks, span), _longest(max_window, span)
    few_leaves_of(args, "args")
    few_leaves_of(y0, "y0")
    refuse_traced(args, "args")
    args = jax.tree.map(as_argument, args)
    unknown_start = None if callable(y0) or not unknowns_of(y0) else _start(y0)
    arguments = Arguments(args, unknown_start)
    known, first = args, y0
    if arguments.unknowns:
        known, first = arguments.both(jnp.asarray(arguments.start))
        if unknown_start is None:
            first = _called(y0, known) if callable(y0) else y0
    elif callable(y0):
        raise BadTypeError(
            f"y0 is a function, {shown(y0)}, but args holds no cx.Unknown that it could depend on: "
            "give its value."
        )
    if order == 2 and not (isinstance(first, (tuple, list)) and len(first) == 2):
        raise BadValueError(
            f"order=2 needs y0=(value, velocity), got {shown(y0)}. Write e.g. y0=(1.0, 0.0)."
        )
    first = _start(first)
    parts = (first,) if order == 1 else tuple(first)
    flat = [_flat_start(part) for part in parts]
    if len({len(vector) for vector, _ in flat}) > 1:
        raise BadValueError("the value and the velocity in y0 must have the same shapes.")
    unravel = flat[0][1]
    delays = _delays(delays, history, span, parts[0])
    if delays is not None and (order == 2 or arguments.unknowns):
        raise BadValueError(
            "delays= is for first-order equations whose args are known: write y' = v as further "
            "equations, and give numbers in place of cx.Unknown."
        )
    past = [parts[0]] * (0 if delays is None else len(delays))
    _check_field(vector_field, span[0], first if order == 1 else parts, known, parts[0], past)
    states = np.stack([vector for vector, _ in flat])
    mass = None if mass is None else _mass(mass, states.shape[1], order)
    fn, residual = vector_field, EquationResidual
    if delays is not None:
        assert history is not None
        fn = DelayedField(vector_field, history, jnp.asarray(span[0]), jnp.asarray(delays))
        residual = DelayResidual
    if mass is not None:
        with_past = known if delays is None else (known, lambda t: parts[0])
        _check_algebraic(Field(fn, with_past, unravel, order, mass), span[0], states)
    observed = data_constraints(data)
    refuse_without(arguments, observed, "args")
    if arguments.unknowns:
        field = Field(vector_field, None, unravel, order, mass)
        if unknown_start is not None:
            begin = eqx.Partial(_filled, order)
        elif callable(y0):
            begin = eqx.Partial(_from_args, y0, order)
        else:
            begin = eqx.Partial(_given, jnp.asarray(states))
        scheme = FittedScheme(
            field=field,
            arguments=arguments,
            start=begin,
            span=span,
            width=width,
            breaks=breaks,
            longest=longest,
        )
    else:
        field = Field(fn, args, unravel, order, mass)
        if delays is None:
            scheme = InitialValueScheme(field, span, width, breaks, longest)
        else:
            scheme = DelayScheme(field, step_ends(span, delays, breaks), width, longest)
    name = getattr(vector_field, "__name__", type(vector_field).__name__)
    constraint = Constraint(
        residual(field),
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
        [constraint, *_conserved(invariants, field, span), *observed],
        model,
        trainable=_trained,
        reference=reference,
        scheme=scheme,
    )


def _trained(u: Pieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.parameters


class _Drift(eqx.Module):
    """What an invariant has changed since the start, as a residual of the model and one time."""

    fn: Callable[..., Any]
    args: PyTree
    start: Float[Array, ""]
    order: int

    def __call__(self, u: Callable[[Array], PyTree], t: Float[Array, ""]) -> Array:
        """Evaluate at one time."""
        args = getattr(u, "args", None) if self.args is None else self.args

        def value(t: Array) -> Array:
            state = u(t) if self.order == 1 else taylor(u, t, order=1)
            return jnp.asarray(self.fn(t, state, args))

        return value(t) - value(self.start)


def _conserved(invariants: Any, field: Field, span: tuple[float, float]) -> list[Constraint]:
    """Invariants as constraints that are reported."""
    given = invariants if isinstance(invariants, (list, tuple)) else [invariants]
    found = []
    for number, fn in enumerate(given):
        as_function(fn, "invariants of ivp", "lambda t, y, args: jnp.sum(y)")
        name = getattr(fn, "__name__", type(fn).__name__)
        found.append(
            Constraint(
                _Drift(fn, field.args, jnp.asarray(span[0]), field.order),
                over=Interval(*sorted(span)),
                points=1,
                sampler=GaussQuadrature(),
                name=f"invariant {number + 1}" if name == "<lambda>" else name,
            )
        )
    return found


def _delays(
    value: Any, history: Any, span: tuple[float, float], like: PyTree
) -> Float[np.ndarray, " k"] | None:
    """The delays, with a history that is long enough for them."""
    if value is None:
        if history is not None:
            raise BadValueError("history= is for equations with delays: give delays=(1.0,) too.")
        return None
    delays = np.atleast_1d(as_reals(value, "delays")).astype(float)
    if delays.ndim != 1 or not delays.size or not ((delays > 0) & np.isfinite(delays)).all():
        raise BadValueError(
            f"delays must be positive and finite, got {shown(delays.tolist())}. What comes without "
            "a delay is y."
        )
    start, end = span
    if end < start:
        raise BadValueError(
            "an equation with delays goes forwards in time: span must be (low, high)."
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
        except ValueError as error:  # such as that of a solution, which ends there
            raise BadValueError(f"history cannot tell the solution at t={t:g}: {error}") from None
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


def _mass(value: Any, d: int, order: int) -> Float[Array, "d d"]:
    """The mass matrix."""
    mass = as_reals(value, "mass").astype(float)
    if order != 1:
        raise BadValueError("mass= is for first-order equations: write y' = v as further ones.")
    if mass.shape not in ((d,), (d, d)) or not np.isfinite(mass).all():
        raise BadValueError(
            f"mass must be {d} finite numbers, its diagonal, or a matrix of shape ({d}, {d}), got "
            f"shape {mass.shape}."
        )
    mass = np.diag(mass) if mass.ndim == 1 else mass
    if not mass.any():
        raise BadValueError("mass is zero: there is no differential equation.")
    return jnp.asarray(mass, jnp.result_type(float))


def _check_algebraic(field: Field, start: float, states: Float[np.ndarray, "p d"]) -> None:
    """Refuse a start that the algebraic equations exclude, and equations of a higher index.

    In a basis where M is diagonal: 0 = L f with L its left null vectors, to be solved for what its
    right null vectors span.
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
            "mass: the algebraic equations cannot be solved for the components without a "
            "derivative, at y0 (the index is above 1). Differentiate them by t until they can."
        )
    off = np.abs(g) > 1e-9 * np.maximum(terms, np.abs(g).max() * 1e-3)
    if off.any():
        step = right @ np.linalg.solve(inner, g)
        raise BadValueError(
            f"y0 does not satisfy the algebraic equations of mass=: they are off by "
            f"{shown(g[off].tolist())}. Near it, y0 = {shown((states[0] - step).tolist())} may."
        )


def _from_args(
    fn: Callable[[PyTree], PyTree], order: int, args: PyTree, y0: PyTree
) -> Float[Array, "p d"]:
    del y0
    return raveled_rows(fn(args), order)


def _given(states: Float[Array, "p d"], args: PyTree, y0: PyTree) -> Float[Array, "p d"]:
    del args, y0
    return states


def _filled(order: int, args: PyTree, y0: PyTree) -> Float[Array, "p d"]:
    del args
    return raveled_rows(y0, order)


def _called(y0: Callable[[PyTree], PyTree], args: PyTree) -> PyTree:
    try:
        inspect.signature(y0).bind(args)
    except TypeError as error:
        raise BadTypeError(
            f"y0 must take args, y0(args), where it is a function: {error}."
        ) from None
    return y0(args)


def _span(span: Any) -> tuple[float, float]:
    start, end = as_pair(span, "span", "(t0, t1)")
    if not math.isfinite(end - start) or start == end:
        raise BadValueError(
            f"span must be two different finite times, got ({start:g}, {end:g}). "
            "Backwards in time is (later, earlier)."
        )
    if abs(end - start) < 100 * float(jnp.finfo(float).eps) * max(abs(start), abs(end)):
        raise BadValueError(
            f"span=({start!r}, {end!r}) is so short that times in it cannot be told apart. Count "
            "time from its start."
        )
    return start, end


def _breaks(value: Any, span: tuple[float, float]) -> tuple[float, ...]:
    """Times within the span in the order in which they are reached, each once; no ends."""
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
    # Windows between two breaks that rounding cannot tell apart would have no room.
    near = 100 * float(jnp.finfo(float).eps) * max(abs(start), abs(end))
    kept = [start]
    for time in np.sort(breaks)[:: 1 if end > start else -1]:
        if abs(time - kept[-1]) > near and abs(end - time) > near:
            kept.append(float(time))
    return tuple(kept[1:])


def _longest(value: Any, span: tuple[float, float]) -> float:
    """The length that no window exceeds."""
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


def _start(y0: PyTree) -> PyTree[Array]:
    """The initial value as arrays, and unknowns as they are."""
    if not few_leaves_of(y0, "y0"):
        raise BadTypeError(f"y0 must hold real numbers, got {shown(y0)}.")
    dtype = jnp.result_type(float)
    return jax.tree.map(
        lambda leaf: leaf if is_unknown(leaf) else jnp.asarray(as_reals(leaf, "y0"), dtype),
        y0,
        is_leaf=is_unknown,
    )


def _flat_start(value: PyTree[Array]) -> tuple[np.ndarray, Callable[[Array], PyTree]]:
    """The initial value as a vector, and the way back."""
    vector, unravel = ravel_pytree(value)
    if not vector.size:
        raise BadValueError("y0 holds no numbers.")
    if not np.isfinite(vector).all():
        raise BadValueError(f"y0 must be finite, got {shown(np.asarray(vector).tolist())}.")
    return np.asarray(vector), unravel


def _check_field(
    field: Callable, t: float, y: PyTree, args: PyTree, like: PyTree, past: list[PyTree]
) -> None:
    """Evaluate the shapes that a vector field returns."""
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
