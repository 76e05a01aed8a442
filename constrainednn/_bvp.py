"""Boundary value problems, stated as SciPy does."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._blocks import in_blocks
from constrainednn._boundary import (
    BoundaryConditions,
    BoundaryField,
    BoundaryValueScheme,
    ConditionsResidual,
    EquationResidual,
    unchanged,
)
from constrainednn._domains import Data, Interval, Points
from constrainednn._elements import Statement
from constrainednn._errors import BadValueError
from constrainednn._fit import data_constraints, refuse_without
from constrainednn._inverse_bvp import FittedBoundaryScheme, WithArguments
from constrainednn._legendre import integrals
from constrainednn._pieces import Pieces, as_width, stack_pieces, training_nodes
from constrainednn._problem import Constraint, Problem
from constrainednn._refinement import MOST_ELEMENTS, OnHost, heads
from constrainednn._samplers import GaussQuadrature
from constrainednn._signatures import returned
from constrainednn._unknowns import Arguments
from constrainednn._validate import (
    as_argument,
    as_function,
    as_pair,
    as_reals,
    few_leaves_of,
    shown,
)


def bvp(
    fun: Callable[..., Array],
    bc: Callable[..., Array],
    span: tuple[float, float],
    guess: Any,
    *,
    p: Any = None,
    args: PyTree = None,
    mesh: Any = None,
    continuation: tuple[str, Sequence[float]] | None = None,
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
            one. Where there are several solutions it decides which is found. A solution of `bvp` on
            the same interval brings its elements too.
        p: First approximation of the unknown parameters, of shape (q,). The solution has them as
            `solution.model.parameters`. Or any pytree with `Unknown` leaves, which are estimated
            from `data`; functions get the values, and `bc` returns d numbers.
        args: Handed to `fun` and `bc` as one more argument, the last. Floats in it become arrays,
            so that other values need no compilation.
        mesh: First ends of elements, from the left end of `span` to the right one; elements are
            divided but never joined. Default: those of `guess`, or eight equal ones.
        continuation: The name of an entry of `args`, a dictionary, and the values that lead to the
            one it has, which is the last: each problem is solved from the solution of the one
            before, on its elements.
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
    few_leaves_of(args, "args")
    args = jax.tree.map(as_argument, args)
    if Arguments(args).unknowns:
        raise BadValueError("args of bvp holds a cx.Unknown: p= takes those, fun(x, y, p, args).")
    path = _path(args, continuation)
    arguments, observed = Arguments(p), data_constraints(data)
    fitted, unknown = bool(arguments.unknowns), p is not None
    refuse_without(arguments, observed, "p")
    dtype = jnp.result_type(float)
    if fitted:
        if path:
            raise BadValueError("continuation= and unknowns from data exclude each other.")
        parameters, more, count = arguments.start, (arguments(jnp.asarray(arguments.start)),), 0
    else:
        parameters = as_reals(p if unknown else np.zeros(0), "p").astype(float)
        more = (jnp.asarray(parameters, dtype),) if unknown else ()
        count = parameters.size
    more += () if args is None else (args,)
    places = np.linspace(left, right, 9)
    first = [
        as_reals(guess(jnp.asarray(x, dtype)) if callable(guess) else guess, "guess").astype(float)
        for x in places
    ]
    d = _check_guess(first[0], parameters)
    for x, value in zip(places, first, strict=True):
        if not np.isfinite(value).all():
            raise BadValueError(f"guess must be finite, got {shown(value.tolist())} at x = {x:g}.")
    rows = len(training_nodes(width)[0]) * d
    if rows < 2 * d + parameters.size + 1:
        raise BadValueError(
            f"width={width} is too small for {parameters.size} unknown parameters: an element has "
            f"{rows} rows of its own. Write a larger width=."
        )
    edges = _mesh(mesh, (left, right), guess, d)
    matrix = None if S is None else as_reals(S, "S")
    if matrix is not None and (matrix.shape != (d, d) or not np.isfinite(matrix).all()):
        raise BadValueError(
            f"S must have shape {(d, d)} to match the guess, and be finite, got {shown(matrix)}."
        )
    singular = None if matrix is None else jnp.asarray(matrix, dtype)
    _check_functions(fun, bc, (left, right), first[0], more, count, (unknown, args))
    if fitted:
        fun, bc = WithArguments(fun, arguments), WithArguments(bc, arguments)
    field, *fields = [BoundaryField(fun, singular, left, unknown, it) for it in (args, *path)]
    conditions, *others = [BoundaryConditions(bc, unknown, it) for it in (args, *path)]
    if fitted:
        scheme = FittedBoundaryScheme(
            field=field,
            conditions=conditions,
            arguments=arguments,
            span=(left, right),
            width=width,
        )
    else:
        statement = Statement(field, conditions)
        before = tuple(map(Statement, fields, others))
        names = (
            tuple(f"{continuation[0]} = {float(v):g}" for v in continuation[1])
            if path and continuation
            else ()
        )
        scheme = BoundaryValueScheme(statement, (left, right), width, before, names)
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
        _guessed(guess, first[0], edges, width, parameters, arguments if fitted else None),
        trainable=_trained,
        reference=reference,
        scheme=scheme,
    )


def _trained(u: Pieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.states, u.parameters


def _guessed(guess, first, edges, width, parameters, arguments) -> Pieces:
    """The guess as a model: interpolated on elements."""
    d = len(first)
    count = len(edges) - 1
    nodes, weights = training_nodes(width)
    if callable(guess):
        Q = integrals(nodes, width, 1)[1]
        at = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
        # In blocks: no mesh is compiled for. One without a model has arrays in it as constants.
        model = _pieces_of(guess)
        see = _flat_values(guess) if model is None else model
        y = in_blocks(see, edges.astype(jnp.result_type(float))).astype(float)
        inside = in_blocks(see, at.ravel().astype(jnp.result_type(float))).astype(float)
        # The part that the edge values do not fix, in least squares.
        rest = inside.reshape(count, -1, d) - y[:-1, None]
        rest -= np.diff(y, axis=0)[:, None] * (nodes[:, None] + 1) / 2
        root = np.sqrt(weights)[:, None]
        solve = np.linalg.pinv(root * Q[:, 1:]) * root.T
        b = solve @ rest
    else:
        y, b = np.stack([first] * (count + 1)), np.zeros((count, width - 1, d))
    head = heads(OnHost(y, b, parameters))
    return stack_pieces(
        edges,
        y[:-1, None],
        head,
        unravel=unchanged,
        parameters=parameters,
        arguments=arguments,
    )


def _flat_values(guess: Callable[[Array], Any]) -> Callable[[Array], Array]:
    return lambda x: jnp.ravel(jnp.asarray(guess(x)))


def _pieces_of(guess: Any) -> Pieces | None:
    """The model of a guess that is a solution, or is such a model."""
    model = getattr(guess, "model", guess)
    return model if isinstance(model, Pieces) and model.states.shape[1] == 1 else None


def _mesh(mesh: Any, span: tuple[float, float], guess: Any, d: int) -> Float[np.ndarray, " N_1"]:
    """Ends of the first elements."""
    if mesh is None:
        model = _pieces_of(guess)
        if model is not None and (model.ends[0], model.ends[-1]) == span:
            return model.ends.astype(float)
        # A few, and fewer where each is large.
        return np.linspace(*span, 9 if d <= 8 else max(1, 64 // d) + 1)
    edges = as_reals(mesh, "mesh").astype(float)
    near = 1e-12 * (span[1] - span[0])
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadValueError(f"mesh must be increasing numbers, two or more, got {shown(mesh)}.")
    if abs(edges[0] - span[0]) > near or abs(edges[-1] - span[1]) > near:
        raise BadValueError(
            f"mesh must go from one end of span to the other, {span[0]:g} to {span[1]:g}, got "
            f"{edges[0]:g} to {edges[-1]:g}."
        )
    if len(edges) > MOST_ELEMENTS + 1:
        raise BadValueError(
            f"mesh has {len(edges) - 1} elements; at most {MOST_ELEMENTS} are possible."
        )
    edges[[0, -1]] = span
    return edges


def _path(args: PyTree, continuation: Any) -> list[PyTree]:
    """The arguments of the problems that lead to the one stated, which is not among them."""
    if continuation is None:
        return []
    known = sorted(map(str, args)) if isinstance(args, dict) else []
    if not isinstance(continuation, (tuple, list)) or len(continuation) != 2:
        raise BadValueError(
            'continuation must be a name and values, such as ("eps", [1e-2, 1e-3]), got '
            f"{shown(continuation)}."
        )
    name, values = continuation
    if (
        not isinstance(name, str)
        or not isinstance(args, dict)
        or name not in args
        or jnp.ndim(args[name]) != 0
    ):
        raise BadValueError(
            f"continuation follows a number in args, a dictionary: it names {shown(name)}, and "
            f"args has {', '.join(known) or 'no names'}. Write e.g. "
            'continuation=("eps", [1e-2, 1e-3]).'
        )
    values = as_reals(values, "continuation").astype(float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise BadValueError(f"continuation needs finite values in a row, got {shown(values)}.")
    if not np.isclose(values[-1], float(args[name]), rtol=1e-12, atol=0):
        raise BadValueError(
            f"continuation ends at {name} = {values[-1]:g}, but args has {float(args[name]):g}: "
            "the last value must be that of the problem."
        )
    return [args | {name: as_argument(float(value))} for value in values[:-1]]


def _ends(span: Any) -> tuple[float, float]:
    left, right = as_pair(span, "span", "(a, b)")
    if not 0 < right - left < math.inf:
        raise BadValueError(f"span must be two finite ends a < b, got ({left:g}, {right:g}).")
    return left, right


def _check_guess(guess: np.ndarray, parameters: np.ndarray) -> int:
    if guess.ndim != 1 or not guess.size:
        raise BadValueError(
            f"guess must be an array of shape (d,) or a function of x that returns one, got shape "
            f"{guess.shape}. Write e.g. guess=[0.0, 0.0] for two components."
        )
    if not np.isfinite(guess).all():
        raise BadValueError(f"guess must be finite, got {shown(guess.tolist())}.")
    if parameters.ndim != 1 or not np.isfinite(parameters).all():
        raise BadValueError(
            f"p must be finite numbers of shape (q,), got {shown(parameters.tolist())}."
        )
    return guess.size


def _check_functions(fun, bc, span, guess, more, count, given) -> None:
    """Evaluate the shapes that the functions return; `count` parameters have conditions."""
    dtype, (unknown, args) = jnp.result_type(float), given
    y = jnp.asarray(guess, dtype)
    p_too = "with p, since p= is given" if unknown else "without p, since no p= is given"
    p_too += ", and args last" * (args is not None)
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
            raise BadValueError(
                f"{name} must return one array of {size} numbers, got shapes {shown(shapes)}."
            ) from None
        if found.size != size:
            what = (
                "one for each component of y"
                if name == "fun"
                else ("one for each component of y and each unknown parameter")
            )
            raise BadValueError(
                f"{name} must return {size} numbers, {what}, of which guess has {y.size}; it "
                f"returns {found.size}."
            )
