"""Rows of data that several constraints are over: one split for all."""

from collections import defaultdict
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from constrainednn._domains import Data
from constrainednn._experiments import of_experiment
from constrainednn._image import model_inputs
from constrainednn._keys import stream
from constrainednn._problem import Constraint
from constrainednn._samplers import Draw, parts_of_rows, pick_rows
from constrainednn._validate import ProblemError

# A row is known by the bytes of its inputs, and by how many rows before it have the same.
Row = tuple[bytes, int]


def split_rows(
    constraints: Sequence[Constraint], *, key: Key[Array, ""]
) -> dict[int, tuple[Draw, Draw | None, Draw | None]]:
    """Split the rows of all constraints over data into training, monitor and held-out rows.

    What one constraint holds out, no other may train on. Rows are recognised by their inputs: x of
    a pair (x, y), else the whole row. They go where the first constraint that has them puts them.

    Returns:
        The parts, by the index of the constraint.

    Raises:
        ProblemError: If constraints over the same rows say differently how to split them.
    """
    places = [i for i, item in enumerate(constraints) if isinstance(item.over, Data)]
    # Rows at the same places in two experiments are two observations.
    seen: defaultdict[str, dict[Row, tuple[int, Constraint]]] = defaultdict(dict)
    found = {}
    for i in places:
        data = constraints[i].over
        assert isinstance(data, Data)
        # Not by the constraint's name: see above.
        own = key if data.seed is None else jax.random.key(data.seed)
        experiment = of_experiment(constraints[i])
        name = "" if experiment is None else experiment.name
        part = parts_of_rows(data, key=stream(own, f"split/{name}" if name else "split"))
        if experiment is not None and experiment.heldout:
            every = pick_rows(data, np.where(part < 0, part, 0))[0]
            found[i] = jax.tree.map(lambda leaf: leaf[:0], every), None, every
            continue
        # Inputs alone, all of them trained on by wish, give no observation away.
        if len(places) > 1 and (part.any() or isinstance(data.rows, tuple)):
            part = _as_before(constraints[i], data, part, seen[name])
        found[i] = pick_rows(data, part)
    return found


def _as_before(
    constraint: Constraint,
    data: Data,
    part: Int[np.ndarray, " n"],
    seen: dict[Row, tuple[int, Constraint]],
) -> Int[np.ndarray, " n"]:
    """Put known rows where they were put before, and note the others."""
    put = part.copy()
    for j, row in enumerate(_identities(data)):
        if part[j] < 0:  # no value there, and perhaps one in another constraint
            continue
        before, first = seen.setdefault(row, (int(part[j]), constraint))
        if before != part[j] and not _split_alike(data, first.over):
            raise ProblemError(
                f"constraints {first.name!r} and {constraint.name!r} are over the same rows, and "
                "one would train on what the other holds out. Give both the same holdout=, "
                "monitor=, fold= and seed=."
            )
        put[j] = before
    return put


def _split_alike(one: Data, other: object) -> bool:
    assert isinstance(other, Data)
    names = ("holdout", "monitor", "fold", "seed")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _identities(data: Data) -> list[Row]:
    leaves = [
        np.asarray(leaf, float).reshape(len(data), -1)
        for leaf in jax.tree.leaves(model_inputs(data.rows))
    ]
    # Zero has two signs.
    inputs = np.ascontiguousarray(np.concatenate(leaves, axis=1) + 0.0)
    count: defaultdict[bytes, int] = defaultdict(int)
    rows = []
    for row in map(np.ndarray.tobytes, inputs):
        rows.append((row, count[row]))
        count[row] += 1
    return rows


def rows_shared(constraints: Sequence[Constraint]) -> dict[int, int]:
    """For each constraint over data the first one that has equally many rows or one of its rows."""
    places = [i for i, item in enumerate(constraints) if isinstance(item.over, Data)]
    groups: dict[int, int] = {}
    known: list[tuple[int, str, int, set[Row]]] = []
    for i in places:
        data = constraints[i].over
        assert isinstance(data, Data)
        rows = set(_identities(data)) if len(places) > 1 else set()
        experiment = of_experiment(constraints[i])
        name = "" if experiment is None else experiment.name
        alike = (
            group
            for group, other, count, others in known
            if other == name and (count == len(data) or rows & others)
        )
        groups[i] = next(alike, i)
        known.append((groups[i], name, len(data), rows))
    return groups
