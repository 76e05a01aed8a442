"""Several solutions of one problem: their mean, their spread, and folds of data."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._blocks import flat_value, in_blocks
from constrainednn._domains import Data
from constrainednn._errors import BadValueError
from constrainednn._gap import GapReport, Streams, gap_report
from constrainednn._image import model_inputs
from constrainednn._methods._abstract import AbstractMethod
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import Draw
from constrainednn._solution import Solution
from constrainednn._solve import solve
from constrainednn._stages import Stage
from constrainednn._statistics import Estimate, loss_interval, mean_interval
from constrainednn._validate import as_count, as_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_CLASSES = 8


class MeanModel(eqx.Module):
    """The mean of the values of several models."""

    models: tuple[PyTree, ...]

    def __call__(self, x: PyTree) -> PyTree:
        """Evaluate at one point."""
        values = [model(x) for model in self.models]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *values)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Does the spread of an ensemble predict the error of its mean?

    Attributes:
        spread: RMS spread in eight classes of held-out points, by their spread, smallest first.
        error: RMS error of the mean in each class.
        within_two: Share of the values whose error is at most twice their spread.
        expected: What that share would be if the truth were one more, normal, member: 0.83 for four
            members, 0.95 for very many.
        correlation: Spearman's rank correlation of spread and error over the points.
    """

    spread: tuple[float, ...]
    error: tuple[float, ...]
    within_two: float
    expected: float
    correlation: float

    def plot(self) -> "Figure":
        """Draw error against spread; on the line the spread is the error."""
        from constrainednn._study_plots import calibration_figure

        return calibration_figure(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
    """Solutions under several seeds as one function.

    Attributes:
        members: The solutions.
        model: Their mean, as a model.
        streams: The points that its gap is taken on.
        gap: Gap of the mean: train is all training points of the members, held-out those of the
            first member, which no member has seen. Rows of data are split alike for all members.
    """

    members: tuple[Solution, ...]
    model: MeanModel
    streams: tuple[Streams, ...]
    gap: GapReport

    def __repr__(self) -> str:
        text = f"mean of {len(self.members)} solutions: train {self.gap.train:.4g}"
        for name, item in (("held-out", self.gap.heldout), ("gap", self.gap.difference)):
            if item is not None:
                text += f", {name} {item.value:.4g} [{item.low:.4g}, {item.high:.4g}]"
        return text

    def __call__(self, x: Any) -> PyTree[Array]:
        """The mean of the members, at one point or at many."""
        values = [member(x) for member in self.members]
        return jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *values)

    def spread(self, x: Any) -> PyTree[Array]:
        """The standard deviation over the members, at one point or at many."""
        values = [member(x) for member in self.members]
        return jax.tree.map(lambda *leaves: jnp.std(jnp.stack(leaves), axis=0, ddof=1), *values)

    def calibration(self) -> Calibration:
        """Compare spread and error on held-out points; needs a problem with a reference.

        Raises:
            ValueError: If the problem has none.
        """
        from scipy.special import stdtr
        from scipy.stats import spearmanr  # slow to import

        problem = self.members[0].problem
        held = self.members[0].streams[0].heldout
        if problem.reference is None or held is None:
            raise BadValueError(
                "calibration needs a known solution: give the problem reference=, and a constraint "
                "with held-out points first."
            )
        x = model_inputs(held.points)
        flat = lambda u: in_blocks(eqx.Partial(flat_value, u), x)  # noqa: E731
        values = np.stack([flat(member.model) for member in self.members])
        error = np.abs(values.mean(axis=0) - flat(problem.reference)).ravel()
        spread = values.std(axis=0, ddof=1).ravel()
        count = len(self.members)
        ranked: Any = spearmanr(spread, error)
        classes = np.array_split(np.argsort(spread), _CLASSES)
        rms = lambda values: math.sqrt(float(np.mean(values**2)))  # noqa: E731
        return Calibration(
            tuple(rms(spread[part]) for part in classes),
            tuple(rms(error[part]) for part in classes),
            float((error <= 2 * spread).mean()),
            float(1 - 2 * stdtr(count - 1, -2 / math.sqrt(1 + 1 / count))),
            float(ranked.statistic),
        )


