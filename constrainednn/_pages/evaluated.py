"""What a solution looks like, as numbers: its values, residual and reference at chosen points.

Figures and pages are drawn from these arrays alone. They are what a run saves for its page, so that
nobody has to run the problem's code again to look at its solution.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

# An error below this many units in the last place of the largest value is noise.
_ROUNDING = 64


@dataclasses.dataclass(frozen=True, eq=False)
class ResidualSeen:
    """The residual of one constraint where it was looked at.

    Attributes:
        name: Name of the constraint.
        axes: Names of the coordinates of its points.
        train: Some of the training points, drawn from all of them.
        train_size: |r| there.
        train_count: Number of all training points.
        heldout: Some of the held-out points.
        heldout_size: |r| there.
        heldout_count: Number of all held-out points.
        field: |r| on the grid of the solution; empty where points of the constraint fill no part
            of it, as those of a boundary, and NaN outside of the box around them.
        worst: The point of the largest residual found; empty if there is none.
        worst_size: |r| there.
        at_rounding: True if the differences between points are noise.
        train_shares: Sizes of |r| and the share of all training points above each, ascending;
            sizes that are zero or not finite are counted and have no place.
        heldout_shares: The same for held-out points.
        train_rows: Measured values at training points, for rows of data; else empty.
        heldout_rows: The same at held-out points.
    """

    name: str
    axes: tuple[str, ...]
    train: Float[np.ndarray, "n _"]
    train_size: Float[np.ndarray, " n"]
    train_count: int
    heldout: Float[np.ndarray, "m _"]
    heldout_size: Float[np.ndarray, " m"]
    heldout_count: int
    field: Float[np.ndarray, "..."]
    worst: Float[np.ndarray, " _"]
    worst_size: float
    at_rounding: bool
    train_shares: Float[np.ndarray, "2 _"]
    heldout_shares: Float[np.ndarray, "2 _"]
    train_rows: Float[np.ndarray, "_ _"]
    heldout_rows: Float[np.ndarray, "_ _"]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """A solution on a grid, or a map on a cloud of points, with the residuals of its constraints.

    Attributes:
        name: Of the experiment; empty where there is one solution.
        axes: Names of the coordinates of the grid.
        grid: One or two ascending arrays; none where the model takes other points.
        values: u on the grid, with its components along the last axis; empty without a grid.
        reference: The known solution there; empty where there is none.
        inputs: Points of the plane, or of more dimensions, that a map was evaluated at; may be
            empty.
        images: The map's values there.
        radius: Radius of the circle that the map should reach; NaN where there is none.
        residuals: One for each constraint with points that are arrays.
    """

    name: str
    axes: tuple[str, ...]
    grid: tuple[Float[np.ndarray, " _"], ...]
    values: Float[np.ndarray, "..."]
    reference: Float[np.ndarray, "..."]
    inputs: Float[np.ndarray, "n _"]
    images: Float[np.ndarray, "n _"]
    radius: float
    residuals: tuple[ResidualSeen, ...]

    @property
    def error(self) -> Float[np.ndarray, "..."]:
        """The largest difference from the reference over components, on the grid."""
        return np.abs(self.values - self.reference).max(axis=-1)

    @property
    def error_at_rounding(self) -> bool:
        """Whether the differences from the reference are noise."""
        size = np.abs(self.reference).max(initial=0.0, where=np.isfinite(self.reference))
        most = self.error.max(initial=0.0, where=np.isfinite(self.error))
        return bool(most <= _ROUNDING * np.finfo(self.values.dtype).eps * size)


def taken_apart(seen: Any, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of one of these, by name, and the rest as plain data."""
    arrays, facts = {}, {}
    for item in dataclasses.fields(seen):
        value, name = getattr(seen, item.name), f"{prefix}.{item.name}"
        if item.name == "grid":
            facts[item.name] = len(value)
            arrays |= {f"{name}.{k}": part for k, part in enumerate(value)}
        elif item.name == "residuals":
            parts = [taken_apart(part, f"{name}.{k}") for k, part in enumerate(value)]
            facts[item.name] = [plain for _, plain in parts]
            for found, _ in parts:
                arrays |= found
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, float):  # what is not finite has no name in JSON
            arrays[name] = np.asarray(value)
        else:
            facts[item.name] = list(value) if isinstance(value, tuple) else value
    return arrays, facts


def put_together(arrays: dict[str, np.ndarray], facts: dict[str, Any], prefix: str) -> Evaluated:
    """What was taken apart.

    Raises:
        KeyError, TypeError, ValueError: If something is missing or of another kind.
    """
    grid = tuple(arrays[f"{prefix}.grid.{k}"] for k in range(int(facts["grid"])))
    residuals = tuple(
        ResidualSeen(**_fields(ResidualSeen, arrays, part, f"{prefix}.residuals.{k}"))
        for k, part in enumerate(facts["residuals"])
    )
    rest = {key: value for key, value in facts.items() if key not in ("grid", "residuals")}
    fields = _fields(Evaluated, arrays, rest, prefix, but=("grid", "residuals"))
    return Evaluated(**fields, grid=grid, residuals=residuals)


def _fields(
    kind: type, arrays: dict[str, np.ndarray], facts: dict[str, Any], prefix: str, but: Any = ()
) -> dict[str, Any]:
    found = {}
    for item in dataclasses.fields(kind):
        if item.name in but:
            continue
        if item.name in facts:
            value = facts[item.name]
            found[item.name] = tuple(map(str, value)) if isinstance(value, list) else value
        else:
            array = arrays[f"{prefix}.{item.name}"]
            found[item.name] = float(array) if item.type is float else array
    return found
