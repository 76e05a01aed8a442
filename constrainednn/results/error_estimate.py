"""The error of a solution in pieces, estimated from its residual: no reference is needed.

Symbols as in `_ode.linearised.defect` and `error_equation`.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from constrainednn._ode.fitting.scheme import AbstractFittedScheme
from constrainednn._ode.linearised.curvature import (
    Statement,
    largest,
    solve_equation,
    with_curvature,
)
from constrainednn._ode.linearised.defect import (
    REALISATIONS,
    Equations,
    OnRows,
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
from constrainednn.errors import BadValueError
from constrainednn.models.pieces import Pieces
from constrainednn.results.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# An estimate below this many times the rounding level says "at rounding".
_CLEAR = 10
# What the nodes miss is not resolved where it might change the estimate by more than this share.
_UNRESOLVED = 0.3
# An estimate of so many times the tolerance is more than a residual below it promises.
_PROMISED = 1000
# Uniform places that relative sizes are taken over, together with all nodes.
_UNIFORM = 2000
# Uniform places that the residual of up to four components is looked at besides the nodes and the
# middles between them.
_LOOKS = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorEstimate:
    """True minus computed along a solution, to leading order.

    Attributes:
        t: Uniform places joined with the edges of the pieces, in order of solution.
        estimate: Estimate of each component of the value; NaN where not `trusted`.
        bound: Bound on the Euclidean norm of the same; infinite where not `trusted` and from
            `unresolved` on, and NaN for a boundary value problem, where growth from one end says
            nothing.
        rounding: Level below which rounding hides the error, or what was found of the residual
            that the nodes miss; one standard deviation.
        trusted: False where the error is so large that its equation is far from linear.
        relative_size: For each component, L2 norm of the estimate relative to the solution's, over
            2,000 uniform places joined with the nodes of all pieces.
        relative_rounding: The same of the rounding level.
        unresolved: Start of the first piece where the residual has a kink, jump or pulse that its
            nodes miss; NaN if there is none.
        glimpsed: True if somewhere the nodes have nothing of such a feature, so that there is no
            telling how large it is. Otherwise `rounding` covers what it may do.
        spacing: The longest stretch of time between two places that were looked at.
        parameters: Estimate of the error of unknown parameters.
        parameters_rounding: Level of rounding in them.
    """

    t: Float[np.ndarray, " n"]
    estimate: Float[np.ndarray, "n d"]
    bound: Float[np.ndarray, " n"]
    rounding: Float[np.ndarray, "n d"]
    trusted: Bool[np.ndarray, " n"]
    relative_size: Float[np.ndarray, " d"]
    relative_rounding: Float[np.ndarray, " d"]
    unresolved: float
    glimpsed: bool
    spacing: float
    parameters: Float[np.ndarray, " q"]
    parameters_rounding: Float[np.ndarray, " q"]

    @property
    def at_rounding(self) -> Bool[np.ndarray, "n d"]:
        """Where an entry of the estimate is too close to rounding to mean anything."""
        return np.abs(self.estimate) <= _CLEAR * self.rounding

    @property
    def relative(self) -> float:
        """The largest over components of the relative L2 size; NaN if not trusted everywhere."""
        return float(np.max(self.relative_size))

    @property
    def label(self) -> str:
        """One of "estimate", "at rounding", "not resolved" and "too large to tell"."""
        if math.isfinite(self.unresolved):
            return "not resolved"
        if not self.trusted.all():
            return "too large to tell"
        # Less than a last digit is rounding, even where the level is lower: in a zero component.
        level = np.maximum(self.relative_rounding, np.finfo(float).eps)
        clear = self.relative_size > _CLEAR * level
        return "estimate" if clear.any() else "at rounding"

    def objection(self, tolerance: float) -> str:
        """Why this statement speaks against a solution to a tolerance; empty if it does not.

        Args:
            tolerance: What the residual of each piece was to be below, relative to the state.
        """
        # However loose the tolerance, an error of a tenth is none that it allows.
        allowed = min(_PROMISED * tolerance, max(10 * tolerance, 0.1))
        known = not self.glimpsed and bool(self.trusted.all())
        if self.label == "not resolved" and not (known and self._size <= allowed):
            return (
                f"the equation has a kink, jump or pulse after t = {self.unresolved:.6g} that is "
                "not resolved"
            )
        if self.label == "too large to tell":
            return f"the error is too large to tell near t = {self._untold:.6g}"
        if self._size > allowed:
            return (
                f"the error is estimated at {self._size:.1e} of the solution, "
                f"{self._size / tolerance:.0e} times the tolerance"
            )
        return ""

    @property
    def _untold(self) -> float:
        return float(self.t[np.argmin(self.trusted)])

    @property
    def _size(self) -> float:
        """The larger of the estimate and what hides it, of the component where that is largest."""
        return float(np.max(np.fmax(self.relative_size, self.relative_rounding)))

    def __repr__(self) -> str:
        level = float(np.max(self.relative_rounding))
        if self.label == "not resolved":
            feature = f"the equation has a kink, jump or pulse after {self.unresolved:.6g}"
            text = f"unknown: {feature}, which the solve did not resolve"
            if not self.glimpsed and self.trusted.all():
                text = f"about {self._size:.1e}: {feature}, where no piece ends"
        elif self.label == "too large to tell":
            text = f"too large to tell near {self._untold:.6g}, and perhaps elsewhere"
        elif self.label == "at rounding":
            text = f"at rounding, which comes to {self._size:.1e}"
        else:
            text = f"{self.relative:.1e}, rounding at {level:.1e}"
        highest = float(np.max(self.bound))
        bound = f"; bound on its norm {highest:.1e}" if math.isfinite(highest) else ""
        if math.isinf(highest) and self.trusted.all():
            bound = "; no useful bound"
        unseen = f"; features shorter than {self.spacing:.1e} are not seen"
        return f"estimated relative error {text}{bound}{unseen}"

    def plot(self) -> "Figure":
        """Draw the size of each component's estimate, the bound and the level of rounding."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for i in range(self.estimate.shape[1]):
            (line,) = axes.semilogy(self.t, np.abs(self.estimate[:, i]), label=f"component {i}")
            axes.semilogy(self.t, self.rounding[:, i], ":", color=line.get_color(), lw=0.8)
        if np.isfinite(self.bound).any():
            axes.semilogy(self.t, self.bound, "k--", lw=0.8, label="bound on the norm")
        axes.set(xlabel="t", ylabel="|true - computed|; dotted: rounding")
        axes.legend()
        return figure


