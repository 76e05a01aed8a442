"""Elements coupled through arbitrary nodes: one sparse least-squares problem, on the host.

An element may involve any number of nodes, and a node any number of elements: values at a point, a
trace on a side, a number that all elements share. Nodes are eliminated by QR, each from all rows
that involve it, the one with the fewest neighbours first.

Source:
    Minimum degree with orthogonal factors: George and Heath, Linear Algebra Appl. 34 (1980) 69.
"""

import heapq
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._pieces.condensation import condense, recover


class Rows(NamedTuple):
    """Rows in some nodes.

    Attributes:
        nodes: Their names.
        table: Columns of one node after the other, then the right-hand sides: what is minimised
            is |table [x; I]|^2.
    """

    nodes: tuple[Hashable, ...]
    table: Float[np.ndarray, "m columns"]


def couple(
    rows: Sequence[Rows], sizes: dict[Hashable, int], k: int = 1
) -> dict[Hashable, Float[np.ndarray, "size k"]]:
    """Minimise over all nodes together.

    Args:
        rows: Of all elements.
        sizes: How many unknowns each node has.
        k: Number of right-hand sides.

    Raises:
        numpy.linalg.LinAlgError: If the rows do not determine the nodes.
    """
    known = dict(enumerate(rows))
    touching: dict[Hashable, set[int]] = {node: set() for node in sizes}
    for number, block in known.items():
        for node in block.nodes:
            touching[node].add(number)

    def front(node: Hashable) -> tuple[Hashable, ...]:
        """The node and those beside it, in the order in which they were first met."""
        met = (other for number in sorted(touching[node]) for other in known[number].nodes)
        return tuple(dict.fromkeys((node, *met)))

    degree = lambda node: sum(sizes[other] for other in front(node))  # noqa: E731
    rank = {node: number for number, node in enumerate(sizes)}
    waiting = [(degree(node), rank[node], node) for node in sizes]
    heapq.heapify(waiting)
    done: list[tuple[list[Hashable], Rows]] = []
    while waiting:
        before, _, node = heapq.heappop(waiting)
        if node not in touching:  # eliminated at an earlier, lower place
            continue
        if degree(node) > before:
            heapq.heappush(waiting, (degree(node), rank[node], node))
            continue
        numbers, together = touching[node], front(node)
        # Nodes that no other rows involve go with it: the same factorisation eliminates them.
        alone = [other for other in together if touching[other] <= numbers]
        together = (*alone, *(other for other in together if touching[other] - numbers))
        table = _stacked([known.pop(number) for number in sorted(numbers)], together, sizes, k)
        inside, outside = condense(table, sum(sizes[other] for other in alone))
        done.append((alone, Rows(together, inside)))
        number = len(rows) + len(done)
        for other in alone:
            del touching[other]
        known[number] = Rows(together[len(alone) :], outside)
        for other in together[len(alone) :]:
            touching[other] = (touching[other] - numbers) | {number}
            # Its neighbours may be fewer than they were.
            heapq.heappush(waiting, (degree(other), rank[other], other))
    found: dict[Hashable, np.ndarray] = {}
    for alone, (together, inside) in reversed(done):
        size = sum(sizes[node] for node in alone)
        _refuse_undetermined(alone, inside, size)
        values = [found[other] for other in together[len(alone) :]]
        own = recover(inside, np.concatenate([np.zeros((0, k)), *values]))
        parts = np.split(own, np.cumsum([sizes[node] for node in alone])[:-1])
        found |= dict(zip(alone, parts, strict=True))
    return found


def _refuse_undetermined(
    nodes: Sequence[Hashable], inside: Float[np.ndarray, "rows columns"], size: int
) -> None:
    pivots = np.abs(np.diagonal(inside[:, :size]))
    small = len(inside) * np.finfo(float).eps * np.abs(inside).max(initial=0.0)
    if len(inside) < size or pivots.min(initial=np.inf) <= small:
        raise np.linalg.LinAlgError(f"no rows determine {nodes[0]!r}")


def _stacked(
    blocks: Sequence[Rows], nodes: Sequence[Hashable], sizes: dict[Hashable, int], k: int
) -> Float[np.ndarray, "m columns"]:
    """Rows of several blocks, one below the other, in the columns of all their nodes."""
    ends = np.cumsum([0, *(sizes[node] for node in nodes)])
    first = dict(zip(nodes, ends, strict=False))
    table = np.zeros((sum(len(block.table) for block in blocks), ends[-1] + k))
    row = 0
    for block in blocks:
        here, column = slice(row, row + len(block.table)), 0
        for node in block.nodes:
            size = sizes[node]
            at = first[node]
            table[here, at : at + size] += block.table[:, column : column + size]
            column += size
        table[here, -k:] = block.table[:, -k:]
        row = here.stop
    return table
