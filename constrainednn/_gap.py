"""The gap report: how much worse a constraint holds away from its training points.

Every number comes from `residuals_at`, after training, at the same parameters.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._blocks import BLOCK, flat_value, in_blocks
from constrainednn._domains import AbstractDomain, Data, Points
from constrainednn._errors import BadTypeError, BadValueError, ProblemError, UsageError
from constrainednn._experiments import OfExperiment, apart, of_experiment
from constrainednn._image import Image, image_of, model_inputs
from constrainednn._keys import numpy_generator, stream
from constrainednn._missing import Present
from constrainednn._problem import Constraint, Problem
from constrainednn._reference import reference_errors
from constrainednn._residuals import common_unit
from constrainednn._rows import rows_shared, split_rows
from constrainednn._samplers import CANDIDATES, Adaptive, Draw, Independent, draw, finite_points
from constrainednn._statistics import Estimate, estimate_mean, quantiles, total, total_over_same
from constrainednn._terms import term_size
from constrainednn._validate import as_count

# The search for the worst point: without gradients in at most so many dimensions, and until so many
# scales in a row find nothing higher.
_FEW, _SCALES = 3, 4
# It ends after so many rounds of 1,024 points, or calls of the gradient in each climb (ten times as
# many in a simplex): a narrow ridge goes on for ever. Counted and not timed, so that a report can
# be computed again.
_ROUNDS, _CALLS = 200, 60


@dataclasses.dataclass(frozen=True)
class Worst:
    """The largest residual found.

    Attributes:
        residual: |r|.
        point: Where it occurs.
        ended: True if the search was ended while it still climbed.
    """

    residual: float
    point: PyTree[np.ndarray]
    ended: bool = False


@dataclasses.dataclass(frozen=True)
class Distance:
    """Held-out residual against the distance to the nearest training point.

    Attributes:
        edges: Ends of the five classes of distance, equally many held-out points in each.
        rms: Root mean square residual in each class.
    """

    edges: tuple[float, ...]
    rms: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ConstraintGap:
    """The gap of one constraint.

    Losses are weight * mean |r|^2; the RMS values are sqrt(loss / (weight * entries)), in the
    residual's own units.

    Attributes:
        name: Name of the constraint.
        measure: The measure that held-out points are drawn from.
        sampler: How the training points were drawn.
        points: Number of training points.
        entries: Entries of the residual at a point.
        weight: Factor in the total loss.
        train: Loss on the training points of the last completed step.
        heldout: Loss on independent points of the measure, with its interval.
        difference: The gap, heldout - train, with its interval.
        train_rms: Root mean square residual on the training points.
        heldout_rms: The same on held-out points, with its interval.
        ratio: heldout_rms / train_rms; NaN where both are at rounding.
        floor: RMS change of the residual when the parameters change in their last digits.
        terms: RMS size of the terms of the residual on held-out points: how much it changes when
            the model's value and slopes change by a factor, per unit of the factor. NaN where the
            model is no function of points, or is solved piece by piece.
        worst: Largest residual, searched from the worst held-out points.
        train_quantiles: Quantiles of |r| on training points.
        heldout_quantiles: Quantiles of |r| on held-out points.
        distance: Residual against distance to the nearest training point.
        image: Rank and spread of the model's values, where it can be called on a point.
        error: Relative L2 error against the reference on held-out points. None without one, where
            the reference is zero, and where the points are none of the model's.
        absolute_error: Root mean square of the same error; None without a reference, and where
            the points are none of the model's.
        note: What to know when reading the numbers.
    """

    name: str
    measure: str
    sampler: str
    points: int
    entries: int
    weight: float
    train: float
    heldout: Estimate
    difference: Estimate
    train_rms: float
    heldout_rms: Estimate
    ratio: float
    floor: float
    terms: float
    worst: Worst
    train_quantiles: dict[str, float]
    heldout_quantiles: dict[str, float]
    distance: Distance | None
    image: Image | None
    error: float | None
    absolute_error: float | None
    note: str

    @property
    def at_rounding(self) -> bool:
        """True if train and held-out residual are no larger than their rounding error."""
        return is_rounding(self.train_rms, self.floor) and is_rounding(
            self.heldout_rms.value, self.floor
        )

    @property
    def relative(self) -> float:
        """Held-out RMS over the size of the residual's terms; about one if nothing is solved."""
        return self.heldout_rms.value / self.terms if self.terms > 0 else math.nan