def ensemble(
    problem: Problem,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    seeds: int | Sequence[int] = 8,
    **arguments: Any,
) -> Ensemble:
    """Solve a problem under several seeds and take the mean.

    The spread of the members shows what initialisation and training points leave open, no more:
    `Ensemble.calibration` says whether it predicts the error.

    Args:
        problem: What to solve; not by `ivp` or `bvp`, whose solutions do not depend on a seed.
        method: As in `solve`.
        seeds: So many seeds from 0 on, or the seeds; at least two.
        **arguments: As in `solve`.

    Raises:
        ValueError: If there are fewer than two seeds, or nothing depends on them.
        SolveFailed: If a member fails.
    """
    if isinstance(seeds, (int, np.integer)):
        chosen = list(range(as_count(seeds, "seeds of ensemble", least=2)))
    else:
        chosen = [as_seed(seed) for seed in seeds]
    if len(set(chosen)) < max(2, len(chosen)):
        raise BadValueError(f"ensemble needs two seeds or more, none twice, got {chosen}.")
    if isinstance(problem, Problem) and problem.scheme is not None:
        raise BadValueError(
            "ensemble: solutions of ivp and bvp do not depend on a seed; their error is known from "
            "solution.error_estimate()."
        )
    # One split of rows for all: what judges the mean, no member may have trained on.
    stated = _splitting(problem, seed=chosen[0])
    members = tuple(solve(stated, method, seed=seed, **arguments) for seed in chosen)
    streams = []
    for parts in zip(*(member.streams for member in members), strict=True):
        train = parts[0].train
        if parts[0].heldout is not None and train.cube is not None:
            train = _joined([part.train for part in parts])
        streams.append(Streams(train, parts[0].monitor, parts[0].heldout))
    mean = MeanModel(tuple(member.model for member in members))
    return Ensemble(members, mean, tuple(streams), gap_report(problem, mean, streams))


def _splitting(problem: Problem, **how: Any) -> Problem:
    """A problem whose data are split otherwise; a seed that was given to them stays."""

    def changed(item: Constraint) -> Constraint:
        if not isinstance(item.over, Data) or ("seed" in how and item.over.seed is not None):
            return item
        return eqx.tree_at(lambda c: c.over, item, dataclasses.replace(item.over, **how))

    parts = tuple(changed(item) for item in problem.constraints)
    return eqx.tree_at(lambda p: p.constraints, problem, parts)


def _joined(draws: list[Draw]) -> Draw:
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *draws)
    return eqx.tree_at(lambda draw: draw.share, joined, joined.share / len(draws))


@dataclasses.dataclass(frozen=True, eq=False)
class CrossValidation:
    """What k folds of data say.

    Attributes:
        solutions: One for each fold.
        train: Mean loss on the rows that were trained on.
        heldout: Mean loss on the rows that were held out, with an interval that accounts for
            training sets that overlap.
        difference: The same less `train` of each fold.
    """

    solutions: tuple[Solution, ...]
    train: float
    heldout: Estimate
    difference: Estimate

    def __repr__(self) -> str:
        h, d = self.heldout, self.difference
        return (
            f"{len(self.solutions)} folds: train {self.train:.4g}, held-out {h.value:.4g} "
            f"[{h.low:.4g}, {h.high:.4g}], gap {d.value:.4g} [{d.low:.4g}, {d.high:.4g}]"
            f"{f'; the interval {h.label}' if h.label else ''}"
        )


def cross_validate(
    problem: Problem,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    **arguments: Any,
) -> CrossValidation:
    """Solve once for each of k parts of the data, which is held out then.

    The interval of the mean over folds is a t interval whose variance counts 1/k plus held-out over
    training rows, 1/(k - 1) if all others are trained on, instead of 1/k: the training sets of two
    folds share most of their rows. That of the held-out loss is taken for its power -1/3, so that
    it stays above zero; with fewer than 50 rows it carries a label.

    Args:
        problem: A problem with one or more constraints over `Data`.
        method: As in `solve`.
        folds: Number of parts, at least two.
        seed: Seed of the parts, and of each solve.
        **arguments: As in `solve`.

    Raises:
        ValueError: If no constraint is over `Data`, or it has fewer rows than parts.

    Source:
        Nadeau and Bengio, Machine Learning 52 (2003) 239.
    """
    k = as_count(folds, "folds", least=2)
    places = [i for i, item in enumerate(problem.constraints) if isinstance(item.over, Data)]
    over = [problem.constraints[i].name for i in places]
    if not over:
        raise BadValueError("cross_validate needs a constraint over cx.Data: only rows are split.")
    solutions = []
    for i in range(k):
        solutions.append(solve(_splitting(problem, fold=(i, k)), method, seed=seed, **arguments))
    train = np.array([sum(s.gap[name].train for name in over) for s in solutions])
    heldout = np.array([sum(s.gap[name].heldout.value for name in over) for s in solutions])
    sizes = [s.streams[i] for s in solutions for i in places]
    count = sum(len(p.heldout or ()) for p in sizes)
    overlap = count / sum(len(p.train) for p in sizes)
    return CrossValidation(
        tuple(solutions),
        float(train.mean()),
        loss_interval(heldout, rows=count, overlap=overlap),
        mean_interval(heldout - train, overlap=overlap),
    )
