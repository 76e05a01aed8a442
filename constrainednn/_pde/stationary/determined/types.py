"""Whether an equation in the plane is of a type that conditions all round determine."""

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import Region
from constrainednn.errors import ProblemError

# Points at which the type is looked at, and directions of waves at each.
_TRIED, _DIRECTIONS = 64, 180
# A determinant below this share of its largest has no sign.
_SMALL = 1e-9


def check_type(equations: Equations, region: Region, name: str) -> None:
    """Refuse a hyperbolic equation with conditions all round, such as that of waves without time.

    Where P(xi) are the terms of highest order for a wave exp(i xi . x), real characteristics cross
    directions in which det P changes its sign. What is given at one end of them fixes the other
    end, too: with conditions at both there is no solution, or many, or one that depends on the
    digits of the region. Nothing is said where the type changes within the region, as at the speed
    of sound, nor of systems with terms of different orders, nor of those of order one with more
    than two components or with conditions on one characteristic variable each.

    Raises:
        ProblemError: If det P changes its sign at every point.

    Source:
        John, Amer. J. Math. 63 (1941) 141, for the equation of waves.
    """
    interior = equations.interior
    d, order = len(interior.highest), max(map(sum, interior.orders))
    alike = all(highest == (order, order) for highest in interior.highest)
    if region.dim != 2 or not alike or any(face is None for face in equations.faces):
        return
    if order % 2 and (order, d) != (1, 2):
        return
    points = region.some_points(_TRIED)
    if not _changes_sign(_symbols(interior, points, order)).all():
        return
    if order == 1 and _apart(equations, region):
        return
    raise ProblemError(
        f"{name} is hyperbolic, as the equation of waves is: with conditions on all sides there is "
        "no solution, or many, or one that small changes of the data change without limit. The "
        "coordinate in which it evolves goes into time=, and what is known at its beginning into "
        "start=. Or is a sign wrong?"
    )


def _symbols(
    interior: LocalResidual, points: Float[np.ndarray, "n 2"], order: int
) -> Float[np.ndarray, "n w"]:
    """Determinants of the terms of highest order, for waves in all directions."""
    d = len(interior.highest)
    # Where terms depend on u, of all sizes.
    rng = np.random.default_rng(9)
    sizes = 10.0 ** rng.integers(-2, 3, (len(points), 1, 1))
    G = interior.linearised(rng.normal(size=(len(points), len(interior.orders), d)) * sizes, points)
    angles = np.pi * np.arange(_DIRECTIONS + 1) / _DIRECTIONS
    P = np.zeros((len(points), len(angles), d, d))
    for index, (a, b) in enumerate(interior.orders):
        if a + b == order:
            waves = np.cos(angles) ** a * np.sin(angles) ** b
            P += G[1][:, None, :, index] * waves[:, None, None]
    size = np.abs(P).max(axis=(1, 3), keepdims=True)
    return np.linalg.det(P / np.where(size > 0, size, 1.0))


def _changes_sign(determinants: Float[np.ndarray, "n w"]) -> Bool[np.ndarray, " n"]:
    least = _SMALL * np.abs(determinants).max(axis=1)
    return (determinants.min(axis=1) < -least) & (determinants.max(axis=1) > least)


def _apart(equations: Equations, region: Region) -> bool:
    """Whether a condition on some side sees one characteristic variable alone.

    Each may then be carried from its own sides, as in transport along two rays.
    """
    interior, rng = equations.interior, np.random.default_rng(10)
    for side, face in zip(region.sides, equations.faces, strict=True):
        assert face is not None
        p = region.some_points_along(side, _TRIED)
        G = interior.linearised(rng.normal(size=(len(p), len(interior.orders), 2)), p)[1]
        A, B = (G[:, :, interior.orders.index(a)] for a in ((1, 0), (0, 1)))
        if face.equations != 1 or face.orders != ((0, 0),):
            return True
        seen = face.linearised(rng.normal(size=(len(p), 1, 2)), p)[1][:, 0, 0]
        # Of a wave f(w . x) e the vector e, with (A w_0 + B w_1) e = 0: both must be seen.
        shift = A + 0.7548776662 * B
        with np.errstate(all="ignore"):
            try:
                vectors = np.linalg.eig(np.linalg.solve(shift, B))[1]
            except np.linalg.LinAlgError:
                return True
        both = np.abs(np.einsum("nd,ndk->nk", seen, vectors))
        size = np.linalg.norm(seen, axis=1)[:, None]
        if not (both > _SMALL * size).all(axis=1).any():
            return True
    return False
