"""Networks of which only the last layer is trained."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from constrainednn._common.arguments import as_count, as_function
from constrainednn._common.messages import shown
from constrainednn._common.random_keys import numpy_generator, stream
from constrainednn.domains.base import AbstractDomain
from constrainednn.errors import BadTypeError
from constrainednn.models.first_layer import spread
from constrainednn.models.recipes import AbstractRecipe, Frozen, Size, as_array, as_flag, as_size


class FeatureNetwork(eqx.Module):
    """One hidden layer with frozen inner weights; what `RandomFeatures` builds.

    Value: head_weight @ activation(inner_weight @ x + inner_bias) + head_bias.
    """

    inner: Frozen
    head_weight: Float[Array, "out width"]
    head_bias: Float[Array, " out"]
    activation: Callable
    scalar: bool

    def __init__(
        self,
        inner: Frozen,
        head_weight: Float[Array, "out width"],
        head_bias: Float[Array, " out"],
        activation: Callable,
        scalar: bool,
    ):
        if not isinstance(inner, Frozen):
            raise BadTypeError(
                f"inner of FeatureNetwork must be a cx.models.Frozen, got {shown(inner)}."
            )
        self.inner = inner
        self.head_weight = as_array(head_weight, "head_weight", 2)
        self.head_bias = as_array(head_bias, "head_bias", 1)
        self.activation = as_function(activation, "activation of FeatureNetwork", "jax.numpy.tanh")
        self.scalar = as_flag(scalar, "scalar of FeatureNetwork")

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Evaluate at one point of shape () or (d,)."""
        weight, bias = self.inner.value
        y = self.head_weight @ self.activation(weight @ jnp.atleast_1d(x) + bias) + self.head_bias
        return y[0] if self.scalar else y


class RandomFeatures(AbstractRecipe):
    """Random features: hyperplanes spread over a domain, frozen; only the head is trained.

    A linear condition on the result is then one linear least-squares problem. In one dimension the
    centres lie on a uniform grid slightly wider than the domain and the slopes grow with the width;
    in more, the hyperplanes pass through points spread over the domain in random directions.

    Args:
        over: Domain of the model's input; its points have shape () or (d,).
        out_size: Length of the value, or "scalar".
        width: Number of features.
        activation: A smooth function of one number.

    Source:
        Huang, Zhu and Siew, Neurocomputing 70 (2006) 489 (extreme learning machines); the spread
        follows Calabro, Fabiani and Siettos, CMAME 387 (2021) 114188, with slopes measured here.
    """

    over: AbstractDomain
    out_size: Size
    width: int
    activation: Callable

    def __init__(
        self,
        over: AbstractDomain,
        out_size: Size,
        *,
        width: int = 80,
        activation: Callable = jnp.tanh,
    ):
        if not isinstance(over, AbstractDomain):
            raise BadTypeError(
                f"RandomFeatures needs a domain to spread over, got over={shown(over)}."
            )
        self.over = over
        self.out_size = as_size(out_size, "out_size")
        self.width = as_count(width, "width of RandomFeatures")
        self.activation = as_function(activation, "activation of RandomFeatures", "jax.numpy.tanh")

    def __call__(self, *, key: Key[Array, ""]) -> FeatureNetwork:
        """Draw the features and a small random head."""
        weight, bias = spread(self.over, self.width, key=key)
        dtype = weight.dtype
        out = 1 if self.out_size == "scalar" else self.out_size
        head = numpy_generator(stream(key, "head")).normal(size=(out, self.width))
        return FeatureNetwork(
            Frozen((weight, bias)),
            jnp.asarray(head / math.sqrt(self.width), dtype),
            jnp.zeros(out, dtype),
            self.activation,
            self.out_size == "scalar",
        )
