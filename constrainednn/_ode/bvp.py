"""Boundary value problems, stated as SciPy does."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_argument, as_function, as_reals, few_leaves_of
from constrainednn._common.messages import shown
from constrainednn._ode.bvp_arguments import (
    as_mesh,
    check_functions,
    check_guess,
    continuation_path,
    ends,
    guessed,
)
from constrainednn._ode.fitting.boundary_values import FittedBoundaryScheme, WithArguments
from constrainednn._ode.fitting.observations import data_constraints, refuse_without
from constrainednn._ode.linearised.element_step import Statement
from constrainednn._ode.schemes.boundary_fields import (
    BoundaryConditions,
    BoundaryField,
    ConditionsResidual,
    EquationResidual,
)
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Interval
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadValueError
from constrainednn.models.pieces import Pieces, as_width, training_nodes


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
    left, right = ends(span)
    width = as_width(width)
    few_leaves_of(p, "p")
    few_leaves_of(args, "args")
    args = jax.tree.map(as_argument, args)
    if Arguments(args).unknowns:
        raise BadValueError("args of bvp holds a cx.Unknown: p= takes those, fun(x, y, p, args).")
    path = continuation_path(args, continuation)
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
    d = check_guess(first[0], parameters)
    for x, value in zip(places, first, strict=True):
        if not np.isfinite(value).all():
            raise BadValueError(f"guess must be finite, got {shown(value.tolist())} at x = {x:g}.")
    rows = len(training_nodes(width)[0]) * d
    if rows < 2 * d + parameters.size + 1:
        raise BadValueError(
            f"width={width} is too small for {parameters.size} unknown parameters: an element has "
            f"{rows} rows of its own. Write a larger width=."
        )
    edges = as_mesh(mesh, (left, right), guess, d)
    matrix = None if S is None else as_reals(S, "S")
    if matrix is not None and (matrix.shape != (d, d) or not np.isfinite(matrix).all()):
        raise BadValueError(
            f"S must have shape {(d, d)} to match the guess, and be finite, got {shown(matrix)}."
        )
    singular = None if matrix is None else jnp.asarray(matrix, dtype)
    check_functions(fun, bc, (left, right), first[0], more, count, (unknown, args))
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
        guessed(guess, first[0], edges, width, parameters, arguments if fitted else None),
        trainable=_trained,
        reference=reference,
        scheme=scheme,
    )


def _trained(u: Pieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.states, u.parameters
