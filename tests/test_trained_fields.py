"""Networks trained on `pde`: how far they are from the solution."""

import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx

LENGTH, SPEED = 2 * np.pi, 30.0


def moves(u, p):
    return cx.partial(u, 0)(p) + SPEED * cx.partial(u, 1)(p)


@pytest.fixture(scope="module")
def trained():
    """A wave that goes around in a fifth of the time, after too few steps."""
    model = cx.MLP(2, "scalar", width=8, over=cx.Box([0.0, 0.0], [0.3, LENGTH]))
    problem = cx.pde(
        moves,
        over=cx.Interval(0.0, LENGTH),
        time=(0.0, 0.3),
        start=jnp.sin,
        boundary="periodic",
        model=model,
        reference=lambda p: jnp.sin(p[1] - SPEED * p[0]),
    )
    return cx.solve(problem, cx.LevenbergMarquardt(), steps=15)


@pytest.mark.slow
def test_an_equation_in_time_is_trained_by_variable_projection_by_default(trained):
    problem = trained.problem
    assert "VariableProjection" in cx.solve(problem, steps=1, heldout=64).settings.method


@pytest.mark.slow
def test_the_error_estimate_of_a_trained_field_is_its_error(trained):
    estimate, error = trained.error_estimate(), trained.gap["moves"].error
    assert error > 0.1
    assert estimate.relative == pytest.approx(error, rel=1e-4)
    p = np.array([[0.1, 1.0], [0.2, 3.0]])
    missed = np.sin(p[:, 1] - SPEED * p[:, 0]) - np.asarray(trained(p))
    assert estimate(p)[:, 0] == pytest.approx(missed, abs=1e-5)
