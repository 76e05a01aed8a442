"""A solution as a function: what one point is, many of them, the ends of an interval, copies."""

import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._gap.streams import draw_streams
from constrainednn.results.evaluation import evaluated, point_of

SMALL: dict[str, Any] = {"heldout": 16, "monitor": 8}
ROUNDING = 1e-11  # the march stops at 1e-12 of the solution


class Square(eqx.Module):
    """a x^2, of a number."""

    a: jax.Array

    def __call__(self, x):
        return self.a * x**2


class Plane(eqx.Module):
    """a x_0 x_1."""

    a: jax.Array

    def __call__(self, x):
        return self.a * x[0] * x[1]


def constraint(residual, over, name):
    return cx.Constraint(residual, over=over, points=8, name=name)


NUMBERS = [
    constraint(lambda u, x: u(x[1]) - x[1] ** 2, cx.Box([0, 0], [1, 1]), "pairs"),
    constraint(lambda u, x: u(x) - x**2, cx.Interval(0, 1), "numbers"),
]
PLACES = [
    constraint(lambda u, s: u(jnp.stack([s, 0 * s])), cx.Interval(0, 1), "edge"),
    constraint(lambda u, x: u(x) - x[0] * x[1], cx.Box([0, 0], [1, 1]), "inside"),
]


def shape_of(stated, model):
    """The shapes of a point, without a solve."""
    problem = cx.Problem(stated, model)
    streams = [
        draw_streams(item, key=jax.random.key(0), monitor=1, heldout=1)
        for item in problem.constraints
    ]
    return jax.tree.map(lambda leaf: leaf.shape, point_of(problem, model, tuple(streams)))


@pytest.mark.slow
def test_a_point_is_what_the_model_takes_and_not_that_of_the_first_constraint():
    of_numbers = cx.solve(cx.Problem(NUMBERS, Square(jnp.array(0.5))), **SMALL)
    np.testing.assert_allclose(of_numbers([1.0, 2.0]), [1, 4], rtol=1e-12)
    np.testing.assert_allclose(of_numbers(3.0), 9, rtol=1e-12)
    of_places = cx.solve(cx.Problem(PLACES, Plane(jnp.array(0.5))), **SMALL)
    np.testing.assert_allclose(of_places([2.0, 3.0]), 6, rtol=1e-12)
    np.testing.assert_allclose(of_places([[2.0, 3.0], [1.0, 4.0]]), [6, 4], rtol=1e-12)
    assert of_places(np.ones((3, 4, 2))).shape == (3, 4)
    with pytest.raises(ValueError, match=r"has shape \(2,\).* got shape \(3,\)"):
        of_places([1.0, 2.0, 3.0])
    assert shape_of(NUMBERS[::-1], Square(jnp.array(0.5))) == ()
    assert shape_of(PLACES[::-1], Plane(jnp.array(0.5))) == (2,)


@pytest.mark.parametrize(
    "residual",
    [
        lambda u, x: cx.derivative(u, order=2)(x[0]) - 2.0,
        lambda u, x: cx.integral(u, 0.0, 1.0) - x[0],
        lambda u, x: jnp.mean(jax.vmap(u)(x)) - jnp.mean(x**2),
        lambda u, x: eqx.filter_jit(lambda u, x: u(x[0]))(u, x) * u.a,
        lambda u, x: u.a * x[0] + u(x[1]),
    ],
)
def test_a_residual_that_differentiates_or_integrates_the_model_tells_its_point_too(residual):
    stated = constraint(residual, cx.Box([0, 0], [1, 1]), "r")
    assert shape_of(stated, Square(jnp.array(0.5))) == ()


def test_a_model_of_pairs_and_one_that_is_never_called():
    class Pair(eqx.Module):
        a: jax.Array

        def __call__(self, point):
            return self.a * point[0] * point[1][0]

    both = constraint(lambda u, x: u((x[0], x[1:])) - x[0] * x[1], cx.Box([0, 0], [1, 1]), "r")
    point = (jax.ShapeDtypeStruct((), float), jax.ShapeDtypeStruct((1,), float))
    assert shape_of(both, Pair(jnp.array(1.0))) == ((), (1,))
    times = lambda x: evaluated(Pair(jnp.array(1.0)), x, point, lambda _: None)  # noqa: E731
    np.testing.assert_allclose(times((2.0, [3.0])), 6)
    np.testing.assert_allclose(times(([2.0, 1.0], [[3.0], [4.0]])), [6, 4])
    with pytest.raises(ValueError, match="leading axes"):
        times(([2.0, 1.0], [3.0]))
    inner = constraint(lambda u, x: u.a * x**2 - x**2, cx.Interval(0, 1), "r")
    assert shape_of(inner, Square(jnp.array(0.5))) == ()


