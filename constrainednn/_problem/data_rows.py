"""Rows of data that several constraints are over: one split for all."""

from collections import defaultdict
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from constrainednn._common.random_keys import stream
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.experiments import of_experiment
from constrainednn.domains.finite import Data
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import parts_of_rows, pick_rows
from constrainednn.errors import ProblemError
from constrainednn.targets.image import model_inputs


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
    seen: defaultdict[str, dict[bytes, tuple[list[int], Constraint]]] = defaultdict(dict)
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
    seen: dict[bytes, tuple[list[int], Constraint]],
) -> Int[np.ndarray, " n"]:
    """Put known rows where they were put before, and note the others."""
    put = part.copy()
    for inputs, places in _by_inputs(data).items():
        parts, first = seen.setdefault(inputs, (part[places].tolist(), constraint))
        # Of repeated inputs nobody knows which are missing: none is trained on if one is not.
        before = parts if len(parts) == len(places) else [max(parts)] * len(places)
        # A row without a value goes; another constraint may have one there.
        for place, where in zip(places, before, strict=True):
            if part[place] < 0 or where < 0:
                continue
            if where != part[place] and not _split_alike(data, first.over):
                raise ProblemError(
                    f"constraints {first.name!r} and {constraint.name!r} are over the same rows, "
                    "and one would train on what the other holds out. Give both the same "
                    "holdout=, monitor=, fold= and seed=."
                )
            put[place] = where
    return put


def _split_alike(one: Data, other: object) -> bool:
    assert isinstance(other, Data)
    names = ("holdout", "monitor", "fold", "seed")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _by_inputs(data: Data) -> dict[bytes, list[int]]:
    """Where the rows with the same inputs are."""
    leaves = [
        np.asarray(leaf, float).reshape(len(data), -1)
        for leaf in jax.tree.leaves(model_inputs(data.rows))
    ]
    # Zero has two signs.
    inputs = np.ascontiguousarray(np.concatenate(leaves, axis=1) + 0.0)
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(map(np.ndarray.tobytes, inputs)):
        places[row].append(place)
    return places


def rows_shared(constraints: Sequence[Constraint]) -> dict[int, int]:
    """For each constraint over data the first of those that share rows with it, or their number."""
    groups: dict[int, int] = {}
    rows: dict[int, tuple[str, int, set[bytes]]] = {}
    places = [i for i, item in enumerate(constraints) if isinstance(item.over, Data)]
    for i in places:
        data, experiment = constraints[i].over, of_experiment(constraints[i])
        assert isinstance(data, Data)
        known = set(_by_inputs(data)) if len(places) > 1 else set()
        name = "" if experiment is None else experiment.name
        hit = {
            groups[k]
            for k, (other, count, others) in rows.items()
            if other == name and (count == len(data) or known & others)
        }
        groups[i] = min(hit, default=i)
        groups |= {k: groups[i] for k, group in groups.items() if group in hit}
        rows[i] = name, len(data), known
    return groups
