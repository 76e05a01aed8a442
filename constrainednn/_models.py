"""Models: recipes that build a network from a key, and transforms for hard constraints."""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._domains import AbstractDomain, Normal
from constrainednn._errors import BadTypeError, BadValueError
from constrainednn._keys import numpy_generator, stream
from constrainednn._samplers import SOBOL_DIMENSIONS, Independent, Sobol, draw
from constrainednn._validate import as_count, as_function, as_positive, leaves_of, shown

Size = int | Literal["scalar"]


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
        self.in_size, self.out_size = _size(in_size, "in_size"), _size(out_size, "out_size")
        self.bias = _flag(bias, "bias of Linear")

    def __call__(self, *, key: Key[Array, ""]) -> eqx.nn.Linear:
        """Build an `equinox.nn.Linear`."""
        shape = eqx.filter_eval_shape(
            eqx.nn.Linear, self.in_size, self.out_size, self.bias, key=key
        )
        return _initialised(shape, key=key)


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
            whose units all bend near the origin wastes most of them. Default: standard normal
            inputs.
    """

    in_size: Size
    out_size: Size
    width: int
    depth: int
    activation: Callable
    over: AbstractDomain

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
        self.in_size, self.out_size = _size(in_size, "in_size"), _size(out_size, "out_size")
        self.width = as_count(width, "width of MLP")
        self.depth = as_count(depth, "depth of MLP", least=0)
        self.activation = as_function(activation, "activation of MLP", "jax.numpy.tanh")
        inputs = Normal(1 if self.in_size == "scalar" else self.in_size)
        self.over = inputs if over is None else over
        if not isinstance(self.over, AbstractDomain):
            raise BadTypeError(f"MLP needs a domain to spread over, got over={shown(over)}.")

    def __call__(self, *, key: Key[Array, ""]) -> eqx.nn.MLP:
        """Build an `equinox.nn.MLP` and spread its first layer."""
        sizes = self.in_size, self.out_size, self.width, self.depth, self.activation
        shape = _mlp(jnp.result_type(float), *sizes)
        model = _initialised(shape, key=key)
        if self.depth == 0:
            return model
        weight, bias = _spread(self.over, self.width, key=key, trained=True)
        first = model.layers[0].weight
        if weight.shape != first.shape:
            raise BadValueError(
                f"MLP with in_size={self.in_size!r} cannot be spread over {self.over!r}, whose "
                f"points have {weight.shape[1]} coordinates."
            )
        return eqx.tree_at(lambda u: (u.layers[0].weight, u.layers[0].bias), model, (weight, bias))


@functools.lru_cache(maxsize=16)
def _mlp(dtype: Any, *sizes: Any) -> eqx.nn.MLP:
    """The shapes of a network: to trace it takes longer than to draw its weights."""
    del dtype  # that of all of them, and of what is kept here
    return eqx.filter_eval_shape(eqx.nn.MLP, *sizes, key=jax.random.key(0))


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
            raise BadTypeError(f"inner of FeatureNetwork must be a cx.Frozen, got {shown(inner)}.")
        self.inner = inner
        self.head_weight = _array(head_weight, "head_weight", 2)
        self.head_bias = _array(head_bias, "head_bias", 1)
        self.activation = as_function(activation, "activation of FeatureNetwork", "jax.numpy.tanh")
        self.scalar = _flag(scalar, "scalar of FeatureNetwork")

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
        self.out_size = _size(out_size, "out_size")
        self.width = as_count(width, "width of RandomFeatures")
        self.activation = as_function(activation, "activation of RandomFeatures", "jax.numpy.tanh")

    def __call__(self, *, key: Key[Array, ""]) -> FeatureNetwork:
        """Draw the features and a small random head."""
        weight, bias = _spread(self.over, self.width, key=key)
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


def _spread(
    over: AbstractDomain, width: int, *, key: Key[Array, ""], trained: bool = False
) -> tuple[Float[Array, "width d"], Float[Array, " width"]]:
    """Draw weight and bias of a first layer whose hyperplanes pass through points of a domain.

    Slopes are per standard deviation of the points. Measured: in one dimension on decay,
    oscillator and Lotka-Volterra equations (frozen); in two on a Poisson problem (frozen, error
    1e-10 with 200 features) and on the unit circle (trained; a third of the steps of a default
    initialisation).
    """
    sampler = Sobol() if over.unit_dim <= SOBOL_DIMENSIONS else Independent()
    points = draw(over, 1024, sampler, key=stream(key, "spread")).points
    if not isinstance(points, np.ndarray) or points.ndim > 2:
        raise BadTypeError(
            f"A model needs input points of shape () or (d,), but {over!r} has others."
        )
    points = points.reshape(len(points), -1)
    dim = points.shape[1]
    middle, deviation = points.mean(axis=0), points.std(axis=0)
    if not (deviation > 0).all():
        raise BadValueError(f"{over!r} does not vary in coordinate {int(np.argmin(deviation))}.")
    generator = numpy_generator(stream(key, "slopes"))
    size = generator.random((width, 1))
    turns = generator.normal(size=(width, dim))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    if dim == 1:
        # Random centres would leave holes; a little outside, too, so that the ends are resolved.
        low, high = points.min(), points.max()
        centres = np.linspace(low, high, width) * 1.1 - 0.1 * middle
        centres = centres[:, None]
        size = size * width * 0.144
    else:
        centres = np.resize(points, (width, dim))
        size = size * 0.06 * width ** (1 / dim)
    if trained:
        size = 2.5
    weight = size * turns / deviation
    bias = -np.sum(weight * centres, axis=1)
    return jnp.asarray(weight, points.dtype), jnp.asarray(bias, points.dtype)


def _initialised(shape: PyTree, *, key: Key[Array, ""]) -> PyTree:
    """Fill a stack of linear layers, uniform in +-1 / sqrt(inputs) as Equinox does."""
    generator = numpy_generator(stream(key, "layers"))

    def fill(node):
        if not isinstance(node, eqx.nn.Linear):
            return node
        bound = 1 / math.sqrt(node.weight.shape[1])
        dtype = node.weight.dtype
        weight = jnp.asarray(generator.uniform(-bound, bound, node.weight.shape), dtype)
        node = eqx.tree_at(lambda layer: layer.weight, node, weight)
        if node.bias is None:
            return node
        bias = jnp.asarray(generator.uniform(-bound, bound, node.bias.shape), dtype)
        return eqx.tree_at(lambda layer: layer.bias, node, bias)

    return jax.tree.map(fill, shape, is_leaf=lambda node: isinstance(node, eqx.nn.Linear))


def _array(value: Array, what: str, ndim: int) -> Array:
    if not eqx.is_inexact_array(value) or value.ndim != ndim:
        raise BadTypeError(
            f"{what} of FeatureNetwork must be a floating-point jax array of {ndim} axes, "
            f"got {shown(value)}."
        )
    return value


def _flag(value: bool, what: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise BadTypeError(f"{what} must be True or False, got {shown(value)}.")
    return bool(value)


def _size(value: Size, what: str) -> Size:
    if isinstance(value, str):
        if value == "scalar":
            return "scalar"
        raise BadTypeError(
            f'{what} must be an integer, or "scalar" for shape (), got {shown(value)}. '
            "Write whole numbers without quotes."
        )
    return as_count(value, what)
