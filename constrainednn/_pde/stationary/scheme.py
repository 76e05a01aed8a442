"""The solve of a stationary equation, as a scheme of a problem."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._pde.stationary.curved.cells import Curved, outline_of
from constrainednn._pde.stationary.curved.watching import training_draw
from constrainednn._pde.stationary.discretisation import Discretisation, Equations, on_face
from constrainednn._pde.stationary.mesh import MOST_ELEMENTS, Mesh
from constrainednn._pde.stationary.region import SIDES
from constrainednn._pde.stationary.rounds import Rounds, monitor_places
from constrainednn._pieces.mesh import places
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import TracedArguments
from constrainednn._problem.scheme import (
    AbstractPieceScheme,
    Observed,
    PieceHistory,
    Resumable,
    SchemeResult,
    Watch,
    counters_of,
)
from constrainednn.domains.boundaries import Segment, Segments
from constrainednn.domains.boxes import Box, Boxes, Interval
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.space import SpacePieces, stack_elements

# Training points that a report measures at most. All elements have their share.
_MOST_POINTS = 40_000


class StationaryScheme(AbstractPieceScheme):
    """Elements in space, solved together and divided until the residual is small enough.

    Attributes:
        equations: What must hold.
        linear: True if the residuals are linear in u: one step solves them.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        arguments: From the unknowns to the arguments of the equation.
        low: Lower corners of the elements to begin with.
        high: Upper corners.
        width: Polynomials in each coordinate.
        scalar: True if points are numbers.
        curved: The region whose boundary cuts elements, if one does.
    """

    equations: Equations
    linear: bool = eqx.field(static=True)
    unravel: Callable[[Array], PyTree]
    arguments: TracedArguments
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]
    width: int = eqx.field(static=True)
    scalar: bool = eqx.field(static=True)
    curved: Curved | None = None

    default_tolerance = 1e-10
    digits = 500

    def __repr__(self) -> str:
        shape = " x ".join([str(self.width)] * self.dim)
        return f"elements of {shape} polynomials, Gauss-Newton"

    def given(self, unknowns: Float[Array, " q"]) -> "StationaryScheme":
        """The same for other values of the unknowns."""
        return dataclasses.replace(self, equations=self.equations.given(unknowns))

    @property
    def dim(self) -> int:
        """Coordinates of a point."""
        return len(self.low[0])

    @property
    def first_mesh(self) -> Mesh:
        """The elements to begin with."""
        return Mesh(np.array(self.low), np.array(self.high), outline_of(self.curved))

    def mesh_of(self, model: SpacePieces) -> Mesh:
        """The elements of a model."""
        return Mesh(*model.corners, outline_of(self.curved))

    def discretisation(self, width: int, key: Key[Array, ""]) -> Discretisation:
        """Polynomials, with places that steer."""
        watched = monitor_places(key, width, self.dim)
        return Discretisation.of(self.equations, width, self.dim, watched)

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
        """Solve on the first elements, divide those that need it, and solve again."""
        del observed
        began, before = time.perf_counter(), 0.0
        c, allowed = coefficients(model), self.goal(tolerance, model.coefficients.dtype)
        disc = self.discretisation(self.width, key)
        known = {} if self.linear else None
        rounds = Rounds(disc, self.mesh_of(model), c, allowed, known)
        if resumed is not None:
            before = _resume(rounds, resumed)

        def look(rounds: Rounds) -> bool:
            spent = before + time.perf_counter() - began
            done = 1.0 if rounds.error <= allowed else 1 - 1 / (1 + rounds.count)
            return watch(rounds.taken, done, rounds.error, lambda: _to_resume(rounds, spent))

        ending = rounds.run(steps, look)
        status, reason = _verdict(rounds, ending, steps)
        sizes = rounds.local / max(rounds.size, np.finfo(float).tiny)
        edges = np.arange(len(sizes) + 1, dtype=float)
        taken = np.full(len(sizes), rounds.taken)
        history = PieceHistory(edges, sizes, taken, rounds.count - 1)
        running = before + time.perf_counter() - began
        found = self.stacked(rounds.mesh, rounds.c, self.width)
        return SchemeResult(found, status, reason, rounds.taken, history, 0.0, running)

    def stacked(self, mesh: Mesh, c: Float[np.ndarray, "N n d"], width: int) -> SpacePieces:
        """A model of these elements."""
        return stack_elements(
            *(mesh.low, mesh.high, c),
            width=width,
            smooth=self.equations.smooth,
            scalar=self.scalar,
            unravel=self.unravel,
            parameters=self.equations.interior.unknowns,
            arguments=self.arguments,
        )

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """Anywhere: before training the model is the guess."""
        del model
        return points[:1]

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """The rows of the solve: places in all elements, or on their faces on one side."""
        mesh = self.mesh_of(model)
        disc = self.discretisation(model.width, jax.random.key(0))
        if self.curved is not None:
            return training_draw(disc, mesh, constraint)
        if isinstance(constraint.over, (Segment, Segments)):
            (s, weights), (axis, end) = disc.face_rule, divmod(SIDES.index(constraint.name), 2)
            here = mesh.along(axis, end)
            s, content = on_face(s, axis, 2.0 * end - 1), mesh.area / mesh.lengths[:, axis]
            moving = [i for i in range(self.dim) if i != axis]
        elif isinstance(constraint.over, (Interval, Box, Boxes)):
            s, weights = disc.rule
            every = max(1, math.ceil(len(mesh.low) * len(s) / _MOST_POINTS))
            here, content = list(range(0, len(mesh.low), every)), mesh.area
            moving = list(range(self.dim))
        else:
            return None
        points = places(mesh.low[here], mesh.high[here], s).reshape(-1, self.dim)
        share = np.outer(content[here], weights).ravel()
        low, high = mesh.low.min(axis=0), mesh.high.max(axis=0)
        cube, dtype = ((points - low) / (high - low))[:, moving], jnp.result_type(float)
        points = points[:, 0] if self.scalar else points
        return Draw(points.astype(dtype), (share / share.sum()).astype(dtype), cube.astype(dtype))

    def covered(self, model: PyTree, constraint: Constraint) -> None:
        """All of the domain."""
        del model, constraint

    def note(self, model: PyTree) -> str:
        """Where the training points lie."""
        return (
            f"train is the rows of the solve in {model.count} elements, a Gauss rule in each: the "
            "gap is what they miss between their places"
        )


def coefficients(u: SpacePieces) -> Float[np.ndarray, "N n d"]:
    """Those of all elements, without padding."""
    return np.asarray(u.coefficients, float)[: u.count]


def _verdict(rounds: Rounds, ending: str, steps: int) -> tuple[str, str]:
    count = f"{len(rounds.mesh.low)} elements, in round {rounds.count}"
    near = "(" + ", ".join(f"{x:.6g}" for x in rounds.worst) + ")"
    if ending == "stopped":
        return "interrupted", f"on {count}"
    if ending == "steps":
        return "max_steps", f"the limit of {steps} Newton steps, on {count}"
    if ending == "end":
        found = f"the residual is {rounds.error:.1e} of u on {count}"
        return "converged", found + _constants(rounds.disc.equations)
    if ending == "contradiction":
        return "stalled", (
            "the data of equation and conditions contradict each other: nothing sees the value of "
            "u but its slopes, and there is a solution only if they balance, as where the integral "
            "of a source is that of the flux through the boundary. With "
            f"{_added(rounds)} there is one. Or mesh= must name what is narrower than the elements "
            "see"
        )
    if ending == "rounding":
        return "stalled", (
            f"the residual stays at {rounds.error:.1e} of u on {count}, the largest near {near}: "
            "rounding, or conditions that contradict each other"
        )
    if ending == "elements":
        return "stalled", (
            f"more than {MOST_ELEMENTS} elements are needed, the largest residual is near {near}: "
            "a layer too thin, a corner too sharp, or conditions that contradict each other"
        )
    if ending == "singular":
        return "stalled", (
            "equation and conditions do not determine u near the guess. Where its value is open at "
            "a point, add a condition there: boundary={..., (0.0, 0.0): lambda u, x: u(x)}. A "
            "nonlinear equation may need another guess="
        )
    if ending == "nonfinite":
        return "nonfinite", f"the equation is NaN or infinite on {count}"
    return "stalled", f"Newton's method does not converge on {count}; another guess= may help"


def _constants(equations: Equations) -> str:
    """What is said of components that have any constant."""
    if not equations.free:
        return ""
    if len(equations.free) > 1:
        which = " and ".join(f"u[{k}]" for k in equations.free)
        return (
            f"; {which} are determined up to a constant each, and their means are set to zero. "
            "Others are chosen by conditions at a point"
        )
    which = "u" if len(equations.smooth) == 1 else f"u[{min(equations.free)}]"
    return (
        f"; {which} is determined up to a constant, and its mean is set to zero. Another one is "
        "chosen by a condition at a point"
    )


def _added(rounds: Rounds) -> str:
    entry = "" if rounds.c.shape[2] == 1 else f"entry [{rounds.disc.equations.balance}] of "
    return f"{rounds.balance:.4g} added to {entry}the residual"


def _to_resume(rounds: Rounds, running: float) -> Resumable:
    mesh = rounds.mesh
    arrays = {"low": mesh.low, "high": mesh.high, "coefficients": rounds.c}
    counters = [rounds.taken, rounds.count, round(1e3 * running)]
    return arrays, {"counters": counters}


def _resume(rounds: Rounds, resumed: Resumable) -> float:
    """Go on from where a run was; the seconds that it took until then."""
    arrays, _ = resumed
    rounds.taken, rounds.count, milliseconds = counters_of(resumed, 3)
    rounds.mesh = Mesh(
        np.asarray(arrays["low"], float), np.asarray(arrays["high"], float), rounds.mesh.region
    )
    rounds.c = np.asarray(arrays["coefficients"], float)
    return milliseconds / 1e3
