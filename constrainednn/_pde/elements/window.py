"""One window of an evolution in space and time: a least-squares problem on all of its elements.

In each element the unknown is a tensor product of Legendre polynomials. Rows of the equation, in
units of u, stand beside those of the start; bubbles are eliminated element by element, and the
traces that elements share are coupled with the rows of the boundary.

Symbols (others in `models/space_time.py`, `basis.py` and `mesh.py`)::

    symbol  shape            meaning
    m       int              places of an element, mt in time times mx in space
    r       (E, mt, mx, e)   residual
    G       (E, mt, mx, e, a, d)  its derivative by the derivatives of u that it sees
    n       Kt k d           numbers of a node: its traces, each a polynomial in time
    g       int              right-hand sides: one, or as many as there are unknowns
"""

import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.basis import bubbles, conforming, hermite
from constrainednn._pde.elements.discretisation import (
    Discretisation,
    Span,
    at_boundary,
    at_time,
    derivatives_of_u,
    points_of,
)
from constrainednn._pde.elements.mesh import State
from constrainednn._pieces.coupling import Rows, couple

# Weight of rows of the boundary. Changed tenfold, errors of all measured problems stay within a
# factor of three.
_BOUNDARY = 10.0
# Elements whose rows are held in memory together.
_BATCH = 16


def newton_step(
    disc: Discretisation, span: Span, start: State, c: Float[np.ndarray, "E Kt Kx d"]
) -> Float[np.ndarray, "E Kt Kx d"]:
    """The coefficients that solve the linearised window in least squares; see `carrying_step`."""
    return carrying_step(disc, span, start, c, np.zeros((*start.S.shape, 0)))[0]


def carrying_step(
    disc: Discretisation,
    span: Span,
    start: State,
    c: Float[np.ndarray, "E Kt Kx d"],
    errors: Float[np.ndarray, "E o Kx d g"],
) -> tuple[Float[np.ndarray, "E Kt Kx d"], Float[np.ndarray, "E Kt Kx d g"]]:
    """The same, and what becomes of errors of the start.

    Round-off breaks the continuity of derivatives, which no step restores by itself: it is
    restored before each. Otherwise small jumps stay, and act like sources.

    Raises:
        numpy.linalg.LinAlgError: If the rows do not determine it.
    """
    eqs = disc.equations
    c = conforming(c, start.edges, eqs.k, eqs.periodic)
    first = np.stack(at_time(-1.0, disc, eqs.order)[: eqs.order])
    there = np.einsum("oi,eijd->eojd", first, c)
    missed = _in_units_of_u(there, 2.0) - _in_units_of_u(start.S, span.h)
    missed = np.concatenate([missed[..., None], -_in_units_of_u(errors, span.h)], axis=-1)
    found = _solved(disc, span, start.edges, c, missed, unknowns=False)
    return c + found[..., 0], found[..., 1:]


def by_unknowns(
    disc: Discretisation,
    span: Span,
    edges: Float[np.ndarray, " E_1"],
    c: Float[np.ndarray, "E Kt Kx d"],
    S: Float[np.ndarray, "E o Kx d q"],
) -> Float[np.ndarray, "E Kt Kx d q"]:
    """Derivatives of the coefficients of a solved window by the unknowns.

    They solve the linearised window, whose right-hand sides are the derivatives of the residuals.

    Args:
        disc: The discretisation.
        span: Start and length of the window.
        edges: Ends of the elements.
        c: The coefficients that solve it.
        S: Derivatives of the state at its start.
    """
    return _solved(disc, span, edges, c, -_in_units_of_u(S, span.h), unknowns=True)


def _in_units_of_u(S: Float[np.ndarray, "E o ..."], h: float) -> Float[np.ndarray, "E o ..."]:
    """Derivatives by a time multiplied by powers of this length of it."""
    return S * h ** np.arange(S.shape[1]).reshape(-1, *[1] * (S.ndim - 2))


def _solved(
    disc: Discretisation,
    span: Span,
    edges: Float[np.ndarray, " E_1"],
    c: Float[np.ndarray, "E Kt Kx d"],
    missed: Float[np.ndarray, "E o Kx d g"],
    *,
    unknowns: bool,
) -> Float[np.ndarray, "E Kt Kx d g"]:
    """The change of the coefficients that minimises the linearised rows.

    Args:
        disc: The discretisation.
        span: Start and length of the window.
        edges: Ends of the elements.
        c: Coefficients, of continuous traces.
        missed: Right-hand sides of the start, in units of u.
        unknowns: Whether the other right-hand sides are derivatives of residuals by the unknowns,
            or the residuals, and then zero.
    """
    eqs, (Kt, Kx) = disc.equations, disc.shape
    lengths, d, k, g = np.diff(edges), c.shape[3], eqs.k, missed.shape[4]
    E, n, inner = len(lengths), Kt * k * d, (Kx - 2 * k) * Kt * d
    units = _node_lengths(lengths, eqs.periodic)
    inside, rows = [], []
    name = lambda e: e % E if eqs.periodic else e  # noqa: E731
    for first in range(0, E, _BATCH):
        part = slice(first, min(first + _BATCH, E))
        tables = _interior_rows(disc, span, edges, c, missed, units, part, unknowns=unknowns)
        R = np.asarray(np.linalg.qr(tables, mode="r"))
        inside.append(R[:, :inner])
        rows += [
            Rows((name(e), name(e + 1)), R[e - first, inner:, inner:])
            for e in range(part.start, part.stop)
        ]
    rows += _boundary_rows(disc, span, edges, c, units, g, unknowns=unknowns)
    nodes = couple(rows, {name(e): n for e in range(E + (not eqs.periodic))}, g)
    traces = np.stack([np.concatenate([nodes[name(e)], nodes[name(e + 1)]]) for e in range(E)])
    R = np.concatenate(inside)
    known = R[:, :, inner:-g] @ traces + R[:, :, -g:]
    bubble = -np.linalg.solve(R[:, :, :inner], known)
    z = np.concatenate([bubble, traces], axis=1).reshape(E, Kx, Kt, d, g)
    return np.einsum("ejm,emidg->eijdg", _bases(disc, lengths, units), z)


def _node_lengths(lengths: Float[np.ndarray, " E"], periodic: bool) -> Float[np.ndarray, " E_1"]:
    """Half the smaller of the elements beside each node: the unit of its derivatives."""
    beside = np.concatenate([lengths[:1], lengths, lengths[-1:]])
    if periodic:
        beside[[0, -1]] = lengths[[-1, 0]]
    return np.minimum(beside[:-1], beside[1:]) / 2


def _bases(
    disc: Discretisation, lengths: Float[np.ndarray, " E"], units: Float[np.ndarray, " E_1"]
) -> Float[np.ndarray, "E Kx Kx"]:
    """Bubbles, then the functions of the traces at the left and the right node, in p_j."""
    Kx, k = disc.shape[1], disc.equations.k
    powers = np.arange(k)
    left, right = (
        (lengths / 2 / units[ends])[:, None] ** powers for ends in (slice(None, -1), slice(1, None))
    )
    functions = hermite(Kx, k) * np.concatenate([left, right], axis=1)[:, None]
    Z = np.broadcast_to(bubbles(Kx, k), (len(lengths), Kx, Kx - 2 * k))
    return np.concatenate([Z, functions], axis=2)


