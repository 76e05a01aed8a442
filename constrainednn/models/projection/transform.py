"""Models whose values are moved onto a set, so that constraints hold at every point."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from constrainednn._common.arguments import as_count, as_positive, as_reals, check_takes
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError, UsageError
from constrainednn.models.projection.affine import is_affine
from constrainednn.models.projection.derivative import projected
from constrainednn.models.recipes import AbstractRecipe, Frozen, Place, is_recipe

# Of the machine precision: 1.8e-12 in double and 6.4e-6 in single precision.
_POWER = 0.75


class Projection(eqx.Module):
    """The set that values are moved onto, and how.

    Attributes:
        equalities: g of a point and a value, zero on the set; None if there are none.
        inequalities: h of a point and a value, at most zero on the set; None if there are none.
        metric: None for the Euclidean distance; else the factor L of its matrix L L^T, by rows.
        iterations: Steps at most.
        tolerance: A value whose largest violation is above it did not arrive.
    """

    equalities: Frozen
    inequalities: Frozen
    metric: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    is_long_program: ClassVar[bool] = True

    def functions(self, x: PyTree, y: Array) -> tuple[Callable, Callable]:
        """Both as functions of a point and a vector in coordinates of Euclidean distance."""
        z = self.forth(y.ravel())
        parts = (self.equalities.value, "equalities"), (self.inequalities.value, "inequalities")
        flat = [eqx.Partial(_flat, *part, y.shape, self.back) for part in parts]
        g, h = (eqx.filter_closure_convert(fn, x, z) for fn in flat)
        return g, h

    def forth(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """From values to coordinates in which the distance is Euclidean: L^T y."""
        if self.metric is None:
            return y
        L = jnp.asarray(self.metric, y.dtype)
        if L.shape[0] != y.size:
            raise BadValueError(
                f"metric of with_projection is for values of {L.shape[0]} numbers, and the model "
                f"returns {y.size}."
            )
        return L.T @ y

    def back(self, z: Float[Array, " n"]) -> Float[Array, " n"]:
        """The inverse of `forth`."""
        if self.metric is None:
            return z
        return jnp.asarray(np.linalg.inv(self.metric), z.dtype).T @ z

    def __call__(self, x: PyTree, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest value in the set."""
        functions = self.functions(x, y)
        z, _ = projected(functions, x, self.forth(y.ravel()), iterations=self.iterations)
        return self.back(z).reshape(y.shape)

    def violation(self, x: PyTree, y: Float[Array, "..."]) -> Float[Array, ""]:
        """The largest violation of a constraint by a value."""
        g, h = self.functions(x, y)
        z = self.forth(y.ravel())
        parts = jnp.concatenate([jnp.abs(g(x, z)), jnp.maximum(h(x, z), 0.0)])
        return jnp.max(parts, initial=0.0)

    def closed_form(self, x: PyTree, y: Array) -> bool:
        """True where no iteration is needed: all constraints are affine equalities."""
        if self.inequalities.value is not None:
            return False
        return is_affine(self.functions(x, y)[0], x, self.forth(y.ravel()))

    def allowed(self, dtype: Any) -> float:
        """The violation up to which a value has arrived."""
        return self.tolerance or float(jnp.finfo(dtype).eps) ** _POWER


def _flat(fn: Callable | None, name: str, shape: tuple, back: Callable, x: Any, z: Array) -> Array:
    if fn is None:
        return jnp.zeros(0, z.dtype)
    value = _called(fn, name, x, back(z).reshape(shape))
    leaves = jax.tree.leaves(value)
    if not leaves or not all(_is_real(leaf) for leaf in leaves):
        raise BadTypeError(
            f"{name} of with_projection must return real numbers, fn(x, y) for a point x and the "
            f"model's value y of shape {shape}, got {shown(value)}."
        )
    return jnp.concatenate([jnp.ravel(leaf).astype(z.dtype) for leaf in leaves])


def _is_real(leaf: Any) -> bool:
    kind = getattr(leaf, "dtype", type(leaf))
    return kind is float or (hasattr(leaf, "dtype") and jnp.issubdtype(kind, jnp.floating))


def _called(fn: Callable, name: str, x: Any, y: Array) -> Any:
    """The value of a constraint; what Python or jax says of a wrong call, in our words."""
    try:
        return fn(x, y)
    except (jax.errors.JAXTypeError, UsageError):  # the trial evaluation says what to write instead
        raise
    except TypeError as error:
        shapes = jax.tree.map(jnp.shape, x)
        raise BadTypeError(
            f"{name} of with_projection cannot be called with a point x of shape {shapes} and the "
            f"model's value y of shape {y.shape}: {str(error).splitlines()[0].rstrip('.')}. It "
            "must be a function of both for one point, such as lambda x, y: y @ y - 1, and no "
            "residual of (u, x)."
        ) from error


