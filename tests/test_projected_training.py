"""Training a projected model: how its programs are compiled, and what is in them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._common.batched import in_blocks
from constrainednn._common.compilation.closures import compiled, lift_numbers
from constrainednn._common.compilation.effort import level, options
from constrainednn._gap.objectives.lagrangian import soft_constraints
from constrainednn._gap.streams import draw_training


def on_plane(x, y):
    return y @ jnp.array([1.0, 2.0, -1.0]) - 1.0


def projected(equalities=on_plane):
    return cx.with_projection(cx.MLP(2, 3, width=8), equalities=equalities)(key=jax.random.key(0))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends have other options")
def test_programs_of_few_numbers_are_not_optimised_nor_those_of_projections_up_to_more():
    few, more, many = np.ones(200), np.ones(300), np.ones((300, 300))
    assert level((jnp.sin, few)) == 0 and level((jnp.sin, more)) == 1
    assert level((jnp.sin, few), many) == 0  # where it is evaluated does not count
    assert level((eqx.Partial(jnp.sin, projected()), more)) == 0
    assert level(projected(), many) == 1
    held = jnp.asarray(many)
    assert level(lift_numbers(projected(lambda x, y: jnp.sum(held) * jnp.sum(y)))) == 1
    # XLA takes options for whole programs only.
    inner = compiled(lambda x: 2 * x)
    assert jax.jit(lambda x: inner(x) + 1)(1.0) == 3
    # It knows what it is asked for; another of them was given up with jax 0.12.
    assert "xla_backend_optimization_level" in (options(1) or {})


def test_what_is_compiled_quickly_says_the_same():
    model, x = projected(), np.random.default_rng(0).normal(size=(50, 2))
    plain = jax.jit(jax.vmap(model))(x)
    # The same operations, some of them in another order.
    assert in_blocks(model, x) == pytest.approx(np.asarray(plain), abs=1e-13)
    many = compiled(lambda model, x: jax.vmap(model)(x))
    assert many(model, x) == pytest.approx(np.asarray(plain), abs=1e-13)


def holds(u, x):
    return on_plane(x, u(x))


def stays_close(u, x):
    return u(x)[:2] - x


@pytest.mark.slow
def test_what_a_projection_enforces_is_no_row_where_there_are_others():
    over = cx.Normal(2)
    enforced, other = (cx.Constraint(fn, over=over, points=20) for fn in (holds, stays_close))

    def rows(*constraints):
        problem = cx.Problem(list(constraints), projected())
        drawn = [draw_training(item, key=jax.random.key(0), redraw=0) for item in constraints]
        return soft_constraints(problem, projected(), drawn)

    assert rows(enforced, other) == (1,)
    assert rows(enforced) == (0,)
    found = cx.solve(cx.Problem([enforced, other], projected()), steps=20)
    assert found.gap.constraints[0].worst.residual < 1e-13
