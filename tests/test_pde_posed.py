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
        slow(carried(1.0), {"left": value}),
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


SQUARE, PAIR = cx.Box([0.0, 0.0], [1.0, 0.77]), {"guess": jnp.zeros(2)}


def squares(a, b, mixed=0.0):
    """a u_xx + b u_yy + mixed u_xy."""

    def equation(u, x):
        twice = jax.hessian(u)(x)
        return a * twice[0, 0] + b * twice[1, 1] + mixed * twice[0, 1]

    return equation


def tricomi(u, x):
    return (x[1] - 0.5) * D(u, 0, order=2)(x) + D(u, 1, order=2)(x)


def waves_of_order_one(w, x):
    (u_x, u_y), (v_x, v_y) = jax.jacfwd(w)(x)
    return u_x - v_y, v_x - u_y


def cauchy_riemann(w, x):
    (u_x, u_y), (v_x, v_y) = jax.jacfwd(w)(x)
    return u_x - v_y, u_y + v_x - x[0]


def two_rays(w, x):
    (u_x, u_y), (v_x, v_y) = jax.jacfwd(w)(x)
    return u_x + u_y + w(x)[0] - w(x)[1], v_y - v_x + w(x)[1]


def one_of_two(u, x):
    return u(x)[0]


def other_of_two(u, x):
    return u(x)[1]


RAYS = {"left": one_of_two, "bottom": one_of_two, "right": other_of_two, "top": other_of_two}


@pytest.mark.parametrize(
    ("residual", "boundary", "changed"),
    [
        (squares(1.0, -1.0), value, {}),
        slow(squares(1.0, 1.0, 3.0), value, {}),
        slow(squares(1.0, -1.0), {"circle": value}, {"over": cx.domains.Ball(2)}),
        (waves_of_order_one, one_of_two, PAIR),
    ],
)
def test_waves_without_time_are_refused(residual, boundary, changed):
    with pytest.raises(cx.errors.ProblemError, match=r"is hyperbolic.* time="):
        cx.pde(residual, **({"over": SQUARE, "boundary": boundary} | changed))


@pytest.mark.parametrize(
    ("residual", "boundary", "changed"),
    [
        (squares(1.0, 1.0, 1.9), value, {}),
        # The type changes within; terms depend on u; each variable comes from its own sides.
        slow(tricomi, value, {}),
        slow(lambda u, x: (1 + u(x) ** 2) * squares(1.0, 0.0)(u, x) + tricomi(u, x), value, {}),
        slow(cauchy_riemann, one_of_two, PAIR),
        (two_rays, RAYS, PAIR),
    ],
)
def test_other_types_are_taken(residual, boundary, changed):
    cx.pde(residual, **({"over": SQUARE, "boundary": boundary} | changed))


def on_the_upper_half(u, x):
    return jnp.where(x[1] > 0.4, u(x), 0.0)


def beside_a_hole(u, x):
    return jnp.where(jnp.sum((x - 0.4) ** 2) < 0.05, 0.0, squares(1.0, 1.0)(u, x) - 1)


@pytest.mark.parametrize(
    ("residual", "left", "words"),
    [
        (squares(1.0, 1.0), on_the_upper_half, "the condition at 'left' does not see u at"),
        (beside_a_hole, value, "beside_a_hole does not see u at"),
    ],
)
def test_what_vanishes_on_a_part_is_refused(residual, left, words):
    sides = dict.fromkeys(("right", "bottom", "top"), value)
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.pde(residual, over=SQUARE, boundary={"left": left, **sides})


def test_the_same_condition_twice_is_refused():
    beam = lambda u, x: fourth(u)(x) - 1  # noqa: E731
    twice = lambda u, x: (u(x), 2 * u(x))  # noqa: E731
    with pytest.raises(cx.errors.ProblemError, match="fewer than 2 different equations"):
        cx.pde(beam, over=cx.Interval(0.0, 1.0), boundary=twice)


def fourth(u):
    for _ in range(4):
        u = cx.derivative(u)
    return u


@pytest.mark.slow
@pytest.mark.parametrize(
    "sides", [(), ("left",), ("left", "right"), ("left", "right", "top"), ("bottom", "top")]
)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_a_system_of_order_one_with_too_few_conditions_is_not_called_solved(sides, tolerance):
    boundary = dict.fromkeys(sides, one_of_two)
    problem = cx.pde(cauchy_riemann, over=SQUARE, boundary=boundary, **PAIR)
    assert cx.solve(problem, tolerance=tolerance).verdict.word in ("not solved", "cannot tell")


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
