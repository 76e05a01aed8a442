"""Where elements of a boundary value problem are divided, and when there is nothing left to do.

Least squares spreads a residual that some elements cannot avoid over all others: they get a share
that is small, smooth and of one sign, and no division of theirs makes it smaller. Collocation at
half of the nodes leaves it where it arises. One step of Newton's method for it, from the solution
in least squares, therefore shows which elements are too long; and how far it moves the values at
the edges estimates their error, since the two ways agree only where both resolve the solution.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import training_nodes

MOST_ELEMENTS = 2048
# Newton's method failing in so many rounds running is not for want of elements.
_FAILURES = 3
# Elements with a residual below this share of the largest wait for the next round.
_SPOILT = 1e-2
# A residual above this says that an element is far too long, and not how much.
_UNRESOLVED = 1e-3
# Parts of an element at most; at an end, where layers lie, they get shorter towards it.
_MOST_PARTS = 4
# Where more than this share of so many elements would be divided, the residual was spread.
_SPREAD, _FEW = 0.5, 16
# Shorter elements than so many last digits of x are not divided.
_DIGITS = 16
# Errors up to so many times the tolerance are accepted where rounding ends the refinement.
_ROUNDED = 10.0


class OnHost(NamedTuple):
    """`Unknowns` between solves, as NumPy arrays: every new shape on the device is compiled."""

    y: Float[np.ndarray, "N_1 d"]
    b: Float[np.ndarray, "N K_1 d"]
    p: Float[np.ndarray, " q"]


class Round(NamedTuple):
    """What a round found on all elements.

    Attributes:
        edges: Ends of the elements.
        error: Residual of each at monitor points, relative to the solution.
        noise: How much of it may be rounding.
        solved: Whether Newton's method ended at rounding.
        condition: Smallest over largest singular value of the linearised problem.
        off: Estimated error, where the residual is small enough everywhere; else NaN.
    """

    edges: Float[np.ndarray, " N_1"]
    error: Float[np.ndarray, " N"]
    noise: Float[np.ndarray, " N"]
    solved: bool
    condition: float
    off: float

    @property
    def worst(self) -> int:
        """The element with the largest residual."""
        return int(np.argmax(np.where(np.isfinite(self.error), self.error, np.inf)))

    @property
    def rounded(self) -> bool:
        """Whether smaller elements would have no smaller residuals."""
        return bool((self.error <= 2 * self.noise).all())


def heads(unknowns: OnHost) -> Float[np.ndarray, "N K d"]:
    """Heads with their first row, which the edge values fix; see `_elements`."""
    first = np.diff(unknowns.y, axis=0)[:, None] / math.sqrt(2)
    return np.concatenate([first, unknowns.b], axis=1)


def half_of(weights: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Weights of every other node from both ends: as many nodes as features, so collocation."""
    m = len(weights)
    chosen = np.arange(0, 2 * (m // 4), 2)
    mask = np.zeros(m)
    mask[chosen] = 1.0
    mask[-1 - chosen] = 1.0
    if mask.sum() < m // 2:  # an odd number of features
        mask[m // 2] = 1.0
    return 2 * weights * mask


def spread(parts: Int[np.ndarray, " N"]) -> bool:
    """Whether so many elements have too large a residual that it is hardly their own."""
    return len(parts) >= _FEW and float(np.mean(parts > 1)) > _SPREAD


def parts_of(found: Round) -> Int[np.ndarray, " N"]:
    """Into how many parts each element is divided; one where others have to come first.

    What is asked for does not enter, only when to end: so a looser tolerance ends on the way of a
    tighter one, with no more elements.
    """
    error = found.error
    # An unresolved layer spoils its neighbours too; they come right once it is resolved.
    own = np.isfinite(error) & (error > 2 * found.noise)
    limit = np.maximum(2 * found.noise, _SPOILT * np.max(error, initial=0, where=own))
    parts = np.where(error <= _UNRESOLVED, 2, _MOST_PARTS)
    return np.where(error <= limit, 1, parts)


def with_waves(
    parts: Int[np.ndarray, " N"], slopes: Float[np.ndarray, "N d d"], width: int
) -> Int[np.ndarray, " N"]:
    """More parts where the equation oscillates faster than the features of an element can follow.

    There zero is the best approximation, has no residual, and would be kept for ever: each wave
    needs four features. Modes that decay faster than they oscillate are layers.
    """
    modes = np.linalg.eigvals(np.nan_to_num(slopes))
    waves = np.where(np.abs(modes.imag) > np.abs(modes.real), np.abs(modes.imag), 0).max(axis=1)
    more = np.maximum(parts, np.ceil(np.minimum(4 * waves / width, MOST_ELEMENTS)).astype(int))
    return more if more.sum() <= MOST_ELEMENTS else parts


def ending_of(
    found: Round,
    parts: Int[np.ndarray, " N"],
    *,
    tolerance: float,
    given: bool,
    spent: bool,
    failures: int,
) -> tuple[str, str] | None:
    """Why to end here, or None to divide and go on."""
    edges, worst, error = found.edges, found.worst, found.error
    count = len(edges) - 1
    where = f"between {edges[worst]:.6g} and {edges[worst + 1]:.6g}"
    if found.condition < float(np.finfo(error.dtype).eps) ** 0.7:
        return "stalled", (
            "the linearised problem is singular to rounding: the conditions do not determine the "
            "solution, or it has several close to each other. Check bc, or try another guess"
        )
    if (parts == 1).all() and found.solved:
        return _accepted(found, tolerance, given)
    if spent:
        return "max_steps", f"with {count} elements; the largest residual is {where}"
    if failures >= _FAILURES:
        return "stalled", (
            f"Newton's method does not converge on {count} elements, and more would not help. Does "
            "a solution exist? Another guess may be nearer to it, or continuation= in small steps "
            "lead to it"
        )
    lengths, digit = np.diff(edges), _last_digit(edges, error.dtype)
    shortest = lengths[parts > 1].min(initial=np.inf)
    too_short = lengths[worst] < 1e-13 * (edges[-1] - edges[0]) or shortest < _DIGITS * digit
    if parts.sum() > MOST_ELEMENTS or too_short:
        if tolerance < found.off <= _ROUNDED * tolerance:
            return _accepted(found, tolerance, given)
        if found.off > tolerance:
            return "stalled", (
                f"{count} elements are not enough: the residual is small, but the solution may be "
                f"off by {found.off:.1e}. A larger width= resolves more"
            )
        return "stalled", (
            f"{count} elements are not enough: the residual {where} is still {error[worst]:.3g} of "
            "the solution. Is the problem well-posed? A larger width=, a mesh= or another guess "
            "may help"
        )
    if (parts == 1).all():
        return "stalled", "Newton's method does not converge; another guess may help"
    return None


def _accepted(found: Round, tolerance: float, given: bool) -> tuple[str, str]:
    """The ending where no element has to be divided."""
    count = len(found.error)
    if not found.off <= _ROUNDED * tolerance:
        rounding = f"rounding alone moves this solution by about {found.off:.1e}"
        if given or not found.off < float(np.finfo(found.error.dtype).eps) ** 0.5:
            return (
                "stalled",
                f"{rounding}: tolerance={tolerance:g} is out of reach on {count} elements",
            )
        return "converged", (
            f"the monitor residual is at rounding on all of {count} elements; {rounding}"
        )
    return (
        "converged",
        f"the monitor residual is below the tolerance on all of {count} elements",
    )


def _last_digit(edges: np.ndarray, dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps * np.abs(edges).max())


def divided(
    edges: np.ndarray, unknowns: OnHost, parts: np.ndarray, width: int
) -> tuple[np.ndarray, OnHost]:
    """Divide elements; the function stays the same."""
    nodes, weights = training_nodes(width)
    P = integrals(nodes, width, 0)[0]
    head, y = heads(unknowns), unknowns.y
    new_edges, new_y, new_b = [edges[:1]], [y[:1]], []
    for j, count in enumerate(parts):
        cuts = np.linspace(-1.0, 1.0, count + 1)
        room = (edges[j + 1] - edges[j]) / _last_digit(edges, y.dtype)
        if count == _MOST_PARTS and j in (0, len(parts) - 1) and room > _DIGITS * 4**_MOST_PARTS:
            graded = 2 * np.append(0.0, 4.0 ** np.arange(-_MOST_PARTS, 1)) - 1
            cuts = graded if j == 0 else -graded[::-1]
        new_edges.append((edges[j] + (edges[j + 1] - edges[j]) * (cuts + 1) / 2)[1:])
        values = y[j] + integrals(cuts, width, 1)[1] @ head[j]
        values[-1] = y[j + 1]
        new_y.append(values[1:])
        for low, high in itertools.pairwise(cuts):
            # Exact: a polynomial of degree K - 1 against orthonormal ones of the same degree.
            slope = integrals(low + (high - low) * (nodes + 1) / 2, width, 0)[0] @ head[j]
            new_b.append(((weights[:, None] * P).T @ slope)[1:] * (high - low) / 2)
    whole = np.concatenate(new_edges)
    whole[-1] = edges[-1]
    return whole, OnHost(np.concatenate(new_y), np.stack(new_b), unknowns.p)
