"""In which way a constraint holds is read off the problem; what an iteration missed is counted."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._common.batched import in_blocks
from constrainednn._gap.holds.guarantee import guarantee
from constrainednn._gap.holds.kind import how_it_holds
from constrainednn.models import with_input


def circle(x, y):
    return y @ y - 1.0


def on_circle(u, x):
    return circle(x, u(x))


def written_out(u, x):
    return u(x) @ u(x) - 1.0


def of_norm(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def twice(u, x):
    return 2 * (u(x) @ u(x) - 1.0)


def elsewhere(u, x):
    return u(2 * x) @ u(2 * x) - 1.0


def line(x, y):
    return jnp.sum(y) - x[0]


def on_line(u, x):
    return jnp.sum(u(x)) - x[0]


def left(x, y):
    return y - 0.5


def is_left(u, x):
    return cx.at_most(u(x), 0.5)


def is_left_in_steps(u, x):
    return cx.at_most(left(x, u(x)), 0.0)


NET = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, key=jax.random.key(0))
POINTS = np.random.default_rng(0).normal(size=(300, 2))
PROVED = guarantee(np.zeros(300), tolerance=None)


def kind(residual, model):
    return how_it_holds(residual, model, POINTS, PROVED).kind


ROUND = cx.with_projection(NET, equalities=circle)


@pytest.mark.parametrize("residual", [on_circle, written_out])
def test_to_solver_tolerance_where_a_projection_enforces_this_very_function(residual):
    found = how_it_holds(residual, ROUND, POINTS, PROVED)
    assert found.kind == "to solver tolerance"
    assert found.tolerance == pytest.approx(np.finfo(float).eps ** 0.75)
    assert (found.missed, found.violation < 1e-14) == (0.0, True)


@pytest.mark.parametrize(
    ("residual", "model"),
    [(of_norm, ROUND), (twice, ROUND), (elsewhere, ROUND), (on_circle, NET), (on_line, ROUND)],
    ids=["another function", "a multiple", "another point", "no projection", "another set"],
)
def test_with_probability_where_nothing_enforces_it(residual, model):
    assert kind(residual, model) == "with probability"
    void = guarantee(np.zeros(300), tolerance=None, void="rows")
    assert how_it_holds(residual, model, POINTS, void).kind == "not known"


@pytest.mark.slow
def test_a_number_in_a_closure_is_part_of_the_function():
    def of_radius(radius):
        return lambda x, y: y @ y - radius**2

    model = cx.with_projection(NET, equalities=of_radius(jnp.asarray(2.0)))
    for radius, expected in ((2.0, "to solver tolerance"), (3.0, "with probability")):
        fn = of_radius(jnp.asarray(radius))
        assert kind(lambda u, x, fn=fn: fn(x, u(x)), model) == expected


def test_exact_by_construction_where_the_projection_is_in_closed_form():
    model = cx.with_projection(NET, equalities=line)
    assert kind(on_line, model) == "exact by construction"
    assert np.abs(in_blocks(eqx.Partial(on_line, model), POINTS)).max() < 1e-14


@pytest.mark.slow
def test_inequalities_are_enforced_in_the_forms_of_at_most():
    model = cx.with_projection(NET, inequalities=left)
    for residual in (is_left, is_left_in_steps, lambda u, x: jnp.maximum(u(x) - 0.5, 0.0)):
        assert kind(residual, model) == "to solver tolerance"
    assert kind(lambda u, x: cx.at_least(u(x), 0.5), model) == "with probability"


def test_transforms_around_a_projection_are_part_of_the_function():
    doubled = with_input(cx.with_projection(NET, equalities=line), lambda x: 2 * x)
    assert kind(lambda u, x: jnp.sum(u(x)) - (2 * x)[0], doubled) == "exact by construction"
    assert kind(on_line, doubled) == "with probability"
    # On the line, but not as a program.
    turned = cx.with_output(cx.with_projection(NET, equalities=line), lambda x, y: y[::-1])
    assert kind(on_line, turned) == "with probability"


@pytest.mark.slow
def test_points_that_an_iteration_did_not_reach_are_counted():
    def half(x, y):
        return y @ y + jnp.where(x[0] > 0, -1.0, 1.0)

    model = cx.with_projection(NET, equalities=half)
    found = how_it_holds(lambda u, x: half(x, u(x)), model, POINTS, PROVED)
    assert found.missed == (POINTS[:, 0] <= 0).mean() and found.violation >= 1.0
    assert f"at {100 * found.missed:.3g} % of the held-out points" in found.line()


@pytest.mark.slow
def test_the_report_names_the_way():
    constraint = cx.Constraint(on_circle, over=cx.Normal(2), points=5)
    solution = cx.solve(cx.Problem(constraint, ROUND), steps=0, heldout=300, monitor=16)
    assert solution.gap["on_circle"].holds.kind == "to solver tolerance"
    assert "on_circle: holds to solver tolerance 1.8e-12: the projection got there at all" in repr(
        solution
    )
