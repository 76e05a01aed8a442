"""Boundary value problems, stated as in SciPy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_argument, as_function, few_leaves_of
from constrainednn._fitting.observations import data_constraints, refuse_without
from constrainednn._ode.bvp_arguments import (
    as_mesh,
    as_parameters,
    as_singular,
    check_functions,
    continuation_path,
    ends,
    first_values,
    guessed,
    refuse_narrow,
)
from constrainednn._ode.fitting.boundary_values import FittedBoundaryScheme, WithArguments
from constrainednn._ode.linearised.element_step import BoundaryProblem
from constrainednn._ode.schemes.boundary_fields import (
    BoundaryConditions,
    BoundaryEquationResidual,
    BoundaryField,
    ConditionsResidual,
)
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.trained.statements import refuse_mixed, trained_boundary_values
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
    model: Any = None,
    points: int | None = None,
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
        guess: Initial guess of y: an array of shape (d,), or a function of x that returns one. If
            there are several solutions it decides which is found. A solution of `bvp` on the same
            interval also provides its elements.
        p: Initial guess of the unknown parameters, of shape (q,). The solution has them as
            `solution.model.parameters`. Or any pytree with `Unknown` leaves, which are estimated
            from `data`; functions receive the values, and `bc` returns d numbers.
        args: Passed to `fun` and `bc` as an additional last argument. Floats in it become arrays,
            so that other values need no compilation.
        mesh: Edges of the first elements, from the left end of `span` to the right; elements are
            divided but never joined. Default: those of `guess`, or eight equal elements.
        continuation: The name of an entry of `args`, a dictionary, and the values that lead to its
            own, which comes last: each problem is solved from the solution of the previous one, on
            its elements.
        data: What `Unknown` leaves are estimated from; as in `ivp`.
        S: Matrix of the singular term, of shape (d, d).
        width: Number of features in an element.
        model: A recipe that is trained instead, by a method of `solve` and under its seed: a
            network, `cx.MLP("scalar", d)`, or `cx.RandomFeatures(cx.Interval(-1, 1), d)`, called
            with x scaled to the interval from -1 to 1 and added to the guess. The conditions are
            rows of the loss.
        points: Training points, for a model that is trained. Default: twice the parameters of a
            component, at least 50.
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
    beside = {"data": data, "mesh": mesh, "continuation": continuation}
    refuse_mixed(model, points, beside=beside)
    span, width = ends(span), as_width(width)
    few_leaves_of(p, "p")
    few_leaves_of(args, "args")
    args = jax.tree.map(as_argument, args)
    if Arguments(args).unknowns:
        raise BadValueError("args of bvp holds a cx.Unknown: give it in p=, fun(x, y, p, args).")
    path = continuation_path(args, continuation)
    observed = data_constraints(data)
    parameters = as_parameters(p)
    fitted = parameters.arguments.unknowns
    refuse_without(parameters.arguments, observed, "p")
    if fitted and path:
        raise BadValueError("continuation= cannot be combined with unknowns from data.")
    first = first_values(guess, span, parameters.raw)
    refuse_narrow(width, first.size, parameters.raw.size)
    edges, singular = as_mesh(mesh, span, guess, first.size), as_singular(S, first.size)
    check_functions(fun, bc, span, first, parameters, args)
    if fitted:
        fun, bc = (WithArguments(fn, parameters.arguments) for fn in (fun, bc))
    unknown = p is not None
    field, *fields = [BoundaryField(fun, singular, span[0], unknown, it) for it in (args, *path)]
    conditions, *others = [BoundaryConditions(bc, unknown, it) for it in (args, *path)]
    if fitted:
        known = {"field": field, "conditions": conditions, "span": span, "width": width}
        scheme = FittedBoundaryScheme(**known, arguments=parameters.arguments)
    else:
        before, names = tuple(map(BoundaryProblem, fields, others)), ()
        if path and continuation:
            names = tuple(f"{continuation[0]} = {float(v):g}" for v in continuation[1])
        scheme = BoundaryValueScheme(BoundaryProblem(field, conditions), span, width, before, names)
    pieces = guessed(guess, first, edges, width, parameters)
    if model is not None:
        assert isinstance(scheme, BoundaryValueScheme)  # unknowns need data, which is refused
        settings = {"points": points, "reference": reference}
        return trained_boundary_values(scheme, guess, first, pieces, model, **settings)
    constraints = [*_constraints(field, conditions, span, width), *observed]
    return Problem(constraints, pieces, trainable=_trained, reference=reference, scheme=scheme)


def _constraints(
    field: BoundaryField, conditions: BoundaryConditions, span: tuple[float, float], width: int
) -> list[Constraint]:
    """The equation at the Gauss nodes of all elements, and the conditions."""
    return [
        Constraint(
            BoundaryEquationResidual(field),
            over=Interval(*span),
            points=len(training_nodes(width)[0]),
            sampler=GaussQuadrature(),
            name="equation",
        ),
        Constraint(
            ConditionsResidual(conditions, span),
            over=Points(np.asarray(span[:1])),
            name="boundary",
        ),
    ]


def _trained(u: Pieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.states, u.parameters
