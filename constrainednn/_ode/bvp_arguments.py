"""Arguments of `bvp`, checked and converted to what the scheme takes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_argument, as_pair, as_reals
from constrainednn._common.batched import in_blocks
from constrainednn._common.messages import shown
from constrainednn._ode.functions import returned
from constrainednn._ode.linearised.division import HostUnknowns, heads
from constrainednn._pieces.mesh import places
from constrainednn._pieces.refinement import MOST_ELEMENTS
from constrainednn._problem.equation_arguments import Arguments
from constrainednn.errors import BadValueError
from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import Pieces, stack_pieces, training_nodes


class Parameters(NamedTuple):
    """Unknown parameters, found with the solution or estimated from data.

    Attributes:
        arguments: Holds those that are estimated.
        raw: First values, in the scale in which they are trained.
        given: Further arguments of the user's functions: none if there are no parameters.
        conditions: Number of boundary conditions that they require.
    """

    arguments: Arguments
    raw: Float[np.ndarray, " q"]
    given: tuple[PyTree, ...]
    conditions: int


def as_parameters(p: Any) -> Parameters:
    """The parameters that the user gave as `p`."""
    arguments = Arguments(p)
    if arguments.unknowns:
        return Parameters(arguments, arguments.start, (arguments(jnp.asarray(arguments.start)),), 0)
    if p is None:
        return Parameters(arguments, np.zeros(0), (), 0)
    raw = as_reals(p, "p").astype(float)
    return Parameters(arguments, raw, (jnp.asarray(raw, jnp.result_type(float)),), raw.size)


def first_values(
    guess: Any, span: tuple[float, float], parameters: Float[np.ndarray, "..."]
) -> Float[np.ndarray, " d"]:
    """The guess at the left end; checks that it is finite at a few points."""
    dtype = jnp.result_type(float)
    places = np.linspace(*span, 9)
    values = [
        as_reals(guess(jnp.asarray(x, dtype)) if callable(guess) else guess, "guess").astype(float)
        for x in places
    ]
    check_guess(values[0], parameters)
    for x, value in zip(places, values, strict=True):
        if not np.isfinite(value).all():
            raise BadValueError(f"guess must be finite, got {shown(value.tolist())} at x = {x:g}.")
    return values[0]


def refuse_narrow(width: int, d: int, q: int) -> None:
    """Refuse elements with fewer rows than unknowns outside their interior."""
    rows = len(training_nodes(width)[0]) * d
    if rows < 2 * d + q + 1:
        raise BadValueError(
            f"width={width} is too small for {q} unknown parameters: an element has {rows} rows of "
            "its own. Write a larger width=."
        )


def as_singular(S: Any, d: int) -> Float[Array, "d d"] | None:
    """The matrix of the singular term."""
    if S is None:
        return None
    matrix = as_reals(S, "S")
    if matrix.shape != (d, d) or not np.isfinite(matrix).all():
        raise BadValueError(
            f"S must have shape {(d, d)} to match the guess, and be finite, got {shown(matrix)}."
        )
    return jnp.asarray(matrix, jnp.result_type(float))


def guessed(
    guess: Any,
    first: Float[np.ndarray, " d"],
    edges: Float[np.ndarray, " N_1"],
    width: int,
    parameters: Parameters,
) -> Pieces:
    """The guess as a model, fitted on the elements."""
    d = len(first)
    count = len(edges) - 1
    nodes, weights = training_nodes(width)
    if callable(guess):
        Q = integrals(nodes, width, 1)[1]
        at = places(edges[:-1], edges[1:], nodes)
        # In blocks, so that no mesh needs a compilation; arrays of a model are arguments.
        model = _pieces_of(guess)
        evaluate = _flat_values(guess) if model is None else model
        y = in_blocks(evaluate, edges.astype(jnp.result_type(float))).astype(float)
        inside = in_blocks(evaluate, at.ravel().astype(jnp.result_type(float))).astype(float)
        # Least squares for the part that the edge values do not determine.
        rest = inside.reshape(count, -1, d) - y[:-1, None]
        rest -= np.diff(y, axis=0)[:, None] * (nodes[:, None] + 1) / 2
        root = np.sqrt(weights)[:, None]
        solve = np.linalg.pinv(root * Q[:, 1:]) * root.T
        b = solve @ rest
    else:
        y, b = np.stack([first] * (count + 1)), np.zeros((count, width - 1, d))
    head = heads(HostUnknowns(y, b, parameters.raw))
    return stack_pieces(
        edges,
        y[:-1, None],
        head,
        unravel=unchanged,
        parameters=parameters.raw,
        arguments=parameters.arguments if parameters.arguments.unknowns else None,
    )


def unchanged(y: Array) -> Array:
    return y


def _flat_values(guess: Callable[[Array], Any]) -> Callable[[Array], Array]:
    return lambda x: jnp.ravel(jnp.asarray(guess(x)))


def _pieces_of(guess: Any) -> Pieces | None:
    """The model of a guess that is a solution or a model made of pieces."""
    model = getattr(guess, "model", guess)
    return model if isinstance(model, Pieces) and model.states.shape[1] == 1 else None


def as_mesh(mesh: Any, span: tuple[float, float], guess: Any, d: int) -> Float[np.ndarray, " N_1"]:
    """Edges of the first elements."""
    if mesh is None:
        model = _pieces_of(guess)
        if model is not None and (model.ends[0], model.ends[-1]) == span:
            return model.ends.astype(float)
        # A few, and fewer for large systems.
        return np.linspace(*span, 9 if d <= 8 else max(1, 64 // d) + 1)
    edges = as_reals(mesh, "mesh").astype(float)
    near = 1e-12 * (span[1] - span[0])
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadValueError(f"mesh must be two or more increasing numbers, got {shown(mesh)}.")
    if abs(edges[0] - span[0]) > near or abs(edges[-1] - span[1]) > near:
        raise BadValueError(
            f"mesh must go from one end of span to the other, {span[0]:g} to {span[1]:g}, got "
            f"{edges[0]:g} to {edges[-1]:g}."
        )
    if len(edges) > MOST_ELEMENTS + 1:
        raise BadValueError(
            f"mesh has {len(edges) - 1} elements; at most {MOST_ELEMENTS} are allowed."
        )
    edges[[0, -1]] = span
    return edges


def continuation_path(args: PyTree, continuation: Any) -> list[PyTree]:
    """The arguments of the problems that lead to the stated one, without its own."""
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
            f"continuation varies a number in args, a dictionary: it names {shown(name)}, and "
            f"args has {', '.join(known) or 'no names'}. Write e.g. "
            'continuation=("eps", [1e-2, 1e-3]).'
        )
    values = as_reals(values, "continuation").astype(float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise BadValueError(f"continuation needs a sequence of finite values, got {shown(values)}.")
    if not np.isclose(values[-1], float(args[name]), rtol=1e-12, atol=0):
        raise BadValueError(
            f"continuation ends at {name} = {values[-1]:g}, but args has {float(args[name]):g}: "
            "the last value must be that of the problem."
        )
    return [args | {name: as_argument(float(value))} for value in values[:-1]]


def ends(span: Any) -> tuple[float, float]:
    left, right = as_pair(span, "span", "(a, b)")
    if not 0 < right - left < math.inf:
        raise BadValueError(f"span must be two finite ends a < b, got ({left:g}, {right:g}).")
    return left, right


def check_guess(guess: np.ndarray, parameters: np.ndarray) -> None:
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


def check_functions(
    fun: Callable[..., Any],
    bc: Callable[..., Any],
    span: tuple[float, float],
    guess: Float[np.ndarray, " d"],
    parameters: Parameters,
    args: PyTree,
) -> None:
    """Check the shapes that the functions return."""
    dtype, count = jnp.result_type(float), parameters.conditions
    y, more = jnp.asarray(guess, dtype), parameters.given
    p_too = "with p, since p= is given" if more else "without p, since no p= is given"
    if args is not None:
        more, p_too = (*more, args), f"{p_too}, and args last"
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
