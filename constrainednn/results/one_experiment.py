"""The solution of one of several experiments, taken out of that of all."""

import dataclasses
import math
from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PyTree

from constrainednn._gap.measure import in_total
from constrainednn._ode.fitting.experiments import FittedExperiments
from constrainednn._ode.schemes.field import EquationResidual, Field, with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.experiments import Experiments, Found, apart, of_experiment
from constrainednn._problem.problem import Problem
from constrainednn.errors import BadTypeError
from constrainednn.models.pieces import Pieces
from constrainednn.results.facts import Facts

AnyFacts = TypeVar("AnyFacts", bound=Facts)


def _trained(u: Pieces) -> PyTree:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return u.head


def _with_field(constraint: Constraint, field: Field) -> Constraint:
    """The equation with the arguments that were found: solved again, a model has none."""
    if not isinstance(constraint.residual, EquationResidual):
        return constraint
    return eqx.tree_at(lambda c: c.residual, constraint, EquationResidual(field))


def one_experiment(facts: AnyFacts, which: int | str) -> AnyFacts:
    """Those of one experiment; `Solution.__getitem__` has the documentation."""
    model, problem, pieces = facts.model, facts.problem, facts.history.pieces
    if not isinstance(model, Experiments) or not isinstance(pieces, tuple):
        raise BadTypeError("this solution has no experiments: it is a function, solution(x).")
    assert isinstance(problem.scheme, FittedExperiments)
    index = model.index(which)
    fit, u = problem.scheme.fits[index], model[index]
    known = with_args(fit.field, u.args)
    blank = eqx.tree_at(lambda u: u.arguments, problem.model.parts[index], Found(u.args))
    u = eqx.tree_at(lambda u: (u.parameters, u.arguments), u, (jnp.zeros(0), Found(u.args)))
    chosen = [
        (apart(item, model)[0], points)
        for item, points in zip(problem.constraints, facts.streams, strict=True)
        if (own := of_experiment(item)) is not None and own.index == index
    ]
    constraints = [_with_field(item, known) for item, _ in chosen]
    names = {item.name for item in constraints}
    alone = Problem(
        constraints,
        blank,
        trainable=_trained,
        scheme=InitialValueScheme(known, fit.span, fit.width, fit.breaks, fit.longest),
    )
    gaps = [item for item in facts.gap.constraints if item.name in names]
    finite = [item for item in facts.gap.finite if item.name in names]
    history = dataclasses.replace(
        facts.history, pieces=pieces[index], snapshots=((facts.steps, u),)
    )
    return dataclasses.replace(
        facts,
        problem=alone,
        model=u,
        gap=in_total(constraints, gaps, finite),
        parameters=u.count * math.prod(u.head.shape[1:]),
        history=history,
        streams=tuple(points for _, points in chosen),
    )
