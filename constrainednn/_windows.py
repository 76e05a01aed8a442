"""Initial value problems: a march of windows, each a least-squares problem on frozen features.

Symbols (others in `_pieces.py`)::

    symbol  shape        meaning
    h       ()           length of a window, negative backwards in time; half = h / 2
    F       (m, d)       vector field at the nodes
    A       (m, d, p, d) its derivative by the state
    M       (d, d)       mass matrix; a row of zeros is an algebraic equation
    r       (m, d)       residual in scaled time: half^p (M u^(p) - F), and -F where M has zeros
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._domains import AbstractDomain, Interval
from constrainednn._field import Field
from constrainednn._march import AbstractEvolution, March, Window, march
from constrainednn._pieces import (
    Features,
    Pieces,
    least_squares,
    stack_pieces,
    start_polynomial,
    training_nodes,
    training_points,
)
from constrainednn._resolve import Resolved, not_finite_from, resolve
from constrainednn._samplers import Draw, Independent, draw
from constrainednn._scheme import (
    AbstractScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    goal,
)

# Monitor points in each window.
_MONITOR = 32
_NEWTON_STEPS = 12
# Times at which a system at rest is asked what will push it.
_LOOKS = 257
# Windows shorter than this many last digits of the time cannot tell where a jump is.
_TOLD_APART = 1024
# A component below this power of eps of the terms that its slope is the sum of is not resolved.
_CANCELLED = 0.2
# Centres of clusters of places in which the noise of the vector field is measured; their spacing
# and the order of the differences that are taken: what is smooth drops out.
_CLUSTERS, _APART, _DIFFERENCES = (-0.83, -0.39, 0.07, 0.41, 0.79), 1e-3, 5


class InitialValueScheme(AbstractScheme):
    """Windows in time from given initial values.

    Attributes:
        field: The vector field.
        span: Start and end.
        width: Number of features in a window.
        breaks: Times on the way, in order, at which windows end.
        longest: Length that no window exceeds.
        share: Share of the usual number of places at which the equation is looked at in the end.
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
        nodes, weights, end, clusters = _fixed_features(self.width, order, model.head.dtype.name)
        monitor = Features(places, self.width, order)
        evolution = _Evolution(self.field, nodes, weights, monitor, end, clusters)
        state = (model.states[0], self._sizes(model.states[0]))

        def through(stops: Sequence[float], resumed: Resumable | None) -> March:
            return march(
                evolution,
                state,
                stops,
                longest=self.longest,
                tolerance=goal(tolerance, model.head.dtype),
                steps=steps,
                watch=watch,
                resumed=resumed,
            )

        stops = self.span[0], *self.breaks, self.span[1]
        result = resolve(self.field, through, stops, share=self.share, resumed=resumed)
        found = result.march
        states, head = found.kept.pieces
        history = dataclasses.replace(found.history, spacing=result.spacing, found=result.found)
        if len(head):
            solved = stack_pieces(history.edges, states, head, unravel=self.field.unravel)
        else:
            solved = self._tangent(model.states[0])
            none = np.full(1, np.nan), np.zeros(1, int)
            history = PieceHistory(solved.ends, *none, history.rejected)
        status, reason = self._verdict(result, solved, steps, goal(tolerance, model.head.dtype))
        taken = int(history.steps.sum())
        return SchemeResult(solved, status, reason, taken, history, found.compile, found.run)

    def _sizes(self, y: Float[Array, "p d"]) -> Float[Array, "p d"]:
        """Sizes of the components at the start; what is rounding to them need not be resolved.

        One that starts at zero has none of its own, and along a chain of such components each
        would wait for the one before: they are given that of the largest, or of what the field
        makes of it.
        """
        start, end = self.span
        top = abs(end - start) * jnp.max(jnp.abs(self.field(jnp.asarray(start, y.dtype), y)))
        if not y.any() and top == 0:  # at rest, until something pushes
            times = jnp.linspace(start, end, _LOOKS, dtype=y.dtype)
            f = jnp.nan_to_num(_along(self.field, times, y), posinf=0.0, neginf=0.0)
            top = abs(end - start) * jnp.max(jnp.abs(f))
        largest = jnp.max(jnp.abs(y), axis=1, keepdims=True)
        largest = jnp.where(largest > 0, largest, jnp.where(top > 0, top, 1.0))
        return jnp.where(y != 0, jnp.abs(y), largest)

    def _tangent(self, y: Float[Array, "p d"]) -> Pieces:
        """What is known where no window was solved: a straight line, as short as times tell."""
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
            f"windows shrank to rounding at t = {model.ends[-1]:.17g}, where {why}. All before is "
            "kept"
        )

    def known_at(self, model: PyTree) -> float:
        """The start."""
        return float(model.ends[0])

    def training_points(self, model: PyTree) -> Draw:
        """Gauss nodes of all windows."""
        return training_points(model.ends, self.width)

    def covered(self, model: PyTree) -> AbstractDomain:
        """From the start to where the march got."""
        start, end = float(model.ends[0]), float(model.ends[-1])
        return Interval(min(start, end), max(start, end))


