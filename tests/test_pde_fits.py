"""Unknowns of equations in space and time, and integrals that they conserve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._pde.fitted import FittedSpaceTimeScheme

D = cx.partial
TRUE = {"diffusivity": 0.25, "size": 1.5}


def exact(p, diffusivity=0.25, size=1.5):
    return size * jnp.exp(-(jnp.pi**2) * diffusivity * p[0]) * jnp.sin(jnp.pi * p[1])


def heat(u, p):
    return D(u, 0)(p) - u.args["diffusivity"] * D(u, 1, order=2)(p)


def wall(u, p):
    return u(p)


def data_of(noise=0.0, rows=60, draw=0):
    rng = np.random.default_rng(draw)
    p = rng.uniform(0, 1, (rows, 2))
    return p, np.asarray(jax.vmap(exact)(p)) + noise * rng.normal(size=rows)


def problem(**changed):
    stated = {
        "over": cx.Interval(0.0, 1.0),
        "time": (0.0, 1.0),
        "start": lambda x, args: args["size"] * jnp.sin(jnp.pi * x),
        "boundary": wall,
        "args": {"diffusivity": cx.Unknown(1.0, low=0.0), "size": cx.Unknown(1.0)},
        "data": cx.Data(data_of()),
        "width": (8, 12),
    }
    return cx.pde(heat, **(stated | changed))


@pytest.fixture(scope="module")
def fitted():
    return cx.solve(problem(reference=exact))


@pytest.mark.slow
def test_unknowns_of_equation_and_start_are_found(fitted):
    assert fitted.status == "converged"
    for name, value in TRUE.items():
        assert abs(float(fitted.model.args[name]) - value) < 1e-8
    assert fitted.gap["heat"].error < 1e-8
    assert fitted.verdict.word == "no tolerance to meet"
    assert fitted.error_estimate().relative < 1e-8


@pytest.mark.slow
def test_saved_fit_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", problem(reference=exact))
    assert again.model.args == fitted.model.args
    assert str(again.estimates()) == str(fitted.estimates())


@pytest.mark.slow
def test_intervals_hold_the_truth_and_noise_is_found():
    found = cx.solve(problem(data=cx.Data(data_of(0.02, 200), holdout=0)), tolerance=1e-6)
    estimates = found.estimates()
    assert 0.8 < estimates.sigma / 0.02 < 1.25
    for name, value in TRUE.items():
        assert estimates[name].low < value < estimates[name].high


@pytest.mark.slow
def test_slopes_are_those_of_other_solutions():
    def flux(u, p, normal):  # cooled at the right end
        return normal * D(u, 1)(p) + u.args["cooling"] * u(p)

    values = {"diffusivity": 0.3, "size": 1.2, "cooling": 0.7}

    def rows(**changed):
        given = {name: cx.Unknown(value) for name, value in (values | changed).items()}
        stated = problem(
            args=given,
            boundary={"left": wall, "right": flux},
            start=lambda x, args: args["size"] * (4 * x * (1 - x)) ** 3,
        )
        scheme = stated.scheme
        assert isinstance(scheme, FittedSpaceTimeScheme)
        observed = (cx_observed(stated),)
        from_here = scheme.shooting(
            stated.model,
            observed,
            tolerance=1e-9,
            key=jax.random.key(0),
            watch=lambda *_: False,
        )
        z = np.array(list((values | changed).values()))
        return from_here.shoot(z, from_here.stages[-1], 1000)

    here, h = rows(), 1e-3
    for index, name in enumerate(values):
        there, back = (rows(**{name: values[name] + by}) for by in (h, -h))
        np.testing.assert_allclose(
            here.S[:, index], (there.r - back.r) / (2 * h), rtol=1e-4, atol=1e-5
        )


def cx_observed(stated):
    from constrainednn._problem.scheme import Observed

    constraint = stated.constraints[-1]
    rows = jax.tree.map(jnp.asarray, constraint.over.rows)
    return Observed(constraint.residual, rows, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "truth"), [("inverse_burgers", 0.05), ("inverse_heat", 1 + np.arange(4) ** 2 / 18)]
)
def test_gallery_finds_the_truth(name, truth):
    found = cx.solve(cx.load_problem(name))
    (value,) = found.model.args.values()
    np.testing.assert_allclose(value, truth, rtol=1e-8)


@pytest.mark.slow
def test_the_same_statement_with_a_network():
    found = cx.solve(
        problem(model=cx.MLP(2, "scalar", width=12, depth=1)),
        method=cx.LevenbergMarquardt(),
        steps=150,
    )
    assert found.gap["start"].heldout_rms.value < 1e-2
    assert abs(float(found.model.args["diffusivity"]) - 0.25) < 1e-2


def kdv(u, p):
    return D(u, 0)(p) + u(p) * D(u, 1)(p) + 0.1**2 * D(u, 1, order=3)(p)


def mass(u, p):
    return u(p)


def energy(u, p):
    return u(p) ** 3 / 3 - 0.1**2 * D(u, 1)(p) ** 2


def square_of_slope(u, p):
    return D(u, 1)(p) ** 2


@pytest.mark.slow
def test_drift_of_integrals():
    solution = cx.solve(
        cx.pde(
            kdv,
            over=cx.Interval(-1.0, 1.0),
            time=(0.0, 0.2),
            start=lambda x: 1 + jnp.cos(jnp.pi * x),
            boundary="periodic",
            invariants=[mass, energy, square_of_slope],
        )
    )
    drift = {item.name: item.heldout_rms.value for item in solution.gap.constraints}
    assert max(drift["mass"], drift["energy"]) < 1e-10
    assert drift["square_of_slope"] > 0.1  # which is not conserved
    assert solution.verdict.word == "solved"  # and is not judged


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": None}, "nothing to estimate them from"),
        ({"args": {"diffusivity": 1.0, "size": 1.0}}, "holds no cx.Unknown"),
        ({"data": cx.Data((np.full((20, 2), 0.5), np.zeros((20, 2))))}, "holds 2 numbers"),
        ({"data": cx.Data((np.full((20, 2), 1.5), np.zeros(20)))}, "outside of the box"),
        ({"data": cx.Data((np.full((1, 2), 0.5), np.zeros(1)), holdout=0)}, "cannot determine"),
    ],
)
@pytest.mark.filterwarnings("ignore::constrainednn.errors.ProblemWarning")
def test_refused(changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.solve(problem(**changed))