def error_estimate(facts: Facts, points: int = 200) -> ErrorEstimate:
    """Estimate the error of an initial or boundary value problem's solution from its residual.

    With e = true - computed and r = u' - f(u), the equation e' = f_y e - r, e = 0 at the start, is
    solved by collocation at more Radau nodes than the march trained on, on each piece, together
    with the jumps between pieces. What is not linear in e is then added by iteration; where that
    does not settle at once, the error is reported as too large to tell.

    Collocation rather than SciPy's integrators: the residual changes sign about as often as there
    are features and nearly integrates to zero over a piece, and stiff pieces are many of the
    fastest times long. Both cost an adaptive integrator thousands of steps, and nothing here.

    Args:
        facts: Those of a solution for a problem made by `ivp` or `bvp`.
        points: Number of uniform places to report at, besides the edges of the pieces.

    Raises:
        ValueError: If the problem is not of that kind.

    Source:
        Zadunaisky, Numer. Math. 27 (1976) 21, estimates errors by the residual of an interpolant;
        Skeel, Numer. Math. 48 (1986) 1, compares such ways. Departures: the second-order term, and
        rounding carried along in random realisations.
    """
    scheme, model = facts.problem.scheme, facts.model
    least = 0.0
    if isinstance(scheme, AbstractFittedScheme):  # for the unknowns as they were found
        scheme = scheme.at(model)
        if isinstance(scheme, InitialValueScheme):  # whose field has them already
            model = eqx.tree_at(lambda u: u.parameters, model, jnp.zeros(0))
    if isinstance(scheme, InitialValueScheme) and scheme.field.mass is None:
        equations = Equations(scheme.field, None)
    elif isinstance(scheme, BoundaryValueScheme):
        statement = scheme.statement
        equations = Equations(OnRows(statement.field), statement.conditions)
        least = scheme.least(facts.problem.model)
    else:
        raise BadValueError(
            "error_estimate needs the solution of a problem made by cx.ivp, without mass= and "
            f"delays=, or by cx.bvp; got one with scheme={scheme!r}. Solve again to another "
            "tolerance and compare."
        )
    # Solutions that overflow are told by what is not finite in the end.
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
        statement = Statement(equations, path, equation, missed, conditions)
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
    """Where to look besides the nodes, in the order of solution."""
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
    statement: Statement, ends: Float[np.ndarray, " N_1"], points: int, spacing: float
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

    t = _places(ends, points)
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


def _places(ends: np.ndarray, points: int) -> np.ndarray:
    """Uniform places joined with the edges, in the order of solution."""
    t = np.union1d(np.linspace(ends[0], ends[-1], points), ends)
    return t if ends[-1] > ends[0] else t[::-1]