@functools.lru_cache(maxsize=16)
def _fixed_features(
    width: int, order: int, dtype: str
) -> tuple[Features, Float[Array, " m"], Features, Features]:
    """What all windows of all marches share: Gauss nodes, their weights, the end, and clusters."""
    del dtype  # that of jax's default when they are made
    nodes, weights = training_nodes(width)
    clusters = np.add.outer(_CLUSTERS, _APART * np.arange(_DIFFERENCES + 1)).ravel()
    at_nodes, end, near = (Features(at, width, order) for at in (nodes, np.ones(1), clusters))
    return at_nodes, jnp.asarray(weights), end, near


@eqx.filter_jit
def _along(field: Field, times: Float[Array, " n"], y: Float[Array, "p d"]) -> Float[Array, "n d"]:
    """The vector field at one state and many times."""
    return jax.vmap(lambda t: field(t, y))(times)


class _Evolution(AbstractEvolution):
    """The windows of an initial value problem; a state is (y, largest |y| so far)."""

    field: Field
    nodes: Features
    weights: Float[Array, " m"]
    monitor: Features
    end: Features
    clusters: Features | None = None

    @property
    def convergence(self) -> int:
        """One more than the number of features."""
        return self.nodes.width + 1

    def window(self, state: PyTree[Array], t: Float[Array, ""], h: Float[Array, ""]) -> Window:
        """Gauss-Newton on the head, from the slope at the start."""
        y, largest = state
        order, d = y.shape
        half, width = h / 2, self.nodes.width
        limits = jnp.finfo(y.dtype)
        rows_at = lambda features: WindowRows(self.field, features, y, t, half, largest)  # noqa: E731
        training, monitor = rows_at(self.nodes), rows_at(self.monitor)
        root = jnp.sqrt(self.weights)[:, None]

        def newton(carry):
            c, steps, size, _ = carry
            r, A, scale, stiff = training.linearised(c)
            # A component that starts at zero has no size yet; its slope lends it one.
            columns = jnp.maximum(scale, jnp.max(jnp.abs(training.at.integrals[0] @ c - r), axis=0))
            rows = root / (columns * stiff)[None]
            J = training.jacobian(A) * rows[:, :, None, None] * columns[None, None, None]
            J, r = J.reshape(-1, width * d), (r * rows).reshape(-1, 1)
            step = least_squares(J, r).reshape(width, d) * columns[None]
            return c + step, steps + 1, jnp.max(jnp.abs(step) / scale[None]), size

        def unfinished(carry):
            _, steps, size, before = carry
            # Convergence is quadratic: after a step of eps^0.6 the next would be rounding.
            far = size > limits.eps**0.6
            return (steps < _NEWTON_STEPS) & far & ~((steps > 3) & (size > 2 * before))

        slope = math.sqrt(2) * half**order * self.field.slope(t, y)
        first = jnp.zeros((width, d), y.dtype).at[0].set(slope)
        far = jnp.asarray(limits.max, y.dtype)
        c, steps, size, _ = lax.while_loop(unfinished, newton, (first, jnp.asarray(0), far, far))

        r, _, scale, stiff = monitor.linearised(c)
        rounding = monitor.rounding(c)
        # Scaled before it is squared: a square may underflow where the number does not.
        relative = lambda r: 2 * jnp.sqrt(jnp.mean((r / (scale * stiff)[None]) ** 2, axis=0))  # noqa: E731
        error, noise = relative(r), relative(rounding)
        if self.clusters is not None:
            noise = jnp.maximum(noise, rows_at(self.clusters).noise(c) / (scale * stiff))
        return Window(
            piece=(y, c),
            end=(
                rows_at(self.end).states(c)[0],
                jnp.maximum(largest, jnp.max(jnp.abs(training.states(c)), axis=0)),
            ),
            error=error,
            noise=noise,
            scale=scale * stiff,
            steps=steps,
            solved=jnp.all(jnp.isfinite(error)) & (size < limits.eps**0.4),
        )


