"""Cross-validation: folds of data, each held out once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from constrainednn._common.arguments import as_count
from constrainednn._gap.statistics import Estimate, loss_interval, mean_interval
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn._solve.solve import solve
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadValueError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.stages import Stage
from constrainednn.results.solution import Solution


def splitting(problem: Problem, **how: Any) -> Problem:
    """A problem whose data are split in another way; a seed that was given to them stays."""

    def changed(item: Constraint) -> Constraint:
        if not isinstance(item.over, Data) or ("seed" in how and item.over.seed is not None):
            return item
        return eqx.tree_at(lambda c: c.over, item, dataclasses.replace(item.over, **how))

    parts = tuple(changed(item) for item in problem.constraints)
    return eqx.tree_at(lambda p: p.constraints, problem, parts)


def joined_draws(draws: list[Draw]) -> Draw:
    """All points of several draws as one, each with its share."""
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *draws)
    return eqx.tree_at(lambda draw: draw.weights, joined, joined.weights / len(draws))


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
    """Solve once for each of k parts of the data, with that part held out.

    The interval of the mean over folds is a t interval in which the factor 1/k of the variance is
    replaced by 1/k plus the ratio of held-out to training rows, 1/(k - 1) if all others are trained
    on: the training sets of two folds share most of their rows. The interval of the held-out loss
    is that of its power -1/3, so that it stays above zero; with fewer than 50 rows it is labelled.

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
        solutions.append(solve(splitting(problem, fold=(i, k)), method, seed=seed, **arguments))
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
