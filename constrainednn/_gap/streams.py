"""The three streams of points: for training, for monitoring, and held out."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from constrainednn._common.batched import in_blocks
from constrainednn._common.random_keys import stream
from constrainednn._gap.residuals import residuals_at, squares
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.data_rows import split_rows
from constrainednn._problem.experiments import apart
from constrainednn._problem.problem import Problem
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.adaptive import CANDIDATES, Adaptive
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw, finite_points
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import BadValueError, ProblemError, UsageError


@dataclasses.dataclass(frozen=True)
class Streams:
    """The points of one constraint: `train` fits, `monitor` may steer, `heldout` judges."""

    train: Draw
    monitor: Draw | None
    heldout: Draw | None


def draw_streams(
    constraint: Constraint, *, key: Key[Array, ""], monitor: int, heldout: int, redraw: int = 0
) -> Streams:
    """Draw the three streams of a constraint from keys named after it.

    Args:
        constraint: The constraint.
        key: Key of the run.
        monitor: Number of monitor points for a domain.
        heldout: Number of held-out points for a domain.
        redraw: Which training draw, 0 for the first; the others do not depend on it.

    Raises:
        ProblemError: If points cannot be drawn as stated, or training points are held-out points.
    """
    over, name = constraint.over, constraint.name
    if isinstance(over, AbstractDomain):
        train = draw_training(constraint, key=key, redraw=redraw)
        with _named(constraint):
            watched, held = (
                draw(over, count, Independent(), key=stream(key, f"{purpose}/{name}"))
                for purpose, count in (("monitor", monitor), ("heldout", heldout))
            )
        refuse_overlap(constraint, train, held)
        return Streams(train, watched, held)
    if isinstance(over, Data):
        return Streams(*split_rows([constraint], key=key)[0])
    return Streams(finite_points(over), None, None)


def streams_of_all(
    constraints: Sequence[Constraint], *, key: Key[Array, ""], **counts: int
) -> list[Streams]:
    """Draw the streams of several constraints, which share the rows of data that are the same.

    Raises:
        ProblemError: As `draw_streams`, and if constraints over the same rows split them otherwise.
    """
    rows = split_rows(constraints, key=key)
    return [
        Streams(*rows[i]) if i in rows else draw_streams(item, key=key, **counts)
        for i, item in enumerate(constraints)
    ]


def draw_training(constraint: Constraint, *, key: Key[Array, ""], redraw: int) -> Draw:
    """Draw the training points of a constraint on a domain; arguments as in `draw_streams`."""
    assert isinstance(constraint.over, AbstractDomain) and constraint.points is not None
    key = jax.random.fold_in(stream(key, f"train/{constraint.name}"), redraw)
    with _named(constraint):
        return draw(constraint.over, constraint.points, constraint.sampler, key=key)


def draw_where_large(
    constraint: Constraint, model: PyTree, *, key: Key[Array, ""], redraw: int
) -> Draw:
    """Draw new training points by the residual of a model; the sampler is `Adaptive`."""
    assert isinstance(constraint.over, AbstractDomain) and constraint.points is not None
    assert isinstance(constraint.sampler, Adaptive)
    key = jax.random.fold_in(stream(key, f"train/{constraint.name}"), redraw)
    with _named(constraint):
        count = CANDIDATES * constraint.points
        candidates = draw(constraint.over, count, Independent(), key=key)
        r = residuals_at(constraint.residual, model, candidates.points)
        return constraint.sampler.choose(candidates, squares(r), key=stream(key, "choice"))


def drawn_arrays(
    constraints: Sequence[Constraint], draws: Sequence[Draw], name: str
) -> dict[str, np.ndarray]:
    """What must be kept, under a name, of training points that the seed alone does not give."""
    kept = {}
    for i, (item, points) in enumerate(zip(constraints, draws, strict=True)):
        if isinstance(item.sampler, Adaptive) and points.cube is not None:
            kept |= {f"{name}{i}.cube": points.cube, f"{name}{i}.share": points.weights}
    return kept


def drawn_again(
    constraints: Sequence[Constraint],
    draws: Sequence[Draw],
    arrays: dict[str, np.ndarray],
    name: str,
) -> list[Draw]:
    """Put back what `drawn_arrays` kept.

    Raises:
        ValueError: If an array is missing or of another shape.
    """
    found = list(draws)
    for i, (item, points) in enumerate(zip(constraints, draws, strict=True)):
        if isinstance(item.sampler, Adaptive) and points.cube is not None:
            cube, weights = (arrays.get(f"{name}{i}.{part}") for part in ("cube", "share"))
            if cube is None or weights is None:
                raise BadValueError(f"the points of constraint {item.name!r} are not there")
            if cube.shape != points.cube.shape or weights.shape != points.weights.shape:
                raise BadValueError(f"the points of constraint {item.name!r} are others")
            assert isinstance(item.over, AbstractDomain)
            found[i] = Draw(in_blocks(item.over.place, cube), weights, cube)
    return found


@contextlib.contextmanager
def _named(constraint: Constraint) -> Iterator[None]:
    """Put the constraint's name before a sentence of ours."""
    try:
        yield
    except UsageError as error:
        raise ProblemError(f"constraint {constraint.name!r}: {error}") from error


def problem_streams(
    problem: Problem,
    model: PyTree,
    *,
    key: Key[Array, ""],
    monitor: int,
    heldout: int,
    redraw: int = 0,
) -> tuple[Streams, ...]:
    """Draw the streams of all statements; where pieces are solved, on what the model covers."""
    parts = [apart(item, model)[1] for item in problem.statements]
    stated = [
        over_covered(problem, item, part)
        for item, part in zip(problem.statements, parts, strict=True)
    ]
    streams = streams_of_all(stated, key=key, monitor=monitor, heldout=heldout, redraw=redraw)
    for index, (item, part) in enumerate(zip(problem.statements, parts, strict=True)):
        if not isinstance(item.over, AbstractDomain):
            continue
        train = problem.scheme.training_points(part, item)
        if train is not None:
            streams[index] = dataclasses.replace(streams[index], train=train)
    return tuple(streams)


def over_covered(problem: Problem, constraint: Constraint, model: PyTree) -> Constraint:
    """The constraint on the part of its domain where the model is defined."""
    if not isinstance(constraint.over, AbstractDomain):
        return constraint
    covered = problem.scheme.covered(model, constraint)
    if covered is None:
        return constraint
    return eqx.tree_at(lambda c: c.over, constraint, covered)


def refuse_overlap(constraint: Constraint, train: Draw, heldout: Draw) -> None:
    """Refuse a gap between point sets that share points.

    Cube coordinates are compared, not points: a map may send many of them to one point. A few
    coincidences are possible in float32; a repeated stream shares nearly all.
    """
    if train.cube is None or heldout.cube is None:
        return
    shared = shared_points(train.cube, heldout.cube)
    if shared > 1 + 0.01 * min(len(train), len(heldout)):
        raise ProblemError(
            f"constraint {constraint.name!r}: {shared} held-out points are training points too, so "
            f"there is no honest gap. Does {constraint.sampler!r} ignore its key?"
        )


def shared_points(one: np.ndarray, other: np.ndarray) -> int:
    """Number of rows that two sets of cube points have in common."""
    seen = {row.tobytes() for row in np.ascontiguousarray(one)}
    return sum(row.tobytes() in seen for row in np.ascontiguousarray(other))
