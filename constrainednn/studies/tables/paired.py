"""Runs that differ in one setting only, compared in pairs."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from constrainednn._gap.statistics import Estimate, mean_interval
from constrainednn.studies.folder import Row
from constrainednn.studies.tables.rows import groups, number_of


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two settings compared run by run: the same seed, so the same points and initial parameters.

    Attributes:
        first: The setting that is the reference.
        second: The setting that is compared with it.
        where: The other settings.
        of: Name of the number that is compared.
        pairs: Number of seeds for which both runs finished.
        others: Number of seeds for which one of them, or both, failed.
        difference: Mean of second - first, with its interval.
        ratio: Geometric mean of second / first, with its interval; None where a number is not
            positive, as gaps may be.
    """

    first: Any
    second: Any
    where: dict[str, Any]
    of: str
    pairs: int
    others: int
    difference: Estimate
    ratio: Estimate | None

    def __repr__(self) -> str:
        where = "".join(f"{name} {value}; " for name, value in self.where.items())
        text = f"{where}{self.second} against {self.first}, {self.of}, {self.pairs} pairs"
        if self.others:
            text += f" ({self.others} more where a run failed)"
        if not self.pairs:
            return text
        d = self.difference
        text += f": mean of {self.second} - {self.first} {d.value:.3g} [{d.low:.3g}, {d.high:.3g}]"
        if self.ratio is not None:
            r = self.ratio
            text += f", geometric mean of {self.second} / {self.first} {r.value:.3g}"
            text += f" [{r.low:.3g}, {r.high:.3g}]"
        return text


def pairs_along(axis: str, rows: Iterable[Row], others: Iterable[str], of: str) -> list[Paired]:
    """Each setting along an axis against the first, for each combination of the others."""
    found = []
    for where, group in groups(rows, others):
        by_label: dict[Any, dict[int, float]] = {}
        for row in group:
            by_label.setdefault(row["given"][axis], {})[row["seed"]] = number_of(row, of)
        first, *further = by_label
        found += [_paired(first, second, where, of, by_label) for second in further]
    return found


def _paired(
    first: Any, second: Any, where: dict[str, Any], of: str, values: dict[Any, dict[int, float]]
) -> Paired:
    seeds = [seed for seed in values[first] if seed in values[second]]
    both = np.array([(values[first][seed], values[second][seed]) for seed in seeds])
    both = both.reshape(-1, 2)
    finished = both[np.isfinite(both).all(axis=1)]
    ratio = None
    if len(finished) and (finished > 0).all():
        logs = mean_interval(np.diff(np.log(finished), axis=1)[:, 0])
        value, low, high = (math.exp(end) for end in (logs.value, logs.low, logs.high))
        ratio = dataclasses.replace(logs, value=value, low=low, high=high, error=value * logs.error)
    difference = mean_interval(np.diff(finished, axis=1)[:, 0])
    others = len(both) - len(finished)
    return Paired(first, second, where, of, len(finished), others, difference, ratio)
