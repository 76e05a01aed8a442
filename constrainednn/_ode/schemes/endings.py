"""Whether to stop refining the elements of a boundary value problem, and the reason to report."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from constrainednn._common.batched import in_blocks
from constrainednn._common.messages import shown
from constrainednn._ode.linearised.division import DIGITS, HostUnknowns, heads, last_digit
from constrainednn._ode.linearised.element_step import BoundaryProblem
from constrainednn._ode.schemes.boundary_fields import BoundaryField
from constrainednn._pieces.mesh import places
from constrainednn._pieces.refinement import MOST_ELEMENTS, Round
from constrainednn.models.legendre import integrals

# After this many consecutive failures of Newton's method, more elements would not help.
_FAILURES = 3
# Errors up to this many times the tolerance are accepted where rounding ends the refinement.
_ROUNDED = 10.0


def ending_of(
    edges: Float[np.ndarray, " N_1"],
    found: Round,
    parts: Int[np.ndarray, " N"],
    *,
    tolerance: float,
    given: bool,
    spent: bool,
    failures: int,
) -> tuple[str, str] | None:
    """Status and reason to stop here, or None to divide elements and continue."""
    worst, error = found.worst, found.error
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
            "a solution exist? Another guess may be closer to it, or continuation= in small steps "
            "may lead to it"
        )
    lengths, digit = np.diff(edges), last_digit(edges, error.dtype)
    shortest = lengths[parts > 1].min(initial=np.inf)
    too_short = lengths[worst] < 1e-13 * (edges[-1] - edges[0]) or shortest < DIGITS * digit
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
    """Status and reason where no element needs to be divided."""
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


def undefined(
    statement: BoundaryProblem,
    edges: np.ndarray,
    unknowns: HostUnknowns,
    nodes: Float[np.ndarray, " m"],
) -> tuple[str, str] | None:
    """Status and reason where the field is not finite at a training point, or None."""
    # No step was possible, so these are the heads of the guess.
    x = places(edges[:-1], edges[1:], nodes)
    y = unknowns.y[:-1, None] + integrals(nodes, unknowns.b.shape[1] + 1, 1)[1] @ heads(unknowns)
    x, y = x.ravel(), y.reshape(-1, y.shape[-1])
    field = eqx.Partial(_at_point, statement.field)
    values = in_blocks(field, (x, y, np.tile(unknowns.p, (len(x), 1))))
    bad = ~np.isfinite(values).all(axis=1)
    if not bad.any():
        return None
    first = int(np.argmax(bad))
    return "stalled", (
        f"the vector field is {_kind(values[first])} at x = {x[first]:.6g}, y = "
        f"{shown(y[first].tolist())}. Try a guess that stays where it is defined"
    )


def _at_point(field: BoundaryField, point: tuple[Array, Array, Array]) -> Array:
    return field(*point)


def _kind(value: np.ndarray) -> str:
    return "NaN" if np.isnan(value).any() else "infinite"
