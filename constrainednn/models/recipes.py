"""Recipes: what builds a model from a key, and which of its parameters are trained."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from constrainednn._common.arguments import as_count, leaves_of
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.errors import BadTypeError, BadValueError

Size = int | Literal["scalar"]
# What a constraint holds over.
Place = AbstractDomain | Points | Data


def is_recipe(model: PyTree) -> bool:
    """True for a recipe (holds no inexact array, is called with `key=`), False for a model."""
    return not any(eqx.is_inexact_array(leaf) for leaf in leaves_of(model, "model"))


class Frozen(eqx.Module):
    """Leaves that are not trained unless a `trainable` selection names them.

    Attributes:
        value: The pytree that stays fixed.
    """

    value: PyTree

    def __init__(self, value: PyTree):
        leaves_of(value, "value of Frozen")
        self.value = value


def trainable_mask(model: PyTree, select: Callable[[Any], Any] | None) -> PyTree[bool]:
    """Mark the leaves that are trained.

    Args:
        model: A ready model.
        select: As `where` in `equinox.tree_at`: from the model to the part (or a sequence of
            parts) whose inexact arrays are trained. None trains all outside `Frozen`.
    """
    if select is None:
        frozen = lambda node: isinstance(node, Frozen)  # noqa: E731
        chosen = jax.tree.map(
            lambda node: jax.tree.map(lambda _: False, node) if frozen(node) else True,
            model,
            is_leaf=frozen,
        )
    else:
        none = jax.tree.map(lambda _: False, model)
        try:
            chosen = eqx.tree_at(
                select, none, replace_fn=lambda part: jax.tree.map(lambda _: True, part)
            )
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadValueError(
                f"trainable= does not name a part of the model, {type(model).__name__}: {error}. "
                "Write a function such as lambda u: u.layers[-1]."
            ) from error
    return jax.tree.map(lambda leaf, use: bool(use and eqx.is_inexact_array(leaf)), model, chosen)


class AbstractRecipe(eqx.Module):
    """How to build a model from a random key; holds settings and no arrays."""

    @abc.abstractmethod
    def __call__(self, *, key: Key[Array, ""]) -> PyTree:
        """Build the model."""

    def spread_over(self, places: Sequence[Place]) -> "AbstractRecipe":
        """The same recipe for inputs at these places; itself where it does not depend on them.

        Args:
            places: The domains and finite sets that a problem's constraints hold over.
        """
        del places
        return self


def as_array(value: Array, what: str, ndim: int) -> Array:
    """A parameter given as an array, or raise naming it."""
    if not eqx.is_inexact_array(value) or value.ndim != ndim:
        raise BadTypeError(
            f"{what} of FeatureNetwork must be a floating-point jax array of {ndim} axes, "
            f"got {shown(value)}."
        )
    return value


def as_flag(value: bool, what: str) -> bool:
    """True or False, or raise naming it."""
    if not isinstance(value, (bool, np.bool_)):
        raise BadTypeError(f"{what} must be True or False, got {shown(value)}.")
    return bool(value)


def as_size(value: Size, what: str) -> Size:
    """A number of inputs or outputs, or "scalar", or raise naming it."""
    if isinstance(value, str):
        if value == "scalar":
            return "scalar"
        raise BadTypeError(
            f'{what} must be an integer, or "scalar" for shape (), got {shown(value)}. '
            "Write whole numbers without quotes."
        )
    return as_count(value, what)
