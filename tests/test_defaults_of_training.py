"""What a trained problem takes where nothing is said, and what is said at the limit of steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._solve.right_start import applies, is_affine
from constrainednn._solve.training.diagnosis import why_max_steps
from constrainednn.domains import GaussQuadrature, Independent, Sobol

LINE, SQUARE, CUBE = cx.Interval(0, 2), cx.Box([0, 0], [1, 1]), cx.Box([0] * 3, [1] * 3)
SCALAR = cx.MLP("scalar", "scalar", width=4)
NETWORK = cx.MLP(2, "scalar", width=48)


def sampler_of(residual, over, model=None, **settings):
    if model is None:
        model = SCALAR if over is LINE else cx.MLP(over.unit_dim, "scalar", width=4)
    stated = cx.Constraint(residual, over=over, name="stated", **settings)
    return cx.Problem(stated, model).constraints[0].sampler


def slope(u, x):
    return cx.derivative(u)(x) - u(x)


def laplace(u, x):
    return cx.laplacian(u)(x)


def value(u, x):
    return u(x) - 1.0


def test_a_differential_equation_is_trained_on_even_points():
    assert sampler_of(slope, LINE) == GaussQuadrature()
    assert sampler_of(laplace, SQUARE) == Sobol()
    product = LINE * cx.Interval(0, 1)
    assert sampler_of(laplace, product) == Sobol()
    assert sampler_of(laplace, CUBE) == Independent()


def test_without_derivatives_points_stay_independent():
    for over in (LINE, SQUARE):
        assert sampler_of(value, over) == Independent()


@pytest.mark.parametrize("over", [cx.Normal(2), SQUARE.map(jnp.sin), cx.domains.Sphere(2)])
def test_other_measures_keep_independent_points(over):
    size = 3 if isinstance(over, cx.domains.Sphere) else 2
    assert sampler_of(laplace, over, cx.MLP(size, "scalar", width=4)) == Independent()


def test_many_points_are_no_gauss_rule():
    assert sampler_of(slope, LINE, points=501) == Sobol()


def test_a_sampler_that_is_named_stays():
    assert sampler_of(slope, LINE, sampler=Independent()) == Independent()


def test_derivatives_are_found_wherever_they_are_taken():
    def by_jvp(u, x):
        return jax.jvp(u, (x,), (jnp.ones_like(x),))[1]

    def in_part(u, x):
        return jax.grad(u["net"])(x) - u["rate"]

    def behind(u, x):
        return jax.jit(jax.grad(u.model))(x)

    def both(*, key):
        return {"net": SCALAR(key=key), "rate": jnp.ones(())}

    assert sampler_of(by_jvp, LINE) == GaussQuadrature()
    assert sampler_of(in_part, LINE, both) == GaussQuadrature()
    doubled = cx.with_output(SCALAR, lambda x, y: 2 * y)
    assert sampler_of(behind, LINE, doubled) == GaussQuadrature()


PLANE = cx.Problem(cx.Constraint(value, over=cx.Normal(2)), cx.MLP(2, "scalar", width=4))


def at_limit(limit, losses, monitor, problem=PLANE, *, tolerance=0.0, sizes=None):
    return why_max_steps(problem, losses, monitor, limit, tolerance, sizes)


def falling(power, *, parted=1.0):
    steps = np.arange(1, 1001)
    losses = 3.0 * steps**power
    return losses, [(int(k), parted * losses[k - 1]) for k in (100, 200, 400, 700, 1000)]


def test_at_the_limit_of_steps_a_falling_loss_asks_for_more():
    reason = at_limit(1000, *falling(-2.0))
    assert "as steps^-2.0" in reason and reason.endswith("divide the root of the loss by 10")


def test_steps_that_are_needed_are_extrapolated_and_no_further_than_ten_times_as_many():
    # The root of the loss, sqrt(3) / k, is 1e-3 at 1,732 steps and 1e-5 at 173,205.
    losses = falling(-2.0)
    assert "some 1.7e+03 steps in all" in at_limit(1000, *losses, tolerance=1e-3)
    assert "ten times the steps would not reach" in at_limit(1000, *losses, tolerance=1e-5)


def test_a_loss_that_falls_like_a_geometric_series_is_told_as_one():
    losses = 10.0 ** (-0.01 * np.arange(1, 1001))
    monitor = [(k, losses[k - 1]) for k in (100, 200, 400, 700, 1000)]
    assert "a digit of the root of the loss takes 2e+02 steps" in at_limit(1000, losses, monitor)
    # 1e-10 at 1,000 steps: the root is 1e-7 at 1,400.
    assert "some 1.4e+03 steps in all" in at_limit(1000, losses, monitor, tolerance=1e-7)


def test_nothing_is_extrapolated_from_a_rate_that_changes():
    steps = np.arange(1, 1001.0)
    losses = np.where(steps < 600, 1.0 - 1e-4 * steps, (steps / 600) ** -20)
    assert "but not steadily" in at_limit(1000, losses, [])


def test_at_the_limit_of_steps_a_level_loss_does_not():
    assert "has levelled off" in at_limit(1000, *falling(-0.1))


def test_at_the_limit_of_steps_parted_losses_ask_for_points():
    reason = at_limit(1000, *falling(-2.0, parted=50.0))
    assert "the monitor loss stays behind" in reason and "points=" in reason
    counted = at_limit(1000, *falling(-2.0, parted=50.0), sizes=(60, 97))
    assert "on the training points (60 residual entries for 97 parameters)." in counted
    losses, _ = falling(-2.0)
    level = [(k, 0.5) for k in (100, 300, 1000)]
    assert "no longer falls, 5.0e-01 against" in at_limit(1000, losses, level)


def row(u, pair):
    return u(pair[0]) - pair[1]


def decay(t, y, args):
    return -y


TRAINED = cx.ivp(decay, jnp.ones(1), (0, 1), model=cx.MLP("scalar", 1, width=4))
ROWS = cx.Data((np.arange(9.0), np.ones(9)), holdout=0.2)
ASKED_FOR = [
    slow(
        cx.Problem(cx.Constraint(slope, over=LINE, points=20, sampler=Sobol()), SCALAR),
        "or redraw=",
    ),
    (cx.Problem(cx.Constraint(slope, over=LINE, points=20), SCALAR), "points, points=, help"),
    (TRAINED, "points=, help"),
    (cx.Problem(cx.Constraint(row, over=ROWS), SCALAR), "More rows help"),
]


@pytest.mark.parametrize(("problem", "words"), ASKED_FOR)
def test_redraws_are_advised_where_they_are_possible(problem, words):
    reason = at_limit(1000, *falling(-2.0, parted=50.0), problem)
    assert words in reason
    drawn = "redraw=" in reason
    try:
        cx.solve(problem, steps=0, redraw=5, heldout=None)
    except ValueError as error:
        assert not drawn and "redraw=5 has nothing to draw" in str(error)
    else:
        assert drawn


def test_a_default_rule_that_cannot_be_drawn_again_is_named():
    problem = cx.Problem(cx.Constraint(slope, over=LINE, points=20), SCALAR)
    with pytest.raises(ValueError, match=r"'slope' are those of GaussQuadrature\(\), the default "):
        cx.solve(problem, redraw=5)
    with pytest.raises(ValueError, match="points= of ivp and bvp sets their number"):
        cx.solve(TRAINED, redraw=5)


@pytest.mark.parametrize("losses", [np.zeros(100), np.full(100, np.nan)])
def test_at_the_limit_of_steps_nothing_is_made_up(losses):
    assert at_limit(100, losses, [(100, 0.0)]) == "the limit of 100 steps is reached"
    assert at_limit(9, np.ones(9), [(9, 1.0)]) == "the limit of 9 steps is reached"


@pytest.mark.slow
def test_a_last_stage_of_a_part_does_not_hide_that_the_rest_was_cut_short():
    def wave(u, x):
        return u(x) - jnp.sin(5 * x)

    problem = cx.Problem(cx.Constraint(wave, over=LINE, points=20), SCALAR)
    last = cx.Stage(cx.LevenbergMarquardt(), steps=20, trainable=lambda u: u.layers[-1])
    settings = {"heldout": 50, "monitor": 20}
    short = cx.solve(problem, [cx.Stage(cx.LevenbergMarquardt(), steps=3), last], **settings)
    assert short.status == "max_steps" and short.steps < 23
    assert cx.solve(problem, [last], **settings).status == "converged"


def waves(x):
    return jnp.sin(8 * x[0]) * jnp.sin(8 * x[1])


def helmholtz(u, x):
    return (cx.laplacian(u)(x) + 64 * u(x) + 64 * waves(x)) / 64


def helmholtz_problem(model=NETWORK, **settings):
    def inside(x, y):
        (a, b), (c, d) = (jnp.sin(8 * x), jnp.sin(jnp.full(2, 8.0)))
        edges = x[0] * c * b + x[1] * d * a - x[0] * x[1] * c * d
        return edges + jnp.prod(4 * x * (1 - x)) * y

    constraint = cx.Constraint(helmholtz, over=SQUARE, points=400)
    return cx.Problem(constraint, cx.with_output(model, inside), reference=waves, **settings)


def losses(problem, method=None):
    return cx.solve(problem, method, steps=12, progress=False).history.loss


@pytest.mark.slow
def test_training_starts_where_the_head_alone_fits():
    found = losses(helmholtz_problem())
    plain = losses(helmholtz_problem(), cx.LevenbergMarquardt())
    # Before the first step, and still after the last.
    assert found[0] < plain[0] / 100
    assert found[-1] < plain[-1] / 10
    drawn = helmholtz_problem().build_model(key=jax.random.key(0))
    given = helmholtz_problem(drawn.model)
    np.testing.assert_allclose(losses(given)[0], plain[0])


def test_only_an_equation_whose_whole_network_we_draw_has_a_start_of_its_own():
    def has_one(problem):
        return applies(problem, seed=0)

    assert has_one(helmholtz_problem())
    assert not has_one(helmholtz_problem(trainable=lambda u: u.model.layers[-1]))
    assert not has_one(helmholtz_problem(NETWORK(key=jax.random.key(0))))
    assert not has_one(helmholtz_problem(cx.models.Linear(2, "scalar")))
    assert not has_one(cx.Problem(cx.Constraint(value, over=SQUARE), NETWORK))


def test_linear_statements_are_told_from_others():
    def affine(residual, *others):
        stated = [cx.Constraint(residual, over=SQUARE, points=20), *others]
        return is_affine(cx.Problem(stated, NETWORK), seed=0)

    def reacts(u, x):
        return cx.laplacian(u)(x) - u(x) ** 3 + 20.0

    def bends(u, x):
        return jnp.maximum(u(x) - 1e-3, 0.0)

    def fails(u, x):
        raise KeyError("rate")

    start = cx.Constraint(value, over=cx.Points(np.zeros((1, 2))), name="start")
    # A source does not make it nonlinear.
    assert affine(helmholtz) and affine(helmholtz, start)
    data = cx.Constraint(row, over=cx.Data((np.ones((9, 2)), np.ones(9))), name="rows")
    assert affine(helmholtz, data)
    assert not affine(reacts) and not affine(fails)
    # One condition that is not is enough.
    assert not affine(helmholtz, cx.Constraint(bends, over=SQUARE, points=20, name="bends"))
    squares = cx.MLP(2, "scalar", width=48)
    outside = cx.with_output(squares, lambda x, y: y**2)
    assert not is_affine(cx.Problem(cx.Constraint(laplace, over=SQUARE, points=20), outside), 0)


@pytest.mark.slow
def test_without_steps_the_model_stays_as_drawn():
    problem = helmholtz_problem()
    found = cx.solve(problem, steps=0, progress=False).model
    assert eqx.tree_equal(found.model, problem.build_model(key=jax.random.key(0)).model)
