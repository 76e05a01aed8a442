"""Transforms of input and output: periodic models, and conditions that hold by construction."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.arguments import as_count, as_positive
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.first_layer import mapped
from constrainednn.models.recipes import AbstractRecipe, Place, is_recipe


class PeriodicInput(eqx.Module):
    """Fourier inputs that make a model exactly periodic; use it as `fn` of `with_input`.

    A coordinate x of period L becomes cos(2 pi k x / L), sin(2 pi k x / L) for k = 1..harmonics.

    Args:
        period: One period for points of shape (), or one for each coordinate of points of shape
            (d,), None for a coordinate that is passed on unchanged.
        harmonics: Number of harmonics.

    Source:
        Dong and Ni, J. Comput. Phys. 435 (2021) 110242.
    """

    period: float | tuple[float | None, ...]
    harmonics: int

    def __init__(self, period: float | tuple[float | None, ...], *, harmonics: int = 1):
        if isinstance(period, (tuple, list)):
            self.period = tuple(
                None if p is None else as_positive(p, "period of PeriodicInput") for p in period
            )
        else:
            self.period = as_positive(period, "period of PeriodicInput")
        self.harmonics = as_count(harmonics, "harmonics of PeriodicInput")

    @property
    def out_size(self) -> int:
        """Length of the transformed point, which is the input size of the model behind it."""
        periods = self.period if isinstance(self.period, tuple) else (self.period,)
        return sum(1 if period is None else 2 * self.harmonics for period in periods)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out_size"]:
        """Transform one point."""
        periods = self.period if isinstance(self.period, tuple) else (self.period,)
        if x.shape != ((len(periods),) if isinstance(self.period, tuple) else ()):
            raise BadValueError(
                f"PeriodicInput with period={self.period} got a point of shape {x.shape}. "
                "Give one period for points of shape (), a tuple of d for points of shape (d,)."
            )
        parts = []
        for coordinate, period in zip(jnp.atleast_1d(x), periods, strict=True):
            if period is None:
                parts.append(coordinate[None])
            else:
                angle = 2 * jnp.pi / period * jnp.arange(1, self.harmonics + 1) * coordinate
                parts += [jnp.cos(angle), jnp.sin(angle)]
        return jnp.concatenate(parts)


class _InputTransformed(eqx.Module):
    model: PyTree
    fn: Callable

    def __call__(self, x: PyTree) -> PyTree:
        return self.model(self.fn(x))


class _OutputTransformed(eqx.Module):
    model: PyTree
    fn: Callable

    def __call__(self, x: PyTree) -> PyTree:
        return self.fn(x, self.model(x))


class _TransformedRecipe(AbstractRecipe):
    recipe: Callable
    wrap: Callable
    fn: Callable

    def __call__(self, *, key: Key[Array, ""]) -> PyTree:
        return self.wrap(self.recipe(key=key), self.fn)

    def spread_over(self, places: Sequence[Place]) -> AbstractRecipe:
        """What is behind a transform of the input sees the transformed places."""
        if not isinstance(self.recipe, AbstractRecipe):
            return self
        if self.wrap is _InputTransformed:
            places = mapped(places, self.fn)
        return dataclasses.replace(self, recipe=self.recipe.spread_over(places))


def with_input(model: PyTree, fn: Callable[[Any], Any]) -> PyTree:
    """Transform the input: the result is u(fn(x)).

    Args:
        model: A recipe or a ready model; the result is of the same kind.
        fn: From a point to the model's input, e.g. `PeriodicInput`.
    """
    return _transformed(model, fn, _InputTransformed)


def with_output(model: PyTree, fn: Callable[[Any, Any], Any]) -> PyTree:
    """Transform the output: the result is fn(x, u(x)), which can hold a condition exactly.

    `with_output(model, lambda t, y: 1 + t * y)` starts at 1 whatever the parameters are.

    Args:
        model: A recipe or a ready model; the result is of the same kind.
        fn: From a point and the model's value there to the new value.
    """
    return _transformed(model, fn, _OutputTransformed)


def _transformed(model: PyTree, fn: Callable, wrap: Callable) -> PyTree:
    if not callable(model) or not callable(fn):
        raise BadTypeError(
            "with_input and with_output take a model and a function fn, "
            f"got {shown(model)} and {shown(fn)}."
        )
    return _TransformedRecipe(model, wrap, fn) if is_recipe(model) else wrap(model, fn)
