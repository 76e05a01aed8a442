"""Multilayer perceptrons and linear models."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from constrainednn._common.arguments import as_count, as_function
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.spheres import Normal
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.first_layer import around, initialised, spread
from constrainednn.models.recipes import AbstractRecipe, Frozen, Place, Size, as_flag, as_size


class Linear(AbstractRecipe):
    """A linear map, with a bias unless `bias=False`.

    Args:
        in_size: Length of a point, or "scalar" for points of shape ().
        out_size: Length of the value, or "scalar".
        bias: Whether a constant is added.
    """

    in_size: Size
    out_size: Size
    bias: bool

    def __init__(self, in_size: Size, out_size: Size, *, bias: bool = True):
        self.in_size, self.out_size = as_size(in_size, "in_size"), as_size(out_size, "out_size")
        self.bias = as_flag(bias, "bias of Linear")

    def __call__(self, *, key: Key[Array, ""]) -> eqx.nn.Linear:
        """Build an `equinox.nn.Linear`."""
        shape = eqx.filter_eval_shape(
            eqx.nn.Linear, self.in_size, self.out_size, self.bias, key=key
        )
        return initialised(shape, key=key)


class MLP(AbstractRecipe):
    """A fully connected network.

    Args:
        in_size: Length of a point, or "scalar" for points of shape ().
        out_size: Length of the value, or "scalar".
        width: Units in each hidden layer.
        depth: Number of hidden layers; 0 is a linear map.
        activation: A smooth function of one number. The default is tanh because the second
            derivative of relu is zero and a residual with second derivatives would not see it.
        over: Domain of the input. The first layer's hyperplanes are spread over it, as a network
            whose units all bend near the origin wastes most of them. Default: in a problem, the
            smallest box around all that its constraints hold over, as far as points there have
            this input size (the domain itself if there is one; one without bounds counts with its
            standard deviation, `Data` with the rows that are trained on); elsewhere, standard
            normal inputs.
    """

    in_size: Size
    out_size: Size
    width: int
    depth: int
    activation: Callable
    over: AbstractDomain | None

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        *,
        width: int = 64,
        depth: int = 1,
        activation: Callable = jnp.tanh,
        over: AbstractDomain | None = None,
    ):
        self.in_size, self.out_size = as_size(in_size, "in_size"), as_size(out_size, "out_size")
        self.width = as_count(width, "width of MLP")
        self.depth = as_count(depth, "depth of MLP", least=0)
        self.activation = as_function(activation, "activation of MLP", "jax.numpy.tanh")
        self.over = over
        if over is not None and not isinstance(over, AbstractDomain):
            raise BadTypeError(f"MLP needs a domain to spread over, got over={shown(over)}.")

    def __call__(self, *, key: Key[Array, ""]) -> eqx.nn.MLP:
        """Build an `equinox.nn.MLP` and spread its first layer."""
        sizes = self.in_size, self.out_size, self.width, self.depth, self.activation
        shape = _mlp(jnp.result_type(float), *sizes)
        model = initialised(shape, key=key)
        if self.depth == 0:
            return model
        over = Normal(1 if self.in_size == "scalar" else self.in_size)
        over = over if self.over is None else self.over
        weight, bias = spread(over, self.width, key=key, trained=True)
        first = model.layers[0].weight
        if weight.shape != first.shape:
            raise BadValueError(
                f"MLP with in_size={self.in_size!r} cannot be spread over {over!r}, whose "
                f"points have {weight.shape[1]} coordinates."
            )
        return eqx.tree_at(lambda u: (u.layers[0].weight, u.layers[0].bias), model, (weight, bias))

    def spread_over(self, places: Sequence[Place]) -> "MLP":
        """Take the smallest box around all places that fit, unless `over` was given."""
        if self.over is not None or self.depth == 0:
            return self
        return dataclasses.replace(self, over=around(places, self.in_size))


def hidden_network(model: PyTree) -> eqx.nn.MLP | None:
    """The network with hidden layers in a model; None if there is none, or more than one.

    What is frozen does not count.
    """
    ends = lambda node: isinstance(node, (eqx.nn.MLP, Frozen))  # noqa: E731
    found = [
        node
        for node in jax.tree.leaves(model, is_leaf=ends)
        if isinstance(node, eqx.nn.MLP) and len(node.layers) > 1
    ]
    return found[0] if len(found) == 1 else None


def head_of(model: PyTree) -> eqx.nn.Linear:
    """The last layer of the network in a model, which enters linearly."""
    network = hidden_network(model)
    if network is None:
        raise BadValueError(
            "the model must hold one network with hidden layers, such as cx.MLP(2, 1) builds."
        )
    return network.layers[-1]


@functools.lru_cache(maxsize=16)
def _mlp(dtype: Any, *sizes: Any) -> eqx.nn.MLP:
    """The shapes of a network: to trace it takes longer than to draw its weights."""
    del dtype  # that of all of them, and of what is kept here
    return eqx.filter_eval_shape(eqx.nn.MLP, *sizes, key=jax.random.key(0))
