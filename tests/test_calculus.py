"""Derivatives of callables: layer-by-layer rules against nested forward mode and closed forms."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn.models.transforms import _InputTransformed
from constrainednn.operators.derivatives import (
    derivative,
    divergence,
    jacobian,
    laplacian,
    partial,
    taylor,
)

KEY = jax.random.key(0)
EPS = np.finfo(float).eps
ORDER = 6
T = jnp.array(0.3)


def compiled(fn, *args):
    """Evaluate as one program: operation by operation, each would be compiled on its own."""
    # Every program runs once, so the time to optimise it is lost.
    once = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(lambda *args: fn(*args), compiler_options=once)(*args)


def nested(u, order=ORDER):
    """The derivatives by nested forward mode: every level differentiates the one below."""
    if order == 0:
        return lambda t: (u(t),)
    below = nested(u, order - 1)

    def derivatives(t):
        values, slopes = jax.jvp(below, (t,), (jnp.ones_like(t),))
        return (*values, slopes[-1])

    return derivatives


def hessian_trace(u):
    trace = lambda hessian: jnp.trace(hessian, axis1=-2, axis2=-1)  # noqa: E731
    return lambda x: jax.tree.map(trace, jax.hessian(u)(x))


def assert_close(got, expected):
    """Equal up to rounding, in each leaf relative to the largest entry of it.

    A derivative of order six sums some thousand products, so a thousand times the last bit; the
    two ways of computing it differ most where terms cancel, which takes another factor of ten.
    """
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        rounding = 1e4 * np.finfo(other.dtype).eps * max(1.0, np.max(np.abs(other)))
        np.testing.assert_allclose(one, other, rtol=0, atol=rounding)


def assert_equal_pairs(pairs, *args):
    """Check the pairs (got, expected) that a function returns, all compiled as one program."""
    for got, expected in compiled(pairs, *args):
        assert_close(got, expected)


def equations(fn, *args):
    """Number of equations in the program of `fn`, inner ones included."""

    def count(jaxpr):
        inner = jax.tree.leaves([equation.params for equation in jaxpr.eqns], is_leaf=is_program)
        return len(jaxpr.eqns) + sum(count(leaf.jaxpr) for leaf in inner if is_program(leaf))

    def is_program(node):
        return hasattr(node, "jaxpr") and hasattr(node.jaxpr, "eqns")

    return count(jax.make_jaxpr(fn)(*args).jaxpr)


def size(u, order):
    return equations(lambda t: taylor(u, t, order), T)


def flops(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]


def foreign(u):
    """The same function without its type, so that no rule applies."""
    return lambda x: u(x)


class Snake(eqx.Module):
    """A learnt activation: y + sin(rate y)^2 / rate."""

    rate: jax.Array

    def __call__(self, y):
        return y + jnp.sin(self.rate * y) ** 2 / self.rate


class Doubled(eqx.nn.MLP):
    """A subclass that computes something else than its base."""

    def __call__(self, x, *, key=None):
        return 2 * eqx.nn.MLP.__call__(self, x)


def network(*args, kind=eqx.nn.MLP, **kwargs):
    """An Equinox network with weights from NumPy: JAX's would be compiled for every shape."""
    generator = np.random.default_rng(0)
    shapes = eqx.filter_eval_shape(kind, *args, **kwargs, key=KEY)
    draw = lambda leaf: jnp.asarray(generator.uniform(-1, 1, leaf.shape))  # noqa: E731
    return jax.tree.map(
        lambda leaf: draw(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, shapes
    )


def with_fields(x, y):
    return {"sum": jnp.sum(jnp.sin(x)) * y, "square": y * y}


def stretched(x):
    return jnp.exp(0.3 * x) + x * x


LINE = cx.RandomFeatures(cx.Interval(0, 1), 3, width=4)(key=KEY)
FOURIER = cx.models.PeriodicInput(2.0, harmonics=2)
WAVES = cx.models.PeriodicInput((2.0, None, 1.0), harmonics=2)

MODELS_OF_TIME = {
    "linear": cx.Linear("scalar", 2)(key=KEY),
    "no hidden layer": network("scalar", 2, 3, 0, final_activation=jnp.tanh),
    "final activation": network("scalar", 2, 3, 1, jnp.tanh, jax.nn.sigmoid),
    "scalar final activation": network("scalar", "scalar", 3, 2, jnp.sin, lambda y: y * y),
    "learnt activation": network("scalar", 2, 3, 1, Snake(jnp.array(1.7))),
    "random features": LINE,
    "scalar features": cx.RandomFeatures(
        cx.Interval(0, 1), "scalar", width=4, activation=lambda y: y / (1 + y * y)
    )(key=KEY),
    "periodic": cx.models.with_input(network(4, 2, 3, 1, jnp.tanh), FOURIER),
    "fields": cx.with_output(cx.models.with_input(LINE, stretched), with_fields),
}

ACTIVATIONS = [
    jnp.tanh,
    jax.nn.sigmoid,
    jnp.sin,
    jnp.cos,
    jnp.exp,
    jax.nn.softplus,
    jax.nn.silu,
    jax.nn.gelu,
    jax.nn.relu,
    jax.nn.identity,
]


@pytest.mark.parametrize(
    "activation",
    [fn if fn in (jnp.tanh, jnp.exp, jax.nn.relu) else slow(fn) for fn in ACTIVATIONS],
    ids=lambda fn: fn.__name__,
)
def test_recurrence_of_an_activation_agrees_with_nested_forward_mode(activation):
    # activation(20 sin t): no coefficient of the argument vanishes, and some values are large.
    scale = cx.Linear("scalar", "scalar", bias=False)(key=KEY)
    scale = eqx.tree_at(lambda layer: layer.weight, scale, jnp.full((1, 1), 20.0))
    u = _InputTransformed(activation, cx.models.with_input(scale, jnp.sin))
    times = jnp.array([-1.2, -0.1, 0.0, 0.01, 0.3, 2.0])
    assert_equal_pairs(jax.vmap(lambda t: [(taylor(u, t, ORDER), nested(u)(t))]), times)
    # The recurrence was found: twice the order is four times the work, where nesting takes eight.
    assert size(u, 6) < 4 * size(u, 3)


@pytest.mark.parametrize(
    "name",
    [
        slow(name)
        if name
        in ("fields", "scalar features", "periodic", "learnt activation", "scalar final activation")
        else name
        for name in MODELS_OF_TIME
    ],
)
def test_model_agrees_with_nested_forward_mode(name):
    u = MODELS_OF_TIME[name]
    assert_close(compiled(lambda t: taylor(u, t, ORDER), T), compiled(nested(u), T))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_lower_order_gives_the_same_derivatives_and_no_more(order):
    u = MODELS_OF_TIME["scalar final activation"]
    assert_equal_pairs(lambda t: [(taylor(u, t, order), taylor(u, t, 5)[: order + 1])], T)


@pytest.mark.parametrize(
    "u",
    [
        foreign(MODELS_OF_TIME["fields"]),
        network("scalar", 2, 3, 3, jnp.tanh, scan=True),
        network("scalar", 2, 3, 1, jnp.tanh, kind=Doubled),
    ],
    ids=["function", "scan", "subclass"],
)
def test_callable_without_a_rule_agrees_with_nested_forward_mode(u):
    assert_close(compiled(lambda t: taylor(u, t, 3), T), compiled(nested(u, 3), T))


@pytest.mark.slow
def test_cost_of_a_network_is_quadratic_in_the_order_and_nesting_is_exponential():
    u = network("scalar", 2, 64, 2, jnp.tanh)
    orders = range(1, ORDER + 1)
    # A polynomial of degree two, exactly.
    assert not np.diff([size(u, order) for order in orders], n=3).any()
    twin = [size(foreign(u), order) for order in orders]
    assert all(after > 2 * before for before, after in itertools.pairwise(twin))
    first, *work = [flops(lambda t, k=k: taylor(u, t, k), T) for k in (1, 3, 6)]
    assert all(each <= k**2 * first for each, k in zip(work, (3, 6), strict=True))


@pytest.mark.parametrize("order", [1, 2, *map(slow, range(3, ORDER + 1))])
def test_closed_forms(order):
    def power(n):
        return math.perm(n, order) * 0.3 ** max(n - order, 0)

    def pairs(t):
        powers = lambda t: {"cube": t**3, "pair": (2 * t, jnp.stack([t, t**7]))}  # noqa: E731
        expected = {"cube": power(3), "pair": (2 * power(1), jnp.stack([power(1), power(7)]))}
        wave = jnp.sin(t + order * jnp.pi / 2)
        return [
            (derivative(powers, order=order)(t), jax.tree.map(jnp.asarray, expected)),
            (derivative(jnp.exp, order)(t), jnp.exp(t)),
            (derivative(jnp.sin, order)(t), wave),
            (derivative(foreign(jnp.sin), order)(t), wave),
        ]

    assert_equal_pairs(pairs, T)


def test_factorials_beyond_the_whole_numbers_of_jax():
    derivatives = np.asarray(taylor(jnp.exp, 0.3, order=60))  # 21! has more than 64 bits
    eps = np.finfo(derivatives.dtype).eps
    np.testing.assert_allclose(derivatives, np.exp(0.3), rtol=60 * eps)  # a rounding an order


def test_a_point_may_be_a_number():
    assert_close(taylor(jnp.sin, 0.3, order=1), (jnp.sin(T), jnp.cos(T)))
    assert_close(derivative(jnp.square)(3), jnp.array(6.0))


MODELS_OF_SPACE = {
    "vector": network(3, 2, 5, 2, jnp.tanh),
    "scalar": network(3, "scalar", 5, 2, jax.nn.gelu, jax.nn.softplus),
    "activation without a rule": network(3, 2, 5, 1, lambda y: y / (1 + y * y)),
    "linear": cx.Linear(3, 2)(key=KEY),
    "random features": cx.RandomFeatures(cx.Normal(3), 2, width=5, activation=jnp.sin)(key=KEY),
    "periodic": cx.models.with_input(network(9, 2, 5, 1, jnp.tanh), WAVES),
    "fields": cx.with_output(
        cx.models.with_input(network(3, 3, 5, 1, jnp.tanh), stretched), with_fields
    ),
    "matrix": lambda x: jnp.outer(jnp.sin(x), x),
}
X = jnp.array([0.3, -0.7, 0.5])


@pytest.mark.parametrize(
    "name",
    [slow(name) if name in ("fields", "scalar", "periodic") else name for name in MODELS_OF_SPACE],
)
def test_laplacian_is_the_trace_of_the_hessian(name):
    u = MODELS_OF_SPACE[name]
    assert_close(compiled(laplacian(u), X), compiled(hessian_trace(u), X))


def test_laplacian_of_known_functions():
    wave = jnp.array([1.0, 2.0, -3.0])

    def harmonic(x):
        return x[0] ** 2 - x[1] ** 2 + jnp.exp(x[0]) * jnp.sin(x[1])

    def pairs(x, t):
        return [
            (laplacian(harmonic)(x), jnp.zeros(())),
            (laplacian(lambda x: x @ x)(x), jnp.array(6.0)),
            (laplacian(lambda x: jnp.sin(wave @ x))(x), -14 * jnp.sin(wave @ x)),
            (laplacian(jnp.cos)(t), -jnp.cos(t)),
            # The Laplacian of |x|^n is n (n + d - 2) |x|^(n - 2), so twice gives 4 * 5 * 2 * 3.
            (laplacian(laplacian(lambda x: (x @ x) ** 2))(x), jnp.array(120.0)),
        ]

    assert_equal_pairs(pairs, X, T)


@pytest.mark.slow
def test_laplacian_costs_d_plus_two_evaluations():
    for d in (2, 8):
        u = network(d, "scalar", 64, 2, jnp.tanh)
        x = jnp.ones(d)
        ratio = flops(laplacian(u), x) / flops(foreign(u), x)
        assert ratio < 1.3 * (d + 2)


def test_partials_and_jacobian_of_a_known_field():
    def u(x):
        return {"product": x[0] * x[1] ** 2 * x[2], "pair": jnp.stack([jnp.sin(x[0]), x[1]])}

    def pairs(x):
        a, b, c = x
        J = jacobian(u)(x)
        zero, one = jnp.zeros(()), jnp.ones(())
        rows = [jnp.stack([jnp.cos(a), zero, zero]), jnp.stack([zero, one, zero])]
        return [
            (partial(u, 1)(x), {"product": 2 * a * b * c, "pair": jnp.stack([zero, one])}),
            (partial(partial(u, 0), 1)(x)["product"], 2 * b * c),
            (partial(partial(u, 1), 0)(x)["product"], 2 * b * c),
            (partial(u, 1, order=2)(x), {"product": 2 * a * c, "pair": jnp.zeros(2)}),
            (partial(u, 0, order=3)(x)["pair"], jnp.stack([-jnp.cos(a), zero])),
            (J["product"], jnp.stack([b**2 * c, 2 * a * b * c, a * b**2])),
            (J["pair"], jnp.stack(rows)),
            (jacobian(lambda t: jnp.stack([t, t**2]))(a), jnp.stack([one, 2 * a])),
        ]

    assert_equal_pairs(pairs, X)


def test_jacobian_of_a_network_is_that_of_reverse_mode():
    u = MODELS_OF_SPACE["vector"]

    def pairs(x):
        J = jacobian(u)(x)
        columns = [partial(u, i)(x) for i in range(3)]
        return [(J, jax.jacrev(u)(x)), (J, jnp.stack(columns, axis=1))]

    assert_equal_pairs(pairs, X)


@pytest.mark.slow
def test_divergence_of_known_fields():
    potential, u = network(3, 3, 5, 2, jnp.tanh), MODELS_OF_SPACE["scalar"]

    def curl(x):
        J = jacobian(potential)(x)
        return jnp.stack([J[2, 1] - J[1, 2], J[0, 2] - J[2, 0], J[1, 0] - J[0, 1]])

    def pairs(x):
        return [
            (divergence(lambda x: 3 * x)(x), jnp.array(9.0)),
            (divergence(lambda x: x[::-1] * x)(x), jnp.sum(x) + x[1]),
            # The divergence of a curl is zero and that of a gradient is the Laplacian.
            (divergence(curl)(x), jnp.zeros(())),
            (divergence(jax.grad(u))(x), laplacian(u)(x)),
        ]

    assert_equal_pairs(pairs, X)


def squares(derivatives):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(derivatives))


