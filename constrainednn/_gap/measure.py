"""The gap report: how much larger the residual of a constraint is away from its training points.

Every number comes from `residuals_at`, after training, at the same parameters.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.arguments import as_count
from constrainednn._common.random_keys import stream
from constrainednn._gap.holds.guarantee import guarantee
from constrainednn._gap.holds.kind import how_it_holds
from constrainednn._gap.objectives.gap import objective_gap
from constrainednn._gap.reference import reference_errors
from constrainednn._gap.report import ConstraintGap, Distance, FiniteLoss, GapReport
from constrainednn._gap.residual_vector import common_unit
from constrainednn._gap.residuals import (
    mean_square,
    observed_entries,
    residuals_at,
    root_mean_square,
    rounding_floor,
    squares,
    term_size,
)
from constrainednn._gap.statistics import Estimate, estimate_mean, quantiles, total, total_over_same
from constrainednn._gap.streams import Streams, over_covered, refuse_overlap
from constrainednn._gap.tables import is_rounding
from constrainednn._gap.worst_case import worst_point
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.data_rows import rows_shared
from constrainednn._problem.experiments import OfExperiment, apart, of_experiment
from constrainednn._problem.problem import Problem
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.targets.image import image_of, model_inputs


def gap_report(
    problem: Problem, model: PyTree, streams: Sequence[Streams], *, looked: int = 0
) -> GapReport:
    """Measure the gap of a model on given streams.

    Args:
        problem: What was solved.
        model: What is measured.
        streams: The points of each constraint and, last, of the objective.
        looked: How often the held-out points were looked at before the model was found.

    Raises:
        ProblemError: If training and held-out points overlap, as with a sampler that ignores its
            key.
    """
    gaps: list[ConstraintGap] = []
    finite: list[FiniteLoss] = []
    everywhere = [item.heldout.points for item in streams if item.heldout is not None]
    for declared, points in zip(problem.constraints, streams, strict=False):
        constraint, part = apart(declared, model)
        constraint, own = over_covered(problem, constraint, part), of_experiment(declared)
        if points.heldout is not None:
            void = _void(constraint, looked)
            found = _constraint_gap(problem, constraint, part, points, everywhere, void)
            if own is not None and isinstance(constraint.over, Data):
                found = _within(found, own)
            gaps.append(found)
        else:
            r = residuals_at(constraint.residual, part, points.train.points)
            square, weight, entries = mean_square(r, points.train), constraint.weight, r.shape[1]
            rms = math.sqrt(square / observed_entries(constraint, part, points.train, entries))
            count = len(points.train)
            finite.append(FiniteLoss(constraint.name, count, entries, weight, weight * square, rms))
    report = in_total(problem.constraints, gaps, finite)
    if problem.objective is None:
        return report
    least = objective_gap(problem, model, streams[-1])
    return dataclasses.replace(report, loss=least.train + report.loss, objective=least)


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
    difference = heldout.shifted(-train) if heldout else None
    loss = train + sum(item.loss for item in finite)
    return GapReport(tuple(gaps), tuple(finite), train, heldout, difference, loss)


def _constraint_gap(
    problem: Problem,
    constraint: Constraint,
    model: PyTree,
    points: Streams,
    everywhere: Sequence[PyTree],
    void: str,
    over: AbstractDomain | Data | Points | None = None,
) -> ConstraintGap:
    """The gap of one constraint, on the held-out points of its measure or of another one."""
    over = constraint.over if over is None else over
    train, held = points.train, points.heldout
    assert held is not None
    refuse_overlap(constraint, train, held)
    residual = constraint.residual
    r_held = residuals_at(residual, model, held.points)
    r_train = residuals_at(residual, model, train.points) if len(train) else r_held[:0]
    # Squares of residuals in extreme units are out of range, their roots are not.
    unit = common_unit([root_mean_square(r_train), root_mean_square(r_held)])
    losses = _losses(constraint, model, points, r_train / unit, r_held / unit)
    train_rms, heldout_rms = unit * losses.train_rms, losses.heldout_rms.times(unit)
    floor = rounding_floor(constraint, model, held, r_held)
    meaningless = train_rms == 0 or all(
        is_rounding(rms, floor) for rms in (train_rms, heldout_rms.value)
    )
    errors = reference_errors(problem, model, held.points, everywhere)
    notes = [_note(problem, constraint, model)]
    if problem.reference is not None and errors is None:
        notes.append("the reference is not compared: the model takes no such points")
    length_train, length_held = (unit * np.sqrt(squares(r / unit)) for r in (r_train, r_held))
    proved = guarantee(length_held, tolerance=constraint.tolerance, void=void)
    return ConstraintGap(
        name=constraint.name,
        measure=repr(over),
        sampler=_drawn_by(problem, constraint, train),
        points=len(train),
        entries=r_train.shape[1],
        weight=constraint.weight,
        train=unit * unit * losses.train,
        heldout=losses.heldout.times(unit * unit),
        difference=losses.heldout.shifted(-losses.train).times(unit * unit),
        train_rms=train_rms,
        heldout_rms=heldout_rms,
        ratio=math.nan if meaningless else heldout_rms.value / train_rms,
        floor=floor,
        terms=math.nan if problem.scheme.in_pieces else term_size(residual, model, held.points),
        worst=worst_point(constraint, over, model, held, length_held),
        train_quantiles=quantiles(length_train),
        heldout_quantiles=quantiles(length_held),
        holds=how_it_holds(residual, model, held.points, proved),
        guarantee=proved,
        distance=_by_distance(train, held, length_held / math.sqrt(r_train.shape[1])),
        # Pieces solve an equation: what matters of their values is whether they satisfy it.
        image=None if problem.scheme.in_pieces else image_of(model, constraint.target, held.points),
        error=None if errors is None else errors.relative,
        absolute_error=None if errors is None else errors.absolute,
        note="; ".join(filter(None, notes)),
    )


class _Losses(NamedTuple):
    """Losses on train and held-out points, and the same as RMS residuals."""

    train: float
    heldout: Estimate
    train_rms: float
    heldout_rms: Estimate


def _losses(
    constraint: Constraint, model: PyTree, points: Streams, r_train: np.ndarray, r_held: np.ndarray
) -> _Losses:
    """The losses of residuals; NaN on train where there are no points."""
    weight, train, held = constraint.weight, points.train, points.heldout
    assert held is not None
    entries = observed = r_train.shape[1]
    loss = math.nan
    if len(train):
        loss = weight * mean_square(r_train, train)
        observed = observed_entries(constraint, model, train, entries)
    heldout = estimate_mean(weight * squares(r_held))
    heldout_rms = heldout.root(weight * observed_entries(constraint, model, held, entries))
    return _Losses(loss, heldout, math.sqrt(loss / (weight * observed)), heldout_rms)


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
    check: Callable[[PyTree], None],
) -> ConstraintGap:
    """Measure one constraint on held-out points of another measure, which `check` may refuse.

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
    check(held.points)
    other = Streams(streams[index].train, None, held)
    everywhere = [item.heldout.points for item in streams if item.heldout is not None]
    gap = _constraint_gap(problem, constraint, model, other, everywhere, "", over=over)
    same = repr(over) == repr(constraint.over)
    note = "" if same else f"extrapolation: trained over {constraint.over!r}"
    return dataclasses.replace(gap, note=note)


def _void(constraint: Constraint, looked: int) -> str:
    """Why held-out points prove nothing of fresh ones; empty if they do."""
    if isinstance(constraint.over, Data):
        return "the held-out points are rows of data, which nobody knows to be independent draws"
    if looked:
        times = "once" if looked == 1 else f"{looked} times"
        return (
            f"the held-out points were looked at {times} before the run went on; "
            "solution.evaluate(over=...) draws others"
        )
    return ""


def _drawn_by(problem: Problem, constraint: Constraint, train: Draw) -> str:
    if train.cube is None:
        return "rows"
    # Whatever the domain, pieces are solved on a rule of their own.
    return repr(GaussQuadrature() if problem.scheme.in_pieces else constraint.sampler)


def _note(problem: Problem, constraint: Constraint, model: PyTree) -> str:
    if isinstance(constraint.over, Data):
        return "train and held-out are rows of one data set"
    if problem.scheme.in_pieces:
        return problem.scheme.note(model)
    if not constraint.sampler.random:
        return (
            f"train is {constraint.sampler!r}, a rule for the same integral as held-out: "
            "the gap is what the rule misses between its nodes"
        )
    return ""


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
