"""Initial value problems: a march of windows, each a least-squares problem on frozen features.

Symbols (others in `models/pieces.py`)::

    symbol  shape        meaning
    h       ()           length of a window, negative backwards in time; half = h / 2
    F       (m, d)       vector field at the nodes
    A       (m, d, p, d) its derivative with respect to the state
    M       (d, d)       mass matrix; a row of zeros is an algebraic equation
    r       (m, d)       residual in scaled time: half^p (M u^(p) - F), and -F where M has zeros
"""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._ode.schemes.field import Field
from constrainednn._ode.schemes.second_look import Resolved, not_finite_from, resolve
from constrainednn._ode.schemes.windows import REST_TIMES, Evolution, along, fixed_features
from constrainednn._pieces.march import March, march
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.scheme import (
    AbstractPieceScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
)
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boxes import Interval
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import Independent
from constrainednn.models.pieces import Features, Pieces, stack_pieces, training_points

# Monitor points in each window.
_MONITOR = 32


@compiled
def _evaluated(field: Field, t: Float[Array, ""], y: Float[Array, "p d"]) -> Float[Array, " d"]:
    return field(t, y)


class InitialValueScheme(AbstractPieceScheme):
    """Windows in time from given initial values.

    Attributes:
        field: The vector field.
        span: Start and end.
        width: Number of features in a window.
        breaks: Times within the span, in order, at which windows end.
        longest: Largest length of a window.
        share: Fraction of the usual number of points at which the finished march is scanned.
    """

    field: Field
    span: tuple[float, float]
    width: int
    breaks: tuple[float, ...] = ()
    longest: float = math.inf
    share: float = 1.0

    def __repr__(self) -> str:
        return f"march of windows with {self.width} features, Gauss-Newton"

    def solve(
        self,
        model: PyTree,
        *,
        tolerance: float,
        steps: int,
        key: Key[Array, ""],
        watch: Watch,
        resumed: Resumable | None = None,
        observed: Sequence[Observed] = (),
    ) -> SchemeResult:
        """March from the start to the end."""
        places = draw(Interval(-1.0, 1.0), _MONITOR, Independent(), key=key).points
        order = self.field.order
        nodes, weights, end, clusters = fixed_features(self.width, order, model.head.dtype.name)
        monitor = Features(places, self.width, order)
        evolution = Evolution(self.field, nodes, weights, monitor, end, clusters)
        state = (model.states[0], self._sizes(model.states[0]))
        allowed = self.goal(tolerance, model.head.dtype)

        def march_through(stops: Sequence[float], resumed: Resumable | None) -> March:
            return march(
                evolution,
                state,
                stops,
                longest=self.longest,
                tolerance=allowed,
                steps=steps,
                watch=watch,
                resumed=resumed,
            )

        stops = self.span[0], *self.breaks, self.span[1]
        result = resolve(self.field, march_through, stops, share=self.share, resumed=resumed)
        found = result.march
        states, head = found.kept.pieces
        history = dataclasses.replace(found.history, spacing=result.spacing, found=result.found)
        if len(head):
            solved = stack_pieces(history.edges, states, head, unravel=self.field.unravel)
        else:
            solved = self._tangent(model.states[0])
            none = np.full(1, np.nan), np.zeros(1, int)
            history = PieceHistory(solved.ends, *none, history.rejected)
        status, reason = self._verdict(result, solved, steps, allowed)
        taken = int(history.steps.sum())
        return SchemeResult(solved, status, reason, taken, history, found.compile, found.run)

    def _sizes(self, y: Float[Array, "p d"]) -> Float[Array, "p d"]:
        """Sizes of the components at the start; below their rounding nothing need be resolved.

        A component that starts at zero has no size of its own, and in a chain of such components
        each would wait for the previous one. They are given the size of the largest component or,
        if all are zero, that of the change which the field causes over the span.
        """
        start, end = self.span
        f, sizes = np.asarray(_evaluated(self.field, jnp.asarray(start, y.dtype), y)), np.abs(y)
        change = abs(end - start) * np.abs(f).max()
        if not sizes.any() and change == 0:  # at rest until it is forced
            times = jnp.linspace(start, end, REST_TIMES, dtype=y.dtype)
            f = np.nan_to_num(along(self.field, times, y), posinf=0.0, neginf=0.0)
            change = abs(end - start) * np.abs(f).max()
        largest = sizes.max(axis=1, keepdims=True)
        largest = np.where(largest > 0, largest, change if change > 0 else 1.0)
        return jnp.asarray(np.where(sizes != 0, sizes, largest), y.dtype)

    def _tangent(self, y: Float[Array, "p d"]) -> Pieces:
        """The model if no window was solved: a straight line over a few rounding errors of time."""
        start, end = self.span
        length = 64 * float(jnp.finfo(y.dtype).eps) * max(abs(start), abs(end - start))
        stop = start + math.copysign(length, end - start)
        slope = self.field.slope(jnp.asarray(start, y.dtype), y)
        head = np.zeros((1, self.width, y.shape[1]))
        head[0, 0] = math.sqrt(2) * ((stop - start) / 2) ** self.field.order * np.asarray(slope)
        return stack_pieces(
            np.asarray([start, stop]), np.asarray(y)[None], head, unravel=self.field.unravel
        )

    def _verdict(
        self, result: Resolved, model: Pieces, steps: int, tolerance: float
    ) -> tuple[str, str]:
        ending, reached = result.march.ending, model.ends[-1]
        if ending == "stopped":
            return "interrupted", f"at t = {reached:.17g}"
        if ending == "steps":
            status, reason = (
                "max_steps",
                f"the limit of {steps} Newton steps, at t = {reached:.17g}",
            )
        elif ending == "end":
            status, reason = "converged", f"the end is reached in {model.count} windows"
            noise = float(result.march.kept.errors.max())
            if noise > 2 * tolerance:
                reason += f"; noise of the vector field hides residuals below {noise:.1e}"
        else:
            status, reason = "blow_up", self._why_shrunk(result.march, model)
        if result.left is None:
            return status, reason
        found = (
            f"between t = {result.left.low:.9g} and {result.left.high:.9g} the vector field has a "
            "pulse, jump or kink, or is too rough, and was not resolved"
        )
        return "stalled" if status == "converged" else status, f"{found}; {reason}"

    def _why_shrunk(self, marched: March, model: Pieces) -> str:
        bad = not_finite_from(self.field, marched, self.span[1])
        if bad is not None:
            why = f"the vector field is NaN or infinite at t = {bad:.17g}"
        else:
            why = (
                f"the largest component is {np.abs(model.states[model.count - 1]).max():.3g}: the "
                "solution ends there, or the vector field is not smooth"
            )
        return (
            f"windows shrank to rounding at t = {model.ends[-1]:.17g}, where {why}. The solution "
            "up to there is kept"
        )

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """The start."""
        del points
        return np.asarray(model.ends[:1])

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw:
        """Gauss nodes of all windows."""
        del constraint
        return training_points(model.ends, self.width)

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain:
        """From the start to where the march ended."""
        del constraint
        start, end = float(model.ends[0]), float(model.ends[-1])
        return Interval(min(start, end), max(start, end))
