"""The normal distribution and spheres."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from constrainednn._common.arguments import as_count, as_positive
from constrainednn.domains.base import AbstractDomain, GaussRule


class Normal(AbstractDomain):
    """Independent standard normal coordinates, N(0, I). Points have shape (dim,)."""

    dim: int

    def __init__(self, dim: int):
        self.dim = as_count(dim, "dim of Normal")

    @property
    def unit_dim(self) -> int:
        """The dimension of the space."""
        return self.dim

    @property
    def gauss_rules(self) -> tuple[GaussRule | None, ...]:
        """Gauss-Hermite in each coordinate."""
        return ("hermite",) * self.dim

    def place(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Apply the normal quantile function."""
        return jax.scipy.special.ndtri(z)


class Sphere(AbstractDomain):
    """The surface of a ball around the origin, uniform in area. Points have shape (dim,).

    `dim` is the dimension of the space: `Sphere(2)` is the unit circle. Two and three dimensions
    use the angle and Archimedes' cylinder map, which keep a cube of dimension dim - 1; higher
    ones normalise a normal vector.
    """

    dim: int
    radius: float

    def __init__(self, dim: int, radius: float = 1.0):
        self.dim = as_count(dim, "dim of Sphere", least=2)
        self.radius = as_positive(radius, "radius of Sphere")

    @property
    def unit_dim(self) -> int:
        """One less than the space up to three dimensions, else as many."""
        return self.dim - 1 if self.dim <= 3 else self.dim

    @property
    def unbounded(self) -> bool:
        """False up to three dimensions; above, the faces of the cube have no image."""
        return self.dim > 3

    def place(self, z: Float[Array, " unit_dim"]) -> Float[Array, " dim"]:
        """Map a cube point to the sphere."""
        if self.dim > 3:
            normal = jax.scipy.special.ndtri(z)
            return self.radius * normal / jnp.linalg.norm(normal)
        angle = 2 * jnp.pi * z[0]
        circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        if self.dim == 2:
            return self.radius * circle
        height = 2 * z[1] - 1
        # 1 - height^2 as a product keeps its digits at the poles.
        waist = 2 * jnp.sqrt(z[1] * (1 - z[1]))
        return self.radius * jnp.concatenate([waist * circle, height[None]])
