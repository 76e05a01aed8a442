"""Checks of settings that every layer shares: one wording for one mistake."""

import difflib
import math
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class ProblemError(ValueError):
    """A constraint cannot be solved as it is stated."""


def raised_here(error: BaseException) -> bool:
    """True for an error with a sentence of ours, False for one that a user's code raised itself."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ProblemError) or last.startswith(f"{Path(__file__).parent}/_")


def as_count(value: Any, what: str, *, least: int = 1, most: int = 10**9) -> int:
    """Return `value` as an int from `least` to `most`, or raise naming `what`."""
    # bool is an int in Python; points=True is a mistake, not one point.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{what} must be an integer, got {value!r} ({type(value).__name__}). "
            f"Write a whole number such as {max(least, 100)}, without quotes."
        )
    number = value.__index__()
    if number < least:
        raise ValueError(f"{what} must be at least {least}, got {number}.")
    if number > most:
        raise ValueError(f"{what} must be at most {most}, got {number}.")
    return number


def as_seed(value: Any) -> int:
    """Return `value` as a seed; a key holds 32 bits where jax does without 64."""
    return as_count(value, "seed", least=0, most=2**32 - 1)


def as_positive(value: Any, what: str) -> float:
    """Return `value` as a finite float above zero, or raise naming `what`."""
    if isinstance(value, (str, bool)) or not hasattr(value, "__float__"):
        raise TypeError(
            f"{what} must be a number, got {value!r} ({type(value).__name__}). "
            "Write it without quotes."
        )
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} must be finite and above zero, got {number}.")
    return number


def known_names(name: str, known: Iterable[str]) -> str:
    """A sentence with the names that would have been right, the nearest first."""
    listed = list(known)
    if not listed:
        return "There are none."
    near = difflib.get_close_matches(name, listed, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Known: {', '.join(near + [item for item in listed if item not in near])}."
