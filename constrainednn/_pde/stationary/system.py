"""One Gauss-Newton step on all elements of a mesh together.

The coefficients of an element are eliminated from its own rows: the equation at a Gauss rule, the
conditions on its faces, and its traces on the sides that it shares, which are unknowns of their
own. What is left couples the traces of its sides.

Symbols (others in `discretisation.py`)::

    symbol  shape      meaning
    nodes   list       one for each side: Legendre coefficients of the traces, those of one
                       derivative across it after the other, in units of u
"""

import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._pde.stationary.curved.cells import Outline
from constrainednn._pde.stationary.curved.places import Cuts
from constrainednn._pde.stationary.curved.rows import held, rows_of_cut, stacked
from constrainednn._pde.stationary.discretisation import (
    Discretisation,
    Seen,
    on_face,
    on_side,
    tables,
)
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pieces.condensation import condense_all, recover
from constrainednn._pieces.coupling import Rows, couple
from constrainednn._pieces.gauss_newton import Step
from constrainednn._pieces.mesh import Side, places

# The node of the number that is added to an equation. Where no data need balance it may be any: it
# is then held at zero by this share of its column.
_BALANCE, _HELD = "balance", 1e-4
# What is left of elements, by what their rows depend on.
Known = dict[tuple[bytes, ...], tuple[np.ndarray, np.ndarray]]


class _Own(NamedTuple):
    """Rows of one element: J in its coefficients, and its traces T, with their weights.

    What is right of them is the residual, or its derivatives by the unknowns of the equation; and b
    by the number that is added to an equation.
    """

    J: Float[np.ndarray, "rows nd"]
    right: Float[np.ndarray, "rows k"]
    b: Float[np.ndarray, " rows"]
    T: Float[np.ndarray, "traces nd"]
    weights: Float[np.ndarray, " traces"]


