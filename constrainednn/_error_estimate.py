"""The error of a solution in pieces, estimated from its residual: no reference is needed.

Symbols as in `_defect.py` and `_error_equation.py`.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from constrainednn._boundary import BoundaryValueScheme
from constrainednn._defect import (
    Equations,
    OnRows,
    Path,
    error_conditions,
    error_equation,
    interpolate,
    linearise,
    linearise_conditions,
    locate,
    sample,
)
from constrainednn._error_equation import (
    Conditions,
    ErrorEquation,
    between_ends,
    from_start,
    logarithmic_bound,
    radau,
)
from constrainednn._fit import AbstractFittedScheme
from constrainednn._solution import Solution
from constrainednn._windows import InitialValueScheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# An estimate below this many times the rounding level says "at rounding": the bar asks for a
# factor 3 wherever the true error exceeds 100 times that level.
_CLEAR = 100 / 3
# An estimate is reported where its last iteration changed it by less than this share, ...
_CURVED = 0.3
_ITERATIONS = 4  # ... of so many at most.
# Uniform places that relative sizes are taken over, together with all nodes.
_UNIFORM = 2000


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

    def __repr__(self) -> str:
        level = float(np.max(self.relative_rounding))
        if self.label == "not resolved":
            text = (
                f"unknown after {self.unresolved:.6g}, where the equation has a kink, jump or "
                "pulse that the solve did not resolve"
            )
            if self.trusted.all():
                text += f"; of about {max(level, self.relative):.1e}, if what was seen is all"
        elif self.label == "too large to tell":
            first = self.t[np.argmin(self.trusted)]
            text = f"too large to tell near {first:.6g}, and perhaps elsewhere"
        elif self.label == "at rounding":
            text = f"at rounding, a level of {level:.1e}"
        else:
            text = f"{self.relative:.1e}, rounding at {level:.1e}"
        largest = float(np.max(self.bound))
        bound = f"; bound on its norm {largest:.1e}" if math.isfinite(largest) else ""
        if math.isinf(largest) and self.trusted.all():
            bound = "; no useful bound"
        return f"estimated relative error {text}{bound}"

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


def error_estimate(solution: Solution, points: int = 200) -> ErrorEstimate:
    """Estimate the error of an initial or boundary value problem's solution from its residual.

    With e = true - computed and r = u' - f(u), the equation e' = f_y e - r, e = 0 at the start, is
    solved by collocation at more Radau nodes than the march trained on, on each piece, together
    with the jumps between pieces. What is not linear in e is then added by iteration; where that
    does not settle at once, the error is reported as too large to tell.

    Collocation rather than SciPy's integrators: the residual changes sign about as often as there
    are features and nearly integrates to zero over a piece, and stiff pieces are many of the
    fastest times long. Both cost an adaptive integrator thousands of steps, and nothing here.

    Args:
        solution: Result of `solve` for a problem made by `ivp` or `bvp`.
        points: Number of uniform places to report at, besides the edges of the pieces.

    Raises:
        ValueError: If the problem is not of that kind.

    Source:
        Zadunaisky, Numer. Math. 27 (1976) 21, estimates errors by the residual of an interpolant;
        Skeel, Numer. Math. 48 (1986) 1, compares such ways. Departures: the second-order term, and
        rounding carried along in random realisations.
    """
    scheme, model = solution.problem.scheme, solution.model
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
        least = scheme.least(solution.problem.model)
    else:
        raise ValueError(
            "error_estimate needs the solution of a problem made by cx.ivp, without mass= and "
            f"delays=, or by cx.bvp; got one with scheme={scheme!r}. Solve again to another "
            "tolerance and compare."
        )
    worst = solution.gap.constraints[0].worst
    # Solutions that overflow are told by what is not finite in the end.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        path = sample(model, least=least)
        equation = error_equation(
            equations.field,
            path,
            sample(model, between=True),
            None if worst is None else (float(np.ravel(worst.point)[0]), worst.residual),
        )
        conditions = None
        if equations.conditions is not None:
            conditions = error_conditions(equations.conditions, path)
        return _estimate((equations, path, equation, conditions), model.ends, points)


def _estimate(
    statement: tuple[Equations, Path, ErrorEquation, Conditions | None],
    ends: Float[np.ndarray, " N_1"],
    points: int,
) -> ErrorEstimate:
    """Solve the error's equation and report it."""
    _, path, equation, conditions = statement
    E, dp = _solve(equation, conditions)
    noise, d, size = E[..., 1:], path.Y.shape[-1], path.size[: path.Y.shape[-1]]
    e, p, trusted = _with_curvature(statement, (E[..., 0], dp[:, 0]), _largest(_root_mean(noise)))
    e = np.where(trusted[:, None, None], e, np.nan)[..., :d]
    noise, values = noise[:, :, :d], path.Y[:, :, 0] / size
    # Evaluating the model loses the last digit of its largest value in the piece.
    digit = path.eps * np.abs(values).max(axis=1, keepdims=True) + np.zeros_like(values)
    uniform = locate(path.ends, np.linspace(ends[0], ends[-1], _UNIFORM))
    everywhere = [
        np.concatenate([interpolate(part, *uniform), part[:, 1:].reshape(-1, *part.shape[2:])])
        for part in (e, noise, digit, values)
    ]
    norm = lambda v: np.linalg.norm(v, axis=0)  # noqa: E731
    # Less than one where all of a component is below what was resolved.
    of_solution = np.maximum(norm(everywhere[3]), 1.0)

    t = _places(ends, points)
    index, s = locate(path.ends, t)
    if conditions is None:
        bound = np.where(trusted[index], _bound(equation, path, index, s), np.inf)
    else:
        bound = np.full(len(t), np.nan)
    level = np.hypot(_root_mean(interpolate(noise, index, s)), interpolate(digit, index, s))
    first = np.flatnonzero(equation.missed.any(axis=(1, 2)))
    return ErrorEstimate(
        t,
        interpolate(e, index, s) * size,
        bound,
        level * size,
        trusted[index],
        norm(everywhere[0]) / of_solution,
        norm(np.hypot(_root_mean(everywhere[1]), everywhere[2])) / of_solution,
        float(path.ends[first[0]]) if first.size else math.nan,
        p,
        _root_mean(dp[:, 1:]),
    )


