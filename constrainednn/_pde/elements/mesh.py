"""Elements in space with the state of an evolution on them: projected, split, merged.

Symbols::

    symbol  shape          meaning
    o       int            order in time: the state is u, ..., its (o - 1)-th derivative by time
    S       (E, o, Kx, d)  the state in orthonormal Legendre polynomials of each element
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from constrainednn._pde.elements.basis import at_places
from constrainednn.models.legendre import gauss

# Rounds of halving for a start that needs small elements: at a kink each halves one element.
_ROUNDS = 60
# Gauss nodes beyond the number of polynomials.
_MORE = 8


@dataclasses.dataclass(frozen=True)
class State:
    """A state on elements.

    Attributes:
        edges: Ends of the elements.
        S: Its coefficients.
    """

    edges: Float[np.ndarray, " E_1"]
    S: Float[np.ndarray, "E o Kx d"]

    @property
    def lengths(self) -> Float[np.ndarray, " E"]:
        """Lengths of the elements."""
        return np.diff(self.edges)

    @property
    def size(self) -> float:
        """Root mean square of the value over space."""
        share = self.lengths / (self.edges[-1] - self.edges[0])
        # Orthonormal in scaled places, over an interval of length two.
        return float(np.sqrt(share @ (self.S[:, 0] ** 2).sum(axis=(1, 2)) / 2))

    def on(self, edges: Float[np.ndarray, " F_1"]) -> "State":
        """Project onto other elements of the same interval."""
        Kx = self.S.shape[2]
        cells = np.union1d(self.edges, edges)
        nodes, weights = gauss(Kx)
        x = cells[:-1, None] + np.diff(cells)[:, None] * (nodes + 1) / 2
        middle = (cells[:-1] + cells[1:]) / 2
        old, new = (np.searchsorted(ends, middle) - 1 for ends in (self.edges, edges))
        scaled = lambda ends, e: 2 * (x - ends[e, None]) / np.diff(ends)[e, None] - 1  # noqa: E731
        values = np.einsum("cnk,cokd->cnod", at_places(scaled(self.edges, old), Kx), self.S[old])
        basis = at_places(scaled(edges, new), Kx)
        share = (np.diff(cells) / np.diff(edges)[new])[:, None] * weights
        S = np.zeros((len(edges) - 1, *self.S.shape[1:]))
        np.add.at(S, new, np.einsum("cn,cnk,cnod->cokd", share, basis, values))
        same = np.diff(self.edges)[old] == np.diff(edges)[new]  # not rounded again
        S[new[same]] = self.S[old[same]]
        return State(edges, S)

    def split(self, which: Bool[np.ndarray, " E"]) -> "State":
        """Halve some elements; the state stays the same function."""
        return self.on(np.sort(np.concatenate([self.edges, _middles(self.edges)[which]])))

    def merge(self, easy: Bool[np.ndarray, " E"], allowed: float) -> "State":
        """Join neighbours of equal length that are both easy, where the state loses little.

        Args:
            easy: Elements that may be joined.
            allowed: Largest change of the state, root mean square over an element.
        """
        lengths, drop, e = self.lengths, [], 0
        while e + 1 < len(lengths):
            alike = abs(lengths[e] - lengths[e + 1]) <= 1e-9 * lengths[e]
            if alike and easy[e] and easy[e + 1]:
                drop.append(e + 1)
                e += 1
            e += 1
        if not drop:
            return self
        back = self.on(np.delete(self.edges, drop)).on(self.edges)
        lost = np.sqrt(((back.S - self.S) ** 2).sum(axis=2).max(axis=(1, 2)) / 2)
        kept = [e for e in drop if max(lost[e - 1], lost[e]) <= allowed]
        return self.on(np.delete(self.edges, kept)) if kept else self


def _middles(edges: Float[np.ndarray, " E_1"]) -> Float[np.ndarray, " E"]:
    return (edges[:-1] + edges[1:]) / 2


def on_elements(
    fn: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, "n o d"]],
    edges: Float[np.ndarray, " E_1"],
    Kx: int,
) -> tuple[Float[np.ndarray, "E o Kx d"], Float[np.ndarray, "E m o d"]]:
    """Coefficients of a function on elements, and its values at Gauss nodes there."""
    nodes, weights = gauss(Kx + _MORE)
    x = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
    at = fn(x.ravel())
    at = at.reshape(*x.shape, *at.shape[1:])
    return np.einsum("nk,enod->eokd", at_places(nodes, Kx) * weights[:, None], at), at


def projected(
    fn: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, "n o d"]],
    edges: Float[np.ndarray, " E_1"],
    Kx: int,
    allowed: float,
    most: int,
) -> State:
    """A function as a state, on elements that are halved until it is resolved.

    Args:
        fn: The state at many places.
        edges: Ends of the elements to begin with.
        Kx: Polynomials in an element.
        allowed: Largest error in the mean over space, relative to the largest value.
        most: Number of elements that is not exceeded.
    """
    values = at_places(gauss(Kx + _MORE)[0], Kx)
    eps = float(
        jnp.finfo(jnp.result_type(float)).eps
    )  # of the function, which may be single precision
    for last in range(_ROUNDS, -1, -1):
        S, at = on_elements(fn, edges, Kx)
        missed = np.abs(np.einsum("nk,eokd->enod", values, S) - at)
        # Each part of the state is measured by its own size.
        top = np.abs(at).max(axis=(0, 1), keepdims=True)
        missed = (missed / np.where(top > 0, top, 1)).max(axis=(1, 2, 3))
        share = np.sqrt(np.diff(edges) / (edges[-1] - edges[0]))
        bad = (missed * share > allowed) & (missed > 256 * eps)
        if not last or not bad.any() or len(S) + bad.sum() > most:
            return State(edges, S)
        edges = np.sort(np.concatenate([edges, _middles(edges)[bad]]))
    raise AssertionError("the last round returns")
