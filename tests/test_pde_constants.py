"""Stationary equations that leave a constant open: it is chosen, said, and their data checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx

SQUARE = cx.Box([0.0, 0.0], [1.0, 1.0])
HOLE = cx.domains.Ball(2, 0.25, center=[0.5, 0.5])


def slope(u, x, n):
    return n @ jax.grad(u)(x)


def waves(x):  # its mean over the square is zero
    return jnp.cos(jnp.pi * x[0]) * jnp.cos(jnp.pi * x[1])


def harmonic(x):
    return jnp.exp(x[0]) * jnp.cos(x[1])


def flux(u, x, n):
    return slope(u, x, n) - slope(harmonic, x, n)


@pytest.mark.slow
def test_a_constant_is_chosen_by_the_mean_and_said():
    def equation(u, x):
        return cx.laplacian(u)(x) + 2 * jnp.pi**2 * waves(x)

    solution = cx.solve(cx.pde(equation, over=SQUARE, boundary=slope, reference=waves))
    assert solution.gap.constraints[0].error == pytest.approx(0, abs=1e-13)
    assert "its mean is set to zero" in solution.reason
    assert solution.verdict.word == "solved"
    assert solution.error_estimate().label == "at rounding"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "mean"),
    [
        (cx.domains.Ball(2), 1.0),  # the value in the middle, by the mean value property
        (
            SQUARE - HOLE,
            ((np.e - 1) * np.sin(1.0) - np.pi / 16 * np.exp(0.5) * np.cos(0.5)) / (1 - np.pi / 16),
        ),
    ],
)
def test_the_mean_over_a_region_is_zero_to_rounding(over, mean):
    problem = cx.pde(lambda u, x: cx.laplacian(u)(x), over=over, boundary=flux)
    solution = cx.solve(problem)
    assert solution.verdict.word == "solved" and "its mean is set to zero" in solution.reason
    points = np.array([[0.1, 0.2], [0.4, 0.8], [0.05, 0.85]])
    known = np.asarray(jax.vmap(harmonic)(jnp.asarray(points))) - mean
    np.testing.assert_allclose(solution(points), known, atol=1e-12)


@pytest.mark.slow
def test_the_constant_of_a_pressure():
    def stokes(w, x):
        u, v = (lambda p, k=k: w(p)[k] for k in (0, 1))
        pressure = jax.grad(lambda p: w(p)[2])(x)
        mass = cx.partial(u, 0)(x) + cx.partial(v, 1)(x)
        return cx.laplacian(u)(x) - pressure[0], cx.laplacian(v)(x) - pressure[1], mass

    def walls(w, x):  # u = y (1 - y), v = 0, p = -2 x + 1
        return w(x)[0] - x[1] * (1 - x[1]), w(x)[1]

    shared = {"over": SQUARE, "guess": jnp.zeros(3), "width": 8}
    solution = cx.solve(cx.pde(stokes, boundary=walls, **shared))
    assert solution.verdict.word == "solved" and "u[2] is determined" in solution.reason
    np.testing.assert_allclose(solution([0.25, 0.5]), [0.25, 0.0, 0.5], atol=1e-12)

    def swells(w, x):  # flows out at the right side alone
        return w(x)[0] - x[0], w(x)[1]

    contradicted = cx.solve(cx.pde(stokes, boundary=swells, **shared), steps=4)
    assert "With -1 added to entry [2] of the residual" in contradicted.reason
    assert contradicted.verdict.word == "not solved"


@pytest.mark.slow
def test_the_constant_of_a_nonlinear_equation():
    def bent(u, x):  # a flux that depends on the slope, of x + x^2 - 5 / 6
        a, s = u.args["bend"], jax.grad(u)(x)
        return cx.laplacian(u)(x) * (1 + a * s @ s) - 2 * (1 + a * (1 + 2 * x[0]) ** 2)

    def ends(u, x, n):
        return slope(u, x, n) - n[0] * (1 + 2 * x[0])

    solution = cx.solve(cx.pde(bent, over=SQUARE, boundary=ends, args={"bend": 0.1}, width=8))
    assert solution.verdict.word == "solved"
    np.testing.assert_allclose(solution([0.5, 0.5]), 0.75 - 5 / 6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("over", [SQUARE, cx.domains.Ball(2), cx.Interval(0.0, 1.0)])
def test_data_that_do_not_balance_are_told(over):
    ends = isinstance(over, cx.Interval)
    second = (lambda u, x: cx.derivative(cx.derivative(u))(x)) if ends else None

    def equation(u, x):
        return (second(u, x) if second else cx.laplacian(u)(x)) - 3.0

    def closed(u, x, n):
        return n * cx.derivative(u)(x) if ends else slope(u, x, n)

    solution = cx.solve(cx.pde(equation, over=over, boundary=closed))
    assert solution.status == "stalled" and "contradict each other" in solution.reason
    assert "With 3 added to the residual there is one" in solution.reason
    assert solution.verdict.word == "not solved"
    assert solution.steps == 2