LOSSES = {
    "taylor": lambda u, v: squares(taylor(u, T, order=3)),
    "residual": lambda u, v: squares(derivative(u)(T) + derivative(u, order=2)(T) + u(T)),
    "laplacian": lambda u, v: squares(laplacian(v)(X) - v(X)),
    "partial": lambda u, v: squares(partial(partial(v, 0), 2)(X) + v(X)),
    "jacobian": lambda u, v: squares(jacobian(v)(X)),
}


@pytest.mark.parametrize(
    "name", [name if name in ("partial", "jacobian") else slow(name) for name in LOSSES]
)
def test_gradient_by_parameters_is_that_of_nested_forward_mode(name):
    models = MODELS_OF_TIME["final activation"], MODELS_OF_SPACE["random features"]
    params, static = eqx.partition(models, eqx.is_inexact_array)

    def loss(params, view):
        return LOSSES[name](*map(view, eqx.combine(params, static)))

    def gradients(params):
        return [(jax.grad(loss)(params, lambda u: u), jax.grad(loss)(params, foreign))]

    [(gradient, expected)] = compiled(gradients, params)
    assert squares(gradient) > 1e-3
    assert_close(gradient, expected)


@pytest.mark.slow
def test_gradient_by_parameters_is_the_slope_of_a_finite_difference():
    params, static = eqx.partition(MODELS_OF_TIME["final activation"], eqx.is_inexact_array)
    direction = jax.tree.map(jnp.cos, params)

    def along(h):
        moved = jax.tree.map(lambda a, b: a + h * b, params, direction)
        return squares(taylor(eqx.combine(moved, static), T, order=4))

    h = 1e-5
    losses = jax.jit(jax.vmap(along))(jnp.array([h, -h]))
    # Truncation is h^2 = 1e-10 times a third derivative of the loss, rounding EPS / h = 2e-11.
    difference = (losses[0] - losses[1]) / (2 * h)
    assert np.isclose(difference, compiled(jax.grad(along), 0.0), rtol=1e-6)


