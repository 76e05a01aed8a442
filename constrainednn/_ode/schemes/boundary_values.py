"""Boundary value problems: elements solved together, divided where the residual is too large."""

import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._ode.linearised.division import (
    divided,
    heads,
    padded,
    unknowns_of,
    unpadded,
    with_waves,
)
from constrainednn._ode.linearised.element_step import BoundaryProblem, Unknowns
from constrainednn._ode.linearised.elements import Newton, solve_elements
from constrainednn._ode.schemes.endings import ending_of, undefined
from constrainednn._pieces.refinement import Round, half_of, parts_of, spread
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.scheme import (
    AbstractPieceScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
)
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.boxes import Interval
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import StoreError
from constrainednn.models.pieces import (
    Features,
    Pieces,
    stack_pieces,
    training_nodes,
    training_points,
)

# Monitor points in each element.
_MONITOR = 32
# Newton steps between two calls of `watch`, and the most on one set of elements.
_LOOK_EVERY = 5
_MOST_STEPS = 60
# First capacity, elements times components: a compilation costs more than idle elements.
_ROOM = 128
# Newton steps of collocation that locate the source of a residual.
_LOCATING = 3
# Tolerance of the intermediate problems of a continuation.
_INTERMEDIATE_TOLERANCE = 1e-5


class BoundaryValueScheme(AbstractPieceScheme):
    """Elements between two ends.

    Attributes:
        statement: The equations on flat arrays.
        span: Left and right end.
        width: Number of features in an element.
        path: Problems of the continuation to this one, each solved from the previous one.
        names: Names of those problems and of this one.
    """

    statement: BoundaryProblem
    span: tuple[float, float]
    width: int
    path: tuple[BoundaryProblem, ...] = ()
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"elements with {self.width} features, damped Gauss-Newton"

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
        """Solve on a few elements, divide those with too large a residual, and repeat."""
        rounds = _Rounds(self, model, tolerance, steps, key, watch)
        if resumed is not None:
            rounds.resume(resumed)
        status, reason = rounds.run()
        if self.path and status != "converged":
            during = ", during continuation" * (rounds.stage < len(self.path))
            reason = f"at {self.names[rounds.stage]}{during}: {reason}"
        return rounds.result(model, status, reason)

    def least(self, guess: Pieces) -> Float[np.ndarray, " d"]:
        """Rounding errors of the components of the guess: what is smaller is not resolved."""
        eps = float(jnp.finfo(guess.head.dtype).eps)
        return eps * np.abs(unknowns_of(guess).y).max(axis=0)

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """The middle of an element of the guess: the equation may be singular at the ends."""
        del points
        return np.mean(model.ends[:2], keepdims=True)

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw:
        """Gauss nodes of all elements."""
        del constraint
        return training_points(model.ends, self.width)

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain:
        """All of the interval."""
        del model, constraint
        return Interval(*self.span)


