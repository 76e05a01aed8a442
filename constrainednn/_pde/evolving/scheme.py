"""The march of an equation in time and the plane, as a scheme of a problem."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._pde.conditions import FlatStart
from constrainednn._pde.evolving.march import MOST_ELEMENTS, March, Solved
from constrainednn._pde.evolving.start import GivenState, LastState, held_in_time
from constrainednn._pde.march import status_of
from constrainednn._pde.stationary.discretisation import Discretisation, Equations, on_face
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.rounds import monitor_places
from constrainednn._pieces.mesh import places
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
from constrainednn.domains.boxes import Box
from constrainednn.domains.regions.faces import Flat
from constrainednn.domains.samplers.base import Draw
from constrainednn.models.space import PlaneTimePieces, stack_elements

# Names of the faces of a window that have conditions, by axis and end; there is none at its end.
FACES = "start", "", "left", "right", "bottom", "top"
# Training points that a report measures at most. All elements have their share.
_MOST_POINTS = 40_000
# Share of the time that the first window takes.
_FIRST = 0.1


class PlaneTimeScheme(AbstractPieceScheme):
    """Windows in time, each with elements in the plane, from a given start.

    Attributes:
        equations: What must hold of a function of (t, x, y): the equation, the start and the
            conditions on the sides.
        start: From a place to the state.
        linear: True if all are linear in u.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        time: Start and end.
        low: Lower corners of the elements of the plane to begin with.
        high: Upper corners.
        width: Polynomials in each coordinate.
    """

    equations: Equations
    start: FlatStart
    linear: bool = eqx.field(static=True)
    unravel: Callable[[Array], PyTree]
    time: tuple[float, float]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]
    width: int = eqx.field(static=True)

    default_tolerance = 1e-7
    digits = 5000  # the residual of three coordinates loses more of them than of two

    def __repr__(self) -> str:
        shape = " x ".join([str(self.width)] * 3)
        return f"march of windows with elements of {shape} polynomials, Gauss-Newton"

    @property
    def order(self) -> int:
        """Order in time."""
        return self.start.order

    @property
    def box(self) -> Box:
        """All of time and the plane."""
        low, high = np.min(self.low, axis=0), np.max(self.high, axis=0)
        return Box((self.time[0], *low.tolist()), (self.time[1], *high.tolist()))

    def discretisation(self, width: int, key: Key[Array, ""]) -> Discretisation:
        """Polynomials, with places that steer; residuals in units of u."""
        disc = Discretisation.of(self.equations, width, 3, monitor_places(key, width, 3))
        return dataclasses.replace(disc, exponent=0.0)

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
        del observed
        began, before = time.perf_counter(), 0.0
        begin, end = self.time
        march = March(
            self.discretisation(self.width, key),
            *(self.linear, self.order, np.array(self.low), np.array(self.high)),
            *(GivenState(self.start), self.ended, begin, _FIRST * (end - begin), end),
            self.goal(tolerance, model.coefficients.dtype),
        )
        if resumed is not None:
            before = _resume(march, resumed)

        def look(march: March) -> bool:
            done = (march.t - begin) / (end - begin)
            last = march.windows[-1].error if march.windows else math.nan
            spent = before + time.perf_counter() - began
            return watch(march.taken, done, last, lambda: _to_resume(march, spent))

        ending = march.run(steps, look)
        running = before + time.perf_counter() - began
        sizes = [len(item.c) for item in march.windows]
        where = "(" + ", ".join(f"{x:.6g}" for x in march.where) + ")"
        at = march.t, where, march.why
        status, reason = status_of(ending, steps, sizes, MOST_ELEMENTS, at)
        ends = np.array([begin, *(item.stop for item in march.windows)])
        errors, taken = np.full(1, math.nan), np.zeros(1, int)
        if march.windows:
            errors = np.array([item.error for item in march.windows])
            taken = np.array([item.steps for item in march.windows])
        else:
            ends = np.array([begin, begin + _nothing(self.time)])
        history = PieceHistory(ends, errors, taken, march.rejected)
        solved = self._model(march)
        return SchemeResult(solved, status, reason, int(taken.sum()), history, 0.0, running)

    def ended(self, mesh: Mesh, c: Float[np.ndarray, "N n d"]) -> LastState:
        """The state at the end of a window."""
        return LastState(self.stacked(mesh, c, self.width).boxes, self.order)

    def stacked(self, mesh: Mesh, c: Float[np.ndarray, "N n d"], width: int) -> PlaneTimePieces:
        """A model of these elements."""
        boxes = stack_elements(
            *(mesh.low, mesh.high, c),
            width=width,
            smooth=self.equations.smooth,
            scalar=False,
            unravel=self.unravel,
            parameters=self.start.unknowns,
            arguments=self.start.arguments,
        )
        return PlaneTimePieces(boxes, self.order)

    def kept(self, last: float | None = None) -> PlaneTimePieces:
        """The start, for all of the time or until another."""
        begin, end = self.time
        low, high = np.array(self.low), np.array(self.high)
        first = np.full((len(low), 1), begin)
        stop = np.full((len(low), 1), end if last is None else last)
        mesh = Mesh(np.concatenate([first, low], axis=1), np.concatenate([stop, high], axis=1))
        c = held_in_time(GivenState(self.start), mesh, self.width)
        return self.stacked(mesh, c, self.width)

    def _model(self, march: March) -> PlaneTimePieces:
        if not march.windows:  # the start, for as short a time as numbers can tell
            return self.kept(self.time[0] + _nothing(self.time))
        low, high = (
            np.concatenate([getattr(item.mesh, end) for item in march.windows])
            for end in ("low", "high")
        )
        c = np.concatenate([item.c for item in march.windows])
        return self.stacked(Mesh(low, high), c, self.width)

    def windows_of(self, u: PlaneTimePieces) -> list[tuple[Mesh, Float[np.ndarray, "N n d"]]]:
        """Elements and coefficients of each window."""
        low, high = u.boxes.corners
        c = np.asarray(u.coefficients, float)[: u.count]
        found = []
        for begin in u.ends[:-1]:
            own = low[:, 0] == begin
            found.append((Mesh(low[own], high[own]), c[own]))
        return found

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """Anywhere: before training the model is the start at all times."""
        del model
        return points[:1]

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """The rows of the solve: places in all elements, or on their faces on one side."""
        disc = self.discretisation(model.width, jax.random.key(0))
        (s, weights), mesh = disc.rule, Mesh(*model.boxes.corners)
        moving, here, content = [0, 1, 2], np.arange(len(mesh.low)), mesh.area
        box = self.box
        if isinstance(constraint.over, Flat):
            axis, end = divmod(FACES.index(constraint.name), 2)
            ends, corners = (mesh.low, box.low) if end == 0 else (mesh.high, box.high)
            here = np.flatnonzero(np.isclose(ends[:, axis], corners[axis], rtol=0, atol=1e-12))
            (s, weights), content = disc.face_rule, mesh.area / mesh.lengths[:, axis]
            s, moving = on_face(s, axis, 2.0 * end - 1), [i for i in range(3) if i != axis]
        here = here[:: max(1, math.ceil(len(here) * len(s) / _MOST_POINTS))]
        points = places(mesh.low[here], mesh.high[here], s).reshape(-1, 3)
        share = np.outer(content[here], weights).ravel()
        low, high = np.array(box.low), np.array(box.high)
        cube, dtype = ((points - low) / (high - low))[:, moving], jnp.result_type(float)
        return Draw(points.astype(dtype), (share / share.sum()).astype(dtype), cube.astype(dtype))

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain | None:
        """Up to where the march got."""
        reached, box = float(model.ends[-1]), self.box
        if reached == self.time[1] or constraint.name == "start":
            return None
        part = Box(box.low, (reached, *box.high[1:]))
        if isinstance(constraint.over, Flat):
            assert constraint.over.name is not None
            return part.boundary[constraint.over.name]
        return part

    def note(self, model: PyTree) -> str:
        """Where the training points lie."""
        return (
            f"train is the rows of the solve in {len(model.ends) - 1} windows with {model.count} "
            "elements in all, a Gauss rule in each: the gap is what they miss between their places"
        )


def _nothing(span: tuple[float, float]) -> float:
    """A time so short that numbers can only just tell it."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    return 64 * eps * max(abs(span[0]), span[1] - span[0])


