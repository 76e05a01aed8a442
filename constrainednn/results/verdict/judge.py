"""Whether a statement holds, as far as fresh points, conditions and the error estimate tell.

The status says how a method ended. A method may end well on a statement that does not hold, and
the reverse; only what is measured after its last step says which.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from constrainednn._fitting.scheme import with_found
from constrainednn._gap.objectives.gap import ObjectiveGap
from constrainednn._ode.linearised.defect import OnStates
from constrainednn._ode.linearised.relative_residual import relative_conditions, relative_residual
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.delays import DelayScheme
from constrainednn._ode.schemes.field import with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.trained.scheme import TrainedEquation
from constrainednn._pde.trained import TrainedField
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.scheme import AbstractPieceScheme
from constrainednn.errors import BadValueError
from constrainednn.models.space import PlaneTimePieces, SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.results.error_estimate import plane_time, space, space_time
from constrainednn.results.error_estimate.error_estimate import ErrorEstimate
from constrainednn.results.error_estimate.field import FieldErrorEstimate, Fresh
from constrainednn.results.error_estimate.from_residual import error_estimate
from constrainednn.results.error_estimate.trained import trained_error
from constrainednn.results.facts import Facts
from constrainednn.results.one_experiment import one_experiment
from constrainednn.results.verdict.rows import by_tolerance, measured, violated, violated_on_sets
from constrainednn.results.verdict.verdict import Verdict
from constrainednn.runs.history import Status

# With these a method has not come to an end of its own: nothing need be measured.
_FAILED = (Status.BLOW_UP, Status.NONFINITE, Status.OUT_OF_MEMORY)


def verdict(facts: Facts) -> Verdict:
    """Judge a solution by what was measured after the last step."""
    found = _judged(facts)
    if not found.success:
        return found
    how = next(filter(None, map(violated, facts.gap.constraints)), "") or violated_on_sets(facts)
    if not how:
        return found
    return dataclasses.replace(found, word="not solved", reason=f"{how}; {found.reason}")


def _judged(facts: Facts) -> Verdict:
    status, reason = facts.status, facts.reason
    if status in _FAILED:
        return Verdict("not solved", f"{status}, {reason}")
    if isinstance(facts.model, Experiments):
        return _of_experiments(facts)
    scheme = facts.problem.scheme
    if isinstance(facts.model, SpaceTimePieces):
        return _of_fields(facts, space_time.on_fresh_points, space_time.space_time_error)
    if isinstance(facts.model, SpacePieces):
        return _of_fields(facts, space.on_fresh_points, space.space_error)
    if isinstance(facts.model, PlaneTimePieces):
        return _of_fields(facts, plane_time.on_fresh_points, plane_time.plane_time_error)
    if isinstance(scheme, AbstractPieceScheme):
        return _of_pieces(facts, scheme)
    if isinstance(scheme, TrainedEquation) and status is not Status.STALLED:
        return _of_trained_equation(facts)
    if facts.gap.objective is not None:
        return _of_objective(facts, facts.gap.objective)
    if facts.settings.tolerance > 0:
        return _of_trained_field(facts)
    if status is Status.STALLED:
        return Verdict("cannot tell", f"the method stalled, {reason}; {measured(facts)}")
    return Verdict("no tolerance to meet", measured(facts))


def _of_trained_equation(facts: Facts) -> Verdict:
    """An ordinary differential equation that a model was trained on."""
    error, tolerance = error_estimate(facts), facts.settings.tolerance
    if facts.problem.scheme.covered(facts.model, facts.problem.constraints[0]) is not None:
        text = f"{facts.status}, {facts.reason}; up to there {measured(facts)}; {error!r}"
        return Verdict("not solved", text, error)
    if tolerance <= 0:
        return Verdict("no tolerance to meet", f"{measured(facts)}; {error!r}", error)
    found = by_tolerance(facts.gap, tolerance)
    objection = error.objection(tolerance)
    if found.word == "solved" and objection:
        return Verdict("cannot tell", f"{objection}; {found.reason}", error)
    return dataclasses.replace(found, error=error)


def _of_trained_field(facts: Facts) -> Verdict:
    """A statement that was trained to a tolerance, where its error can be told: small rows with it.

    Waves carry what edges let in: an error may be many times what any row leaves.
    """
    tolerance = facts.settings.tolerance
    found = by_tolerance(facts.gap, tolerance)
    if found.word != "solved" or not isinstance(facts.problem.scheme, TrainedField):
        return found
    try:
        error = trained_error(facts)
    except BadValueError as unknown:
        return Verdict("cannot tell", f"no error estimate: {unknown}; {found.reason}")
    objection = error.objection(tolerance)
    if objection:
        return Verdict("cannot tell", f"{objection}; {found.reason}", error)
    return dataclasses.replace(found, error=error)


def _of_objective(facts: Facts, least: ObjectiveGap) -> Verdict:
    """An objective: it has no tolerance to meet, its constraints may have."""
    found = [f"{least.name}: {least.line()}"]
    found += [f"{item.name}: RMS {item.rms:.3g}" for item in facts.gap.finite]
    for item in facts.gap.constraints:
        if math.isnan(item.heldout_rms.value):
            return Verdict("not solved", f"{item.name} is NaN on fresh points; {found[0]}")
        if item.guarantee.tolerance is None:
            found.append(f"{item.name}: held-out RMS {item.heldout_rms.value:.3g}")
    if math.isnan(least.heldout.value):
        return Verdict("not solved", f"{least.name} is NaN on fresh points")
    return Verdict("no tolerance to meet", "; ".join(found))


def _of_experiments(facts: Facts) -> Verdict:
    """Several experiments: the equation must be solved in each."""
    for name in facts.model.names:
        part = verdict(dataclasses.replace(one_experiment(facts, name), status=Status.CONVERGED))
        if part.word != "solved":
            return dataclasses.replace(part, reason=f"experiment {name!r}: {part.reason}")
    if facts.status is not Status.CONVERGED:
        return Verdict("cannot tell", f"{facts.status}, {facts.reason}")
    return Verdict("no tolerance to meet", measured(facts))


def _of_pieces(facts: Facts, scheme: AbstractPieceScheme) -> Verdict:
    """A differential equation; where unknowns were fitted, with the values found."""
    status = facts.status
    known = with_found(scheme, facts.model)
    fitted = known is not scheme
    if not fitted and status is not Status.CONVERGED:
        return Verdict("not solved", f"{status}, {facts.reason}")
    assert isinstance(known, AbstractPieceScheme)
    allowed = known.goal(facts.settings.tolerance, facts.model.head.dtype)
    size = _fresh_residual(facts, known)
    found = f"residual on fresh points {size:.1e} of the equation's terms"
    if not size <= allowed:
        if not facts.gap.constraints[0].at_rounding:
            return Verdict("not solved", f"{found}, tolerance {allowed:.1e}")
        found += ", which is rounding"
    if isinstance(known, BoundaryValueScheme):
        missed = relative_conditions(known.statement.conditions, facts.model)
        if not missed <= max(allowed, 100 * float(np.finfo(facts.model.head.dtype).eps)):
            text = f"the boundary conditions are violated by {missed:.1e}, tolerance {allowed:.1e}"
            return Verdict("not solved", text)
    error = _error_if_known(facts)
    found = f"{found}, tolerance {allowed:.1e}"
    objection = "" if error is None else error.objection(allowed)
    if objection:
        return Verdict("cannot tell", f"{objection}; {found}", error)
    if error is None:
        found += "; no error estimate with a mass matrix or delays"
    if not fitted:
        return Verdict("solved", found, error)
    return _of_fit(facts, found, error)


def _of_fit(facts: Facts, found: str, error: ErrorEstimate | FieldErrorEstimate | None) -> Verdict:
    """An equation that holds with the unknowns found; what is left is the fit to the data."""
    if facts.status is not Status.CONVERGED:
        return Verdict("cannot tell", f"{facts.status}, {facts.reason}", error)
    return Verdict("no tolerance to meet", f"{measured(facts)}; {found}", error)


def _of_fields(
    facts: Facts,
    on_fresh_points: Callable[[Facts], list[Fresh]],
    estimated: Callable[[Facts], FieldErrorEstimate],
) -> Verdict:
    """A partial differential equation: each of its constraints must hold."""
    scheme = with_found(facts.problem.scheme, facts.model)
    fitted = scheme is not facts.problem.scheme
    if not fitted and facts.status is not Status.CONVERGED:
        return Verdict("not solved", f"{facts.status}, {facts.reason}")
    assert isinstance(scheme, AbstractPieceScheme)
    allowed = scheme.goal(facts.settings.tolerance, facts.model.coefficients.dtype)
    fresh = on_fresh_points(facts)
    worst = max(fresh, key=lambda item: math.inf if math.isnan(item.size) else item.size)
    found = f"{worst.name} on fresh points {worst.size:.1e} of u, tolerance {allowed:.1e}"
    rounded = {item.name for item in facts.gap.constraints if item.at_rounding}
    if any(not item.size <= allowed and item.name not in rounded for item in fresh):
        return Verdict("not solved", found)
    error = estimated(facts)
    objection = error.objection(allowed)
    if objection:
        return Verdict("cannot tell", f"{objection}; {found}", error)
    found = f"every constraint holds, {found}"
    if not fitted:
        return Verdict("solved", found, error)
    return _of_fit(facts, found, error)


def _fresh_residual(facts: Facts, scheme: AbstractPieceScheme) -> float:
    """The residual of the equation on held-out points, relative to its terms."""
    points, model = facts.streams[0].heldout, facts.model
    assert points is not None
    mass, p, elements = None, np.zeros(0), isinstance(scheme, BoundaryValueScheme)
    if isinstance(scheme, BoundaryValueScheme):
        field, p = OnStates(scheme.statement.field), np.asarray(model.parameters, float)
    elif isinstance(scheme, DelayScheme):
        field = with_args(scheme.field, (scheme.field.args, model))
    else:
        assert isinstance(scheme, InitialValueScheme)
        field, mass = scheme.field, scheme.field.mass
    t = np.asarray(points.points, float)
    return relative_residual(field, mass, model, t, p=p, everywhere=elements)


def _error_if_known(facts: Facts) -> ErrorEstimate | None:
    """The error estimate; None with a mass matrix or delays."""
    try:
        return error_estimate(facts)
    except ValueError:
        return None
