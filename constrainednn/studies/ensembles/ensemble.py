"""Several solutions of one problem: their mean, their spread, and folds of data."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._common.arguments import as_count, as_seed
from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._gap.measure import gap_report
from constrainednn._gap.report import GapReport
from constrainednn._gap.streams import Streams
from constrainednn._problem.problem import Problem
from constrainednn._solve.solve import solve
from constrainednn.errors import BadValueError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.stages import Stage
from constrainednn.results.solution import Solution
from constrainednn.studies.ensembles.calibration import CLASSES, Calibration
from constrainednn.studies.ensembles.cross_validation import joined_draws, splitting
from constrainednn.targets.image import model_inputs


class MeanModel(eqx.Module):
    """The mean of the values of several models."""

    models: tuple[PyTree, ...]

    def __call__(self, x: PyTree) -> PyTree:
        """Evaluate at one point."""
        return _mean([model(x) for model in self.models])

    @property
    def args(self) -> PyTree:
        """The mean of the arguments of an equation, if the models hold some."""
        return _mean([getattr(model, "args", None) for model in self.models])


def _mean(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


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
                "calibration needs a known solution: give the problem reference=, and put a "
                "constraint with held-out points first."
            )
        x = model_inputs(held.points)
        flat = lambda u: in_blocks(eqx.Partial(flat_value, u), x)  # noqa: E731
        values = np.stack([flat(member.model) for member in self.members])
        error = np.abs(values.mean(axis=0) - flat(problem.reference)).ravel()
        spread = values.std(axis=0, ddof=1).ravel()
        count = len(self.members)
        ranked: Any = spearmanr(spread, error)
        classes = np.array_split(np.argsort(spread), CLASSES)
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
        seeds: The seeds, or their number, counted from 0; at least two.
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
        raise BadValueError(f"ensemble needs two seeds or more, all different, got {chosen}.")
    if isinstance(problem, Problem) and problem.scheme.in_pieces:
        raise BadValueError(
            "ensemble: solutions of ivp, bvp and pde do not depend on a seed; their error is known "
            "from solution.error_estimate()."
        )
    # One split of rows for all: what judges the mean, no member may have trained on.
    stated = splitting(problem, seed=chosen[0])
    members = tuple(solve(stated, method, seed=seed, **arguments) for seed in chosen)
    streams = []
    for parts in zip(*(member.streams for member in members), strict=True):
        train = parts[0].train
        if parts[0].heldout is not None and train.cube is not None:
            train = joined_draws([part.train for part in parts])
        streams.append(Streams(train, parts[0].monitor, parts[0].heldout))
    mean = MeanModel(tuple(member.model for member in members))
    return Ensemble(members, mean, tuple(streams), gap_report(problem, mean, streams))
