"""Unknowns of equations in space alone, estimated by elements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._pde.stationary.fitting.scheme import FittedStationaryScheme
from constrainednn._problem.scheme import Observed

D = cx.partial
TRUE = {"rate": 2.0, "size": 1.5}


def exact(x, rate=2.0, size=1.5):
    return size * jnp.sinh(rate * x) / jnp.sinh(rate)


def screened(u, x):
    return cx.derivative(u, order=2)(x) - u.args["rate"] ** 2 * u(x)


def data_of(noise=0.0, rows=40, draw=0):
    rng = np.random.default_rng(draw)
    x = rng.uniform(0, 1, rows)
    return x, np.asarray(jax.vmap(exact)(x)) + noise * rng.normal(size=rows)


def on_an_interval(**changed):
    stated = {
        "over": cx.Interval(0.0, 1.0),
        "boundary": {"left": lambda u, x: u(x), "right": lambda u, x: u(x) - u.args["size"]},
        "args": {"rate": cx.Unknown(1.0, low=0.0), "size": cx.Unknown(1.0)},
        "data": cx.Data(data_of()),
        "width": 12,
    }
    return cx.pde(screened, **(stated | changed))


@pytest.fixture(scope="module")
def fitted():
    return cx.solve(on_an_interval(reference=exact))


@pytest.mark.slow
def test_unknowns_of_equation_and_condition_are_found(fitted):
    assert fitted.status == "converged"
    for name, value in TRUE.items():
        assert abs(float(fitted.model.args[name]) - value) < 1e-9
    assert fitted.gap["screened"].error < 1e-9
    assert fitted.verdict.word == "no tolerance to meet"
    assert fitted.error_estimate().relative < 1e-9


@pytest.mark.slow
def test_saved_fit_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", on_an_interval(reference=exact))
    assert again.model.args == fitted.model.args
    assert str(again.estimates()) == str(fitted.estimates())


@pytest.mark.slow
def test_classical_solver_is_given_what_was_found(fitted):
    found = fitted.compare()
    assert found.fitted
    assert found.difference < 1e-9


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    level, draws = 0.9, 60
    hits = dict.fromkeys(TRUE, 0)
    for draw in range(draws):
        data = cx.Data(data_of(0.02, draw=draw), holdout=0)
        estimates = cx.solve(on_an_interval(data=data), tolerance=1e-7).estimates(level=level)
        for name, value in TRUE.items():
            hits[name] += estimates[name].low < value < estimates[name].high
    for count in hits.values():  # four standard deviations of a binomial count
        assert abs(count - level * draws) < 4 * (draws * level * (1 - level)) ** 0.5


def bump(x):  # no source in the corners, which then are no singularities
    return jnp.prod((x * (1 - x)) ** 2) * 256


def on_a_square(unknowns):  # nonlinear, with a condition that holds an unknown, too
    def equation(u, x):
        return cx.laplacian(u)(x) - u.args["k"] * u(x) ** 3 + 50 * bump(x)

    def leaks(u, x, n):
        return cx.operators.normal_derivative(u, n)(x) + u.args["leak"] * u(x)

    edges = {**dict.fromkeys(("left", "bottom", "top"), lambda u, x: u(x)), "right": leaks}
    p = np.random.default_rng(0).uniform(0, 1, (20, 2))
    return cx.pde(
        equation,
        over=cx.Box([0.0, 0.0], [1.0, 1.0]),
        boundary=edges,
        args=unknowns,
        data=cx.Data((p, np.zeros(20))),
        width=10,
    )


def on_a_disk(unknowns):  # cut elements, slopes alone on the boundary: the mean is zero
    def equation(u, x):
        a = lambda x: 1 + u.args["a"] * x[0]  # noqa: E731
        return a(x) * cx.laplacian(u)(x) + u.args["a"] * D(u, 0)(x)

    def current(u, x, n):
        flow = (1 + u.args["a"] * x[0]) * cx.operators.normal_derivative(u, n)(x)
        return flow - u.args["g"] * x[1]

    p = 0.7 * np.random.default_rng(0).uniform(-1, 1, (20, 2))
    return cx.pde(
        equation,
        over=cx.domains.Ball(2),
        boundary=current,
        args=unknowns,
        data=cx.Data((p, np.zeros(20))),
        width=10,
    )


@pytest.mark.parametrize(
    ("stated", "values"),
    [(on_a_square, {"k": 2.0, "leak": 0.5}), (on_a_disk, {"a": 0.3, "g": 1.2})],
)
@pytest.mark.slow
def test_slopes_are_those_of_other_solutions(stated, values):
    def rows(**changed):
        numbers = values | changed
        posed = stated({name: cx.Unknown(value) for name, value in numbers.items()})
        scheme, constraint = posed.scheme, posed.constraints[-1]
        assert isinstance(scheme, FittedStationaryScheme)
        measured = jax.tree.map(jnp.asarray, constraint.over.rows)
        shooting = scheme.shooting(
            posed.model,
            (Observed(constraint.residual, measured, 1.0),),
            tolerance=1e-7,
            key=jax.random.key(0),
            watch=lambda *_: False,
        )
        return shooting.shoot(np.array(list(numbers.values())), shooting.stages[-1], 1000)

    here, h = rows(), 1e-3
    for index, name in enumerate(values):
        there, back = (rows(**{name: values[name] + by}) for by in (h, -h))
        np.testing.assert_allclose(
            here.S[:, index], (there.r - back.r) / (2 * h), rtol=1e-4, atol=1e-6
        )


@pytest.mark.slow
def test_gallery_finds_the_conductivity():
    found = cx.solve(cx.load_problem("inverse_conductivity"))
    truth = np.array([1.0, 1 / 3, 0.0, 0.0, 1 / 4, 0.0])
    np.testing.assert_allclose(found.model.args["root"], truth, atol=1e-8)
    assert found.gap["divergence"].error < 1e-9


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": None}, "nothing to estimate them from"),
        ({"args": {"rate": 1.0, "size": 1.0}}, "holds no cx.Unknown"),
        ({"data": cx.Data((np.full(20, 1.5), np.zeros(20)))}, "outside of the elements"),
        ({"data": cx.Data((np.full((20, 2), 0.5), np.zeros(20)))}, r"of shape \(\)"),
        ({"data": cx.Data((np.full(1, 0.5), np.zeros(1)), holdout=0)}, "cannot determine"),
    ],
)
@pytest.mark.filterwarnings("ignore::constrainednn.errors.ProblemWarning")
def test_refused(changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.solve(on_an_interval(**changed))


def test_data_in_a_hole_are_refused():
    with pytest.raises(cx.errors.ProblemError, match="3 of 4 places of its data lie outside"):
        cx.pde(
            lambda u, x: cx.laplacian(u)(x) - u.args["f"],
            over=cx.Box([-1, -1], [1, 1]) - cx.domains.Ball(2, 0.5),
            boundary=lambda u, x: u(x),
            args={"f": cx.Unknown(1.0)},
            data=cx.Data((np.array([[0.7, 0.7], [0.0, 0.0], [0.1, 0.1], [0.0, 0.4]]), np.zeros(4))),
        )