@pytest.mark.slow
def test_results_are_compiled_batched_and_differentiated_like_any_function():
    u, v = MODELS_OF_TIME["final activation"], MODELS_OF_SPACE["random features"]

    def pairs(t, x):
        times, points = jnp.stack([t, -t]), jnp.stack([x, 2 * x])
        second, third = derivative(u, order=2), derivative(u, order=3)
        return [
            (jax.vmap(second)(times), jnp.stack([second(t), second(-t)])),
            (jax.jacrev(second)(t), third(t)),
            (derivative(second)(t), third(t)),
            (jax.vmap(laplacian(v))(points), jnp.stack([laplacian(v)(x) for x in points])),
            (jax.jacrev(laplacian(v))(x), jacobian(laplacian(foreign(v)))(x)),
        ]

    assert_equal_pairs(pairs, T, X)
    assert_close(jax.jit(derivative(u))(T), jax.jacfwd(u)(T))


@pytest.mark.slow
def test_values_keep_the_dtype_of_the_point():
    single = lambda tree: jax.tree.map(  # noqa: E731
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, tree
    )
    for name in ("final activation", "periodic", "fields"):
        narrow = single(MODELS_OF_TIME[name])
        got = jax.eval_shape(lambda t, u=narrow: taylor(u, t, 2), single(T))
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype("float32")}
    got = jax.eval_shape(laplacian(single(MODELS_OF_SPACE["vector"])), single(X))
    assert got.dtype == np.float32


