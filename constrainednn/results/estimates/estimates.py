"""Estimates of the unknowns of a solved problem, from its data."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_positive, as_real
from constrainednn._common.random_keys import stream
from constrainednn._fitting.observations import observations
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._gap.statistics import LEVEL
from constrainednn._problem.experiments import Found
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import Observed
from constrainednn.domains.finite import Data
from constrainednn.errors import BadValueError
from constrainednn.results.estimates.elimination import eliminated, trained_unknowns
from constrainednn.results.estimates.from_rows import Estimates, estimates_from
from constrainednn.results.estimates.profile import Rows
from constrainednn.results.estimates.regression import Regression
from constrainednn.results.facts import Facts


def has_unknowns(problem: Problem, model: PyTree) -> bool:
    """True if there are unknowns and data to estimate them from."""
    if not any(isinstance(item.over, Data) for item in problem.constraints):
        return False
    return isinstance(problem.scheme, AbstractFittedScheme) or bool(
        trained_unknowns(model, problem)
    )


def estimates(facts: Facts, *, sigma: float | None = None, level: float = LEVEL) -> Estimates:
    """Estimate the unknowns of a solved problem; `Solution.estimates` has the documentation."""
    problem, model = facts.problem, facts.model
    if isinstance(getattr(model, "arguments", None), Found):
        raise BadValueError("estimates are those of all experiments: ask the whole solution.")
    data = [
        (item, points.train)
        for item, points in zip(problem.statements, facts.streams, strict=True)
        if isinstance(item.over, Data) and len(points.train)
    ]
    if not data:
        raise BadValueError(
            "estimates needs data: no constraint is over cx.Data. For rows that are all trained "
            "on write cx.Data(rows, holdout=0)."
        )
    tolerance = 0.0
    if isinstance(problem.scheme, AbstractFittedScheme):
        tolerance = problem.scheme.goal(facts.settings.tolerance, model.parameters.dtype)
        observed, z = observations(data), np.asarray(model.parameters, float)
        r, S = problem.scheme.sensitivities(model, observed)
        unknowns = problem.scheme.arguments.unknowns
        fit = Regression(r, S, z, unknowns, np.ones(r.size), _solver(facts, observed))
    else:
        fit = eliminated(facts, data)
    return estimates_from(
        fit,
        unseen=max(1e-9, 1e3 * float(jnp.finfo(jnp.result_type(float)).eps)),
        sigma=None if sigma is None else as_positive(sigma, "sigma"),
        level=as_real(level, "level"),
        status=str(facts.status),
        tolerance=tolerance,
    )


def _solver(facts: Facts, observed: tuple[Observed, ...]) -> Rows:
    """Rows and derivatives for other unknowns, each by a solution of the equation."""
    scheme, settings = facts.problem.scheme, facts.settings
    assert isinstance(scheme, AbstractFittedScheme)
    shooting = scheme.shooting(
        facts.model,
        observed,
        tolerance=settings.tolerance,
        key=stream(jax.random.key(settings.seed), "monitor/pieces"),
        watch=lambda *_: False,
    )

    def rows(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shot = shooting.shoot(z, shooting.stages[-1], settings.steps)
        return shot.r, shot.S

    return rows
