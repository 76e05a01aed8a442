"""The plots of a run, from what was evaluated of it."""

from collections.abc import Iterator

import numpy as np

from constrainednn._pages.drawing.curve_plots import (
    curves,
    error_curve,
    phase,
    residual_points,
    shares,
)
from constrainednn._pages.drawing.field_plots import MOST_FIELDS, component, field, images
from constrainednn._pages.drawing.plot import Plot
from constrainednn._pages.evaluated import Evaluated, ResidualSeen

# Constraints with a plot of their own.
_CONSTRAINTS = 6


def plots(seen: Evaluated) -> Iterator[Plot]:
    """The plots of one solution: what it is first, then its residuals, then how they spread."""
    found: list[Plot | None] = []
    if len(seen.grid) == 1:
        found += [curves(seen), error_curve(seen), phase(seen)]
    if len(seen.images):
        found.append(images(seen))
    elif len(seen.grid) == 2:
        found += [component(seen, k) for k in range(min(MOST_FIELDS, seen.values.shape[-1]))]
    residuals = seen.residuals[:_CONSTRAINTS]
    found += [_residual(seen, item) for item in residuals]
    if len(seen.grid) == 2 and seen.reference.size and not seen.error_at_rounding:
        found.append(field(seen, seen.error, "Error against the reference", "|u - reference|"))
    found += [shares(item) for item in residuals if not item.at_rounding]
    yield from (item for item in found if item is not None)


def _residual(seen: Evaluated, item: ResidualSeen) -> Plot | None:
    """The residual over the plane, else against the coordinate that varies."""
    if item.at_rounding:
        return None
    if item.field.ndim == 2 and np.isfinite(item.field).any():
        return field(seen, item.field, f"Residual of {item.name}", "|r|", item)
    return residual_points(seen, item)