def _root_mean(v: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(v**2, axis=-1))


def _solve(equation: ErrorEquation, conditions: Conditions | None) -> tuple[np.ndarray, np.ndarray]:
    """The error at the nodes and that of the parameters."""
    if conditions is None:
        return from_start(equation), np.zeros((0, equation.g.shape[-1]))
    return between_ends(equation, conditions)


def _largest(e: np.ndarray) -> np.ndarray:
    """The largest norm in each piece."""
    return np.linalg.norm(e, axis=-1).max(axis=1)


def _with_curvature(
    statement: tuple[Equations, Path, ErrorEquation, Conditions | None],
    first: tuple[np.ndarray, np.ndarray],
    hidden: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, " N"]]:
    """Add what f(u + e) - f(u) - f_y e does to the error.

    By iteration. Usually the first is a tiny correction; more of them tell an error whose first
    order happens to cancel from one that is too large for any of this.

    Returns:
        The errors of state and parameters, and in which pieces the last iteration was a correction
        or hidden by rounding.
    """
    e, dp = first
    trusted = np.zeros(len(e), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_ITERATIONS):
            more = _second_order(*statement, e, dp)
            change = first[0] + more[0] - e
            e, dp = first[0] + more[0], first[1] + more[1]
            trusted = _largest(change) <= np.maximum(_CURVED * _largest(e), hidden)
            # Of the solution's size; rounding that is amplified as far says nothing either.
            trusted &= (_largest(e) <= 1) & (hidden <= 1 / _CLEAR)
            if trusted.all():
                break
    return e, dp, trusted


def _second_order(
    equations: Equations,
    path: Path,
    equation: ErrorEquation,
    conditions: Conditions | None,
    e: np.ndarray,
    dp: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """What the error gains where the derivatives of f change along it.

    f(u + e) - f(u) - f_y e is taken as half the change of f_y times e: a difference of f would be
    rounding where e is small.
    """
    moved, p = path.Y + (e * path.size).reshape(path.Y.shape), path.p + dp
    _, _, A, B = linearise(equations.field, path, moved[:, 1:], p)
    g = ((A - equation.A) @ e[:, 1:, :, None])[..., 0] / 2 + (B - equation.B) @ dp / 2
    known = np.zeros(0)
    if conditions is not None and equations.conditions is not None:
        _, slopes = linearise_conditions(equations.conditions, path, moved, p)
        changes = zip(slopes, conditions[:3], (e[0, 0], e[-1, -1], dp), strict=True)
        known = -np.sum([(after - before) @ by / 2 for after, before, by in changes], axis=0)
        conditions = conditions._replace(known=_finite(known)[:, None])
    if not (g.any() or known.any()):  # a linear problem
        return np.zeros_like(e), np.zeros_like(dp)
    jumps = np.zeros((*equation.jumps.shape[:2], 1))
    bent = dataclasses.replace(equation, g=_finite(g)[..., None], jumps=jumps)
    E, more = _solve(bent, conditions)
    return E[..., 0], more[:, 0]


def _finite(v: np.ndarray) -> np.ndarray:
    """Numbers whose squares do not overflow; where the field does, far too large is enough."""
    return np.clip(np.nan_to_num(v, nan=1e150), -1e150, 1e150)


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
