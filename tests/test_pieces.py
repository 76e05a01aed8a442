"""Parts that solvers in pieces are made of, against dense algebra and an equation in the plane."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from constrainednn._pieces.chain import solve_chain
from constrainednn._pieces.condensation import condense, recover
from constrainednn._pieces.coupling import Rows, couple
from constrainednn._pieces.gauss_newton import Step, advance, begun
from constrainednn._pieces.mesh import places, shared_sides
from constrainednn._pieces.rows import by_coefficients
from constrainednn.models.legendre import gauss, integrals

# Rounding of a dense solve of some dozens of unknowns, well-conditioned.
ROUNDING = 1e-12


def dense(blocks, sizes, k):
    """All rows in all nodes at once."""
    ends = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    total, tables = sum(sizes.values()), []
    for nodes, table in blocks:
        whole = np.zeros((len(table), total + k))
        columns = np.concatenate([ends[node] + np.arange(sizes[node]) for node in nodes])
        whole[:, columns], whole[:, total:] = table[:, :-k], table[:, -k:]
        tables.append(whole)
    table = np.concatenate(tables)
    x = np.linalg.lstsq(table[:, :total], -table[:, total:], rcond=None)[0]
    return {node: x[end : end + sizes[node]] for node, end in ends.items()}


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_condensed_rows_say_the_same_as_all(convert):
    rows = np.random.default_rng(0).normal(size=(12, 5 + 3 + 2))
    inside, outside = condense(convert(rows), 5)
    x, others = dense([(("x", "others"), rows)], {"x": 5, "others": 3}, 2).values()
    left = np.asarray(outside)
    assert np.allclose(np.linalg.lstsq(left[:, :3], -left[:, 3:], rcond=None)[0], others)
    assert np.abs(np.asarray(recover(inside, convert(others))) - x).max() < ROUNDING


def test_coupling_through_any_nodes_is_the_dense_solution():
    """A number that all share, a node of many elements, and rows of one node alone."""
    sizes = {"a": 3, "b": 1, "c": 4, "d": 2, "all": 2}
    normal = np.random.default_rng(1).normal
    touched = ("a", "b", "all"), ("b", "c", "all"), ("c", "d", "b", "all"), ("b", "a"), ("d",)
    rows = [Rows(nodes, normal(size=(5, sum(sizes[n] for n in nodes) + 2))) for nodes in touched]
    found, known = couple(rows, sizes, 2), dense(rows, sizes, 2)
    for node in sizes:
        assert np.abs(found[node] - known[node]).max() < ROUNDING


def test_coupling_says_that_rows_are_too_few():
    rows = [Rows(("a", "b"), np.ones((1, 3)))]
    with pytest.raises(np.linalg.LinAlgError, match="no rows determine"):
        couple(rows, {"a": 1, "b": 1})


@pytest.mark.slow
@pytest.mark.parametrize("damping", [0.0, 1e-2])
@pytest.mark.parametrize("real", [7, 5])
def test_chain_is_a_coupling_of_two_neighbours(damping, real):
    count, d, q = 7, 3, 2
    w = 2 * d + q + 1
    normal = np.random.default_rng(2).normal
    elements, conditions = normal(size=(count, w, w)), normal(size=(d + q, w))
    y, p, condition = solve_chain(
        jnp.asarray(elements), jnp.asarray(conditions), d, jnp.asarray(damping), jnp.asarray(real)
    )
    rows = [Rows((j, j + 1, "p"), elements[j]) for j in range(real)]
    rows.append(Rows((real, 0, "p"), conditions))
    sizes = dict.fromkeys(range(real + 1), d) | {"p": q}
    rows += [Rows((n,), damping**0.5 * np.eye(size, size + 1)) for n, size in sizes.items()]
    known = couple(rows, sizes)
    assert (
        np.abs(y[: real + 1] - np.stack([known[j][:, 0] for j in range(real + 1)])).max() < ROUNDING
    )
    assert np.array_equal(y[real:], np.tile(y[real], (count - real + 1, 1)))
    assert np.abs(p - known["p"][:, 0]).max() < ROUNDING
    assert 1e-3 < condition < 1


class Poisson:
    """Laplace u - cubic u^3 = f with u = g on the boundary of the unit square, on boxes.

    The coefficients of an element are those of products of polynomials: 1, s + 1 and the second
    integrals of Legendre features. Nodes are value and slope on each side that two boxes share.
    """

    def __init__(self, low, high, exact, source, *, cubic, width):
        self.low, self.high, self.exact, self.source = low, high, exact, source
        self.cubic, self.width, self.sides = cubic, width, shared_sides(low, high)
        self.s, weights = gauss(width + 4)
        self.inside = np.stack(np.meshgrid(self.s, self.s), axis=-1).reshape(-1, 2)
        self.root, self.inside_root = np.sqrt(weights), np.sqrt(np.outer(weights, weights).ravel())
        self.to_modes = integrals(self.s, width + 2, 0)[0].T * weights

    def basis(self, half, s, *orders):
        """Derivatives of the basis of an element by x and y, so many of each, at places in it."""
        tables = []
        for at, h, order in zip(s.T, half, orders, strict=True):
            one, zero = np.ones_like(at), np.zeros_like(at)
            start = ([one, at + 1], [zero, one], [zero, zero])[order]
            features = integrals(at, self.width, 2)[2 - order]
            tables.append(np.column_stack([*start, features]) / h**order)
        return np.einsum("nk,nl->nkl", *tables).reshape(len(s), -1)

    def element(self, number, c):
        """Rows in changes of the coefficients and in the nodes, and the nodes."""
        low, high = self.low[number], self.high[number]
        half = (high - low) / 2
        at = lambda s: places(low[None], high[None], s)[0].T  # noqa: E731
        value, by_xx, by_yy = (self.basis(half, self.inside, *D) for D in ((0, 0), (2, 0), (0, 2)))
        u, one = value @ c, np.ones((1, 1, 1))
        slopes = one, one, -3 * self.cubic * u[:, :, None] ** 2
        J = [by_coefficients(slopes, (by_xx, by_yy, value)).reshape(len(u), -1) * half.prod()]
        J[0] *= self.inside_root[:, None]
        r = (by_xx + by_yy) @ c - self.cubic * u**3 - self.source(*at(self.inside))[:, None]
        r = [r * half.prod() * self.inside_root[:, None]]
        for axis, end in itertools.product((0, 1), (-1.0, 1.0)):
            s = np.insert(self.s[:, None], axis, end, axis=1)
            if np.isin(at(s)[axis], (0.0, 1.0)).all():  # the boundary
                T = self.basis(half, s, 0, 0) * self.root[:, None]
                J, r = [*J, T], [*r, T @ c - (self.exact(*at(s)) * self.root)[:, None]]
        traces, nodes = [], []
        for index, side in enumerate(self.sides):
            if number not in (side.below, side.above):
                continue
            along, end = 1 - side.axis, 1.0 if number == side.below else -1.0
            x = places(side.low[None], side.high[None], self.s[:, None])[0, :, along]
            s = np.insert(((x - low[along]) / half[along] - 1)[:, None], side.axis, end, axis=1)
            for order in (0, 1):
                T = self.basis(half, s, *np.eye(2, dtype=int)[side.axis] * order)
                # In units of u on the side.
                traces.append(self.to_modes @ T * (side.high - side.low)[along] ** order)
                nodes.append((index, order))
        J, r, T = np.vstack(J), np.vstack(r), np.vstack(traces)
        free = np.zeros((len(J), len(T)))
        return np.block([[J, free, r], [T, -np.eye(len(T)), T @ c]]), nodes

    def propose(self, c, damping, notes):
        """The Gauss-Newton step of all elements; the nodes are solved for anew."""
        assert damping == 0
        condensed, rows, sizes = [], [], {}
        for number, own in enumerate(c):
            table, nodes = self.element(number, own)
            inside, outside = condense(table, own.size)
            condensed.append((inside, nodes))
            rows.append(Rows(tuple(nodes), outside))
            sizes |= dict.fromkeys(nodes, self.width + 2)
        found = couple(rows, sizes)
        change = [
            jnp.asarray(recover(inside, np.concatenate([found[node] for node in nodes])))
            for inside, nodes in condensed
        ]
        return Step(change, jnp.max(jnp.abs(jnp.stack(change))), None, notes)

    def solve(self):
        """Coefficients of all elements, and the number of steps."""
        at = begun([jnp.zeros(((self.width + 2) ** 2, 1))] * len(self.low))
        while at.unfinished and at.steps < 12:
            at = advance(self.propose, at)
        assert at.solved
        return at.unknowns, int(at.steps)

    def error(self, c):
        """The largest on a grid in each element."""
        s = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 2), axis=-1).reshape(-1, 2)
        worst = []
        for low, high, own in zip(self.low, self.high, c, strict=True):
            u = self.basis((high - low) / 2, s, 0, 0) @ own
            worst.append(np.abs(u[:, 0] - self.exact(*places(low[None], high[None], s)[0].T)).max())
        return max(worst)


def squares(divided):
    """The unit square as 2 x 2 boxes, the last of them divided into four, or not."""
    corners = [(i / 2, j / 2, 1 / 2) for i in (0, 1) for j in (0, 1)]
    if divided:
        *corners, (x, y, h) = corners
        corners += [(x + i * h / 2, y + j * h / 2, h / 2) for i in (0, 1) for j in (0, 1)]
    low, sizes = np.array(corners)[:, :2], np.array(corners)[:, 2:]
    return low, low + sizes


@pytest.mark.parametrize("divided, sides, neighbours", [(False, 4, 2), (True, 10, 4)])
@pytest.mark.parametrize("cubic", [0.0, 1.0])
def test_equation_of_poisson_on_elements_in_two_dimensions(divided, sides, neighbours, cubic):
    exact = lambda x, y: np.sin(np.pi * x) * np.cos(2 * y) + x * y  # noqa: E731
    laplacian = lambda x, y: -(np.pi**2 + 4) * np.sin(np.pi * x) * np.cos(2 * y)  # noqa: E731
    source = lambda x, y: laplacian(x, y) - cubic * exact(x, y) ** 3  # noqa: E731
    problem = Poisson(*squares(divided), exact, source, cubic=cubic, width=14)
    touching = [number for side in problem.sides for number in (side.below, side.above)]
    assert len(problem.sides) == sides
    assert max(map(touching.count, touching)) == neighbours
    c, steps = problem.solve()
    # A linear problem is solved by the first step; the second is rounding.
    assert steps == 2 if cubic == 0 else steps <= 6
    # Coefficients that are rounded by some eps each, summed over degrees up to fifteen.
    assert problem.error(c) < 1e-13


def test_a_node_may_be_named_twice_and_rows_that_do_not_determine_it_are_refused():
    """An element that closes on itself touches a node at both ends."""
    closed = couple([Rows(("a", "a"), np.array([[1.0, 1.0, -2.0]]))], {"a": 1}, 1)
    np.testing.assert_allclose(closed["a"], [[1.0]], rtol=ROUNDING)
    singular = Rows(("a",), np.array([[0.1, 0.2, 1.0], [0.3, 0.6, 1.0]]))
    with pytest.raises(np.linalg.LinAlgError, match="determine"):
        couple([singular], {"a": 2}, 1)
