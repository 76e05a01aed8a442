"""Vector field and conditions of a boundary value problem."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from constrainednn.operators.derivatives import derivative


class BoundaryField(eqx.Module):
    """The user's right-hand side with its singular term, on flat arrays.

    Attributes:
        fn: `fn(x, y)`, or `fn(x, y, p)` if there are unknown parameters, with `args` last if there
            are any.
        singular: The matrix S of the term S y / (x - a), or None.
        start: The left end, a.
        unknown: Whether `fn` takes p.
        args: Last argument of `fn`, unless None.
    """

    fn: Callable[..., Array]
    singular: Float[Array, "d d"] | None
    start: float
    unknown: bool
    args: PyTree = None

    def __call__(
        self, x: Float[Array, ""], y: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate at one point."""
        value = self.regular(x, y, p)
        return value if self.singular is None else value + self.singular @ y / (x - self.start)

    def regular(
        self, x: Float[Array, ""], y: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d"]:
        """Evaluate without the singular term."""
        return jnp.ravel(jnp.asarray(self.fn(x, y, *_further_arguments(self, p))))


class BoundaryConditions(eqx.Module):
    """The user's boundary conditions; zero where they hold."""

    fn: Callable[..., Array]
    unknown: bool
    args: PyTree = None

    def __call__(
        self, left: Float[Array, " d"], right: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d_q"]:
        """Evaluate for values at both ends."""
        return jnp.ravel(jnp.asarray(self.fn(left, right, *_further_arguments(self, p))))


def _further_arguments(
    function: BoundaryField | BoundaryConditions, p: Float[Array, " q"]
) -> tuple:
    """Arguments of a user's function after the first two."""
    some = function.args is not None
    return (*([p] if function.unknown else []), *([function.args] if some else []))


class BoundaryEquationResidual(eqx.Module):
    """u' - f(x, u, p); times (x - a) if there is a singular term, so that it stays finite."""

    field: BoundaryField

    def __call__(self, u: Callable[[Array], Array], x: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one point."""
        r = derivative(u)(x) - self.field.regular(x, u(x), _parameters(u))
        if self.field.singular is None:
            return r
        return (x - self.field.start) * r - self.field.singular @ u(x)


class ConditionsResidual(eqx.Module):
    """The boundary conditions as a residual of the model."""

    conditions: BoundaryConditions
    span: tuple[float, float]

    def __call__(self, u: Callable[[Array], Array], x: Float[Array, ""]) -> Float[Array, " d_q"]:
        """Evaluate; the point does not matter."""
        del x
        left, right = (u(jnp.asarray(end)) for end in self.span)
        return self.conditions(left, right, _parameters(u))


def _parameters(u: Callable[[Array], Array]) -> Float[Array, " q"]:
    """Parameters of the model; a reference that is a plain function has none."""
    return getattr(u, "parameters", jnp.zeros(0))
