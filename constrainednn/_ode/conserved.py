"""Quantities that the solution of an initial value problem conserves."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_function
from constrainednn._ode.schemes.field import Field
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.boxes import Interval
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.operators.derivatives import taylor


class _Drift(eqx.Module):
    """Change of an invariant since the start, as a residual of the model at one time."""

    fn: Callable[..., Any]
    args: PyTree
    start: Float[Array, ""]
    order: int

    def __call__(self, u: Callable[[Array], PyTree], t: Float[Array, ""]) -> Array:
        """Evaluate at one time."""
        args = getattr(u, "args", None) if self.args is None else self.args

        def value(t: Array) -> Array:
            state = u(t) if self.order == 1 else taylor(u, t, order=1)
            return jnp.asarray(self.fn(t, state, args))

        return value(t) - value(self.start)


def conserved(invariants: Any, field: Field, span: tuple[float, float]) -> list[Constraint]:
    """Invariants as constraints, which are reported but not trained on."""
    given = invariants if isinstance(invariants, (list, tuple)) else [invariants]
    found = []
    for number, fn in enumerate(given):
        as_function(fn, "invariants of ivp", "lambda t, y, args: jnp.sum(y)")
        name = getattr(fn, "__name__", type(fn).__name__)
        found.append(
            Constraint(
                _Drift(fn, field.args, jnp.asarray(span[0]), field.order),
                over=Interval(*sorted(span)),
                points=1,
                sampler=GaussQuadrature(),
                name=f"invariant {number + 1}" if name == "<lambda>" else name,
            )
        )
    return found