class WindowRows(eqx.Module):
    """The residual of one window at given places."""

    field: Field
    at: Features
    y: Float[Array, "p d"]
    t: Float[Array, ""]
    half: Float[Array, ""]
    largest: Float[Array, "p d"]

    def states(self, c: Float[Array, "K d"]) -> Float[Array, "m p d"]:
        """Value and derivatives, in the user's time."""
        order = self.y.shape[0]
        dt = self.half * (self.at.places + 1)
        rows = [
            start_polynomial(self.y, dt, j) + self.at.integrals[order - j] @ c / self.half**j
            for j in range(order)
        ]
        return jnp.stack(rows, axis=1)

    def fields(
        self, states: Float[Array, "m p d"], late: float | Array = 0.0
    ) -> Float[Array, "m d"]:
        """The vector field, in scaled time; `late` by some share of the time."""
        t = (self.t + self.half * (self.at.places + 1)) * (1 + late)
        return self.factor * jax.vmap(self.field)(t, states)

    @property
    def factor(self) -> Float[Array, "..."]:
        """What an equation is multiplied by in scaled time."""
        factor = self.half ** self.y.shape[0]
        algebraic = self.field.algebraic
        return factor if algebraic is None else jnp.where(algebraic, 1.0, factor)[None]

    def residual(self, c: Float[Array, "K d"]) -> Float[Array, "m d"]:
        """The residual in scaled time."""
        top = self.at.integrals[0] @ c
        if self.field.mass is not None:
            top = top @ self.field.mass.T
        return top - self.fields(self.states(c))

    def linearised(
        self, c: Float[Array, "K d"]
    ) -> tuple[
        Float[Array, "m d"], Float[Array, "m d p d"], Float[Array, " d"], Float[Array, " d"]
    ]:
        """Residual, derivative of the scaled field, size of each component, stiffness of each.

        The size is that of the highest derivative in the state, in scaled time: the largest in
        the window, but no less than a rounding error of the largest before it, since a component
        that has died away need not be resolved.
        """
        order = self.y.shape[0]
        states = self.states(c)
        slope = lambda t, y: jax.jacfwd(self.field, argnums=1)(t, y)  # noqa: E731
        t = self.t + self.half * (self.at.places + 1)
        factor = self.factor
        A = jnp.reshape(factor, (1, -1, 1, 1)) * jax.vmap(slope)(t, states)
        length, limits = jnp.abs(self.half), jnp.finfo(c.dtype)
        size = jnp.maximum(jnp.max(jnp.abs(states), axis=0), limits.eps * self.largest)
        # As short as times can be told apart a jump at a component's own zero is as large as the
        # component, however short the window is: there the component's largest size counts.
        shortest = _TOLD_APART * limits.eps * jnp.abs(self.t + self.half)
        size = jnp.where(length <= shortest, jnp.maximum(size, self.largest), size)
        scale = jnp.maximum(length ** (order - 1) * size[-1], limits.eps * size[0]) + limits.tiny
        own = jnp.abs(jnp.diagonal(A, axis1=1, axis2=3))  # (m, p, d)
        per_time = length ** -jnp.arange(order, dtype=c.dtype)
        stiff = jnp.maximum(1.0, 2 * jnp.max(own * per_time[None, :, None], axis=(0, 1)))
        # What is left where large terms cancel is rounding, and so is a component made of that.
        terms = jnp.max(jnp.einsum("mipj,pj->mi", jnp.abs(A), size), axis=0)
        scale = jnp.maximum(scale, limits.eps**_CANCELLED * terms / stiff)
        r = self.residual(c)
        algebraic = self.field.algebraic
        if algebraic is not None:  # relative to the largest term, whatever the window is
            terms = jnp.max(jnp.sum(jnp.abs(A[:, :, 0]) * size[:1][None], axis=2), axis=0)
            stiff = jnp.where(algebraic, (terms + limits.tiny) / scale, stiff)
        return r, A, scale, stiff

    def jacobian(self, A: Float[Array, "m d p d"]) -> Float[Array, "m d K d"]:
        """Derivative of the residual by the head, from that of the scaled field."""
        order, d = self.y.shape
        Q = self.at.integrals
        mass = jnp.eye(d, dtype=A.dtype) if self.field.mass is None else self.field.mass
        J = Q[0][:, None, :, None] * mass[None, :, None, :]
        for j in range(order):
            J -= A[:, :, None, j, :] * (Q[order - j] / self.half**j)[:, None, :, None]
        return J

    def rounding(self, c: Float[Array, "K d"]) -> Float[Array, "m d"]:
        """Change of the residual when state and time change in their last digits."""
        states = self.states(c)
        signs = (-1.0) ** np.indices(states.shape).sum(axis=0)
        eps = jnp.finfo(c.dtype).eps
        moved = states * (1 + 2 * eps * signs)
        return self.fields(moved, jnp.asarray(eps * signs[:, 0, 0], c.dtype)) - self.fields(states)

    def noise(self, c: Float[Array, "K d"]) -> Float[Array, " d"]:
        """Noise of the residual in clusters of places: that of a field in lower precision, say.

        The median over the clusters, so that a jump in one of them is none.

        Source:
            Differences as in More and Wild, Estimating computational noise, SIAM J. Sci. Comput.
            33 (2011) 1292.
        """
        r = self.residual(c).reshape(len(_CLUSTERS), _DIFFERENCES + 1, -1)
        size = math.sqrt(math.comb(2 * _DIFFERENCES, _DIFFERENCES))
        return jnp.median(jnp.abs(jnp.diff(r, _DIFFERENCES, axis=1))[:, 0], axis=0) * 2 / size
