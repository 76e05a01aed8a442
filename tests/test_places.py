"""Where the units of a network are spread when nobody says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn.domains import Normal
from constrainednn.models.first_layer import around

KEY = jax.random.key(0)


def zero(u, x):
    return u(x)


def first_layer(model, *places):
    """The first layer of a network in a problem that holds over these places."""
    constraints = [cx.Constraint(zero, over=over, name=f"{i}") for i, over in enumerate(places)]
    built = cx.Problem(constraints, model).build_model(key=KEY)
    layers = [node for node in jax.tree.leaves(built, is_leaf=is_linear) if is_linear(node)]
    return np.asarray(layers[0].weight), np.asarray(layers[0].bias)


def is_linear(node):
    return isinstance(node, eqx.nn.Linear)


def bends(weight, bias):
    """Where units of scalar points bend."""
    return -bias / weight[:, 0]


@pytest.mark.parametrize("size", ["scalar", 1])
def test_units_lie_where_the_constraint_does(size):
    over = cx.Interval(7, 10) if size == "scalar" else cx.Box([7.0], [10.0])
    at = bends(*first_layer(cx.MLP(size, 1, width=20), over))
    # A little outside, so that the ends are resolved.
    assert 6.8 < at.min() < 7 and 10 < at.max() < 10.2


def test_one_domain_is_taken_as_it_is():
    told = first_layer(cx.MLP(2, 1, over=Normal(2)), Normal(2))
    untold = first_layer(cx.MLP(2, 1), Normal(2))
    np.testing.assert_array_equal(told[0], untold[0])
    np.testing.assert_array_equal(told[1], untold[1])


def test_several_places_share_the_smallest_box():
    x = np.array([[-3.0, 0.5], [0.2, 0.9]])
    data = cx.Data((x, np.zeros(2)), holdout=0)
    square = cx.Box([0, 0], [1, 1])
    found = first_layer(cx.MLP(2, 1), square, data)
    expected = first_layer(cx.MLP(2, 1, over=cx.Box([-3, 0], [1, 1])), square)
    np.testing.assert_array_equal(found[0], expected[0])


def test_an_unbounded_domain_counts_with_its_deviation():
    both = cx.Interval(0, 1), Normal(1).map(lambda z: 5 * z[0])
    at = bends(*first_layer(cx.MLP("scalar", 1, width=40), *both))
    assert -11 < at.min() < -8 and 8 < at.max() < 11  # 5 sqrt(3) is 8.7


def test_points_of_other_sizes_do_not_count():
    start = cx.Points(np.array([[40.0, 50.0]]))
    one, two = (first_layer(cx.MLP("scalar", 1), *o) for o in ([cx.Interval(0, 2)],) * 2)
    with_other = first_layer(cx.MLP("scalar", 1), cx.Interval(0, 2), start)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[0], with_other[0])


def test_behind_a_transform_of_the_input_places_are_transformed():
    shift = cx.models.with_input(cx.MLP("scalar", 1, width=20), lambda x: x + 100.0)
    scaled = cx.with_output(shift, lambda x, y: x * y)
    at = bends(*first_layer(scaled, cx.Interval(0, 1), cx.Points(np.array([2.0]))))
    assert 99.8 < at.min() < 100 and 102 < at.max() < 102.2


def test_a_network_for_other_inputs_is_doubted():
    def summed(u, x):
        return u(jnp.stack([x, x, x])).sum()

    (found,) = cx.check(cx.Problem(cx.Constraint(summed, over=cx.Interval(0, 1)), cx.MLP(3, 1)))
    assert any("takes points of 3 coordinates, and no two that" in w for w in found.warnings)


def test_without_a_problem_inputs_are_standard_normal():
    alone = cx.MLP(2, 1)(key=KEY)
    told = cx.MLP(2, 1, over=Normal(2))(key=KEY)
    assert jnp.array_equal(alone.layers[0].weight, told.layers[0].weight)


def test_rows_that_are_held_out_place_no_unit():
    x = np.array([0.1, 0.4, 0.6, 0.9, 1000.0])
    held = cx.Data((x, x), holdout=0.4)
    alone = around([cx.Interval(0, 1)], "scalar")
    assert eqx.tree_equal(alone, around([cx.Interval(0, 1), held], "scalar"))


def line(u, pair):
    return u(pair[0]) - pair[1]


def regression(x, **settings):
    data = cx.Data((x, np.sin(x / x.max() * 6)), **settings)
    return cx.Problem(cx.Constraint(line, over=data), cx.MLP("scalar", "scalar", width=20))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shares", [slow({}), {"monitor": 0.2}, slow({"fold": (1, 4)})])
def test_units_lie_where_the_rows_that_are_trained_on_do(shares):
    x = np.linspace(0, 1000, 60)
    problem = regression(x, **shares)
    found = cx.solve(problem, cx.LevenbergMarquardt(), steps=60)
    assert found.gap["line"].heldout_rms.value < 1e-2
    trained = found.streams[0].train.points[0]
    over = cx.Interval(trained.min(), trained.max())
    told = cx.MLP("scalar", "scalar", width=20, over=over)
    built = cx.Problem(problem.constraints, told).build_model(key=KEY)
    spread = problem.build_model(key=KEY)
    np.testing.assert_array_equal(spread.layers[0].bias, built.layers[0].bias)


@pytest.mark.slow
def test_other_held_out_rows_move_no_unit():
    x = np.linspace(0, 1, 20)
    problem = regression(x)
    held = np.isin(x, cx.solve(problem, steps=0).streams[0].heldout.points[0])
    assert held.sum() == 4
    before, after = (
        regression(rows).build_model(key=KEY) for rows in (x, np.where(held, x + 50, x))
    )
    np.testing.assert_array_equal(before.layers[0].weight, after.layers[0].weight)
    np.testing.assert_array_equal(before.layers[0].bias, after.layers[0].bias)


def test_rows_that_do_not_vary_are_doubted():
    data = cx.Data((np.full(9, 2.0), np.arange(9.0)))
    model = cx.MLP("scalar", "scalar", width=20)
    (found,) = cx.check(cx.Problem(cx.Constraint(line, over=data), model))
    assert any("takes numbers, and no two that differ are among" in w for w in found.warnings)
