"""Whether equation and conditions see u at every place, not on a part of the region alone."""

import numpy as np
from jaxtyping import Float, Int

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import Region
from constrainednn.errors import ProblemError

# Points on each side and within; and the share of the largest singular value that counts as zero.
_TRIED, _SMALL = 384, 1e-12


def check_everywhere(equations: Equations, region: Region, name: str) -> None:
    """Refuse an equation that vanishes on a part of the region, or conditions on one of a side.

    What `jnp.where(x[1] > 0.5, u(x), 0.0)` leaves open, polynomials fill in somehow. Conditions
    on sides across which orders are odd may vanish where nothing comes in; points at which they
    do by chance, as a coefficient that changes its sign, are not met.

    Raises:
        ProblemError: Naming a place.
    """
    points = region.some_points(_TRIED)
    _refuse(name, equations.interior, points, equations.interior.equations)
    for number, (side, face) in enumerate(zip(region.sides, equations.faces, strict=True)):
        across = [
            max(a) if region.curved is not None else a[number // 2]
            for a in equations.interior.highest
        ]
        if face is not None and not any(k % 2 for k in across):
            points = region.some_points_along(side, _TRIED)
            _refuse(f"the condition at {side!r}", face, points, face.equations)


def _refuse(
    what: str, residual: LocalResidual, points: Float[np.ndarray, "n dim"], needed: int
) -> None:
    few = _seen(residual, points) < needed
    if few.any():
        place = ", ".join(f"{x:.3g}" for x in points[np.argmax(few)])
        which = "does not see u" if needed == 1 else f"is fewer than {needed} different equations"
        raise ProblemError(
            f"{what} {which} at ({place}), and at {few.sum()} of {len(points)} places: there u is "
            "not determined. State what holds in every place."
        )


def _seen(residual: LocalResidual, points: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
    """How many independent equations for u there are at points, at most of two u."""
    most = np.zeros(len(points), int)
    for seed in (11, 12):
        shape = len(points), len(residual.orders), len(residual.highest)
        G = residual.linearised(np.random.default_rng(seed).normal(size=shape), points)[1]
        rows = G.reshape(len(points), residual.equations, -1)
        finite = np.asarray(np.isfinite(rows).all(axis=(1, 2)))
        rows = np.where(finite[:, None, None], rows, 0.0)
        size = np.abs(rows).max(axis=2, keepdims=True)
        # Each row by its own size: what is nothing but small is not zero.
        values = np.linalg.svd(rows / np.where(size > 0, size, 1.0), compute_uv=False)
        found = (values > _SMALL).sum(axis=1)
        most = np.maximum(most, np.where(finite, found, residual.equations))
    return most