def is_rounding(rms: float, floor: float) -> bool:
    """True for a residual that a change of the parameters in their last digits explains."""
    return math.isfinite(rms) and rms <= 4 * floor


@dataclasses.dataclass(frozen=True)
class FiniteLoss:
    """A constraint on a finite set used whole: a loss, no population, no gap."""

    name: str
    points: int
    entries: int
    weight: float
    loss: float
    rms: float


@dataclasses.dataclass(frozen=True)
class GapReport:
    """Train, held-out and their difference, in total and for each constraint.

    Attributes:
        constraints: One entry for each constraint with a population behind it.
        finite: Constraints on finite sets, which count in the loss and have no gap.
        train: Total loss on training points, constraints with a population only.
        heldout: Total loss on held-out points, with its interval.
        difference: The gap in total, heldout - train.
        loss: All of the training loss, finite sets included: the number that was minimised.
    """

    constraints: tuple[ConstraintGap, ...]
    finite: tuple[FiniteLoss, ...]
    train: float
    heldout: Estimate | None
    difference: Estimate | None
    loss: float

    @property
    def worst(self) -> dict[str, Worst]:
        """Largest residual of each constraint and where it occurs."""
        return {item.name: item.worst for item in self.constraints}

    def __getitem__(self, name: str) -> ConstraintGap:
        for item in self.constraints:
            if item.name == name:
                return item
        known = ", ".join(item.name for item in self.constraints)
        raise KeyError(f"no gap for a constraint named {name!r}; there is: {known}")

    def _repr_html_(self) -> str:
        from constrainednn._report import gap_html

        return gap_html(self)


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
        return constraint.sampler.choose(candidates, _squares(r), key=stream(key, "choice"))


def drawn_arrays(
    constraints: Sequence[Constraint], draws: Sequence[Draw], name: str
) -> dict[str, np.ndarray]:
    """What must be kept, under a name, of training points that the seed alone does not give."""
    kept = {}
    for i, (item, points) in enumerate(zip(constraints, draws, strict=True)):
        if isinstance(item.sampler, Adaptive) and points.cube is not None:
            kept |= {f"{name}{i}.cube": points.cube, f"{name}{i}.share": points.share}
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
            cube, share = (arrays.get(f"{name}{i}.{part}") for part in ("cube", "share"))
            if cube is None or share is None:
                raise BadValueError(f"the points of constraint {item.name!r} are not there")
            if cube.shape != points.cube.shape or share.shape != points.share.shape:
                raise BadValueError(f"the points of constraint {item.name!r} are others")
            assert isinstance(item.over, AbstractDomain)
            found[i] = Draw(in_blocks(item.over.place, cube), share, cube)
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
    """Draw the streams of all constraints; where pieces are solved, on what the model covers."""
    parts = [apart(item, model)[1] for item in problem.constraints]
    stated = [
        over_covered(problem, item, part)
        for item, part in zip(problem.constraints, parts, strict=True)
    ]
    streams = streams_of_all(stated, key=key, monitor=monitor, heldout=heldout, redraw=redraw)
    if problem.scheme is None:
        return tuple(streams)
    return tuple(
        dataclasses.replace(found, train=problem.scheme.training_points(part))
        if isinstance(item.over, AbstractDomain)
        else found
        for item, part, found in zip(problem.constraints, parts, streams, strict=True)
    )