class System:
    """The rows of a mesh.

    Args:
        disc: Polynomials and places.
        mesh: Elements.
        known: Of a linear equation: what was left of elements by their place and their sides, from
            meshes before; elements that have not changed are found there.
    """

    def __init__(self, disc: Discretisation, mesh: Mesh, known: Known | None = None):
        self.disc, self.mesh, self.known = disc, mesh, known
        region = mesh.region
        self._cuts = Cuts(region, mesh, disc.width) if isinstance(region, Outline) else None
        self._weight = disc.weights(mesh)
        self._smooth = smooth = np.array(disc.equations.smooth)
        self._traced = [(k, q) for k in range(smooth.max()) for q in np.flatnonzero(smooth > k)]
        self._size = len(self._traced) * len(disc.to_modes)
        # The node of the number that is added to an equation, if one is, and its last value.
        self._shared = () if disc.equations.balance is None else (_BALANCE,)
        self.balance = 0.0

    def solve(self) -> Float[np.ndarray, "N n d"]:
        """Coefficients that solve a linear equation, up to the rounding of one step."""
        assert self.known is not None
        count, n, d = len(self.mesh.low), self.disc.width**self.disc.dim, len(self._smooth)
        keys = [self._key(number) for number in range(count)]
        new = [number for number, key in enumerate(keys) if key not in self.known]
        rows = self._rows(np.zeros((count, n, d)), new)
        tables = (self._table(own, np.zeros((n * d, 1)), 0.0) for own in rows)
        for number, left in zip(new, condense_all(tables, n * d), strict=True):
            self.known[keys[number]] = left
        for key in self.known.keys() - set(keys):  # elements that have been divided
            del self.known[key]
        return self._coupled([self.known[key] for key in keys], 1).reshape(count, n, d)

    def propose(self, at: Float[Array, "N n d"], damping: Array, notes: None) -> Step:
        """A step of all coefficients; traces are solved for anew."""
        c, every = np.asarray(at, float), range(len(at))
        own = self._rows(c, every)
        flat = c.reshape(len(c), -1, 1)
        tables = (self._table(item, flat[i], float(damping)) for i, item in enumerate(own))
        change = self._coupled(condense_all(tables, c[0].size), 1).reshape(c.shape)
        size = np.abs(change).max() / max(np.abs(c + change).max(), np.finfo(float).tiny)
        losses = None
        if self.known is None:
            after = self._loss(self._rows(c + change, every), c + change)
            losses = jnp.asarray(self._loss(own, c)), jnp.asarray(after)
        return Step(jnp.asarray(change), jnp.asarray(size), losses, notes)

    def sensitivity(self, at: Float[np.ndarray, "N n d"]) -> Float[np.ndarray, "N n d"]:
        """What a change of every row by its own size, with signs at random, changes.

        Times the rounding unit it is the round-off of the solve, and large without limit where the
        rows do not determine the unknowns.
        """
        c, rng = np.asarray(at, float), np.random.default_rng(0)
        sizes = np.abs(c) if c.any() else np.ones_like(c)
        tables = []
        for own, item in zip(sizes, self._rows(c, range(len(c))), strict=True):
            size = np.abs(item.J) @ own.reshape(-1, 1)
            changed = item._replace(right=size * rng.choice([-1.0, 1.0], (len(size), 1)))
            tables.append(self._table(changed, np.zeros((c[0].size, 1)), 0.0))
        return self._coupled(condense_all(tables, c[0].size), 1).reshape(c.shape)

    def by_unknowns(self, at: Float[np.ndarray, "N n d"]) -> Float[np.ndarray, "N n d q"]:
        """Derivatives of the coefficients of a solution by the unknowns of the equation.

        Of least squares that leave hardly a residual: what it would add is neglected.
        """
        q, own = self.disc.equations.interior.unknowns.size, at[0].size
        rows = self._rows(at, range(len(at)), unknowns=True)
        tables = (self._table(item, np.zeros((own, q)), 0.0) for item in rows)
        return self._coupled(condense_all(tables, own), q).reshape(*at.shape, q)

    def _coupled(
        self, condensed: list[tuple[np.ndarray, np.ndarray]], k: int
    ) -> Float[np.ndarray, "N nd k"]:
        """Coefficients of all elements from what is left of them, for k right-hand sides."""
        nodes: list[tuple[Hashable, ...]] = [(*own, *self._shared) for own in self.mesh.touching]
        rows = [Rows(own, outside) for own, (_, outside) in zip(nodes, condensed, strict=True)]
        sizes: dict[Hashable, int] = dict.fromkeys(range(len(self.mesh.sides)), self._size)
        if self._shared:
            columns = [table[:, -1 - k] for both in condensed for table in both]
            size = np.sqrt(sum(float(column @ column) for column in columns))
            rows.append(Rows(self._shared, np.array([[_HELD * size, *[0.0] * k]])))
            sizes[_BALANCE] = 1
        found = couple(rows, sizes, k)
        if self._shared:
            self.balance = float(found[_BALANCE][0, 0])
        return np.stack(
            [
                recover(inside, np.concatenate([np.zeros((0, k)), *(found[n] for n in own)]))
                for own, (inside, _) in zip(nodes, condensed, strict=True)
            ]
        )

    def _key(self, number: int) -> tuple[bytes, ...]:
        """What the rows of an element depend on, for a linear equation."""
        mesh = self.mesh
        sides = [mesh.sides[index] for index in mesh.touching[number]]
        numbers = [
            np.concatenate([side.low, side.high, [side.axis, side.above == number]])
            for side in sides
        ]
        weights = [np.array(self._of_side(side)) for side in sides]
        own = [mesh.low[number], mesh.high[number], np.array(number == self._pinned)]
        return tuple(item.tobytes() for item in (*own, *numbers, *weights))

    def _table(
        self, own: _Own, c: Float[np.ndarray, "nd k"], damping: float
    ) -> Float[np.ndarray, "rows all"]:
        """Rows of an element in its coefficients, its traces and one."""
        J, right, b, T = own.J, own.right, own.b, own.T
        if damping:
            size = np.sqrt((J**2).sum(axis=0))
            J = np.vstack([J, np.sqrt(damping) * np.diag(size)])
            right = np.concatenate([right, np.zeros((len(size), right.shape[1]))])
            b = np.concatenate([b, np.zeros(len(size))])
        free, one = np.zeros((len(J), len(T))), slice(None, len(self._shared))
        none = np.zeros((len(T), 1))
        return np.block(
            [
                [J, free, b[:, None][:, one], right],
                [T, -np.diag(own.weights), none[:, one], T @ c],
            ]
        )

    def _rows(
        self, c: Float[np.ndarray, "N n d"], wanted: Sequence[int], *, unknowns: bool = False
    ) -> list[_Own]:
        """Rows of some elements, with the residual right of them or its derivatives."""
        disc, mesh, by = self.disc, self.mesh, {"unknowns": unknowns}
        k = disc.equations.interior.unknowns.size if unknowns else 1
        if self._cuts is not None:
            cut = rows_of_cut(disc, mesh, self._cuts, self._weight, c, list(wanted), **by)
            parts = {number: [rows] for number, rows in zip(wanted, cut, strict=True)}
            self._add_points(c, parts, **by)
            self._add_pin(parts, k)
            traces = [self._traces_of(number) for number in wanted]
            flat = np.zeros((len(c), c[0].size, k)) if unknowns else c.reshape(len(c), -1, 1)
            return [
                _Own(*held(stacked(parts[number]), T, flat[number]), T, weights)
                for number, (T, weights) in zip(wanted, traces, strict=True)
            ]
        s, weights = disc.rule
        own = list(wanted)
        seen = Seen(
            *(disc.equations.interior, disc.interior_tables),
            *(c[own], mesh.low[own], mesh.high[own], s),
            **by,
        )
        parts = {}
        for place, number in enumerate(own):
            root = self._weight[number] * np.sqrt(weights)
            balance = disc.equations.balance
            parts[number] = [seen.rows(place, disc.interior_tables, root, balance)]
        self._add_faces(c, parts, **by)
        self._add_points(c, parts, **by)
        self._add_pin(parts, k)
        return [_Own(*stacked(parts[number]), *self._traces_of(number)) for number in own]

    def _add_faces(self, c: np.ndarray, parts: dict[int, list], *, unknowns: bool) -> None:
        disc, mesh = self.disc, self.mesh
        across, weights = disc.face_rule
        for number, condition in enumerate(disc.equations.faces):
            axis, end = divmod(number, 2)
            owners = [element for element in mesh.along(axis, end) if element in parts]
            if condition is None or not owners:
                continue
            s = on_face(across, axis, 2.0 * end - 1)
            T = tables(s, disc.width, condition.orders)
            own = c[owners], mesh.low[owners], mesh.high[owners]
            seen = Seen(condition, T, *own, s, unknowns=unknowns)
            for place, element in enumerate(owners):
                root = disc.stress * self._weight[element] * np.sqrt(weights)
                parts[element].append(seen.rows(place, T, root))

    def _add_points(self, c: np.ndarray, parts: dict[int, list], *, unknowns: bool) -> None:
        mesh = self.mesh
        for point, condition in self.disc.equations.at_points:
            p = np.asarray(point)
            inside = (p >= mesh.low) & (p <= mesh.high)
            number = int(np.argmax(inside.all(axis=1)))
            if number not in parts:
                continue
            low, high = mesh.low[number : number + 1], mesh.high[number : number + 1]
            s = (p - low) / ((high - low) / 2) - 1
            T = tables(s, self.disc.width, condition.orders)
            own = c[number : number + 1], low, high
            seen = Seen(condition, T, *own, s, unknowns=unknowns)
            parts[number].append(seen.rows(0, T, np.full(1, self.disc.stress * self._weight.max())))

    @functools.cached_property
    def _pinned(self) -> int:
        """The element in which components that have any constant are held; -1 if there are none."""
        if not self.disc.equations.free:
            return -1
        shares = self.mesh.area
        if self._cuts is not None:
            left = [self._cuts[number].weights.sum() for number in range(len(shares))]
            shares = shares * np.array(left)
        return int(np.argmax(shares))

    def _add_pin(self, parts: dict[int, list], k: int) -> None:
        """Rows that hold such components where they are, at a place in the middle."""
        number, disc = self._pinned, self.disc
        if number not in parts:
            return
        s = np.zeros((1, disc.dim))
        if self._cuts is not None:
            within = self._cuts[number].s
            nearest = ((within - within.mean(axis=0)) ** 2).sum(axis=1).argmin()
            s = within[[nearest]]
        values = tables(s, disc.width, ((0,) * disc.dim,))[0][0]
        free, d = disc.equations.free, len(self._smooth)
        rows = np.zeros((len(free), len(values), d))
        rows[range(len(free)), :, free] = disc.stress * self._weight.max() * values
        right, none = np.zeros((len(free), k)), np.zeros(len(free))
        parts[number].append((rows.reshape(len(free), -1), right, none))

    def _traces_of(
        self, number: int
    ) -> tuple[Float[np.ndarray, "traces nd"], Float[np.ndarray, " traces"]]:
        """Traces of an element on its sides, in units of u times the weight, and the weights."""
        disc, mesh, d = self.disc, self.mesh, len(self.disc.equations.smooth)
        n = disc.width**disc.dim
        found, weights = [np.zeros((0, n * d))], [np.zeros(0)]
        for side in (mesh.sides[index] for index in mesh.touching[number]):
            s = on_side(mesh, side, number, disc.face_rule[0])
            length, weight = self._of_side(side)
            for k, q in self._traced:
                order = tuple(k if axis == side.axis else 0 for axis in range(disc.dim))
                half = mesh.lengths[number, side.axis] / 2
                modes = disc.to_modes @ tables(s, disc.width, (order,))[0] * (length / half) ** k
                T = np.zeros((len(modes), n, d))
                T[:, :, q] = weight * modes
                found.append(T.reshape(len(modes), -1))
                weights.append(np.full(len(modes), weight))
        return np.concatenate(found), np.concatenate(weights)

    def _of_side(self, side: Side) -> tuple[float, float]:
        """Half the length of the smaller of its elements across a side, and the weight there."""
        both = [side.below, side.above]
        length = float(self.mesh.lengths[both, side.axis].min())
        content = length * float(np.delete(side.high - side.low, side.axis).prod())
        h = float(self.mesh.lengths[both].min()) / self.mesh.extent
        share = np.sqrt(content / self.mesh.area.sum())
        return length / 2, self.disc.stress * share * h**-self.disc.exponent

    def _loss(self, own: list[_Own], c: Float[np.ndarray, "N n d"]) -> float:
        """Sum of squares of all rows, with the traces that are best for these coefficients."""
        total = sum(float((item.right**2).sum()) for item in own)
        if self._shared:  # with the number that is best for them
            size = sum(float(item.b @ item.b) for item in own)
            total -= sum(float(item.b @ item.right[:, 0]) for item in own) ** 2 / size
        traces: dict[int, list[np.ndarray]] = {}
        for number, item in enumerate(own):
            values = (item.T @ c[number].ravel()).reshape(-1, self._size)
            for index, value in zip(self.mesh.touching[number], values, strict=True):
                traces.setdefault(index, []).append(value)
        return total + sum(float(((a - b) ** 2).sum()) / 2 for a, b in traces.values())


def restricted(
    c: Float[np.ndarray, "N n d"],
    before: Mesh,
    after: Mesh,
    parent: np.ndarray,
    width: int,
) -> Float[np.ndarray, "M n d"]:
    """The same polynomials on elements that are parts of those before."""
    dim = before.low.shape[1]
    found = c[parent].reshape(len(parent), *[width] * dim, c.shape[2])
    s, weights = np.polynomial.legendre.leggauss(width)
    s, weights = s[:, None], weights[:, None]
    own = tables(s, width, ((0,),))[0]
    for axis in range(dim):
        low, high = before.low[parent, axis], before.high[parent, axis]
        p = places(after.low[:, axis], after.high[:, axis], s[:, 0])
        scaled = (p - low[:, None]) / (high - low)[:, None] * 2 - 1
        values = tables(scaled.reshape(-1, 1), width, ((0,),))[0].reshape(*scaled.shape, width)
        change = np.einsum("mi,nmj->nij", own * weights, values)
        found = np.moveaxis(found, axis + 1, -1)
        found = np.moveaxis(np.einsum("nij,n...j->n...i", change, found), -1, axis + 1)
    return found.reshape(len(parent), *c.shape[1:])
