"""Many runs of one problem, under different seeds, as one vmapped computation.

Each run is a Python generator that requests steps and monitor losses; the requests of all runs are
computed at once. A run that has ended, or has taken its steps, is masked and does not change.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.batched import Structure, put_together, take_apart
from constrainednn._common.compilation.closures import Retrace, with_retrace
from constrainednn._problem.objective import Value
from constrainednn._solve.measure import measured
from constrainednn._solve.training.steps import Chunk, MonitorRequest, advance
from constrainednn._solve.training.trainer import Training
from constrainednn.results.solution import Solution

# Runs one by one are timed, too, where all together take at least this many compilations.
_WORTH = 5


class Unlike(Exception):  # noqa: N818  (it says what runs are, not what went wrong)
    """Runs differ in more than the numbers in their arrays: no one computation fits all."""


def together(
    trainings: Mapping[int, Training], lanes: int, failures: tuple[type[Exception], ...]
) -> dict[int, Solution | Exception]:
    """Complete all runs.

    Args:
        trainings: The runs by their place among the lanes; all of one problem and its stages.
        lanes: Width of the computation. Lanes without a run hold a copy of another, so that the
            results of a run do not depend on its neighbours.
        failures: Exceptions that end the run that raises them, and no other.

    Returns:
        For each run its solution, or how it failed.

    Raises:
        Unlike: If the runs do not fit together.
    """
    generators = {place: training.go() for place, training in trainings.items()}
    stepper = _LaneStepper(lanes)
    ended: dict[int, Solution | Exception] = {}
    pending: dict[int, Chunk | MonitorRequest] = {}

    def resume(place: int, answer: Any) -> None:
        pending.pop(place, None)
        try:
            try:
                pending[place] = generators[place].send(answer)
            except StopIteration as end:
                ended[place] = measured(trainings[place].run, end.value)
        except failures as error:
            ended[place] = error

    for place in generators:
        resume(place, None)
    while pending:
        # Monitor losses first, until all remaining runs request steps: so they stay in step.
        requests = {
            place: item for place, item in pending.items() if isinstance(item, MonitorRequest)
        }
        chunks = {place: item for place, item in pending.items() if isinstance(item, Chunk)}
        answers = _monitor_losses(requests, lanes) if requests else stepper.step(chunks)
        for place, answer in answers.items():
            resume(place, answer)
    return ended


@with_retrace
def faster_together(chunk: Chunk, steps: int, lanes: int) -> bool:
    """Measure whether `lanes` runs are faster as one computation than one by one.

    Steps of a single run are compiled and timed only where the runs are long enough to repay it.
    Short runs are batched in any case, which saves the overhead of each call.

    Args:
        chunk: The first steps that one of the runs requests.
        steps: Largest number of steps of each run.
        lanes: Number of runs.
    """
    parts = [_stacked({0: part}, lanes) for part in _parts(chunk)]
    beside = lambda n: jax.block_until_ready(_advance_lanes(*_transposed(parts), np.full(lanes, n)))  # noqa: E731
    compiling, each = _trial(beside, steps)
    if each * steps < _WORTH * compiling:
        return True
    alone = lambda n: jax.block_until_ready(advance(*chunk[:-1], jnp.asarray(n)))  # noqa: E731
    return each < lanes * _trial(alone, steps)[1]


def _trial(run: Callable[[int], Any], steps: int) -> tuple[float, float]:
    """Seconds to compile, and seconds per step."""
    started = time.perf_counter()
    run(1)
    compiling, few = time.perf_counter() - started, min(8, steps)
    started = time.perf_counter()
    run(few)
    return compiling, (time.perf_counter() - started) / few


Stacked = tuple[list, Structure]


class _LaneStepper:
    """Steps all lanes at once, and keeps their arrays stacked between calls."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        # For each part, what each lane passed in or received last, and the same stacked.
        self.last: list[dict[int, tuple]] = [{}, {}]
        self.parts: list[Stacked | None] = [None, None]

    @with_retrace
    def step(self, chunks: dict[int, Chunk]) -> dict[int, Any]:
        started = time.perf_counter()
        parts = [
            self.stacked(part, {index: _parts(item)[part] for index, item in chunks.items()})
            for part in range(2)
        ]
        steps = np.zeros(self.lanes, int)
        for index, item in chunks.items():
            steps[index] = item.steps
        try:
            params, state, best, *rest = _advance_lanes(*_transposed(parts), steps)
        except Retrace:
            self.parts = [None, None]
            raise
        moved = params, state, best
        leaves, structure = jax.tree.flatten((*moved, *rest))
        leaves = [np.asarray(leaf) for leaf in leaves]
        elapsed = time.perf_counter() - started
        self.parts[1] = jax.tree.leaves(moved), parts[1][1]
        answers = {}
        for index in chunks:
            lane = jax.tree.unflatten(structure, [leaf[index] for leaf in leaves])
            self.last[1][index] = lane[:3]
            answers[index] = lane, elapsed, elapsed / len(chunks)
        return answers

    def stacked(self, part: int, trees: dict[int, tuple]) -> Stacked:
        """A part of all lanes, stacked anew only if a lane passes in other objects than before."""
        last, stacked = self.last[part], self.parts[part]
        same = lambda one, other: all(a is b for a, b in zip(one, other, strict=True))  # noqa: E731
        if stacked is None or not all(
            same(last.get(i, ()) or (None,) * 3, trees[i]) for i in trees
        ):
            stacked = self.parts[part] = _stacked(trees, self.lanes)
            self.last[part] = trees
        return stacked


