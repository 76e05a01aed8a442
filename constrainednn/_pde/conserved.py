"""Integrals over space that a solution should conserve."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from constrainednn._pde.conditions import side_of
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.boxes import Box
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.models.legendre import gauss
from constrainednn.models.space_time import SpaceTimePieces


def drifts(densities: dict[str, LocalResidual], box: Box) -> list[Constraint]:
    """Changes of their integrals as constraints, which are reported but not trained on."""
    return [
        Constraint(
            Drift(density, box.low[0]),
            over=side_of(box, "left"),
            sampler=GaussQuadrature(),
            name=name,
        )
        for name, density in densities.items()
    ]


class Drift(eqx.Module):
    """Change of an integral over space since the start, as a residual at one time.

    Attributes:
        density: What is integrated.
        start: The time of the start.
    """

    density: LocalResidual
    start: float

    def __call__(self, u: Any, p: Float[Array, "2"]) -> Float[Array, " e"]:
        """The change until the time of a point; of what is no model in pieces none."""
        if not isinstance(u, SpaceTimePieces):
            return jnp.zeros(1)
        return self._integral(u, p[0]) - self._integral(u, jnp.asarray(self.start, p.dtype))

    def _integral(self, u: SpaceTimePieces, t: Float[Array, ""]) -> Float[Array, " e"]:
        # Exact for densities of degree three in u.
        nodes, weights = gauss(2 * u.coefficients.shape[2])
        x, lengths, v = u.over_space(t, nodes, self.density.orders)
        density = self.density.given(u.parameters)
        values = jax.vmap(jax.vmap(lambda v, x: density.at(v, jnp.stack([t, x]))))(v, x)
        return jnp.einsum("e,m,emk->k", lengths, jnp.asarray(weights) / 2, values)
