"""Finite domains: given points, and rows of data."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_count, as_real, as_reals, as_seed, leaves_of
from constrainednn._common.messages import shown
from constrainednn.domains.missing import missing_values
from constrainednn.errors import BadTypeError, BadValueError


class Points(eqx.Module):
    """A finite set of points used whole, such as the place of an initial value.

    It contributes to the loss, has no population behind it and therefore no gap.

    Args:
        points: An array, or a pytree of arrays, with the points along the first axis.
    """

    points: PyTree[np.ndarray]

    def __init__(self, points: PyTree):
        self.points = _rows("Points", "points", points)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.points)[0])

    def __repr__(self) -> str:
        return f"Points({len(self)} given)"


class Data(eqx.Module):
    """Observed rows, split at random into training, monitor and held-out rows.

    Constraints over the same rows share one split, so that no row is both: rows with the same x of
    a pair (x, y), or equally many rows.

    Args:
        rows: A pytree of arrays with the rows along the first axis, usually `(x, y)`; a point is
            then the pair `(x_i, y_i)`. NaN among the values, the members of a tuple after the
            first, means "missing": it is left out of sums and standard errors, and counted.
        holdout: Share of the rows that is kept from training, in [0, 1). With 0 all rows are
            trained on, and there is no gap.
        monitor: Share of the rows that are not trained on either, and may steer: early stopping
            goes by them. The held-out rows are the same for every share.
        fold: A pair (i, k): hold out the i-th of k parts instead, i from 0 to k - 1. The parts are
            the same for all i under one seed, and each row is in one of them.
        seed: Seed of the split. Default: that of the run, so that runs under several seeds differ
            in their rows, too.
    """

    rows: PyTree[np.ndarray]
    holdout: float
    monitor: float
    fold: tuple[int, int] | None
    seed: int | None

    def __init__(
        self,
        rows: PyTree,
        *,
        holdout: float = 0.2,
        monitor: float = 0.0,
        fold: tuple[int, int] | None = None,
        seed: int | None = None,
    ):
        self.rows = _rows("Data", "rows", rows, values=True)
        if missing_values(self.rows)[1].all():
            raise BadValueError("Data has no value: all are NaN, which means missing.")
        self.seed = None if seed is None else as_seed(seed)
        self.holdout = as_real(holdout, "holdout of Data")
        self.monitor = as_real(monitor, "monitor of Data")
        n = len(self)
        self.fold = None if fold is None else _fold(fold, n)
        for name, share in (("holdout", self.holdout), ("monitor", self.monitor)):
            if not 0 <= share < 1:
                raise BadValueError(
                    f"{name} of Data must be in [0, 1), got {share:g}. Write e.g. 0.2."
                )
        held, watched = self.heldout_rows, self.monitor_rows
        asked = (held, self.fold is not None or self.holdout), (watched, self.monitor)
        if n - held - watched < 1 or any(share and not count for count, share in asked):
            raise BadValueError(
                f"{self} leaves {max(n - held - watched, 0)} rows for training, {watched} to "
                f"monitor and {held} held out. Each that is asked for needs at least one: give "
                "more rows, change the shares, or write holdout=0 to train without a gap."
            )

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.rows)[0])

    @property
    def heldout_rows(self) -> int:
        """Number of rows kept from training."""
        if self.fold is not None:
            i, k = self.fold
            return (len(self) - i + k - 1) // k
        return round(len(self) * self.holdout)

    @property
    def monitor_rows(self) -> int:
        """Number of rows that may steer, and are not trained on."""
        return round(len(self) * self.monitor)

    @property
    def judging_rows(self) -> int:
        """Number of rows that are not trained on."""
        return self.heldout_rows + self.monitor_rows

    def __repr__(self) -> str:
        judging = f"holdout={self.holdout:g}" if self.fold is None else f"fold={self.fold}"
        steering = f", monitor={self.monitor:g}" if self.monitor else ""
        return f"Data({len(self)} rows, {judging}{steering})"


def _fold(fold: Any, n: int) -> tuple[int, int]:
    if not (isinstance(fold, (tuple, list)) and len(fold) == 2):
        raise BadTypeError(f"fold of Data must be a pair (i, k), got {shown(fold)}.")
    i, k = as_count(fold[0], "fold of Data", least=0), as_count(fold[1], "folds of Data", least=2)
    if not i < k <= n:
        raise BadValueError(
            f"fold of Data must be (i, k) with i < k and at most as many parts as the {n} rows, "
            f"got ({i}, {k})."
        )
    return i, k


def _rows(name: str, what: str, tree: PyTree, *, values: bool = False) -> PyTree[np.ndarray]:
    """Arrays with one row a point; NaN may stand in a tuple after its first member, if asked."""
    what = f"{what} of {name}"
    # A list is an array, not a pytree of numbers.
    nested = lambda node: isinstance(node, list)  # noqa: E731
    leaves_of(tree, what, is_leaf=nested)
    arrays = jax.tree.map(lambda leaf: as_reals(leaf, what), tree, is_leaf=nested)
    leaves = jax.tree.leaves(arrays)
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(leaf.ndim == 0 for leaf in leaves):
        raise BadValueError(
            f"{what} must be arrays with one row a point, got shapes {shown(shapes)}. "
            "A single point x is written x[None]."
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise BadValueError(f"{what} must be arrays of equal length, got shapes {shown(shapes)}.")
    if shapes[0][0] == 0:
        raise BadValueError(
            f"{name} is empty: {what} has shapes {shown(shapes)}. Give at least one."
        )
    places = len(jax.tree.leaves(arrays[0])) if values and isinstance(arrays, tuple) else None
    for k, leaf in enumerate(leaves):
        value = places is not None and k >= places
        wrong = np.isinf(leaf) if value else ~np.isfinite(leaf)
        bad = np.flatnonzero(wrong.reshape(len(leaf), -1).any(axis=1))
        if bad.size:
            also = " NaN means missing only among the values y of Data((x, y))." * (not value)
            raise BadValueError(
                f"{what} has {bad.size} rows with {'infinity' if value else 'NaN or infinity'}, "
                f"first at index {bad[:5].tolist()}. Drop or repair them.{also * values}"
            )
    return arrays
