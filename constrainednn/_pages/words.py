"""Numbers and points in words."""

import math
from typing import Any


def short(value: Any) -> str:
    """Three digits; words for what JSON has none for."""
    if value is None:
        return "not finite"
    return "-" if math.isnan(value) else f"{value:.3g}"


def interval(estimate: dict[str, Any]) -> str:
    """A value with its 95 % interval, where it has one."""
    value, low, high = (short(estimate.get(key)) for key in ("value", "low", "high"))
    return value if estimate.get("low") is None else f"{value} [{low}, {high}]"


def place(point: Any) -> str:
    """A point in three digits."""
    if isinstance(point, list):
        shown = ", ".join(place(part) for part in point[:4])
        return f"({shown}{', ...' if len(point) > 4 else ''})"
    return short(point)