class _Rounds:
    """Rounds on finer and finer elements, first for the problems of a continuation.

    Attributes:
        edges: Ends of the elements.
        unknowns: Those of the last round, carried over to these elements.
        mesh: The edges on the device, padded to `capacity`.
        capacity: Number of elements that is compiled for.
        stage: Index of the problem.
        taken: Newton steps.
        given_up: Rounds that were followed by a refinement.
        failures: Consecutive rounds in which Newton's method failed.
        off: Estimated error of the previous round.
        share: Fraction of elements whose residual is small enough.
        latest: Residuals of the elements at the last check.
        start: Unknowns and damping from which this round continues; None at its beginning.
        tried: Newton steps of this round.
        compile: Seconds of compiling.
        seconds: Seconds of running.
    """

    def __init__(
        self,
        scheme: BoundaryValueScheme,
        model: Pieces,
        tolerance: float,
        steps: int,
        key: Key[Array, ""],
        watch: Watch,
    ):
        dtype = model.head.dtype
        self.width, self.steps, self.watch = scheme.width, steps, watch
        self.given, self.tolerance = tolerance > 0, scheme.goal(tolerance, dtype)
        self.statements = *scheme.path, scheme.statement
        monitor = draw(Interval(-1.0, 1.0), _MONITOR, Independent(), key=key).points
        self.nodes, self.weights = training_nodes(scheme.width)
        self.features = [Features(at, scheme.width, 1) for at in (self.nodes, monitor)]
        self.eps = float(jnp.finfo(dtype).eps)
        self.edges, self.unknowns = model.ends, unknowns_of(model)
        floors = scheme.least(model), self.eps * np.abs(self.unknowns.p)
        self.least = jax.tree.map(lambda size: jnp.asarray(size, dtype), floors)
        self.undamped = jnp.zeros((), dtype)
        self.capacity = self.stage = self.taken = self.given_up = self.failures = self.tried = 0
        self.off, self.share, self.compile, self.seconds = math.inf, 0.0, 0.0, 0.0
        self.latest = Round(np.full(1, np.nan), np.zeros(1), False, 1.0, math.nan)
        self.start: tuple[Unknowns, Array] | None = None
        self.mesh = jnp.zeros(0)

    @property
    def target(self) -> float:
        """The tolerance of the present problem."""
        last = self.stage == len(self.statements) - 1
        return self.tolerance if last else max(self.tolerance, _INTERMEDIATE_TOLERANCE)

    def resume(self, resumed: Resumable) -> None:
        """Continue an earlier run."""
        arrays, counters = resumed[0], counters_of(resumed, 7)
        self.capacity, self.taken, self.given_up, self.failures, tried, ms, self.stage = counters
        names = (*Unknowns._fields, "damping", "edges", "off")
        whole = set(names) <= arrays.keys() and self.stage < len(self.statements)
        if not whole or len(arrays["b"]) != self.capacity:
            raise StoreError("the checkpoint is damaged: its elements are not all there.")
        self.tried, self.seconds = tried, ms / 1e3
        start = Unknowns(*(jnp.asarray(arrays[name]) for name in Unknowns._fields))
        self.start = start, jnp.asarray(arrays["damping"])
        self.edges, self.off = arrays["edges"], float(arrays["off"])
        self.unknowns = unpadded(start, len(self.edges) - 1)

    def resumable(self) -> Resumable:
        """The state for `resume`."""
        assert self.start is not None
        counters = [self.capacity, self.taken, self.given_up, self.failures, self.tried]
        counters += [round(1e3 * self.seconds), self.stage]
        start, damping = self.start
        named = start._asdict() | {"damping": damping, "edges": self.edges, "off": self.off}
        return jax.tree.map(np.asarray, named), {"counters": counters}

    def run(self) -> tuple[str, str]:
        """Status and reason of the last round."""
        while True:
            found, stopped = self._round()
            count = len(self.edges) - 1
            self.unknowns = unpadded(found.unknowns, count)
            self.failures = 0 if found.solved else self.failures + 1
            self.share = float(np.mean(self._small))
            parts = self._parts(found) if found.solved and not stopped else parts_of(self.latest)
            if (parts > 1).any():
                parts = with_waves(parts, np.asarray(found.slopes)[:count], self.width)
            ending = self._ending(parts)
            # An unfinished round is not judged.
            if stopped and (ending is None or not self._ended(found)):
                return "interrupted", f"with {count} elements"
            if ending is None:
                self.given_up += 1
                self.edges, self.unknowns = divided(self.edges, self.unknowns, parts, self.width)
            elif ending[0] != "converged" or self.stage == len(self.statements) - 1:
                return ending
            else:
                self.stage, self.failures = self.stage + 1, 0

    def _round(self) -> tuple[Newton, bool]:
        """Newton's method on these elements, and whether the user asked to stop."""
        count = len(self.edges) - 1
        if count > self.capacity:
            self.capacity = max(4 * self.capacity, count, _ROOM // self.unknowns.y.shape[1])
            self.mesh, start = padded(self.edges, self.unknowns, self.capacity)
            before, _ = self.seconds, self._newton(self.weights, start, self.undamped, 0)
            self.compile, self.seconds = self.compile + self.seconds - before, before
        self.mesh, start = padded(self.edges, self.unknowns, self.capacity)
        if self.start is None:
            self.start, self.tried = (start, self.undamped), 0
            if self.given_up:  # the new elements are worth saving
                self._watch(self.resumable)
        while True:
            limit = min(_LOOK_EVERY, self.steps - self.taken)
            found = self._newton(self.weights, *self.start, limit)
            self.start = found.unknowns, found.damping
            self.taken, self.tried = self.taken + int(found.steps), self.tried + int(found.steps)
            self.latest, ended = self._round_of(found), self._ended(found)
            stopped = self._watch(None if ended else self.resumable)
            if ended or stopped:
                self.start = None
                return found, stopped

    def _newton(self, weights: np.ndarray, start: Unknowns, damping: Array, limit: int) -> Newton:
        began = time.perf_counter()
        found = solve_elements(
            self.statements[self.stage],
            self.features[0],
            jnp.asarray(weights),
            self.features[1],
            self.mesh,
            start,
            self.least,
            damping,
            jnp.asarray(limit),
        )
        jax.block_until_ready(found)
        self.seconds += time.perf_counter() - began
        return found

    def _watch(self, state: Callable[[], Resumable] | None) -> bool:
        worst = float(self.latest.error[self.latest.worst])
        return self.watch(self.taken, self.share, worst, state)

    def _ended(self, found: Newton) -> bool:
        return not found.unfinished or self.taken >= self.steps or self.tried >= _MOST_STEPS

    def _round_of(self, found: Newton) -> Round:
        count = len(self.edges) - 1
        error, noise = (np.asarray(part)[:count] for part in (found.error, found.noise))
        return Round(error, noise, bool(found.solved), float(found.condition), math.nan)

    @property
    def _small(self) -> np.ndarray:
        """Where the residual is below the target, or at rounding."""
        return self.latest.error <= np.maximum(self.target, 2 * self.latest.noise)

    def _parts(self, found: Newton) -> np.ndarray:
        """Into how many parts elements are divided, after a check by collocation."""
        parts, half = parts_of(self.latest), half_of(self.weights)
        if self._small.all():
            check = self._newton(half, found.unknowns, self.undamped, 1)
            off = float(check.moved)
            self.latest = self.latest._replace(off=off)
            stuck = self.off / 2 < off < self.eps**0.5  # by rounding
            self.off = off
            if off <= self.target or self.latest.rounded or stuck:
                parts = np.ones_like(parts)
        if spread(parts):
            check = self._newton(half, found.unknowns, self.undamped, _LOCATING)
            other = self._round_of(check)
            if np.isfinite(other.error).all() and (parts_of(other) > 1).any():
                parts, self.unknowns = parts_of(other), unpadded(check.unknowns, len(parts))
        return parts

    def _ending(self, parts: np.ndarray) -> tuple[str, str] | None:
        """Status and reason to stop with this problem, or None to divide and continue."""
        if not np.isfinite(self.latest.error).all():
            statement = self.statements[self.stage]
            ending = undefined(statement, self.edges, self.unknowns, self.nodes)
            if ending is not None:
                return ending
        return ending_of(
            self.edges,
            self.latest,
            parts,
            tolerance=self.target,
            given=self.given,
            spent=self.taken >= self.steps,
            failures=self.failures,
        )

    def result(self, model: Pieces, status: str, reason: str) -> SchemeResult:
        """The model of the last round."""
        edges, unknowns = self.edges, self.unknowns
        solved = stack_pieces(
            edges,
            unknowns.y[:-1, None],
            heads(unknowns),
            unravel=model.unravel,
            parameters=unknowns.p,
        )
        steps = np.full(len(edges) - 1, self.tried)
        history = PieceHistory(edges, self.latest.error, steps, self.given_up)
        return SchemeResult(solved, status, reason, self.taken, history, self.compile, self.seconds)
