"""Initial value problems, stated as in SciPy and diffrax."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._fitting.observations import data_constraints, refuse_without
from constrainednn._ode.conserved import conserved
from constrainednn._ode.fitting.initial_values import FittedScheme
from constrainednn._ode.ivp_arguments import (
    as_breaks,
    as_delays,
    as_mass,
    as_order,
    as_span,
    check_algebraic,
    check_field,
    longest_window,
)
from constrainednn._ode.ivp_start import Start, start_of
from constrainednn._ode.schemes.delays import DelayedField, DelayResidual, DelayScheme, step_ends
from constrainednn._ode.schemes.field import EquationResidual, Field, with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.stated_experiments import of_experiments, refuse_beside
from constrainednn._ode.trained.statements import refuse_mixed, trained_initial_values
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.experiments import Experiment
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import AbstractPieceScheme
from constrainednn.domains.boxes import Interval
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.pieces import Pieces, as_width, training_nodes


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
    model: Any = None,
    points: int | None = None,
    windows: int = 1,
    reference: Callable[[Any], Any] | None = None,
) -> Problem:
    """State an initial value problem: y' = f(t, y, args), or y'' = f(t, (y, y'), args).

    `solve` marches from `span[0]` to `span[1]`, which may be the smaller. In each window the
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
        args: Passed to `vector_field`. Floats in it become arrays, so that other values need no
            compilation; integers, flags, strings and functions are constants. An `Unknown` in it is
            estimated from `data`; the function receives its value.
        data: What unknowns are estimated from: `Data((t, y))` with full states y, or constraints
            over `Data` with your own `residual(u, row)`, in which `u(t)` is the solution and
            `u.args` the arguments. Every row counts equally, times the weight of its constraint,
            an inverse variance.
        experiments: Instead of `data`: several experiments that share the unknowns in `args`, each
            with data, and with its own initial value, span and arguments if it states them. Each is
            solved alone. The solution contains one for each, `solution["name"]` or `solution[0]`;
            the estimates are from all of them.
        order: Order of the equation, 1 or 2.
        mass: A matrix M of shape (d, d), or its diagonal, where the equation is M y' = f(t, y,
            args). It may be singular: a row of zeros states an algebraic equation 0 = f, which
            must be solvable for the components without a derivative (index 1).
        delays: Positive numbers; the equation is y' = f(t, y, args, y(t - delays[0]), ...).
        history: The solution up to the start, a function of t, where there are delays.
        breaks: Times within the span at which the field or a derivative of it jumps, such as doses
            and switches. Windows end there, and each side uses the field on that side only.
        max_window: Largest length of a window, in the units of time; no limit by default.
        invariants: Functions `fn(t, y, args)`, such as an energy, that should keep their initial
            values. They are not trained on: their drift is reported as a separate gap, and measures
            the error without a reference.
        width: Number of features in a window.
        model: A recipe that is trained instead, by a method of `solve` and under its seed: a
            network, `cx.MLP("scalar", d)`, or `cx.RandomFeatures(cx.Interval(-1, 1), d)`, called
            with scaled time from -1 to 1. The initial values are built in.
        points: Training points of each window, for a model that is trained. Default: twice the
            parameters of a component, at least 50.
        windows: Number of equal windows, trained one after another, each from the end of the one
            before; for a model that is trained.
        reference: A known solution, called like the model.

    Returns:
        A problem; `solve` returns a solution that is a function of t.

    Raises:
        ValueError, TypeError: If y0 is not finite, the span is empty, breaks lie outside the span,
            max_window is not positive, or the field does not return the shape of y0.

    Source:
        Least-squares collocation with hard initial values, e.g. Ascher, SIAM J. Numer. Anal. 15
        (1978) 478; windows with random features as the basis in Dong and Li, CMAME 387 (2021)
        114129. The features here are orthonormal polynomials, measured against tanh features in
        docs/benchmarks.
    """
    order = as_order(order)
    beside = {"data": data, "experiments": experiments, "mass": mass, "delays": delays}
    beside |= {"breaks": breaks, "invariants": invariants}
    refuse_mixed(model, points, windows, beside=beside)
    if experiments is not None:
        refuse_beside(data=data, reference=reference, delays=delays, history=history)
        settings = {"mass": mass, "max_window": max_window, "invariants": invariants}
        state = functools.partial(ivp, vector_field, order=order, width=width, **settings)
        return of_experiments(state, experiments, y0=y0, span=span, args=args, breaks=breaks)
    if y0 is None or span is None:
        raise BadTypeError(
            "ivp needs y0 and span, as in cx.ivp(field, y0, (t0, t1)), or experiments=[...]."
        )
    span, width = as_span(span), as_width(width)
    breaks, longest = as_breaks(breaks, span), longest_window(max_window, span)
    start = start_of(y0, args, order)
    delays = as_delays(delays, history, span, start.value)
    if delays is not None and (order == 2 or start.arguments.unknowns):
        raise BadValueError(
            "delays= is for first-order equations without unknowns: write y' = v as additional "
            "equations, and give numbers in place of cx.Unknown."
        )
    past = [start.value] * (0 if delays is None else len(delays))
    check_field(vector_field, span[0], start.state, start.args, start.value, past)
    field = _field(vector_field, start, order, mass, (span[0], delays, history))
    observed = data_constraints(data)
    refuse_without(start.arguments, observed, "args")
    scheme = _scheme(field, start, span, width, breaks, longest, delays)
    if model is not None:
        assert isinstance(scheme, InitialValueScheme)  # unknowns need data, which is refused
        settings = {"points": points, "windows": windows, "name": _name(vector_field)}
        return trained_initial_values(scheme, start.flat, model, **settings, reference=reference)
    drifts, first = conserved(invariants, field, span), start.model(span, width)
    constraints = [_equation(field, span, width, vector_field), *drifts, *observed]
    return Problem(constraints, first, trainable=_trained, reference=reference, scheme=scheme)


def _name(vector_field: Callable[..., PyTree]) -> str:
    """What the equation is called."""
    name = getattr(vector_field, "__name__", type(vector_field).__name__)
    return "equation" if name == "<lambda>" else name


def _field(
    vector_field: Callable[..., PyTree],
    start: Start,
    order: int,
    mass: Any,
    past: tuple[float, Float[np.ndarray, " k"] | None, Callable[[Any], PyTree] | None],
) -> Field:
    """The vector field on flat states, with its mass matrix and its history."""
    (begin, delays, history), args = past, start.args
    mass = None if mass is None else as_mass(mass, start.flat.shape[1], order)
    fn = vector_field
    if delays is not None:
        assert history is not None
        fn = DelayedField(vector_field, history, jnp.asarray(begin), jnp.asarray(delays))
    field = Field(fn, args, start.unravel, order, mass)
    if mass is not None:
        before = args if delays is None else (args, lambda t: start.value)
        check_algebraic(with_args(field, before), begin, start.flat)
    # If the arguments hold unknowns, the field takes them from the model.
    return dataclasses.replace(field, args=None) if start.arguments.unknowns else field


def _equation(
    field: Field, span: tuple[float, float], width: int, vector_field: Callable[..., PyTree]
) -> Constraint:
    """The equation at the Gauss nodes of all windows."""
    residual = DelayResidual if isinstance(field.fn, DelayedField) else EquationResidual
    return Constraint(
        residual(field),
        over=Interval(*sorted(span)),
        points=len(training_nodes(width)[0]),
        sampler=GaussQuadrature(),
        name=_name(vector_field),
    )


def _scheme(
    field: Field,
    start: Start,
    span: tuple[float, float],
    width: int,
    breaks: tuple[float, ...],
    longest: float,
    delays: Float[np.ndarray, " k"] | None,
) -> AbstractPieceScheme:
    """How the equation is solved: by one march, by the method of steps, or by many marches."""
    if start.arguments.unknowns:
        return FittedScheme(
            field=field,
            arguments=start.arguments,
            start=start.states_from,
            span=span,
            width=width,
            breaks=breaks,
            longest=longest,
        )
    if delays is not None:
        return DelayScheme(field, step_ends(span, delays, breaks), width, longest)
    return InitialValueScheme(field, span, width, breaks, longest)


def _trained(u: Pieces) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head, u.parameters