def over_covered(problem: Problem, constraint: Constraint, model: PyTree) -> Constraint:
    """The constraint on the part of its domain where the model is defined."""
    if problem.scheme is None or not isinstance(constraint.over, AbstractDomain):
        return constraint
    covered = problem.scheme.covered(model)
    return eqx.tree_at(lambda c: c.over, constraint, covered)


def residuals_at(
    residual: Callable[[Any, Any], Any], model: PyTree, points: PyTree
) -> Float[np.ndarray, "n entries"]:
    """Evaluate a residual at many points: the one place that reported numbers come from."""
    return in_blocks(eqx.Partial(flat_value, eqx.Partial(residual, model)), points)


def _squares(r: Float[np.ndarray, "n entries"]) -> Float[np.ndarray, " n"]:
    """|r|^2 of each point, in double precision: squares of single ones soon leave their range."""
    return np.square(r, dtype=float).sum(axis=1)


def mean_square(r: Float[np.ndarray, "n entries"], points: Draw) -> float:
    """Mean of |r|^2 over weighted points: sum_i share_i |r_i|^2."""
    return float((points.share * _squares(r)).sum())


def root_mean_square(r: Float[np.ndarray, "..."]) -> float:
    """Root of the mean of squares, which themselves may leave the range of the numbers."""
    top = float(np.max(np.abs(r), initial=0.0))
    if not 0 < top < math.inf:
        return top
    power = math.frexp(top)[1]  # no digit changes
    return math.ldexp(float(np.sqrt(np.mean(np.ldexp(r, -power) ** 2))), power)


def loss_at(constraint: Constraint, model: PyTree, points: Draw, *, unit: float = 1.0) -> float:
    """Loss of one constraint on weighted points: weight * sum_i share_i |r_i / unit|^2."""
    if not len(points):
        return 0.0
    constraint, model = apart(constraint, model)
    r = residuals_at(constraint.residual, model, points.points)
    return constraint.weight * mean_square(r / unit if unit != 1 else r, points)


def _observed(constraint: Constraint, model: PyTree, points: Draw, entries: int) -> float:
    """Entries of a residual that were observed, on the average over the rows."""
    if not isinstance(constraint.residual, Present):
        return entries
    there = residuals_at(constraint.residual.observed, model, points.points)
    return entries * float(np.mean(there)) or math.nan


def monitor_loss(
    problem: Problem, model: PyTree, train: Sequence[Draw], monitor: Sequence[Draw | None]
) -> float:
    """Loss on monitor points, and on training points where a finite set has no others.

    All constraints count, so that it compares with the training loss. NaN where none has monitor
    points.
    """
    if all(points is None for points in monitor):
        return math.nan
    return sum(
        loss_at(item, model, fitted if watched is None else watched)
        for item, fitted, watched in zip(problem.constraints, train, monitor, strict=True)
    )


def gap_report(problem: Problem, model: PyTree, streams: Sequence[Streams]) -> GapReport:
    """Measure the gap of a model on given streams.

    Raises:
        ProblemError: If training and held-out points overlap, as with a sampler that ignores its
            key.
    """
    gaps: list[ConstraintGap] = []
    finite: list[FiniteLoss] = []
    everywhere = [item.heldout.points for item in streams if item.heldout is not None]
    for declared, points in zip(problem.constraints, streams, strict=True):
        constraint, part = apart(declared, model)
        constraint, own = over_covered(problem, constraint, part), of_experiment(declared)
        if points.heldout is not None:
            found = _constraint_gap(problem, constraint, part, points, everywhere)
            if own is not None and isinstance(constraint.over, Data):
                found = _within(found, own)
            gaps.append(found)
        else:
            r = residuals_at(constraint.residual, part, points.train.points)
            square, weight, entries = mean_square(r, points.train), constraint.weight, r.shape[1]
            rms = math.sqrt(square / _observed(constraint, part, points.train, entries))
            count = len(points.train)
            finite.append(FiniteLoss(constraint.name, count, entries, weight, weight * square, rms))
    return in_total(problem.constraints, gaps, finite)


