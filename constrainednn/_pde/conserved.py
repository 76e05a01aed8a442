"""Integrals over space that a solution should conserve."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._pde.conditions import WithArguments, side_of
from constrainednn._pde.elements.germ import LocalResidual
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.boxes import Box
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.models.legendre import gauss
from constrainednn.models.space_time import SpaceTimePieces

# Gauss nodes of an element; of each of some equal parts of space for other models.
_NODES, _PARTS = 32, 32


def drifts(densities: dict[str, LocalResidual], box: Box) -> list[Constraint]:
    """Changes of their integrals as constraints, which are reported but not trained on."""
    (start, low), (_, high) = box.low, box.high
    return [
        Constraint(
            Drift(density, start, (low, high)),
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
        space: Left and right end.
    """

    density: LocalResidual
    start: float
    space: tuple[float, float]

    def __call__(self, u: SpaceTimePieces, p: Float[Array, "2"]) -> Float[Array, " e"]:
        """The change until the time of a point."""
        return self._integral(u, p[0]) - self._integral(u, jnp.asarray(self.start, p.dtype))

    def _integral(self, u: SpaceTimePieces, t: Float[Array, ""]) -> Float[Array, " e"]:
        nodes, weights = gauss(_NODES)
        if isinstance(u, SpaceTimePieces):
            x, lengths, v = u.over_space(t, nodes, self.density.orders)
            density = self.density.given(u.parameters)
            values = lambda v, x: density.at(v, jnp.stack([t, x]))  # noqa: E731
            found = jax.vmap(jax.vmap(values))(v, x)
        else:
            args = self.density.arguments(self.density.unknowns)
            seen = u if hasattr(u, "args") else WithArguments(u, args)
            ends = np.linspace(*self.space, _PARTS + 1)
            x, lengths = ends[:-1, None] + np.diff(ends)[:, None] * (nodes + 1) / 2, np.diff(ends)
            fn = self.density.fn
            values = lambda x: jnp.atleast_1d(fn(seen, jnp.stack([t, x])))  # noqa: E731
            found = jax.vmap(jax.vmap(values))(jnp.asarray(x, t.dtype))
        return jnp.einsum("e,m,emk->k", jnp.asarray(lengths), jnp.asarray(weights) / 2, found)
