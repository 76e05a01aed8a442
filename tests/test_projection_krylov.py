"""Projections onto many equations by products with Jacobians are those by factors of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn.models.projection.affine import slopes_are_shared
from constrainednn.models.projection.equations import krylov, nearest
from constrainednn.models.projection.equations.groups import in_groups

# Values of 60 numbers and 40 equations: a Jacobian is large enough.
SIZE, EQUATIONS = 60, 40


class Values(eqx.Module):
    """The point itself, times a parameter."""

    factor: jax.Array

    def __call__(self, x):
        return self.factor * x


def equations(x, y):
    A, B = np.random.default_rng(0).normal(size=(2, EQUATIONS, SIZE)) / np.sqrt(SIZE)
    return A @ y + 0.5 * jnp.sin(B @ y) - 0.3


def projection():
    return cx.with_projection(Values(jnp.ones(())), equalities=equations)


def starts(n):
    return np.random.default_rng(1).normal(size=(n, SIZE))


def stationarity(y, y0):
    """The part of y0 - y that is no combination of rows of the Jacobian."""
    C = np.asarray(jax.jacobian(lambda y: equations(None, y))(y))
    w = np.linalg.lstsq(C.T, y0 - y, rcond=None)[0]
    return np.linalg.norm(y0 - y - C.T @ w)


def guess(model, x):
    """Points that products alone lead to, and where they arrived."""
    fn = lambda y: equations(None, y)  # noqa: E731
    M = krylov.preconditioner(fn, x[0])

    def one(y0):
        body = lambda _, state: krylov.improved(fn, y0, M, state)  # noqa: E731
        state = jax.lax.fori_loop(0, krylov.STEPS, body, krylov.guessed(y0, EQUATIONS))
        y, there = krylov.corrected(fn, y0, M, state.y)
        return y, there & state.arrived

    return jax.jit(jax.vmap(one))(x)


@pytest.mark.slow
def test_all_points_arrive_and_most_without_any_factor():
    x = starts(100)
    y, arrived = guess(projection(), jnp.asarray(x))
    assert np.mean(arrived) > 0.8
    whole = np.asarray(jax.jit(jax.vmap(projection()))(x))
    violations = np.abs(jax.vmap(lambda y: equations(None, y))(whole)).max(axis=1)
    assert violations.max() < 1e-13
    left = np.array([stationarity(*pair) for pair in zip(whole, x, strict=True)])
    # A point near a focal one of the set has no nearest point that steps find.
    assert np.mean(left < 1e-7) > 0.95
    np.testing.assert_allclose(whole[arrived], y[arrived], atol=1e-8)


@pytest.mark.slow
def test_points_are_those_that_factors_lead_to(monkeypatch):
    x = starts(40)
    found = np.asarray(jax.jit(jax.vmap(projection()))(x))
    monkeypatch.setattr(nearest, "slopes_are_shared", lambda *_: False)
    known = np.asarray(jax.jit(jax.vmap(projection()))(x))
    same = np.abs(found - known).max(axis=1) < 1e-6
    # Of several stationary points either may find the one that is further off.
    assert same.mean() > 0.8
    np.testing.assert_allclose(found[same], known[same], atol=1e-7)


def test_slopes_are_shared_where_the_point_is_a_term_of_its_own():
    x, y = jnp.zeros(3), jnp.ones(3)
    assert slopes_are_shared(lambda x, y: jnp.sin(y) - x, x, y)
    assert slopes_are_shared(lambda x, y: (y @ y - 1.0)[None], x, y)
    assert not slopes_are_shared(lambda x, y: jnp.sin(x * y), x, y)


def test_points_that_are_done_take_no_step():
    def start(y):
        return jnp.asarray(0), y

    def step(state, y):
        k, value = state
        return (k + 1, value / 2), k < 3 + (y > 50)

    grouped = in_groups(start, step, lambda state: state[1], size=16, done=lambda y: y < 10)
    y = np.arange(1.0, 71.0)
    expected = np.where(y < 10, y, y / np.where(y > 50, 32, 16))
    np.testing.assert_array_equal(jax.vmap(grouped)(y), expected)
    np.testing.assert_array_equal(
        [grouped(value) for value in y[[0, 20, 60]]], expected[[0, 20, 60]]
    )
    np.testing.assert_array_equal(jax.vmap(grouped)(y[:9]), y[:9])