def in_total(
    constraints: Sequence[Constraint], gaps: Sequence[ConstraintGap], finite: Sequence[FiniteLoss]
) -> GapReport:
    """The report of some constraints, with their total; what was not trained on is not in it."""
    index, same = {item.name: i for i, item in enumerate(constraints)}, rows_shared(constraints)
    shared: dict[int, list[Estimate]] = {}
    for gap in gaps:
        place = index[gap.name]
        if gap.points:
            shared.setdefault(same.get(place, place), []).append(gap.heldout)
    train = sum(gap.train for gap in gaps if gap.points)
    heldout = total([total_over_same(parts) for parts in shared.values()]) if shared else None
    return GapReport(
        tuple(gaps),
        tuple(finite),
        train,
        heldout,
        heldout.shifted(-train) if heldout else None,
        train + sum(item.loss for item in finite),
    )


def _constraint_gap(
    problem: Problem,
    constraint: Constraint,
    model: PyTree,
    points: Streams,
    everywhere: Sequence[PyTree],
    over: AbstractDomain | Data | Points | None = None,
) -> ConstraintGap:
    over = constraint.over if over is None else over
    train, held = points.train, points.heldout
    assert held is not None
    refuse_overlap(constraint, train, held)
    weight = constraint.weight
    r_held = residuals_at(constraint.residual, model, held.points)
    r_train = residuals_at(constraint.residual, model, train.points) if len(train) else r_held[:0]
    entries = r_train.shape[1]
    # Squares of residuals in extreme units are out of range, their roots are not.
    unit = common_unit([root_mean_square(r_train), root_mean_square(r_held)])
    squares_train, squares_held = _squares(r_train / unit), _squares(r_held / unit)
    train_loss = weight * mean_square(r_train / unit, train) if len(train) else math.nan
    heldout = estimate_mean(weight * squares_held)
    observed = _observed(constraint, model, train, entries) if len(train) else entries
    train_rms = unit * math.sqrt(train_loss / (weight * observed))
    heldout_rms = heldout.root(weight * _observed(constraint, model, held, entries)).times(unit)
    difference = heldout.shifted(-train_loss).times(unit * unit)
    train_loss, heldout = unit * unit * train_loss, heldout.times(unit * unit)
    floor = _rounding_floor(constraint, model, held, r_held)
    meaningless = train_rms == 0 or all(
        is_rounding(rms, floor) for rms in (train_rms, heldout_rms.value)
    )
    errors = reference_errors(problem, model, held.points, everywhere)
    notes = [_note(problem, constraint, model)]
    if problem.reference is not None and errors is None:
        notes.append("the reference is not compared: these points are none that the model takes")
    length_train, length_held = unit * np.sqrt(squares_train), unit * np.sqrt(squares_held)
    return ConstraintGap(
        name=constraint.name,
        measure=repr(over),
        sampler=f"{constraint.sampler!r}" if train.cube is not None else "rows",
        points=len(train),
        entries=entries,
        weight=weight,
        train=train_loss,
        heldout=heldout,
        difference=difference,
        train_rms=train_rms,
        heldout_rms=heldout_rms,
        ratio=math.nan if meaningless else heldout_rms.value / train_rms,
        floor=floor,
        terms=math.nan if problem.scheme else term_size(constraint.residual, model, held.points),
        worst=_worst(constraint, over, model, held, length_held),
        train_quantiles=quantiles(length_train),
        heldout_quantiles=quantiles(length_held),
        distance=_by_distance(train, held, length_held / math.sqrt(entries)),
        image=None if problem.scheme else image_of(model, constraint.target, held.points),
        error=None if errors is None else errors.relative,
        absolute_error=None if errors is None else errors.absolute,
        note="; ".join(filter(None, notes)),
    )


