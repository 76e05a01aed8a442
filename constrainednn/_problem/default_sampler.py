"""Which sampler a constraint is given that names none."""

from collections.abc import Callable
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from constrainednn._problem.constraint import Constraint
from constrainednn.domains.base import AbstractDomain, Product
from constrainednn.domains.boxes import Box, Interval
from constrainednn.domains.samplers.base import AbstractSampler
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.domains.samplers.random import Independent, Sobol
from constrainednn.models.recipes import Place

# Coordinates up to which even points were measured to generalise better than independent ones.
_LARGEST_DIM = 2
# Gauss's rule takes the cube of its nodes to find; with more points any even ones are as good.
_MOST_NODES = 500


def is_even(over: Place) -> TypeGuard[AbstractDomain]:
    """True for an interval, a box or a product of these, in one or two dimensions."""
    parts = over.factors if isinstance(over, Product) else (over,)
    sizes = [part.unit_dim for part in parts if isinstance(part, (Interval, Box))]
    return len(sizes) == len(parts) and sum(sizes) <= _LARGEST_DIM


def default_sampler(constraint: Constraint, model: PyTree) -> AbstractSampler:
    """Gauss's rule or scrambled Sobol points for a residual with derivatives of the model.

    A differential equation holds between the training points if it holds at points without gaps;
    independent ones leave some. Without derivatives they stay the default: closed forms of the gap
    are for them.
    """
    over = constraint.over
    if not (is_even(over) and is_differentiated(constraint.residual, over, model)):
        return Independent()
    few = constraint.points is not None and constraint.points <= _MOST_NODES
    return GaussQuadrature() if over.unit_dim == 1 and few else Sobol()


def is_differentiated(
    residual: Callable[[Any, Any], Any], over: AbstractDomain, model: PyTree
) -> bool:
    """True if a residual takes derivatives of the model by the point, found by tracing it."""
    point = jax.eval_shape(
        over.place, jax.ShapeDtypeStruct((over.unit_dim,), jnp.result_type(float))
    )
    try:
        eqx.filter_eval_shape(residual, jax.tree.map(_Opaque, model, is_leaf=callable), point)
    except _DifferentiatedError:
        return True
    except Exception:  # noqa: BLE001  (the user's own, which the checks before a solve report)
        return False
    return False


class _DifferentiatedError(Exception):
    pass


class _Opaque(eqx.Module):
    """A model, or a part of one that is called, that cannot be differentiated."""

    inner: PyTree

    def __call__(self, *points: PyTree) -> PyTree:
        """The value, without a derivative."""
        return self.inner(*_identity(points))

    def __getattr__(self, name: str) -> Any:
        part = getattr(self.inner, name)
        return _Opaque(part) if isinstance(part, eqx.Module) and callable(part) else part


@jax.custom_jvp
def _identity(x: PyTree) -> PyTree:
    return x


@_identity.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise _DifferentiatedError
