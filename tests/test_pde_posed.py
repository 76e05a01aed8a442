"""Statements of `pde` that leave u undetermined although their conditions are as many as needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._solve.problem_files import load_module, resolve

D = cx.partial


def on_an_interval(residual, start, boundary):
    over = cx.Interval(0.0, 1.0)
    return cx.pde(residual, over=over, time=(0.0, 1.0), start=start, boundary=boundary)


def value(u, p):
    return u(p)


def both(u, p):
    return u(p), D(u, 1)(p)


def carried(speed):
    return lambda u, p: D(u, 0)(p) + speed * D(u, 1)(p)


def airy(u, p):
    return D(u, 0)(p) + D(u, 1, order=3)(p)


def smooth(x):
    return (x * (1 - x)) ** 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("residual", "boundary", "words"),
    [
        (carried(1.0), {"right": value}, "1 condition at the left end"),
        slow(carried(-1.0), {"left": value}, "1 condition at the right end"),
        slow(airy, {"left": both, "right": value}, "2 conditions at the right end"),
    ],
)
def test_conditions_at_the_wrong_end_are_refused(residual, boundary, words):
    with pytest.raises(cx.errors.ProblemError, match=words):
        on_an_interval(residual, smooth, boundary)


@pytest.mark.parametrize(
    ("residual", "boundary"),
    [
        (carried(1.0), {"left": value}),
        slow(carried(-1.0), {"right": value}),
        slow(airy, {"left": value, "right": both}),
        # The speed changes its sign: nothing is said.
        slow(lambda u, p: D(u, 0)(p) + jnp.cos(4 * p[0]) * D(u, 1)(p), {"right": value}),
    ],
)
def test_conditions_where_waves_come_in_are_taken(residual, boundary):
    assert isinstance(on_an_interval(residual, smooth, boundary), cx.Problem)


def spreads(sign):
    return lambda u, x: D(u, 0)(x) - sign * D(u, 1, order=2)(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "sides", "begins"),
    [(1.0, (), "left"), slow(1.0, ("right",), "left"), slow(-1.0, ("left",), "right")],
)
def test_heat_along_a_coordinate_of_the_plane(sign, sides, begins):
    square = cx.Box([0.0, 0.0], [1.0, 1.0])

    def stated(*sides):
        conditions = dict.fromkeys(("bottom", "top", *sides), value)
        return cx.pde(spreads(sign), over=square, boundary=conditions)

    with pytest.raises(cx.errors.ProblemError, match=f"evolves from the side '{begins}'"):
        stated(*sides)
    assert isinstance(stated(begins), cx.Problem)


@pytest.mark.slow
def test_system_on_an_interval_needs_all_of_its_conditions():
    def turns(u, x):
        (p, q), (dp, dq) = u(x), cx.derivative(u)(x)
        return dp - q, dq + p

    def stated(boundary):
        return cx.pde(turns, over=cx.Interval(0.0, 1.0), boundary=boundary, guess=(0.0, 0.0))

    with pytest.raises(cx.errors.ProblemError, match="needs 2 conditions at both ends together"):
        stated({"left": lambda u, x: u(x)[0]})
    assert isinstance(stated({"left": lambda u, x: u(x)[0], 0.5: lambda u, x: u(x)[1]}), cx.Problem)


def test_an_integral_over_space_is_refused():
    def heated(u, p):
        whole = cx.operators.integral(lambda x: u(jnp.stack([p[0], x])), 0.0, 1.0)
        return D(u, 0)(p) - D(u, 1, order=2)(p) - whole

    with pytest.raises(cx.errors.ProblemError, match="as an integral over space does"):
        on_an_interval(heated, smooth, value)


@pytest.mark.slow
def test_eikonal_tends_to_the_distance_as_eps_falls():
    path, _ = resolve("eikonal")
    stated, errors = load_module(path), []
    p = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    p = p[~(p > 0).all(axis=1)]
    true = np.asarray(jax.vmap(stated.exact)(p))
    for eps in (0.1, 0.05):
        v = cx.solve(stated.problem(eps), tolerance=1e-3, heldout=500)
        missed = np.asarray(jax.vmap(stated.distance(v, eps))(p)) - true
        errors.append(np.linalg.norm(missed) / np.linalg.norm(true))
        # Between eps log 2 too near, where two edges are equally far, and the log of the corner.
        assert -1.4 * eps * np.log(2) < missed.min() < missed.max() < eps * np.log(1 / eps)
    assert errors[1] < 0.06
    assert 1.6 < errors[0] / errors[1] < 2.0  # of order eps log(1 / eps)
