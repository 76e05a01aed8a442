"""Many runs of one problem, under different seeds, as one vmapped computation.

Each run goes its own way in Python, and asks for steps and monitor losses; what all of them ask
for is computed at once. A run that has ended, or has its steps, is masked: it stays as it is.
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
from constrainednn._common.compilation.closures import Decided, until_decided
from constrainednn._solve.measure import measured
from constrainednn._solve.training.steps import Chunk, MonitorRequest, advance
from constrainednn._solve.training.trainer import Training
from constrainednn.results.solution import Solution

# The other engine is tried where all the runs take so many times as long as compiling one.
_WORTH = 5


class Unlike(Exception):  # noqa: N818  (it says what runs are, not what went wrong)
    """Runs differ in more than the numbers of their arrays, so that no computation fits all."""


def together(
    trainings: Mapping[int, Training], lanes: int, failures: tuple[type[Exception], ...]
) -> dict[int, Solution | Exception]:
    """Take all runs to their end.

    Args:
        trainings: The runs by their place among the lanes; all of one problem and its stages.
        lanes: Width of the computation. Places without a run hold a copy of another, so that a run
            has the same numbers whatever is beside it.
        failures: Exceptions of a run that end it alone.

    Returns:
        For each run its solution, or how it failed.

    Raises:
        Unlike: If the runs do not fit together.
    """
    goings = {place: training.go() for place, training in trainings.items()}
    batch = _Lanes(lanes)
    ended: dict[int, Solution | Exception] = {}
    asked: dict[int, Chunk | MonitorRequest] = {}

    def go_on(place: int, answer: Any) -> None:
        asked.pop(place, None)
        try:
            try:
                asked[place] = goings[place].send(answer)
            except StopIteration as end:
                ended[place] = measured(trainings[place].run, end.value)
        except failures as error:
            ended[place] = error

    for place in goings:
        go_on(place, None)
    while asked:
        # Looks first, until all that still run ask for steps: so they stay side by side.
        looks = {place: item for place, item in asked.items() if isinstance(item, MonitorRequest)}
        chunks = {place: item for place, item in asked.items() if isinstance(item, Chunk)}
        answers = _look(looks, lanes) if looks else batch.step(chunks)
        for place, answer in answers.items():
            go_on(place, answer)
    return ended


@until_decided
def faster_together(chunk: Chunk, steps: int, lanes: int) -> bool:
    """Decide by a trial whether `lanes` runs take their steps sooner as one computation.

    What a trial takes is compared with what it may save: steps one by one are compiled, too, only
    where the runs take long. Otherwise it is batching that saves the overhead of each call.

    Args:
        chunk: The first steps that one of the runs asks for.
        steps: Steps that each run may take.
        lanes: Number of runs.
    """
    parts = [_stacked({0: part}, lanes) for part in _parts(chunk)]
    beside = lambda n: jax.block_until_ready(_advance_lanes(*_both(parts), np.full(lanes, n)))  # noqa: E731
    compiling, each = _trial(beside, steps)
    if each * steps < _WORTH * compiling:
        return True
    alone = lambda n: jax.block_until_ready(advance(*chunk[:-1], jnp.asarray(n)))  # noqa: E731
    return each < lanes * _trial(alone, steps)[1]


def _trial(run: Callable[[int], Any], steps: int) -> tuple[float, float]:
    """Seconds to compile, and for a step."""
    started = time.perf_counter()
    run(1)
    compiling, few = time.perf_counter() - started, min(8, steps)
    started = time.perf_counter()
    run(few)
    return compiling, (time.perf_counter() - started) / few


Stacked = tuple[list, Structure]


class _Lanes:
    """Takes steps of all lanes, and keeps their arrays together while runs go on with them."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        # What each lane gave or was given last, by part, and all of that along a first axis.
        self.known: list[dict[int, tuple]] = [{}, {}]
        self.parts: list[Stacked | None] = [None, None]

    @until_decided
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
            params, state, best, *rest = _advance_lanes(*_both(parts), steps)
        except Decided:
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
            self.known[1][index] = lane[:3]
            answers[index] = lane, elapsed, elapsed / len(chunks)
        return answers

    def stacked(self, part: int, trees: dict[int, tuple]) -> Stacked:
        """A part of all lanes; as it is where each hands back the very objects it was given."""
        known, stacked = self.known[part], self.parts[part]
        same = lambda one, other: all(a is b for a, b in zip(one, other, strict=True))  # noqa: E731
        if stacked is None or not all(
            same(known.get(i, ()) or (None,) * 3, trees[i]) for i in trees
        ):
            stacked = self.parts[part] = _stacked(trees, self.lanes)
            self.known[part] = trees
        return stacked


def _parts(chunk: Chunk) -> tuple[tuple, tuple]:
    """What stays the same from chunk to chunk, and what moves."""
    constant = chunk.method, chunk.residual, chunk.least_loss
    return constant, (chunk.params, chunk.state, chunk.best)


def _both(parts: list[Stacked]) -> tuple[tuple[Structure, Structure], list[list]]:
    (constant, of_constant), (moving, of_moving) = parts
    return (of_constant, of_moving), [constant, moving]


@until_decided
def _look(looks: dict[int, MonitorRequest], lanes: int) -> dict[int, float]:
    """Monitor losses as `monitor_loss` has them, up to rounding."""
    totals = dict.fromkeys(looks, 0.0)
    first = next(iter(looks.values()))
    if all(points is None for points in first.monitor):
        return dict.fromkeys(looks, np.nan)
    for place, constraint in enumerate(first.problem.constraints):
        trees = {}
        for index, item in looks.items():
            points = item.monitor[place] or item.train[place]
            trees[index] = (constraint.residual, item.model, points.points, points.weights)
        arrays, statement = _stacked(trees, lanes)
        losses = np.asarray(_losses(statement, arrays))
        for index in looks:
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
        return jnp.sum(weights * jnp.sum(r**2, axis=1))

    return jax.vmap(loss)(arrays)


def _stacked(trees: dict[int, PyTree], lanes: int) -> tuple[list, Structure]:
    """Arrays of all lanes along a new first axis, and what is the same for all.

    Raises:
        Unlike: If the trees differ in structure, in shapes of arrays, or in what is no array.
    """
    parts = {index: take_apart(tree) for index, tree in trees.items()}
    filling, statement = next(iter(parts.values()))
    for arrays, (structure, rest) in parts.values():
        shapes = [[(np.shape(x), getattr(x, "dtype", None)) for x in y] for y in (arrays, filling)]
        # A function that a recipe makes anew for each seed may hold what depends on the seed.
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
