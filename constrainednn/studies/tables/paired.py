"""Runs that differ in one setting only, compared in pairs."""

import dataclasses
import math
from typing import Any

import numpy as np

from constrainednn._gap.statistics import Estimate, mean_interval


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two settings compared run by run: the same seed, so the same points and first parameters.

    Attributes:
        first: Label of the setting that is compared with.
        second: Label of the other one.
        where: The other settings.
        of: What is compared.
        pairs: Seeds where both runs finished.
        others: Seeds where one of them, or both, failed.
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


def paired(
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
