"""Models: what recipes build, what of it is trained, and what transforms hold exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn.domains.samplers.draws import draw
from constrainednn.models.recipes import is_recipe, trainable_mask

KEY = jax.random.key(0)
EPS = np.finfo(float).eps


def trained_leaves(model, select=None):
    return jax.tree.leaves(eqx.filter(model, trainable_mask(model, select)))


def count(model):
    return sum(leaf.size for leaf in trained_leaves(model))


def test_unit_circle_network_has_322_parameters():
    assert count(cx.MLP(2, 2, width=64)(key=KEY)) == 64 * 2 + 64 + 2 * 64 + 2 == 322


@pytest.mark.parametrize(
    "recipe",
    [
        cx.MLP(2, 3, width=8, depth=2),
        cx.Linear(2, 3),
        cx.RandomFeatures(cx.Normal(2), 3, width=8),
        cx.with_output(cx.MLP(2, 3, width=8), lambda x, y: x[0] * y),
    ],
)
def test_recipe_depends_on_its_key_only(recipe):
    assert is_recipe(recipe)
    leaves = [jax.tree.leaves(recipe(key=jax.random.key(seed))) for seed in (0, 0, 1)]
    arrays = [[leaf for leaf in each if eqx.is_inexact_array(leaf)] for each in leaves]
    assert all(np.array_equal(a, b) for a, b in zip(arrays[0], arrays[1], strict=True))
    weights = [(a, b) for a, b in zip(arrays[0], arrays[2], strict=True) if a.ndim == 2]
    assert weights
    assert all(not np.isclose(a, b).any() for a, b in weights)


def test_mlp_is_the_composition_of_its_layers():
    u = cx.MLP(2, 3, width=5, depth=2, activation=jnp.sin)(key=KEY)
    x = jnp.array([0.3, -0.7])
    first, second, last = u.layers
    hidden = jnp.sin(second.weight @ jnp.sin(first.weight @ x + first.bias) + second.bias)
    assert [layer.weight.shape for layer in u.layers] == [(5, 2), (5, 5), (3, 5)]
    assert np.allclose(u(x), last.weight @ hidden + last.bias, rtol=10 * EPS, atol=10 * EPS)


def test_mlp_without_hidden_layer_is_linear():
    u = cx.MLP(2, 2, depth=0)(key=KEY)
    x, y = jnp.array([1.0, 2.0]), jnp.array([-3.0, 0.5])
    assert np.allclose(u(x) + u(y), u(x + y) + u(0 * x), atol=100 * EPS)


def test_linear_without_bias_is_homogeneous():
    u = cx.Linear(2, 2, bias=False)(key=KEY)
    assert count(u) == 4
    assert np.allclose(u(2 * jnp.ones(2)), 2 * u(jnp.ones(2)), rtol=10 * EPS)


@pytest.mark.parametrize(
    "build",
    [
        lambda over: cx.MLP(2, 1, width=50, over=over)(key=KEY).layers[0],
        lambda over: cx.RandomFeatures(over, 1, width=50)(key=KEY).inner.value,
    ],
)
def test_hyperplanes_of_the_first_layer_cross_the_domain(build):
    # Far from the origin, where a default initialisation has none.
    layer = build(cx.Box([10, 20], [11, 21]))
    weight, bias = layer if isinstance(layer, tuple) else (layer.weight, layer.bias)
    from_centre = (weight @ np.array([10.5, 20.5]) + bias) / np.linalg.norm(weight, axis=1)
    assert np.abs(from_centre).max() <= np.sqrt(0.5)
    # Spread over the domain, not through one point of it.
    assert from_centre.std() > 0.2


def test_features_of_an_interval_are_centred_on_a_grid_slightly_wider():
    weight, bias = cx.RandomFeatures(cx.Interval(2, 4), "scalar", width=21)(key=KEY).inner.value
    centres = np.sort(-bias / weight[:, 0])
    # 1,024 spread points reach the ends within about a thousandth of the length.
    assert np.allclose(centres, np.linspace(1.9, 4.1, 21), atol=0.01)


def test_random_features_can_represent_a_smooth_function():
    over = cx.Interval(0, 5)
    u = cx.RandomFeatures(over, "scalar", width=80)(key=KEY)
    x = draw(over, 1000, cx.domains.LatinHypercube(), key=KEY).points
    weight, bias = map(np.asarray, u.inner.value)
    features = np.column_stack([np.tanh(x[:, None] * weight[:, 0] + bias), np.ones_like(x)])
    head, *_ = np.linalg.lstsq(features, np.exp(-x) * np.sin(3 * x), rcond=None)
    u = eqx.tree_at(lambda u: (u.head_weight, u.head_bias), u, (head[None, :-1], head[-1:]))
    fresh = np.linspace(0.01, 4.99, 333)
    error = jax.vmap(u)(jnp.asarray(fresh)) - np.exp(-fresh) * np.sin(3 * fresh)
    assert np.abs(error).max() < 1e-9  # truncation; measured below 1e-10 at this width


def test_only_the_head_of_random_features_is_trained():
    u = cx.RandomFeatures(cx.Normal(2), 3, width=8)(key=KEY)
    assert [leaf.shape for leaf in trained_leaves(u)] == [(3, 8), (3,)]
    wrapped = cx.with_output(u, lambda x, y: x[0] * y)
    assert [leaf.shape for leaf in trained_leaves(wrapped)] == [(3, 8), (3,)]


def test_a_selection_trains_what_it_names_and_nothing_else():
    u = cx.RandomFeatures(cx.Normal(2), 3, width=8)(key=KEY)
    assert [leaf.shape for leaf in trained_leaves(u, lambda u: u.inner)] == [(8, 2), (8,)]
    both = trained_leaves(u, lambda u: (u.inner.value[1], u.head_bias))
    assert [leaf.shape for leaf in both] == [(8,), (3,)]
    mlp = cx.MLP(2, 2, width=4)(key=KEY)
    assert [leaf.shape for leaf in trained_leaves(mlp, lambda u: u.layers[-1])] == [(2, 4), (2,)]


def test_integers_are_never_trained():
    model = {"count": jnp.arange(3), "scale": jnp.ones(2)}
    assert [leaf.shape for leaf in trained_leaves(model)] == [(2,)]


def shift(x):
    return x - 1.0


def hold(x, y):
    return x[0] + (1 - x[0]) * y


@pytest.mark.parametrize("ready", [False, True])
def test_transforms_take_a_recipe_or_a_model_and_return_the_same_kind(ready):
    recipe = cx.MLP(2, 2, width=4)
    plain = recipe(key=KEY)
    given = plain if ready else recipe
    moved, held = cx.models.with_input(given, shift), cx.with_output(given, hold)
    assert is_recipe(moved) is is_recipe(held) is not ready
    if not ready:
        moved, held = moved(key=KEY), held(key=KEY)
    x = jnp.array([0.3, -0.7])
    assert np.array_equal(moved(x), plain(x - 1.0))
    assert np.array_equal(held(x), 0.3 + (1 - x[0]) * plain(x))


def test_output_transform_holds_a_value_whatever_the_parameters():
    model = cx.with_output(cx.MLP("scalar", "scalar", width=4), lambda t, y: 1.0 + t * y)
    for seed in range(3):
        assert model(key=jax.random.key(seed))(jnp.zeros(())) == 1.0


@pytest.mark.slow
def test_periodic_input_makes_value_and_slope_periodic():
    fourier = cx.models.PeriodicInput(2.0, harmonics=3)
    u = cx.models.with_input(cx.MLP(fourier.out_size, "scalar", width=8), fourier)(key=KEY)
    t = jnp.linspace(-1.0, 1.0, 9)
    # Angles reach 3 pi; their rounding is multiplied by the slope of the network, about 30.
    rounding = 1000 * EPS
    assert np.abs(jax.vmap(u)(t + 2.0) - jax.vmap(u)(t)).max() < rounding
    slope = jax.vmap(jax.grad(u))
    assert np.abs(slope(t + 2.0) - slope(t)).max() < 100 * rounding
    assert np.ptp(jax.vmap(u)(t)) > 0.1


def test_periodic_input_passes_other_coordinates_on():
    fourier = cx.models.PeriodicInput((None, np.pi), harmonics=2)
    x = fourier(jnp.array([7.0, 0.3]))
    expected = [7.0, np.cos(0.6), np.cos(1.2), np.sin(0.6), np.sin(1.2)]
    assert fourier.out_size == 5
    assert np.allclose(x, expected, rtol=10 * EPS)


def flat(x):
    return jnp.stack([x, jnp.ones_like(x)])


@pytest.mark.usefixtures("as_released")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: cx.MLP(2, 2, width=0), ValueError, "width of MLP must be at least 1"),
        (lambda: cx.MLP(2, 2, width="64"), TypeError, "without quotes"),
        (lambda: cx.MLP(2, 2, depth=-1), ValueError, "depth of MLP must be at least 0"),
        (lambda: cx.MLP(2, 2, activation="tanh"), TypeError, r"such as jax\.numpy\.tanh"),
        (lambda: cx.MLP("vector", 2), TypeError, "in_size must be an integer"),
        (lambda: cx.MLP(3, 2, over=cx.Normal(2))(key=KEY), ValueError, "cannot be spread over"),
        (lambda: cx.RandomFeatures(2, 2), TypeError, "needs a domain"),
        (
            lambda: cx.RandomFeatures(cx.Interval(0, 1).map(flat), 1)(key=KEY),
            ValueError,
            "does not vary in coordinate 1",
        ),
        (
            lambda: cx.models.PeriodicInput(0.0),
            ValueError,
            "period of PeriodicInput must be finite",
        ),
        (lambda: cx.models.PeriodicInput((1.0, None))(jnp.zeros(3)), ValueError, r"shape \(3,\)"),
        (lambda: cx.with_output(cx.MLP(2, 2), None), TypeError, "a model and a function"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_write(make, error, says):
    with pytest.raises(error, match=says):
        make()