@pytest.mark.usefixtures("as_released")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: partial(jnp.sum, -1)(X), ValueError, "at least 0, got -1"),
        (lambda: partial(jnp.sum, 3)(X), ValueError, r"shape \(3,\): its coordinates are 0 to 2"),
        (lambda: partial(jnp.sum, 0)(T), ValueError, r"shape \(d,\), got \(\)\. Use derivative"),
        (lambda: derivative(jnp.sum)(X), ValueError, r"shape \(\), got \(3,\)\. Use partial"),
        (lambda: derivative(jnp.sin, order=0), ValueError, "order of derivative must be at least"),
        (lambda: derivative(jnp.sin, order=1.0), TypeError, "must be an integer"),
        (lambda: derivative(jnp.sin(T)), TypeError, r"derivative\(u\), not derivative\(u\(x\)\)"),
        (lambda: taylor(jnp.sin, X, order=2), ValueError, r"shape \(\), got \(3,\)"),
        (lambda: taylor(lambda t: t**2, T, order=30), ValueError, "order 30 is too high for"),
        (
            lambda: taylor(jnp.sin, T, order=10**6),
            ValueError,
            "order of taylor must be at most 170",
        ),
        (lambda: jacobian(jnp.sin)(1j * X), TypeError, "takes a real point"),
        (lambda: jacobian(jnp.sum)(jnp.ones(10**5)), ValueError, "1 to 10000 coordinates"),
        (lambda: taylor(jnp.sin, (T, T), order=2), ValueError, r"got \(\(\), \(\)\)"),
        (lambda: taylor(jnp.sin, T, order=-1), ValueError, "order of taylor must be at least 0"),
        (lambda: laplacian(jnp.sum)(jnp.ones((2, 3))), ValueError, r"got \(2, 3\).*jax\.vmap"),
        (lambda: divergence(jnp.sum)(X), ValueError, r"shape \(3,\) and a value of shape \(\)"),
        (lambda: divergence(lambda x: (x, x))(X), ValueError, r"value of shape \(\(3,\), \(3,\)\)"),
        (lambda: divergence(jnp.sin)(T), ValueError, r"shape \(d,\), got \(\)"),
        (lambda: laplacian(MODELS_OF_SPACE["periodic"])(X[:2]), ValueError, r"shape \(2,\)"),
        (lambda: jacobian(3.0), TypeError, "takes a function or a model, got float"),
    ],
)
def test_misuse_is_refused_with_what_to_write(make, error, says):
    with pytest.raises(error, match=says):
        make()
