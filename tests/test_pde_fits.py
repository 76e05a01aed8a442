"""Unknowns of equations in space and time, and integrals that they conserve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._pde.fitted import FittedSpaceTimeScheme
from constrainednn._problem.scheme import Observed

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


def cooled(unknowns):
    def flux(u, p, normal):
        return normal * D(u, 1)(p) + u.args["cooling"] * u(p)

    return problem(
        args=unknowns,
        boundary={"left": wall, "right": flux},
        start=lambda x, args: args["size"] * (4 * x * (1 - x)) ** 3,
    )


def shaken(unknowns):  # of order two, with a boundary that moves
    def damped(u, p):
        args = u.args
        force = args["c"] * D(u, 1, order=2)(p) - args["g"] * D(u, 0)(p) * (1 + p[0])
        return D(u, 0, order=2)(p) - force

    return cx.pde(
        damped,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=lambda x, args: (args["s"] * jnp.sin(jnp.pi * x), jnp.sin(2 * jnp.pi * x)),
        boundary={"left": lambda u, p: u(p) - u.args["b"] * p[0] ** 4, "right": wall},
        args=unknowns,
        data=cx.Data(data_of()),
        width=(10, 14),
    )


def turning(unknowns):  # a system on a periodic interval
    def system(w, p):
        (u, v), (u_t, v_t), (u_x, _) = w(p), D(w, 0)(p), D(w, 1)(p)
        u_xx, v_xx = D(w, 1, order=2)(p)
        args = w.args
        return (
            u_t + args["c"] * u * u_x - 0.05 * u_xx - args["k"] * v * jnp.cos(p[0]),
            v_t - 0.1 * v_xx + args["k"] * u,
        )

    p, values = data_of()
    return cx.pde(
        system,
        over=cx.Interval(0.0, 2 * np.pi),
        time=(0.0, 0.5),
        start=lambda x, args: (jnp.sin(x) + args["m"], jnp.cos(x)),
        boundary="periodic",
        args=unknowns,
        data=cx.Data((p * [0.5, 6.0], np.stack([values, values], axis=1))),
        width=(8, 12),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "values"),
    [
        (cooled, {"diffusivity": 0.3, "size": 1.2, "cooling": 0.7}),
        (shaken, {"c": 1.1, "g": 0.3, "s": 0.8, "b": 0.4}),
        (turning, {"c": 0.7, "k": 0.5, "m": 0.2}),
    ],
)
def test_slopes_are_those_of_other_solutions(stated, values):
    def rows(**changed):
        numbers = values | changed
        posed = stated({name: cx.Unknown(value) for name, value in numbers.items()})
        scheme, constraint = posed.scheme, posed.constraints[-1]
        assert isinstance(scheme, FittedSpaceTimeScheme)
        measured = jax.tree.map(jnp.asarray, constraint.over.rows)
        shooting = scheme.shooting(
            posed.model,
            (Observed(constraint.residual, measured, 1.0),),
            tolerance=1e-9,
            key=jax.random.key(0),
            watch=lambda *_: False,
        )
        return shooting.shoot(np.array(list(numbers.values())), shooting.stages[-1], 1000)

    here, h = rows(), 1e-3
    for index, name in enumerate(values):
        there, back = (rows(**{name: values[name] + by}) for by in (h, -h))
        np.testing.assert_allclose(
            here.S[:, index], (there.r - back.r) / (2 * h), rtol=1e-4, atol=1e-5
        )


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
        problem(model=cx.MLP(2, "scalar", width=12, depth=1), width=None),
        method=cx.LevenbergMarquardt(),
        steps=150,
    )
    assert found.gap["start"].heldout_rms.value < 1e-2
    assert abs(float(found.model.args["diffusivity"]) - 0.25) < 1e-2


@pytest.mark.slow
def test_an_unknown_that_starts_at_zero_is_seen():
    def moving(u, p):
        slope = u.args["speed"] * D(u, 1)(p)
        return D(u, 0)(p) + slope - 0.05 * D(u, 1, order=2)(p)

    def truth(p):
        return jnp.exp(-0.05 * p[0]) * jnp.sin(p[1] - 0.5 * p[0])

    p, _ = data_of()
    p = p * [1.0, 6.0]
    found = cx.solve(
        cx.pde(
            moving,
            over=cx.Interval(0.0, 2 * np.pi),
            time=(0.0, 1.0),
            start=jnp.sin,
            boundary="periodic",
            args={"speed": cx.Unknown(0.0)},
            data=cx.Data((p, np.asarray(jax.vmap(truth)(p)))),
            width=(8, 12),
        )
    )
    assert abs(float(found.model.args["speed"]) - 0.5) < 1e-8


@pytest.mark.slow
def test_other_arguments_are_those_of_the_problem(tmp_path):
    def of(k):
        return problem(
            args={"diffusivity": k, "size": 1.5}, data=None, reference=lambda p: exact(p, k)
        )

    first = cx.solve(of(0.25))
    assert first.gap["heat"].error < 1e-9
    first.save(tmp_path / "run")
    second = cx.solve(of(0.3))
    assert second.gap["heat"].error < 1e-9
    again = cx.load_solution(tmp_path / "run", of(0.25))
    assert float(again.model.args["diffusivity"]) == 0.25


@pytest.mark.slow
def test_an_argument_with_a_default_is_the_users_own():
    waves = 1
    stated = problem(start=lambda x, n=waves: jnp.sin(n * jnp.pi * x), data=cx.Data(data_of()))
    at = stated.model(jnp.array([0.0, 0.5]))
    assert abs(float(at) - 1) < 1e-3


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


@pytest.mark.slow
def test_drift_of_a_density_that_zero_has_not():
    def entropy(u, p):
        return u(p) * jnp.log(u(p))

    solution = cx.solve(
        problem(
            start=lambda x: 2 + jnp.cos(2 * jnp.pi * x),
            boundary=lambda u, p: D(u, 1)(p),
            args={"diffusivity": 0.25},
            data=None,
            mesh=np.linspace(0, 1, 6),  # five elements in the place of eight
            invariants=[entropy, lambda u, p: u(p)],
        )
    )
    assert 0.01 < solution.gap["entropy"].heldout_rms.value < 0.2
    assert solution.gap["invariant 2"].heldout_rms.value < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": None}, "nothing to estimate them from"),
        ({"args": {"diffusivity": 1.0, "size": 1.0}}, "holds no cx.Unknown"),
        slow({"data": cx.Data((np.full((20, 2), 0.5), np.zeros((20, 2))))}, "holds 2 numbers"),
        slow({"data": cx.Data((np.full((20, 2), 1.5), np.zeros(20)))}, "outside of the box"),
        ({"data": cx.Data((np.full((20, 3), 0.5), np.zeros(20)))}, r"of shape \(2,\)"),
        ({"invariants": [wall], "model": cx.MLP(2, "scalar")}, "invariants= is for elements"),
        slow({"data": cx.Data((np.full((1, 2), 0.5), np.zeros(1)), holdout=0)}, "cannot determine"),
    ],
)
@pytest.mark.filterwarnings("ignore::constrainednn.errors.ProblemWarning")
def test_refused(changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.solve(problem(**changed))


@pytest.mark.slow
def test_a_part_that_tells_nothing_changes_nothing():
    # In this draw two early rows alone would send the viscosity to zero, and the march to a shock.
    found = cx.solve(cx.load_problem("inverse_burgers", noise=0.01, draw=34), tolerance=1e-6)
    estimate = found.estimates()["nu"]
    assert estimate.low < 0.05 < estimate.high