def _to_resume(march: March, running: float) -> Resumable:
    arrays = {
        "place": np.array([march.t, march.h, march.size]),
        "low": march.low,
        "high": march.high,
    }
    if march.windows:
        table = [[item.stop, item.error, item.steps, len(item.c)] for item in march.windows]
        arrays |= {
            "windows": np.array(table),
            "corners": np.concatenate(
                [np.stack([item.mesh.low, item.mesh.high], axis=1) for item in march.windows]
            ),
            "coefficients": np.concatenate([item.c for item in march.windows]),
        }
    return arrays, {"counters": [march.taken, march.rejected, round(1e3 * running)]}


def _resume(march: March, resumed: Resumable) -> float:
    """Go on from where a run was; the seconds that it took until then."""
    arrays, _ = resumed
    march.taken, march.rejected, milliseconds = counters_of(resumed, 3)
    march.t, march.h, march.size = map(float, arrays["place"])
    march.low, march.high = np.asarray(arrays["low"]), np.asarray(arrays["high"])
    table = arrays.get("windows", np.zeros((0, 4)))
    last = np.cumsum(table[:, 3].astype(int))
    for (stop, error, steps, count), end in zip(table, last, strict=True):
        own = slice(end - int(count), end)
        low, high = np.moveaxis(np.asarray(arrays["corners"][own], float), 1, 0)
        c = np.asarray(arrays["coefficients"][own], float)
        march.windows.append(Solved(float(stop), Mesh(low, high), c, float(error), int(steps)))
    if march.windows:
        march.state = march.ended(march.windows[-1].mesh, march.windows[-1].c)
    return milliseconds / 1e3
