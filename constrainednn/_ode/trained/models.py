"""What is trained: a model in scaled time with the start or a guess built in.

Symbols::

    symbol  shape   meaning
    s       ()      scaled time of a window, -1 at its start, 1 at its end
    p       int     order of the equation
    y       (p, d)  state: value and first p - 1 derivatives, in the user's time
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.messages import shown
from constrainednn.domains.boxes import Interval
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.first_layer import spread
from constrainednn.models.networks import MLP
from constrainednn.models.pieces import start_polynomial
from constrainednn.models.random_features import RandomFeatures
from constrainednn.models.recipes import AbstractRecipe, Frozen, is_recipe

States = tuple[tuple[float, ...], ...]
_SCALED = Interval(-1.0, 1.0)


class Windowed(eqx.Module):
    """A function of one scalar, in each window a trained model that starts at a given state.

    With the share z of a window that has passed its value is the Taylor polynomial of the state at
    its start plus z^p times the model at s = 2 z - 1, so that state is kept whatever is trained.

    Attributes:
        models: One model per window, their arrays stacked along the first axis.
        start: Edges of the windows (K + 1,) and the states at their starts (K, p, d), not trained.
        unravel: From a vector of shape (d,) to the structure of the user's value.
    """

    models: PyTree
    start: Frozen
    unravel: Callable[[Array], PyTree]

    def __call__(self, t: Float[Array, ""]) -> PyTree[Array]:
        """Evaluate at one time."""
        edges, states = self.start.value
        way = jnp.sign(edges[1] - edges[0])
        index = jnp.searchsorted(way * edges[1:-1], way * t, side="right")
        # The end of the last window that was trained is its own; see `cut`.
        index -= (t == edges[index]) & jnp.isnan(states[index]).any()
        model = _taken(self.models, index)
        passed = t - edges[index]
        share = passed / (edges[index + 1] - edges[index])
        value = start_polynomial(states[index], passed, 0)
        value += share ** states.shape[1] * ravel_pytree(model(2 * share - 1))[0]
        return self.unravel(value)

    def window(self, k: int) -> "Windowed":
        """One window alone."""
        edges, states = self.start.value
        one = jax.tree.map(
            lambda leaf: leaf[k : k + 1] if eqx.is_array(leaf) else leaf, self.models
        )
        return Windowed(one, Frozen((edges[k : k + 2], states[k : k + 1])), self.unravel)

    def cut(self, count: int) -> "Windowed":
        """With the first windows only; beyond them the value is NaN."""
        edges, states = self.start.value
        known = jnp.arange(len(states))[:, None, None] < count
        start = Frozen((edges, jnp.where(known, states, jnp.nan)))
        return Windowed(self.models, start, self.unravel)

    @property
    def trained(self) -> int:
        """How many windows are not cut off."""
        return int(np.isfinite(np.asarray(self.start.value[1])).all(axis=(1, 2)).sum())

    def joined(self, k: int, window: "Windowed", end: Float[Array, "p d"]) -> "Windowed":
        """With another model in a window, whose state at the end starts the next."""
        put = lambda all_of, one: all_of.at[k].set(one[0]) if eqx.is_array(one) else one  # noqa: E731
        edges, states = self.start.value
        states = states.at[k + 1 : k + 2].set(end[None])
        models = jax.tree.map(put, self.models, window.models)
        return Windowed(models, Frozen((edges, states)), self.unravel)


def _taken(models: PyTree, index: Array | slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, models)


class WindowedRecipe(AbstractRecipe):
    """How to build a `Windowed` model; all windows begin with the same parameters."""

    recipe: Callable
    edges: tuple[float, ...]
    state: States
    unravel: Callable[[Array], PyTree]

    def __call__(self, *, key: Key[Array, ""]) -> Windowed:
        """Build the model of one window and repeat it."""
        state, count = jnp.asarray(self.state), len(self.edges) - 1
        model = scaled(self.recipe, state.shape[1], key=key)
        repeated = lambda leaf: jnp.stack([leaf] * count) if eqx.is_array(leaf) else leaf  # noqa: E731
        states = jnp.zeros((count, *state.shape), state.dtype).at[0].set(state)
        start = Frozen((jnp.asarray(self.edges), states))
        return Windowed(jax.tree.map(repeated, model), start, self.unravel)


class Guessed(eqx.Module):
    """A function of one scalar: a guess plus a trained model of s, with unknown parameters.

    Attributes:
        model: The model.
        parameters: Unknown numbers of the equation, of shape (q,).
        guess: A function of x, or the entries of a constant.
        span: Left and right end.
    """

    model: PyTree
    parameters: Float[Array, " q"]
    guess: Callable[[Array], Any] | tuple[float, ...]
    span: tuple[float, float]

    def __call__(self, x: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one place."""
        low, high = self.span
        value = self.guess(x) if callable(self.guess) else jnp.asarray(self.guess)
        s = (2 * x - low - high) / (high - low)
        return jnp.ravel(jnp.asarray(value)) + ravel_pytree(self.model(s))[0]