def _within(found: ConstraintGap, own: OfExperiment) -> ConstraintGap:
    """The gap of data of one experiment, with what was held out of it."""
    if not own.heldout:
        return dataclasses.replace(found, note="train and held-out are rows of this experiment")
    return dataclasses.replace(
        found,
        measure=f"Data({found.heldout.n} rows)",
        note="the whole experiment is held out: no row of it was fitted",
    )


def evaluate_over(
    problem: Problem,
    model: PyTree,
    streams: Sequence[Streams],
    *,
    over: AbstractDomain,
    name: str | None,
    heldout: int,
    key: Key[Array, ""],
) -> ConstraintGap:
    """Measure one constraint on held-out points of another measure.

    Raises:
        TypeError: If `over` is no domain.
        ValueError: If the constraint is not named and there are several, or has no such name.
    """
    if not isinstance(over, AbstractDomain):
        raise BadTypeError(
            f"over must be a domain, to draw held-out points from, got {over!r}. Finite sets have "
            "no population: write e.g. over=cx.Interval(0, 1)."
        )
    names = [item.name for item in problem.constraints]
    if name is None and len(names) > 1:
        raise BadValueError(f"Say which constraint: constraint= one of {', '.join(names)}.")
    if name is not None and name not in names:
        raise BadValueError(f"No constraint is named {name!r}; there is: {', '.join(names)}.")
    index = 0 if name is None else names.index(name)
    constraint, model = apart(problem.constraints[index], model)
    count = as_count(heldout, "heldout")
    held = draw(over, count, Independent(), key=stream(key, f"extrapolation/{constraint.name}"))
    other = Streams(streams[index].train, None, held)
    everywhere = [item.heldout.points for item in streams if item.heldout is not None]
    gap = _constraint_gap(problem, constraint, model, other, everywhere, over=over)
    return dataclasses.replace(gap, note=f"extrapolation: trained over {constraint.over!r}")


def _note(problem: Problem, constraint: Constraint, model: PyTree) -> str:
    if isinstance(constraint.over, Data):
        return "train and held-out are rows of one data set"
    if problem.scheme is not None:
        return (
            f"train is a Gauss rule in each of {model.count} pieces, which weigh as they are long: "
            "the gap is what the rules cannot see between their nodes"
        )
    if not constraint.sampler.random:
        return (
            f"train is {constraint.sampler!r}, a rule for the same integral as held-out: "
            "the gap is what the rule cannot see between its nodes"
        )
    return ""


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


def _rounding_floor(
    constraint: Constraint, model: PyTree, held: Draw, r: Float[np.ndarray, "n entries"]
) -> float:
    """RMS change of the residual when every parameter changes in its last digits.

    A residual of this size is rounding, whatever its units: an absolute threshold would call a
    quantity in joules converged because it is small.
    """
    count = min(len(held), 1024)
    some = jax.tree.map(lambda leaf: leaf[:count], held.points)
    moved = residuals_at(constraint.residual, _nudged(model), some)
    return root_mean_square(moved - r[:count])


