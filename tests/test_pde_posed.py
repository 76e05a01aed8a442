"""Statements of `pde` that leave u undetermined although their conditions are as many as needed."""

import jax.numpy as jnp
import pytest

import constrainednn as cx

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


@pytest.mark.parametrize(
    ("residual", "boundary", "words"),
    [
        (carried(1.0), {"right": value}, "1 condition at the left end"),
        (carried(-1.0), {"left": value}, "1 condition at the right end"),
        (airy, {"left": both, "right": value}, "2 conditions at the right end"),
    ],
)
def test_conditions_at_the_wrong_end_are_refused(residual, boundary, words):
    with pytest.raises(cx.errors.ProblemError, match=words):
        on_an_interval(residual, smooth, boundary)


@pytest.mark.parametrize(
    ("residual", "boundary"),
    [
        (carried(1.0), {"left": value}),
        (carried(-1.0), {"right": value}),
        (airy, {"left": value, "right": both}),
        # The speed changes its sign: nothing is said.
        (lambda u, p: D(u, 0)(p) + jnp.cos(4 * p[0]) * D(u, 1)(p), {"right": value}),
    ],
)
def test_conditions_where_waves_come_in_are_taken(residual, boundary):
    assert isinstance(on_an_interval(residual, smooth, boundary), cx.Problem)


def spreads(sign):
    return lambda u, x: D(u, 0)(x) - sign * D(u, 1, order=2)(x)


@pytest.mark.parametrize(
    ("sign", "sides", "begins"),
    [(1.0, (), "left"), (1.0, ("right",), "left"), (-1.0, ("left",), "right")],
)
def test_heat_along_a_coordinate_of_the_plane(sign, sides, begins):
    square = cx.Box([0.0, 0.0], [1.0, 1.0])

    def stated(*sides):
        conditions = dict.fromkeys(("bottom", "top", *sides), value)
        return cx.pde(spreads(sign), over=square, boundary=conditions)

    with pytest.raises(cx.errors.ProblemError, match=f"evolves from the side '{begins}'"):
        stated(*sides)
    assert isinstance(stated(begins), cx.Problem)


def test_system_on_an_interval_needs_all_of_its_conditions():
    def turns(u, x):
        (p, q), (dp, dq) = u(x), cx.derivative(u)(x)
        return dp - q, dq + p

    def stated(boundary):
        return cx.pde(turns, over=cx.Interval(0.0, 1.0), boundary=boundary, guess=(0.0, 0.0))

    with pytest.raises(cx.errors.ProblemError, match="needs 2 conditions at both ends together"):
        stated({"left": lambda u, x: u(x)[0]})
    assert isinstance(stated({"left": lambda u, x: u(x)[0], 0.5: lambda u, x: u(x)[1]}), cx.Problem)
