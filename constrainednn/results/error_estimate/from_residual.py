"""The error of a solution in pieces, estimated from its residual: no reference is needed.

Symbols as in `_ode.linearised.defect` and `error_equation`.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._fitting.scheme import with_found
from constrainednn._ode.linearised.curvature import (
    ErrorProblem,
    largest,
    solve_equation,
    with_curvature,
)
from constrainednn._ode.linearised.defect import (
    REALISATIONS,
    Equations,
    OnStates,
    error_conditions,
    error_equation,
)
from constrainednn._ode.linearised.error_equation import ErrorEquation, logarithmic_bound, radau
from constrainednn._ode.linearised.sampled_solution import (
    Interpolation,
    Path,
    locate,
    sample,
    within,
)
from constrainednn._ode.schemes.boundary_fields import BoundaryField
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.trained.scheme import TrainedEquation
from constrainednn.errors import BadValueError
from constrainednn.models.pieces import Pieces
from constrainednn.results.error_estimate.error_estimate import ErrorEstimate
from constrainednn.results.facts import Facts

# Features that the nodes miss are not resolved where they might change the estimate by this share.
_UNRESOLVED = 0.3
# Number of uniform points that relative sizes are taken over, together with all nodes.
_UNIFORM = 2000
# Number of uniform points, with up to four components, where the residual is evaluated besides the
# nodes and the middles between them.
_LOOKS = 8192


def error_estimate(facts: Facts, points: int = 200) -> ErrorEstimate:
    """Estimate the error of an initial or boundary value problem's solution from its residual.

    With e = true - computed and r = u' - f(u), the equation e' = f_y e - r, e = 0 at the start, is
    solved on each piece by collocation at more Radau nodes than the march used, together with the
    jumps between pieces. Terms of higher order in e are then added by iteration; where that does
    not settle at once, the error is reported as too large to tell.

    Collocation rather than SciPy's integrators: the residual oscillates and nearly integrates to
    zero over a piece, and stiff pieces are many of the fastest times long. Both cost an adaptive
    integrator thousands of steps, and nothing here.

    Args:
        facts: Those of a solution for a problem made by `ivp` or `bvp`.
        points: Number of uniform points to report at, besides the edges of the pieces.

    Raises:
        ValueError: If the problem is not of that kind.

    Source:
        Zadunaisky, Numer. Math. 27 (1976) 21, estimates errors by the residual of an interpolant;
        Skeel, Numer. Math. 48 (1986) 1, compares such ways. Departures: the second-order term, and
        rounding carried along in random realisations.
    """
    scheme, model = with_found(facts.problem.scheme, facts.model), facts.model
    least, guess = 0.0, facts.problem.model
    if isinstance(scheme, TrainedEquation):
        scheme, model, guess = scheme.as_pieces(model)
    if isinstance(scheme, InitialValueScheme):  # whose field has the unknowns already
        model = eqx.tree_at(lambda u: u.parameters, model, jnp.zeros(0))
    if isinstance(scheme, InitialValueScheme) and scheme.field.mass is None:
        equations = Equations(scheme.field, None)
    elif isinstance(scheme, BoundaryValueScheme):
        statement = scheme.statement
        equations = Equations(OnStates(statement.field), statement.conditions)
        least = scheme.least(guess)
    else:
        raise BadValueError(
            "error_estimate needs the solution of a problem made by cx.ivp, without mass= and "
            f"delays=, or by cx.bvp; got one with scheme={scheme!r}. Solve again to another "
            "tolerance and compare."
        )
    # Solutions that overflow are recognised by what is not finite in the end.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        path = sample(model, least=least)
        looks = _looks(facts, model, path)
        if isinstance(scheme, BoundaryValueScheme) and _is_singular(scheme):
            # Nearer to the end than any node the defect of a polynomial is none.
            looks = looks[looks >= path.t[0, 0]]
        equation, missed = error_equation(equations.field, path, model, looks)
        conditions = None
        if equations.conditions is not None:
            columns = equation.g.shape[-1]
            conditions = error_conditions(equations.conditions, path, columns)
        statement = ErrorProblem(equations, path, equation, missed, conditions)
        spacing = _spacing(np.concatenate([path.t.ravel(), looks, path.ends]))
        return _estimate(statement, model.ends, points, min(spacing, _scanned(facts)))


def _is_singular(scheme: BoundaryValueScheme) -> bool:
    field = scheme.statement.field
    return isinstance(field, BoundaryField) and field.singular is not None


def _scanned(facts: Facts) -> float:
    """The spacing at which the solve itself scanned the field, in units of time."""
    spacing = getattr(facts.history.pieces, "spacing", math.nan)
    return spacing if math.isfinite(spacing) else math.inf


def _looks(facts: Facts, model: Pieces, path: Path) -> Float[np.ndarray, " m"]:
    """Points to evaluate the residual at besides the nodes, in the order of solution."""
    start, end = path.ends[0], path.ends[-1]
    found = [path.between]
    count = min(_LOOKS, 4 * _LOOKS // len(path.size))  # the derivatives cost most
    if _scanned(facts) > abs(end - start) / count:
        found.append(start + (end - start) * (np.arange(count) + 0.5) / count)
    worst = facts.gap.constraints[0].worst
    if worst is not None:
        found.append(np.ravel(worst.point)[:1].astype(float))
    looks = np.sort(np.concatenate(found))
    looks = looks if end > start else looks[::-1]
    return within(model.ends.astype(float), looks, locate(model.ends, looks)[0])


def _spacing(t: Float[np.ndarray, " m"]) -> float:
    return float(np.diff(np.sort(t)).max())


def _estimate(
    statement: ErrorProblem, ends: Float[np.ndarray, " N_1"], points: int, spacing: float
) -> ErrorEstimate:
    """Solve the error's equation and report it."""
    _, path, equation, missed, conditions = statement
    E, dp = solve_equation(equation, conditions)
    d, size = path.Y.shape[-1], path.size[: path.Y.shape[-1]]
    noise, unseen = (_root_mean(part) for part in np.split(E[..., 1:], [REALISATIONS], axis=-1))
    hidden = largest(np.hypot(noise, unseen))
    e, p, trusted = with_curvature(statement, (E[..., 0], dp[:, 0]), hidden)
    e = np.where(trusted[:, None, None], e, np.nan)[..., :d]
    values, unseen = path.Y[:, :, 0] / size, unseen[..., :d]
    # Evaluating the model loses the last digits of its largest value in the piece.
    digit = path.eps * np.abs(values).max(axis=1, keepdims=True)
    noise = np.hypot(noise[..., :d], digit)
    level = np.hypot(noise, unseen)
    n = len(path.s)
    uniform = Interpolation(*locate(path.ends, np.linspace(ends[0], ends[-1], _UNIFORM)), n)
    everywhere = lambda v: np.concatenate([uniform(v), v[:, 1:].reshape(-1, d)])  # noqa: E731
    norm = lambda v: np.linalg.norm(everywhere(v), axis=0)  # noqa: E731
    # Less than one where all of a component is below what was resolved.
    of_solution = np.maximum(norm(values), 1.0)

    matters = norm(unseen) > np.fmax(_UNRESOLVED * norm(e), norm(noise))
    pieces = np.flatnonzero(missed.size.any(axis=(1, 2)))
    first = pieces[:1] if matters.any() or missed.glimpsed.any() else pieces[:0]

    t = _reported_at(ends, points)
    index, s = locate(path.ends, t)
    reported = Interpolation(index, s, n)
    bound = np.full(len(t), np.nan)
    if conditions is None:
        digit = np.linalg.norm(digit[:, 0] * size, axis=1)[index]
        known = trusted[index] & (index < np.append(first, len(path.half))[0])
        bound = np.where(known, _bound(equation, path, index, s) + digit, np.inf)
    return ErrorEstimate(
        t,
        reported(e) * size,
        bound,
        np.abs(reported(level)) * size,
        trusted[index],
        norm(e) / of_solution,
        norm(level) / of_solution,
        float(path.ends[first[0]]) if first.size else math.nan,
        bool(missed.glimpsed.any()),
        spacing,
        p,
        _root_mean(dp[:, 1:]),
    )


def _root_mean(v: np.ndarray) -> np.ndarray:
    """Over the last axis; zero if that is empty."""
    return np.sqrt(np.sum(v**2, axis=-1) / max(v.shape[-1], 1))


def _bound(
    equation: ErrorEquation, path: Path, index: np.ndarray, s: np.ndarray
) -> Float[np.ndarray, " m"]:
    """The smaller of the bounds in the user's units and in those of the components' sizes."""
    S, d = path.size, path.Y.shape[-1]
    nodes = np.append(-1.0, radau(path.top.shape[1]).nodes)
    after = np.clip(np.searchsorted(nodes, s), 1, len(nodes) - 1)
    found = []
    for weights in (np.ones_like(S), 1 / S):
        at = logarithmic_bound(equation, weights)
        with np.errstate(over="ignore"):
            at *= (S * weights)[:d].max()
        found.append(np.maximum(at[index, after - 1], at[index, after]))
    return np.minimum(*found)


def _reported_at(ends: np.ndarray, points: int) -> np.ndarray:
    """Uniform points and the edges, in the order of solution."""
    t = np.union1d(np.linspace(ends[0], ends[-1], points), ends)
    return t if ends[-1] > ends[0] else t[::-1]
