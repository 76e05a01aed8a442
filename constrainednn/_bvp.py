"""Boundary value problems, stated as SciPy does."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from constrainednn._boundary import (
    BoundaryConditions,
    BoundaryField,
    BoundaryValueScheme,
    ConditionsResidual,
    EquationResidual,
    OnHost,
    heads,
    unchanged,
)
from constrainednn._domains import Data, Interval, Points
from constrainednn._elements import Statement
from constrainednn._fit import data_constraints, refuse_without
from constrainednn._inverse_bvp import FittedBoundaryScheme, WithArguments
from constrainednn._legendre import integrals
from constrainednn._pieces import Pieces, as_width, stack_pieces, training_nodes
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import GaussQuadrature
from constrainednn._signatures import returned
from constrainednn._unknowns import Arguments
from constrainednn._validate import as_function, as_pair, as_reals, few_leaves_of, shown


def bvp(
    fun: Callable[..., Array],
    bc: Callable[..., Array],
    span: tuple[float, float],
    guess: Any,
    *,
    p: Any = None,
    data: Data | Constraint | Sequence[Data | Constraint] | None = None,
    S: Any = None,
    width: int = 16,
    reference: Callable[[Any], Any] | None = None,
) -> Problem:
    """State a two-point boundary value problem: y' = f(x, y, p) + S y / (x - a), bc = 0.

    The conventions are those of `scipy.integrate.solve_bvp`, except that functions see one point:
    x of shape () and y of shape (d,). On each element of a partition the model is a linear head on
    frozen Legendre features; all heads together minimise the residual in least squares with
    continuity built in. Elements whose residual at monitor points is too large (`tolerance` of
    `solve`, relative to the size of each component; 1e-12 by default) are divided.

    Args:
        fun: `fun(x, y)`, or `fun(x, y, p)` with unknown parameters; returns y' of shape (d,).
        bc: `bc(y_left, y_right)` or `bc(y_left, y_right, p)`; returns d + q numbers, zero where
            the conditions hold.
        span: Left and right end.
        guess: First approximation of y: an array of shape (d,), or a function of x that returns
            one. Where there are several solutions it decides which is found.
        p: First approximation of the unknown parameters, of shape (q,). The solution has them as
            `solution.model.parameters`. Or any pytree with `Unknown` leaves, which are estimated
            from `data`; functions get the values, and `bc` returns d numbers.
        data: What `Unknown` leaves are estimated from; as in `ivp`.
        S: Matrix of the singular term, of shape (d, d).
        width: Number of features in an element.
        reference: A known solution, called like the model.

    Raises:
        ValueError, TypeError: If shapes do not fit or a guess is not finite.

    Source:
        Ascher, Mattheij and Russell, Numerical Solution of Boundary Value Problems for Ordinary
        Differential Equations (1995), ch. 5, for collocation; here least squares over twice as many
        nodes as features.
    """
    for value, name in ((fun, "fun"), (bc, "bc")):
        as_function(value, name, "lambda x, y: -y" if name == "fun" else "lambda left, right: left")
    left, right = _ends(span)
    width = as_width(width)
    few_leaves_of(p, "p")
    arguments, observed = Arguments(p), data_constraints(data)
    fitted, unknown = bool(arguments.unknowns), p is not None
    refuse_without(arguments, observed, "p")
    dtype = jnp.result_type(float)
    if fitted:
        parameters, more, count = arguments.start, (arguments(jnp.asarray(arguments.start)),), 0
    else:
        parameters = as_reals(p if unknown else np.zeros(0), "p").astype(float)
        more = (jnp.asarray(parameters, dtype),) if unknown else ()
        count = parameters.size
    places = np.linspace(left, right, 9)
    first = [
        as_reals(guess(jnp.asarray(x, dtype)) if callable(guess) else guess, "guess").astype(float)
        for x in places
    ]
    d = _check_guess(first[0], parameters)
    for x, value in zip(places, first, strict=True):
        if not np.isfinite(value).all():
            raise ValueError(f"guess must be finite, got {shown(value.tolist())} at x = {x:g}.")
    matrix = None if S is None else as_reals(S, "S")
    if matrix is not None and (matrix.shape != (d, d) or not np.isfinite(matrix).all()):
        raise ValueError(
            f"S must have shape {(d, d)} to match the guess, and be finite, got {shown(matrix)}."
        )
    singular = None if matrix is None else jnp.asarray(matrix, dtype)
    _check_functions(fun, bc, (left, right), first[0], more, count)
    if fitted:
        fun, bc = WithArguments(fun, arguments), WithArguments(bc, arguments)
    field = BoundaryField(fun, singular, left, unknown)
    conditions = BoundaryConditions(bc, unknown)
    if fitted:
        scheme = FittedBoundaryScheme(
            field=field,
            conditions=conditions,
            arguments=arguments,
            span=(left, right),
            width=width,
        )
    else:
        scheme = BoundaryValueScheme(Statement(field, conditions), (left, right), width)
    return Problem(
        [
            Constraint(
                EquationResidual(field),
                over=Interval(left, right),
                points=len(training_nodes(width)[0]),
                sampler=GaussQuadrature(),
                name="equation",
            ),
            Constraint(
                ConditionsResidual(conditions, (left, right)),
                over=Points(np.asarray([left])),
                name="boundary",
            ),
            *observed,
        ],
        _guessed(guess, first, (left, right), width, parameters, arguments if fitted else None),
        trainable=_trained,
        reference=reference,
        scheme=scheme,
    )


def _trained(u: Pieces) -> tuple[Array, Array, Array]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.states, u.parameters


def _guessed(guess, first, span, width, parameters, arguments) -> Pieces:
    """The guess as a model: interpolated on a few elements, fewer where each is large."""
    d = len(first[0])
    count = 8 if d <= 8 else max(1, 64 // d)
    edges = np.linspace(span[0], span[1], count + 1)
    nodes, weights = training_nodes(width)
    Q = integrals(nodes, width, 1)[1]
    if callable(guess):
        dtype = jnp.result_type(float)
        at = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
        see = jax.jit(jax.vmap(lambda x: jnp.ravel(jnp.asarray(guess(x)))))
        y = np.asarray(see(jnp.asarray(edges, dtype)), float)
        inside = np.asarray(see(jnp.asarray(at.ravel(), dtype)), float).reshape(count, -1, d)
        # The part that the edge values do not fix, in least squares.
        rest = inside - y[:-1, None] - np.diff(y, axis=0)[:, None] * (nodes[:, None] + 1) / 2
        root = np.sqrt(weights)[:, None]
        b = np.stack([np.linalg.lstsq(root * Q[:, 1:], root * part)[0] for part in rest])
    else:
        y, b = np.stack([first[0]] * (count + 1)), np.zeros((count, width - 1, d))
    head = heads(OnHost(y, b, parameters))
    return stack_pieces(
        edges,
        y[:-1, None],
        head,
        unravel=unchanged,
        parameters=parameters,
        arguments=arguments,
    )


def _ends(span: Any) -> tuple[float, float]:
    left, right = as_pair(span, "span", "(a, b)")
    if not 0 < right - left < math.inf:
        raise ValueError(f"span must be two finite ends a < b, got ({left:g}, {right:g}).")
    return left, right


def _check_guess(guess: np.ndarray, parameters: np.ndarray) -> int:
    if guess.ndim != 1 or not guess.size:
        raise ValueError(
            f"guess must be an array of shape (d,) or a function of x that returns one, got shape "
            f"{guess.shape}. Write e.g. guess=[0.0, 0.0] for two components."
        )
    if not np.isfinite(guess).all():
        raise ValueError(f"guess must be finite, got {shown(guess.tolist())}.")
    if parameters.ndim != 1 or not np.isfinite(parameters).all():
        raise ValueError(
            f"p must be finite numbers of shape (q,), got {shown(parameters.tolist())}."
        )
    return guess.size


def _check_functions(fun, bc, span, guess, more, count) -> None:
    """Evaluate the shapes that the functions return; `count` parameters have conditions."""
    dtype = jnp.result_type(float)
    y = jnp.asarray(guess, dtype)
    p_too = "with p, since p= is given" if more else "without p, since no p= is given"
    for fn, name, arguments, size in (
        (fun, "fun", (jnp.asarray(span[0], dtype), y, *more), y.size),
        (bc, "bc", (y, y, *more), y.size + count),
    ):
        takes = f"{len(arguments)} arguments, {p_too}"
        shape = returned(fn, arguments, name=name, takes=takes)
        try:
            found = jax.eval_shape(lambda value: jnp.ravel(jnp.asarray(value)), shape)
        except (TypeError, ValueError):
            shapes = jax.tree.map(lambda leaf: leaf.shape, shape)
            raise ValueError(
                f"{name} must return one array of {size} numbers, got shapes {shown(shapes)}."
            ) from None
        if found.size != size:
            what = (
                "one for each component of y"
                if name == "fun"
                else ("one for each component of y and each unknown parameter")
            )
            raise ValueError(f"{name} must return {size} numbers, {what}; it returns {found.size}.")
