"""Components that are determined up to a constant only, as by conditions on their slopes alone.

Where nothing sees the value of a component, any constant may be added to it, and equation and
conditions have a solution only where their data balance. Both are mended by a border: a row that
holds the component at one place, and a number b that is added to an equation. The constant is then
chosen so that the mean is zero. Data that balance leave b zero; else b says by how much they do
not.

Source:
    Bordered systems: Keller, in Applications of Bifurcation Theory (1977) 359.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._pde.stationary.curved.cells import Outline
from constrainednn._pde.stationary.curved.integrals import integrals_within
from constrainednn._pde.stationary.discretisation import Discretisation, Equations
from constrainednn._pde.stationary.mesh import Mesh


def dependence(
    residual: LocalResidual, points: Float[np.ndarray, "n dim"], *, values: bool
) -> Bool[np.ndarray, "e d"]:
    """Which equations depend on which components: on their values, or on anything of them."""
    d, zeroth = len(residual.highest), (0,) * points.shape[1]
    v = np.random.default_rng(4).normal(size=(len(points), len(residual.orders), d))
    kept = np.array([a == zeroth or not values for a in residual.orders])
    slopes = residual.linearised(v, points)[1][:, :, kept]
    return ~(slopes == 0).all(axis=(0, 2))


def with_constants(
    equations: Equations,
    points: Float[np.ndarray, "n dim"],
    conditions: Bool[np.ndarray, " d"],
    at_points: Bool[np.ndarray, " d"],
) -> Equations:
    """Equations that know which components have any constant.

    Args:
        equations: What must hold.
        points: Points within.
        conditions: Of which components the conditions on sides see the value.
        at_points: Of which those at points do, and so fix the constant.
    """
    free = ~(dependence(equations.interior, points, values=True).any(axis=0) | conditions)
    missing = tuple(np.flatnonzero(free & ~at_points).tolist())
    # The equation whose data must balance: the only one, or that of the mass in a flow, which
    # does not see the pressure.
    blind = np.flatnonzero(
        ~dependence(equations.interior, points, values=False)[:, free].any(axis=1)
    )
    candidates = [0] if len(free) == 1 else blind.tolist()
    one = free.sum() == 1 and len(candidates) == 1
    return dataclasses.replace(equations, free=missing, balance=candidates[0] if one else None)


def centred(
    equations: Equations, mesh: Mesh, width: int, c: Float[np.ndarray, "N n d"]
) -> Float[np.ndarray, "N n d"]:
    """The same with that constant which makes the mean zero."""
    if not equations.free:
        return c
    c, dim, free = c.copy(), mesh.low.shape[1], list(equations.free)
    # The first polynomial is constant: the root of a half in each coordinate.
    first = 2.0 ** (-dim / 2)
    if isinstance(mesh.region, Outline):
        own, area = integrals_within(mesh.region, mesh, width)
        means = np.einsum("nk,nkq->q", own, c[:, :, free]) / area
    else:
        means = first * (mesh.area @ c[:, 0, free]) / mesh.area.sum()
    c[:, 0, free] -= means / first
    return c


class Shifted(eqx.Module):
    """A residual with a number added to one of its equations.

    Attributes:
        fn: The residual of the model and a point.
        number: What is added.
        equation: To which one.
    """

    fn: Callable[[Any, Any], Any]
    number: Float[Array, ""]
    equation: int = eqx.field(static=True)

    def __call__(self, u: Any, x: Any) -> Float[Array, " e"]:
        """The residual at one point."""
        return ravel_pytree(self.fn(u, x))[0].at[self.equation].add(self.number)


def balanced(disc: Discretisation, number: float) -> Discretisation:
    """The same with a number added to the equation whose data must balance."""
    equations = disc.equations
    assert equations.balance is not None
    interior = equations.interior
    fn = Shifted(interior.fn, jnp.asarray(number), equations.balance)
    interior = dataclasses.replace(interior, fn=fn)
    return dataclasses.replace(disc, equations=dataclasses.replace(equations, interior=interior))