class GuessedRecipe(AbstractRecipe):
    """How to build a `Guessed` model."""

    recipe: Callable
    parameters: tuple[float, ...]
    guess: Callable[[Array], Any] | tuple[float, ...]
    span: tuple[float, float]
    d: int

    def __call__(self, *, key: Key[Array, ""]) -> Guessed:
        """Build the model and put the guess beside it."""
        model = scaled(self.recipe, self.d, key=key)
        return Guessed(model, jnp.asarray(self.parameters, float), self.guess, self.span)


def scaled(recipe: Callable, d: int, *, key: Key[Array, ""]) -> PyTree:
    """A model of scaled time with d values.

    Raises:
        TypeError: If it is none.
    """
    ours = isinstance(recipe, MLP) and recipe.over is None and recipe.depth == 1
    if isinstance(recipe, AbstractRecipe):
        recipe = recipe.spread_over([_SCALED])
    model = recipe(key=key)
    if ours and isinstance(recipe, MLP):
        # Slopes of all sizes, as of random features: measured, the head alone then finds nearly
        # all digits, where equal slopes leave it the first nine.
        weight, bias = spread(_SCALED, recipe.width, key=key)
        where = lambda u: (u.layers[0].weight, u.layers[0].bias)  # noqa: E731
        model = eqx.tree_at(where, model, (weight, bias))
    try:
        found = jax.eval_shape(model, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    except (TypeError, ValueError) as error:
        raise BadTypeError(
            "model must take a number of shape (), the scaled time from -1 to 1: write e.g. "
            f'cx.MLP("scalar", {d}). It raised {type(error).__name__}: {error!s:.200}.'
        ) from error
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
    if count != d:
        raise BadTypeError(
            f"model returns {count} numbers, and the equation has {d}: write e.g. "
            f'cx.MLP("scalar", {d}).'
        )
    return model


def as_recipe(model: Any, span: tuple[float, float]) -> Callable:
    """A recipe for scaled time; one that is spread over the span of the equation is spread anew.

    Raises:
        TypeError: If it is a ready model, which knows nothing of scaled time.
        ValueError: If it is spread over anything else than scaled time or the span.
    """
    if not callable(model) or not is_recipe(model):
        raise BadTypeError(
            f'model must be a recipe such as cx.MLP("scalar", 2, width=40), got {shown(model)}.'
        )
    if not isinstance(model, (MLP, RandomFeatures)):
        return model
    over = model.over
    if over is None or eqx.tree_equal(over, _SCALED):
        return model
    if not eqx.tree_equal(over, Interval(*map(float, sorted(span)))):
        low, high = sorted(span)
        raise BadValueError(
            f"model is spread over {over!r}, and is called with scaled time from -1 to 1, which "
            f"stands for {low:g} to {high:g} or a window of it. Write over=cx.Interval(-1, 1)."
        )
    return dataclasses.replace(model, over=_SCALED)


def head(u: Windowed | Guessed) -> tuple[PyTree, ...]:
    """What enters linearly of a network, with unknown parameters of the equation."""
    if isinstance(u, Windowed):
        return (u.models.layers[-1],)
    return u.model.layers[-1], u.parameters


def has_head(u: Windowed | Guessed) -> bool:
    """True for a network with hidden layers."""
    network = u.models if isinstance(u, Windowed) else u.model
    return isinstance(network, eqx.nn.MLP) and len(network.layers) > 1
