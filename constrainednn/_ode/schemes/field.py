"""The user's vector field, and the residual of its equation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from constrainednn.operators.derivatives import taylor


class Field(eqx.Module):
    """The user's vector field on flat states of shape (p, d).

    Attributes:
        fn: `fn(t, y, args)`; y is the pair (value, velocity) where the order is two.
        args: Passed to `fn`.
        unravel: From a vector of shape (d,) to the structure of the user's value.
        order: One or two.
        mass: Mass matrix, which multiplies the highest derivative; None for the identity.
    """

    fn: Callable[[Any, Any, Any], PyTree]
    args: PyTree
    unravel: Callable[[Array], PyTree]
    order: int
    mass: Float[Array, "d d"] | None = None

    @property
    def algebraic(self) -> Bool[Array, " d"] | None:
        """Which equations have no derivative; None if there is no mass matrix."""
        return None if self.mass is None else ~jnp.any(self.mass != 0, axis=1)

    def slope(self, t: Float[Array, ""], y: Float[Array, "p d"]) -> Float[Array, " d"]:
        """The highest derivative as far as the equation determines it: an initial guess."""
        f = self(t, y)
        return f if self.mass is None else jnp.linalg.pinv(self.mass) @ f

    def __call__(self, t: Float[Array, ""], y: Float[Array, "p d"]) -> Float[Array, " d"]:
        """Evaluate at one state."""
        states = tuple(self.unravel(row) for row in y)
        return ravel_pytree(self.fn(t, states[0] if self.order == 1 else states, self.args))[0]


def with_args(field: Field, args: PyTree) -> Field:
    """The same field with other arguments."""
    return eqx.tree_at(lambda f: f.args, field, args, is_leaf=lambda x: x is None)


class EquationResidual(eqx.Module):
    """u^(p) - f(t, u, ..., args), as a residual of the model at one time."""

    field: Field

    def __call__(self, u: Callable[[Array], PyTree], t: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one time."""
        flat = lambda t: ravel_pytree(u(t))[0]  # noqa: E731
        *lower, top = taylor(flat, t, order=self.field.order)
        field = self.field
        if field.args is None:  # the model has them, with the values of unknowns
            field = with_args(field, getattr(u, "args", None))
        if field.mass is not None:
            top = field.mass @ top
        return top - field(t, jnp.stack(lower))