@pytest.mark.parametrize("shape", [(), (3, 1), (0,), *map(slow, [(3,), (3, 4, 2), (2, 0)])])
def test_numbers_in_any_shape(initial, boundary, shape):
    t = np.linspace(0, 0.3, int(np.prod(shape))).reshape(shape)
    assert initial(t).shape == initial(jnp.asarray(t)).shape == initial(t.tolist()).shape == shape
    np.testing.assert_allclose(initial(t), np.exp(-t), rtol=ROUNDING)
    np.testing.assert_allclose(initial.derivative(t), -np.exp(-t), rtol=ROUNDING)
    np.testing.assert_allclose(jax.jit(initial)(t), np.exp(-t), rtol=ROUNDING)
    assert boundary(t).shape == (*shape, 2)
    np.testing.assert_allclose(boundary(t)[..., 0], np.sinh(1 - t) / np.sinh(1), atol=ROUNDING)


def test_what_is_no_number_is_refused_in_words(initial):
    for wrong in ("a", None, [1.0, [2.0]], {"t": 1.0}):
        with pytest.raises(TypeError, match="a point must hold real numbers"):
            initial(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_an_end_is_met_to_its_last_digits_and_no_further(sign):
    with jax.numpy_rank_promotion("allow"):
        found = cx.solve(cx.ivp(lambda t, y, args: -y, 1.0, (0.0, sign * 0.3)), **SMALL)
    for end, value in ((sign * (0.1 + 0.2), np.exp(-sign * 0.3)), (-sign * 1e-17, 1.0)):
        assert abs(end) > 0.3 or sign * end < 0  # beyond, by rounding
        for call in (found, jax.jit(found), found.model):
            np.testing.assert_allclose(call(jnp.asarray(end)), value, rtol=ROUNDING)
    np.testing.assert_allclose(found(np.float32(sign * 0.3)), np.exp(-sign * 0.3), rtol=1e-6)
    with pytest.raises(ValueError, match=r"got -?0\.30000000001\."):
        found(sign * 0.30000000001)
    assert np.isnan(found.model(jnp.asarray(sign * 0.30000000001)))


@pytest.mark.slow
def test_conditions_and_rows_of_data_at_the_ends():
    """As `numpy.arange` gives them: its last place is 3.0000000000000004."""
    t = np.arange(0.1, 3.01, 0.1)
    assert t[-1] > 3.0
    k = cx.Unknown(0.5, low=0.0)
    with jax.numpy_rank_promotion("allow"):
        problem = cx.ivp(
            lambda t, y, k: -k * y,
            1.0,
            (0.0, 3.0),
            args=k,
            data=cx.Data((t, np.exp(-0.7 * t)), holdout=0.0),
        )
        found = cx.solve(problem, **SMALL)
    np.testing.assert_allclose(found.model.args, 0.7, rtol=1e-8)


def test_solutions_of_equations_can_be_pickled(initial, boundary):
    t = np.linspace(0, 0.3, 7)
    for solution in (initial, boundary):
        again = pickle.loads(pickle.dumps(solution))  # noqa: S301
        np.testing.assert_array_equal(again(t), solution(t))
        assert repr(again) == repr(solution)


def tenfold(k):
    stated = cx.Constraint(lambda u, x: u(x) - k * x, over=cx.Interval(0, 1), points=8, name="r")
    return cx.solve(cx.Problem(stated, cx.MLP("scalar", "scalar", width=4)), steps=1, **SMALL)(1.0)


@pytest.mark.parametrize(
    "made",
    [
        tenfold,
        lambda k: cx.ivp(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), args=k),
        lambda k: cx.ivp(lambda t, y, k: -k[0] * y, 1.0, (0.0, 1.0), args=[k]),
        lambda k: cx.ivp(lambda t, y, args: -y, k, (0.0, 1.0)),
        lambda k: cx.ivp(lambda t, y, args: -y, 1.0, (0.0, k)),
        lambda k: cx.bvp(lambda x, y: y, lambda a, b: a, (0.0, 1.0), guess=[k, 0.0]),
        lambda k: cx.Unknown(k),
        lambda k: cx.Interval(0.0, k),
        lambda k: cx.Points(k * jnp.ones(3)),
    ],
)
@pytest.mark.parametrize("transform", [jax.grad, jax.jit, jax.vmap])
def test_traced_numbers_are_refused_with_what_to_write_instead(made, transform, as_released):
    at = jnp.ones(2) if transform is jax.vmap else 1.5
    with pytest.raises((TypeError, cx.errors.ProblemError), match="take a difference quotient"):
        transform(made)(at)


@pytest.mark.slow
def test_the_derivative_by_a_parameter_as_documented():
    """y' = -k y and its derivative -t exp(-k t)."""
    decay = lambda t, y, k: -k * y  # noqa: E731
    field = lambda t, state, k: jax.jvp(  # noqa: E731
        lambda y, k: decay(t, y, k), (state[0], k), (state[1], 1.0)
    )
    with jax.numpy_rank_promotion("allow"):
        both = cx.solve(cx.ivp(field, (1.0, 0.0), (0.0, 2.0), args=0.7), **SMALL)
    np.testing.assert_allclose(both(2.0)[1], -2 * np.exp(-1.4), rtol=ROUNDING)