def _nudged(model: PyTree) -> PyTree:
    def nudge(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        step = 4 * float(jnp.finfo(leaf.dtype).eps)
        # On the host: a dozen small operations a leaf shape would each be compiled.
        signs = np.where(np.arange(leaf.size).reshape(leaf.shape) % 2 == 0, step, -step)
        return (np.asarray(leaf) * (1 + signs)).astype(leaf.dtype)

    return jax.tree.map(nudge, model)


def holds_already(
    problem: Problem, model: PyTree, train: Sequence[Draw], monitor: Sequence[Draw | None]
) -> bool:
    """True if every residual is at rounding on train and monitor points, before any training."""
    for constraint, *both in zip(problem.constraints, train, monitor, strict=True):
        for points in both:
            if points is None:
                continue
            r = residuals_at(constraint.residual, model, points.points)
            if not is_rounding(root_mean_square(r), _rounding_floor(constraint, model, points, r)):
                return False
    return True


def _worst(
    constraint: Constraint,
    over: AbstractDomain | Data | Points,
    model: PyTree,
    held: Draw,
    length: Float[np.ndarray, " n"],
) -> Worst:
    """Climb from the worst held-out points; the result is at least the sampled maximum."""
    finite = np.where(np.isfinite(length), length, np.inf)
    order = np.argsort(finite)[::-1]
    sampled = Worst(
        float(length[order[0]]), jax.tree.map(lambda leaf: np.asarray(leaf[order[0]]), held.points)
    )
    if held.cube is None or not isinstance(over, AbstractDomain) or not np.isfinite(length).all():
        return sampled
    eps = float(np.finfo(held.cube.dtype).eps)
    if over.unbounded:
        # The hull of the draw: an unbounded domain has no worst point.
        low, high = held.cube.min(axis=0), held.cube.max(axis=0)
    else:
        low = np.full(held.cube.shape[1], eps)
        high = 1 - low
    few = held.cube.shape[1] <= _FEW
    search = _walk if few else _ascent
    cube, ended = search(constraint.residual, over, model, held.cube, length, (low, high))
    points = in_blocks(over.place, cube)
    r = residuals_at(constraint.residual, model, points)
    found = np.sqrt((r**2).sum(axis=1))
    best = int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))
    if not found[best] > sampled.residual:
        return dataclasses.replace(sampled, ended=ended)
    point = jax.tree.map(lambda leaf: np.asarray(leaf[best]), points)
    return Worst(float(found[best]), point, ended)


Bounds = tuple[Float[np.ndarray, " unit_dim"], Float[np.ndarray, " unit_dim"]]


def _walk(
    residual: Callable,
    over: AbstractDomain,
    model: PyTree,
    cube: Float[np.ndarray, "n unit_dim"],
    length: Float[np.ndarray, " n"],
    bounds: Bounds,
) -> tuple[Float[np.ndarray, "k unit_dim"], bool]:
    """In few dimensions: the best of some trial points around each start, on smaller scales.

    Without gradients, since a residual such as |u| - 1 has a cusp where u = 0, and with all trial
    points in one evaluation. In probits: in the tails of the cube no step fits two points.
    """
    from scipy.special import ndtr, ndtri

    n, dim = cube.shape
    trials = numpy_generator(jax.random.key(0))

    def squares(w: Float[np.ndarray, "k unit_dim"]) -> Float[np.ndarray, " k"]:
        points = in_blocks(over.place, np.clip(ndtr(w), *bounds).astype(cube.dtype))
        found = _squares(residuals_at(residual, model, points))
        return np.where(np.isfinite(found), found, -np.inf)

    # From the worst held-out points, and from where few of them are: edges, corners, tails.
    thin = trials.uniform(ndtri(bounds[0]), ndtri(bounds[1]), (BLOCK, dim))
    thin = thin[_starts(squares(thin))]
    best = np.concatenate([ndtri(cube[_starts(length)].astype(float)), thin])
    scale = np.minimum(2 * n ** (-1 / dim) * math.sqrt(2 * math.pi) * np.exp(best**2 / 2), 1.0)
    height, each = np.full(len(best), -np.inf), np.arange(len(best))
    count = BLOCK // len(best)
    # A scale goes down where the best trial point lies well inside of it, to twice the distance
    # between trial points.
    finer = min(2 * count ** (-1 / dim), 0.5)
    same, top = 0, -np.inf
    for _ in range(_ROUNDS):
        moves = trials.uniform(-1, 1, (len(best), count, dim))
        moves[:, 0] = 0
        around = best[:, None] + scale[:, None] * moves
        found = squares(around.reshape(-1, dim)).reshape(moves.shape[:2])
        at = np.argmax(found, axis=1)
        higher = found[each, at] > height
        inside = np.abs(moves[each, at]).max(axis=1) < 0.5
        best = np.where(higher[:, None], around[each, at], best)
        height = np.maximum(height, found[each, at])
        scale = scale * np.where(inside | ~higher, finer, 1.5)[:, None]
        same = 0 if height.max() > top * (1 + 1e-9) else same + 1
        top = max(top, float(height.max()))
        if same == _SCALES:
            break
    return np.clip(ndtr(best), *bounds).astype(cube.dtype), same < _SCALES