def _parts(chunk: Chunk) -> tuple[tuple, tuple]:
    """What stays the same from chunk to chunk, and what changes."""
    constant = chunk.method, chunk.residual, chunk.least_loss
    return constant, (chunk.params, chunk.state, chunk.best)


def _transposed(parts: list[Stacked]) -> tuple[tuple[Structure, Structure], list[list]]:
    (constant, of_constant), (moving, of_moving) = parts
    return (of_constant, of_moving), [constant, moving]


@with_retrace
def _monitor_losses(requests: dict[int, MonitorRequest], lanes: int) -> dict[int, float]:
    """Monitor losses, equal to those of `monitor_loss` up to rounding."""
    totals = dict.fromkeys(requests, 0.0)
    first = next(iter(requests.values()))
    if all(points is None for points in first.monitor):
        return dict.fromkeys(requests, np.nan)
    for place, constraint in enumerate(first.problem.statements):
        trees = {}
        for index, item in requests.items():
            points = item.monitor[place] or item.train[place]
            trees[index] = (constraint.residual, item.model, points.points, points.weights)
        arrays, statement = _stacked(trees, lanes)
        losses = np.asarray(_losses(statement, arrays))
        for index in requests:
            totals[index] += constraint.weight * float(losses[index])
    return totals


@functools.partial(jax.jit, static_argnums=0)
def _advance_lanes(
    statements: tuple[Structure, Structure], parts: list[list], steps: Array
) -> PyTree:
    def lane(parts: list[list], n: Array) -> Any:
        constant, moving = map(put_together, parts, statements)
        method, residual, least = constant
        params, state, best = moving
        return advance(method, residual, params, state, best, least, n)

    return jax.vmap(lane)(parts, steps)


@functools.partial(jax.jit, static_argnums=0)
def _losses(statement: Structure, arrays: list) -> Float[Array, " lanes"]:
    def loss(arrays: list) -> Float[Array, ""]:
        residual, model, points, weights = put_together(arrays, statement)
        r = jax.vmap(lambda x: jnp.ravel(residual(model, x)))(points)
        sizes = r[:, 0] if isinstance(residual, Value) else jnp.sum(r**2, axis=1)
        return jnp.sum(weights * sizes)

    return jax.vmap(loss)(arrays)


def _stacked(trees: dict[int, PyTree], lanes: int) -> tuple[list, Structure]:
    """Arrays of all lanes along a new first axis, and what is the same for all.

    Raises:
        Unlike: If the trees differ in structure, in shapes of arrays, or in leaves that are not
            arrays.
    """
    parts = {index: take_apart(tree) for index, tree in trees.items()}
    filling, statement = next(iter(parts.values()))
    for arrays, (structure, rest) in parts.values():
        shapes = [[(np.shape(x), getattr(x, "dtype", None)) for x in y] for y in (arrays, filling)]
        # A function that a recipe creates for each seed may hold values that depend on the seed.
        others = zip(rest, statement[1], strict=False)
        if (
            structure != statement[0]
            or shapes[0] != shapes[1]
            or not all(one is other or one == other for one, other in others)
        ):
            raise Unlike
    rows = [parts[index][0] if index in parts else filling for index in range(lanes)]
    columns = zip(*rows, strict=True)
    return [None if column[0] is None else np.stack(column) for column in columns], statement