class Projected(eqx.Module):
    """A model whose values are moved onto a set; made by `with_projection`.

    Attributes:
        model: The model behind it.
        projection: The set.
    """

    model: PyTree
    projection: Projection

    def __call__(self, x: PyTree) -> Float[Array, "..."]:
        """The nearest value of the set at one point."""
        return self.projection(x, self._raw(x))

    def violation(self, x: PyTree) -> Float[Array, ""]:
        """The largest violation left at one point; above the tolerance it did not arrive."""
        return self.projection.violation(x, self(x))

    def _raw(self, x: PyTree) -> Array:
        y = self.model(x)
        if not eqx.is_inexact_array(y) or jnp.iscomplexobj(y):
            raise BadTypeError(
                f"with_projection needs a model that returns one array of reals, got {shown(y)}."
            )
        return y


class _ProjectedRecipe(AbstractRecipe):
    recipe: Callable
    projection: Projection

    def __call__(self, *, key: Key[Array, ""]) -> Projected:
        return Projected(self.recipe(key=key), self.projection)

    def spread_over(self, places: Sequence[Place]) -> AbstractRecipe:
        """What is behind it, at the same places."""
        if not isinstance(self.recipe, AbstractRecipe):
            return self
        return dataclasses.replace(self, recipe=self.recipe.spread_over(places))


def with_projection(
    model: PyTree,
    *,
    equalities: Callable[[Any, Any], Any] | None = None,
    inequalities: Callable[[Any, Any], Any] | None = None,
    metric: Float[ArrayLike, "..."] | None = None,
    iterations: int = 100,
    tolerance: float | None = None,
) -> PyTree:
    """Move the value of a model onto a set: constraints on it hold at every point.

    The result is the nearest y with g(x, y) = 0 and h(x, y) <= 0 to what the model says at x. By
    damped Gauss-Newton and Newton steps for equations, which may depend on each other, as those of
    rotations do; by one factorisation where they are affine; by interior steps where there are
    inequalities. Its derivative is that of the nearest point, not that of the steps. Where it
    cannot reach the set it returns the point it got to, and the gap report counts it.

    `with_projection(model, equalities=lambda x, y: y @ y - 1)` maps onto a sphere.

    Args:
        model: A recipe or a ready model; the result is of the same kind. Its value at a point must
            be one array, of any shape.
        equalities: g, from a point and the value there to numbers that should be zero.
        inequalities: h, from a point and the value there to numbers that should be at most zero.
        metric: What distance is measured in: weights of the entries of a value, above zero, or a
            symmetric positive definite matrix. Default: the Euclidean distance.
        iterations: Steps at most; a value that has arrived takes no more.
        tolerance: A value that violates a constraint by more did not arrive. Default: the machine
            precision to the power 3/4, 1.8e-12 in double precision.

    Raises:
        TypeError, ValueError: If a setting cannot be right, naming it.

    Source:
        Nocedal and Wright, Numerical Optimization (2006), chapters 10, 18 and 19.
    """
    given = {"equalities": equalities, "inequalities": inequalities}
    if not callable(model):
        raise BadTypeError(f"with_projection takes a model or a recipe, got {shown(model)}.")
    if all(fn is None for fn in given.values()):
        raise BadValueError(
            "with_projection has nothing to project onto. Give equalities= or inequalities=, such "
            "as equalities=lambda x, y: y @ y - 1."
        )
    recipe = is_recipe(model)
    for name, fn in given.items():
        if fn is not None and not callable(fn):
            raise BadTypeError(
                f"{name} of with_projection must be a function of (x, y), got {shown(fn)}."
            )
        if fn is not None:
            must = f"{name} of with_projection must take one point and the model's value there"
            check_takes(fn, (None, None), f"{must}, such as lambda x, y: y @ y - 1")
        if recipe and fn is not None and not is_recipe(fn):
            raise BadTypeError(
                f"{name} of with_projection holds arrays as a module does, and the model is a "
                "recipe, which may not. Write a function that uses them: lambda x, y: module(x, y)."
            )
    projection = Projection(
        Frozen(equalities),
        Frozen(inequalities),
        None if metric is None else _factor(metric),
        as_count(iterations, "iterations of with_projection"),
        None if tolerance is None else as_positive(tolerance, "tolerance of with_projection"),
    )
    return (_ProjectedRecipe if recipe else Projected)(model, projection)


def _factor(metric: Any) -> tuple[tuple[float, ...], ...]:
    """The Cholesky factor of a metric, by rows."""
    matrix = as_reals(metric, "metric of with_projection").astype(float)
    if matrix.ndim == 1:
        matrix = np.diag(matrix)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    try:
        if not square or not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0):
            raise np.linalg.LinAlgError
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise BadValueError(
            "metric of with_projection must be weights above zero, or a symmetric positive "
            f"definite matrix, got {shown(metric)}."
        ) from None
    return tuple(map(tuple, factor.tolist()))
