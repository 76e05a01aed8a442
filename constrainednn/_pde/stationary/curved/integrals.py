"""Integrals of polynomials over what a region leaves of the elements that its boundary cuts.

By Gauss's theorem: with P a polynomial whose derivative by the first coordinate is p, and zero at
the left side of an element, the integral of p is that of P times the first component of the outward
normal over arcs, and over what lies within the region of the right side.

Symbols::

    symbol  shape    meaning
    N, n    int      elements; coefficients of one, K^2
    s       (m, 2)   scaled places of an element
"""

import numpy as np
from jaxtyping import Float

from constrainednn._pde.stationary.curved.cells import Outline
from constrainednn._pde.stationary.discretisation import gauss_cube
from constrainednn._pde.stationary.mesh import Mesh

# Places of a side at which it is asked whether it lies in the region; then the interval between two
# that differ is halved so often.
_PLACES, _HALVINGS = 512, 40


def integrals_within(
    outline: Outline, mesh: Mesh, width: int
) -> tuple[Float[np.ndarray, "N n"], float]:
    """Integrals of the polynomials of each element over its part of the region, and all area."""
    constant = np.zeros(width**2)
    constant[0] = 0.5
    found = [
        _within(outline, mesh, number, width) if arcs else constant * mesh.area[number]
        for number, arcs in enumerate(mesh.arcs)
    ]
    # A constant of one is twice the first polynomial.
    return np.stack(found), 2 * float(sum(own[0] for own in found))


def _within(outline: Outline, mesh: Mesh, number: int, width: int) -> Float[np.ndarray, " n"]:
    low, high = mesh.low[number], mesh.high[number]
    half = (high - low) / 2
    t, weights = gauss_cube(2 * width, 1)
    total = np.zeros(width**2)
    for arc in mesh.arcs[number]:
        z = arc.first + (arc.last - arc.first) * (t[:, 0] + 1) / 2
        x, normal = outline.on(arc.face, z)
        lengths = outline.at_rule([arc], t[:, 0], weights)[1]
        total += lengths * normal[:, 0] @ _antiderivatives((x - low) / half - 1, width)
    for first, last in _right_side(outline, mesh, number):
        s = np.stack([np.ones(len(t)), first + (last - first) * (t[:, 0] + 1) / 2], axis=1)
        total += half[1] * (last - first) * weights @ _antiderivatives(s, width)
    return half[0] * total


def _antiderivatives(s: Float[np.ndarray, "m 2"], K: int) -> Float[np.ndarray, "m n"]:
    """Polynomials, integrated by the first coordinate from the left side, in scaled lengths."""
    c = np.diag(np.sqrt(np.arange(K) + 0.5))
    first = np.polynomial.legendre.legint(c, lbnd=-1, axis=0)
    x, y = (
        np.polynomial.legendre.legval(column, table).T
        for column, table in zip(s.T, (first, c), strict=True)
    )
    return (x[:, :, None] * y[:, None]).reshape(len(s), -1)


def _right_side(outline: Outline, mesh: Mesh, number: int) -> list[tuple[float, float]]:
    """Scaled stretches of the right side with the region on both sides of it."""
    low, high = mesh.low[number], mesh.high[number]
    beside = outline.beside((high - low).min(keepdims=True)) * np.array([1.0, 0.0])

    def within(y: Float[np.ndarray, " k"]) -> np.ndarray:
        points = np.stack(
            [np.full_like(y, high[0]), low[1] + (high - low)[1] * (y + 1) / 2], axis=1
        )
        return outline.holds(points - beside) & outline.holds(points + beside)

    y = (np.arange(_PLACES) + 0.5) / _PLACES * 2 - 1
    kept = within(y)
    turns = np.flatnonzero(kept[1:] != kept[:-1])
    a, b = y[turns], y[turns + 1]
    for _ in range(_HALVINGS):
        middle = (a + b) / 2
        same = within(middle) == kept[turns]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    ends = np.concatenate([[-1.0][: int(kept[0])], (a + b) / 2, [1.0][: int(kept[-1])]])
    return list(zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True))
