"""When a run looks at its monitoring points and shows how it goes."""

from collections.abc import Callable

import numpy as np


def is_shown(step: int) -> bool:
    """True for steps whose model is kept for figures."""
    place = log_place(step)
    return step == 0 or (place is not None and place % 5 == 0)


def log_place(step: int) -> int | None:
    """The index of `step` among the ten log-spaced steps a decade, or None."""
    if step < 1:
        return None
    place = round(10 * np.log10(step))
    return place if round(10 ** (place / 10)) == step else None


def next_log_spaced(step: int) -> int:
    place = int(np.floor(10 * np.log10(max(step, 1))))
    while round(10 ** (place / 10)) <= step:
        place += 1
    return round(10 ** (place / 10))


def lazy(fn: Callable[[], bool]) -> Callable[[], bool]:
    known: list[bool] = []

    def once() -> bool:
        if not known:
            known.append(fn())
        return known[0]

    return once