def _interior_rows(
    disc: Discretisation,
    span: Span,
    edges: Float[np.ndarray, " E_1"],
    c: np.ndarray,
    missed: np.ndarray,
    units: np.ndarray,
    part: slice,
    *,
    unknowns: bool,
) -> Float[np.ndarray, "E m columns"]:
    """Rows of the equation and the start in (bubbles, left node, right node | r)."""
    eqs, table, h = disc.equations, disc.train, span.h
    edges = edges[part.start : part.stop + 1]
    lengths, c, missed = np.diff(edges), c[part], missed[part]
    E, d, g = len(c), c.shape[3], missed.shape[4]
    bases = _bases(disc, lengths, units[part.start : part.stop + 1])
    along_x = [np.einsum("xj,ejm->exm", X, bases) for X in table.along_x]
    v = derivatives_of_u(c, table, eqs.interior, h, lengths)
    v, p = v.reshape(-1, *v.shape[3:]), points_of(table, span, edges).reshape(-1, 2)
    r, G = eqs.interior.linearised(v, p)
    mt, mx, e = len(table.t), len(table.x), r.shape[1]
    right = eqs.interior.by_unknowns(v, p) if unknowns else _first(r, g)
    # The mean over time and the integral over space, in units of u.
    weight = np.sqrt(lengths)[:, None, None] * disc.weights
    weight = weight[..., None] * disc.in_units_of_u(h)
    right = right.reshape(E, mt, mx, e, g) * weight[..., None]
    G = G.reshape(E, mt, mx, e, -1, d) * weight[..., None, None]
    A = 0.0
    for index, (a, b) in enumerate(eqs.interior.orders):
        # (E, mt, mx, e, Kx, Kt, d)
        T = table.along_t[a] / (h / 2) ** a
        X = along_x[b] / (lengths[:, None, None] / 2) ** b
        term = G[:, :, :, :, None, None, index] * T[None, :, None, None, None, :, None]
        A = A + term * X[:, None, :, None, :, None, None]
    m = mt * mx * e
    blocks = [np.concatenate([np.reshape(A, (E, m, -1)), right.reshape(E, m, g)], axis=2)]
    # Sums over time give those over space: the weights of the mean over time sum to one.
    share = np.sqrt(lengths[:, None] * (disc.weights**2).sum(axis=0))
    first, unit = at_time(-1.0, disc, eqs.order), np.eye(d)
    for o in range(eqs.order):
        values = np.einsum("xj,ejdg->exdg", table.along_x[0], missed[:, o])
        values *= share[..., None, None]
        B = np.einsum("exm,i,dD->exdmiD", share[..., None] * along_x[0], first[o] * 2.0**o, unit)
        m = mx * d
        blocks.append(np.concatenate([B.reshape(E, m, -1), values.reshape(E, m, g)], axis=2))
    return np.concatenate(blocks, axis=1)


def _boundary_rows(
    disc: Discretisation,
    span: Span,
    edges: Float[np.ndarray, " E_1"],
    c: np.ndarray,
    units: Float[np.ndarray, " E_1"],
    g: int,
    *,
    unknowns: bool,
) -> list[Rows]:
    """Rows of the conditions, in the traces of the first and the last node."""
    Kt, k, d = disc.shape[0], disc.equations.k, c.shape[3]
    found = []
    for side in (0, 1):
        at = at_boundary(disc, span, edges, c, side, disc.train)
        if at is None:
            continue
        right = _first(at.r, g)
        if unknowns:
            right = at.condition.by_unknowns(at.v, at.p) * at.unit[:, None]
        mt, count = at.r.shape
        rows = np.zeros((mt, count, k, Kt, d))
        for index, (a, b) in enumerate(at.condition.orders):
            T = disc.train.along_t[a] / (span.h / 2) ** a / units[-side] ** b
            rows[:, :, b] += at.G[:, :, index, None] * T[:, None, :, None]
        table = np.concatenate([rows.reshape(mt, count, -1), right], axis=2)
        weight = _BOUNDARY * np.sqrt((disc.weights**2).sum(axis=1))
        table = (weight[:, None, None] * table).reshape(mt * count, -1)
        found.append(Rows((len(c) * side,), table))
    return found


def _first(r: Float[np.ndarray, "..."], g: int) -> Float[np.ndarray, "... g"]:
    """A residual as the first of g right-hand sides; the others are zero."""
    return np.concatenate([r[..., None], np.zeros((*r.shape, g - 1))], axis=-1)