def _starts(length: Float[np.ndarray, " n"]) -> np.ndarray:
    """Places of large values, far apart in rank: the largest few usually share one hill."""
    order = np.argsort(length)[::-1]
    return order[np.unique(np.geomspace(1, max(len(order) // 20, 1), 8).astype(int) - 1)]


def _ascent(
    residual: Callable,
    over: AbstractDomain,
    model: PyTree,
    cube: Float[np.ndarray, "n unit_dim"],
    length: Float[np.ndarray, " n"],
    bounds: Bounds,
) -> tuple[Float[np.ndarray, "k unit_dim"], bool]:
    """In many dimensions: gradients first, then a simplex from the two best ends."""
    from scipy.optimize import minimize
    from scipy.special import ndtr, ndtri

    low, high = bounds
    scale = max(float(length.max()), np.finfo(float).tiny) ** 2
    climb = eqx.Partial(_climb, residual, over, model)

    def descent(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = map(np.asarray, _value_and_slope(climb, z.astype(cube.dtype)))
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(z)
        return -float(value) / scale, -slope.astype(float) / scale

    climbs = [
        minimize(
            descent,
            cube[i].astype(float),
            jac=True,
            bounds=np.stack([low, high], axis=1),
            method="L-BFGS-B",
            options={"maxfun": _CALLS},
        )
        for i in _starts(length)
    ]
    # Gradients stop short of a cusp; a simplex does not.
    depth = lambda w: descent(np.clip(ndtr(w), low, high))[0]  # noqa: E731
    tops = sorted(climbs, key=lambda climb: climb.fun)[:2]
    limit = {"maxfev": 10 * _CALLS}
    around = [
        minimize(depth, ndtri(climb.x), method="Nelder-Mead", options=limit) for climb in tops
    ]
    ends = [climb.x for climb in climbs] + [ndtr(found.x) for found in around]
    # A status of 1 is the limit, for both; the highest climb counts.
    return np.clip(np.stack(ends), low, high).astype(cube.dtype), tops[0].status == 1


def _climb(residual: Callable, over: AbstractDomain, model: PyTree, z: Array) -> Array:
    return jnp.sum(residual(model, over.place(z)) ** 2)


@eqx.filter_jit
def _value_and_slope(fn: Callable, z: Array | np.ndarray) -> tuple[Array, Array]:
    return jax.value_and_grad(fn)(z)


def _by_distance(train: Draw, held: Draw, sizes: Float[np.ndarray, " n"]) -> Distance | None:
    from scipy.spatial import KDTree

    def flat(points: PyTree) -> np.ndarray:
        # For a pair (x, y) the distance is between inputs: y is what the model should give.
        x = model_inputs(points)
        return np.concatenate(
            [np.asarray(leaf, float).reshape(len(leaf), -1) for leaf in jax.tree.leaves(x)], axis=1
        )

    if len(held) < 25 or not len(train):
        return None
    distances, _ = KDTree(flat(train.points)).query(flat(held.points))
    order = np.argsort(distances)
    classes = np.array_split(order, 5)
    edges = [distances[order[0]], *(distances[part[-1]] for part in classes)]
    rms = [root_mean_square(sizes[part]) for part in classes]
    return Distance(tuple(map(float, edges)), tuple(rms))
