"""Equations in time and the plane, marched in windows of boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx

SQUARE = cx.Box([0.0, 0.0], [1.0, 1.0])


def wall(u, p):
    return u(p)


def lap(u, p):
    return cx.partial(u, 1, order=2)(p) + cx.partial(u, 2, order=2)(p)


def heat(u, p):
    return cx.partial(u, 0)(p) - lap(u, p) / 4


def wave(u, p):
    return cx.partial(u, 0, order=2)(p) - lap(u, p)


def bump(x):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


STATED = {"over": SQUARE, "time": (0.0, 1.0), "start": bump, "boundary": wall}


def test_before_the_solve_u_is_the_start_at_all_times():
    u = cx.pde(heat, **STATED, width=6).build_model(key=jax.random.key(0))
    assert isinstance(u, cx.models.PlaneTimePieces)
    for t in (0.0, 0.7):  # six polynomials along each coordinate
        x = jnp.array([0.3, 0.4])
        assert float(u(jnp.array([t, *x]))) == pytest.approx(float(bump(x)), abs=1e-4)


def error_of(solution, exact, end=1.0):
    p = np.random.default_rng(0).uniform([0, 0, 0], [end, 1, 1], (2000, 3))
    known = np.asarray(jax.vmap(exact)(jnp.asarray(p)))
    return np.linalg.norm(solution(p) - known) / np.linalg.norm(known)


def transport(u, p):
    return cx.partial(u, 0)(p) + cx.partial(u, 1)(p)


def rotation(u, p):
    slopes = cx.partial(u, 1)(p), cx.partial(u, 2)(p)
    return cx.partial(u, 0)(p) - (p[2] - 0.5) * slopes[0] + (p[1] - 0.5) * slopes[1]


def sound(w, p):
    by = lambda k, axis: cx.partial(lambda p: w(p)[k], axis)(p)  # noqa: E731
    return by(0, 0) + by(2, 1), by(1, 0) + by(2, 2), by(2, 0) + by(0, 1) + by(1, 2)


def stokes(w, p):
    u, v, q = (lambda p, k=k: w(p)[k] for k in range(3))
    by = lambda f, axis: cx.partial(f, axis)(p)  # noqa: E731
    mass = by(u, 1) + by(v, 2)
    return by(u, 0) - lap(u, p) + by(q, 1), by(v, 0) - lap(v, p) + by(q, 2), mass


def rest(x):
    return jnp.zeros(3)


@pytest.mark.parametrize(
    ("residual", "changed", "words"),
    [
        # Polynomials go on from the start as if they knew what comes in, and all would hold.
        (transport, {"boundary": {"right": wall}}, "1 condition at 'left', one for each wave"),
        slow(rotation, {"boundary": {"left": wall}}, "1 condition at 'right', one for each"),
        slow(sound, {"boundary": {}, "start": rest}, "1 condition at 'left', one for each wave"),
        slow(
            stokes,
            {"boundary": lambda w, p: w(p)[:2], "start": rest},
            r"see u\[2\] by its slopes in space alone",
        ),
        slow(lambda u, p: cx.partial(u, 0)(p) + lap(u, p), {}, "backwards in time"),
        slow(
            lambda u, p: cx.partial(u, 0, order=2)(p) + lap(u, p),
            {"start": lambda x: (bump(x), 0 * x[0])},
            "elliptic in time and space",
        ),
        slow(lap, {}, "no derivative by time"),
        slow(wave, {}, r"start must return the pair \(u, du/dt\)"),
        (heat, {"boundary": {"left": wall}}, "needs 1 condition at 'right'"),
        (heat, {"boundary": "periodic"}, "Periodic sides are for intervals"),
        (heat, {"boundary": {"front": wall}}, "'left', 'right', 'bottom', 'top'"),
        (heat, {"over": cx.domains.Ball(2)}, "Other regions are for equations in space alone"),
        (heat, {"over": cx.Box([0.0] * 3, [1.0] * 3)}, "an interval or a rectangle"),
        (heat, {"start": lambda x: jnp.log(x[0])}, r"NaN or infinite at \(0, 0\)"),
        (heat, {"start": lambda x: np.sin(x[0])}, r"shape \(2,\).*jnp.sin and so on"),
        (heat, {"start": lambda x: 1.0 if x[0] > 0.5 else 0.0}, "instead of if"),
        (heat, {"boundary": lambda u, p: u(p) - np.sin(p[1])}, "at 'left'.*jnp.sin and so on"),
        (lambda u, p: heat(u, p) * u.args["D"], {}, "give args="),
        slow(
            lambda u, p: cx.partial(u, 0)(p) - cx.laplacian(u)(p),
            {},
            "cx.laplacian, which differentiates by time, too",
        ),
        (heat, {"invariants": lambda u, p: u(p)}, "are for equations over an interval"),
        (heat, {"width": 40}, "at most 16"),
        (heat, {"mesh": [0.0, 0.5, 1.0]}, "along each coordinate"),
    ],
)
def test_refused(residual, changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.pde(residual, **(STATED | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mesh": ([0.0, 1.0], [0.0, 0.5, 1.0])}, "mesh= is for elements, and model= is trained"),
        ({"width": 8}, "width= is for elements, and model= is trained"),
        ({"invariants": [wall]}, "invariants= is for elements, and model= is trained"),
        ({"args": {"D": cx.Unknown(1.0)}}, "holds unknowns, D, and there is nothing"),
    ],
)
def test_a_model_that_is_trained_takes_nothing_that_would_be_ignored(changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.pde(heat, **STATED, model=cx.MLP(3, "scalar"), **changed)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (cx.MLP(2, "scalar"), r"size 2, .* shape \(3,\): write cx.MLP\(3, ...\)"),
        (cx.MLP("scalar", "scalar"), r"size 'scalar', .* write cx.MLP\(3, ...\)"),
        (cx.MLP(4, "scalar")(key=jax.random.key(0)), r"size 4, .* write cx.MLP\(3, ...\)"),
        (cx.Linear(2, "scalar"), r"write cx.Linear\(3, ...\)"),
        (
            cx.RandomFeatures(SQUARE, "scalar"),
            r"write cx.RandomFeatures\(Box\(low=\(0.0, 0.0, 0",
        ),
    ],
)
def test_a_model_of_other_points_is_refused_with_the_size_to_write(model, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.pde(heat, **STATED, model=model)


def test_a_number_is_a_point_of_an_interval():
    stated = {"over": cx.Interval(0.0, 1.0), "boundary": wall}
    for model in (cx.MLP("scalar", "scalar"), cx.RandomFeatures(cx.Interval(0, 1), "scalar")):
        cx.pde(lambda u, x: cx.derivative(u)(x), **stated, model=model)
    with pytest.raises(cx.errors.UsageError, match=r"write cx.MLP\('scalar', ...\)"):
        cx.pde(lambda u, x: cx.derivative(u)(x), **stated, model=cx.MLP(1, "scalar"))


@pytest.mark.slow
def test_a_condition_for_each_wave_that_comes_in_is_enough():
    cx.pde(transport, **(STATED | {"boundary": {"left": wall}}))
    cx.pde(rotation, **STATED)
    normal = lambda w, p, n: n @ w(p)[:2]  # noqa: E731
    cx.pde(sound, **(STATED | {"boundary": normal, "start": rest}))


@pytest.mark.slow
def test_heat_with_a_flux_and_sources_is_solved_to_its_estimate():
    def exact(p):
        return jnp.exp(-p[0]) * jnp.cos(p[1]) * jnp.sin(p[2] + 1) + p[0] * p[1]

    def equation(u, p):
        return heat(u, p) - heat(exact, p)

    def value(u, p):
        return u(p) - exact(p)

    def flux(u, p, n):
        slope = lambda v: jax.grad(v)(p)[1:] @ n  # noqa: E731
        return slope(u) - slope(exact)

    sides = {"left": flux, "right": value, "bottom": value, "top": flux}
    changed = {
        "start": lambda x: exact(jnp.array([0.0, *x])),
        "boundary": sides,
        "width": 7,
        "reference": exact,
        "mesh": ([0.0, 0.4, 1.0], [0.0, 1.0]),
    }
    problem = cx.pde(equation, **(STATED | changed))
    solution = cx.solve(problem, tolerance=1e-5)
    error, estimate = error_of(solution, exact), solution.error_estimate()
    assert solution.verdict.word == "solved"
    assert [item.name for item in solution.gap.constraints] == [
        *("equation", "start", "left", "right", "bottom", "top", "jumps")
    ]
    assert isinstance(solution.model, cx.models.PlaneTimePieces)
    assert isinstance(estimate, cx.results.PlaneTimeErrorEstimate)
    assert error / 3 < estimate.relative < 3 * error < 1e-5
    train = solution.streams[0].train
    np.testing.assert_allclose(train.weights @ train.points, [0.5] * 3, rtol=1e-12)


@pytest.mark.slow
def test_what_is_saved_is_loaded_and_drawn(tmp_path):
    problem = cx.pde(heat, **STATED, width=6)
    solution = cx.solve(problem, tolerance=1e-3, out=tmp_path / "run")
    estimate = solution.error_estimate()
    assert isinstance(estimate, cx.results.PlaneTimeErrorEstimate)
    assert solution.plot().axes and solution.plot_moments().axes and estimate.plot().axes
    solution.animate(tmp_path / "film.gif")
    assert (tmp_path / "film.gif").stat().st_size > 10_000
    again = cx.load_solution(tmp_path / "run", problem)
    assert str(again.gap) == str(solution.gap)
    with pytest.raises(cx.errors.UsageError, match="from 0 to 1"):
        solution([0.5, 0.5, 1.5])
    with pytest.raises(cx.errors.UsageError, match="but in time and the plane"):
        solution.compare()


@pytest.mark.slow
def test_a_nonlinear_wave_is_resumed_and_a_run_that_ended_early_is_not_solved(tmp_path):
    def exact(p):
        return jnp.cos(p[0]) * bump(p[1:])

    def equation(u, p):
        return wave(u, p) + u(p) ** 3 - wave(exact, p) - exact(p) ** 3

    changed = {"start": lambda x: (bump(x), 0 * x[0]), "width": 7, "time": (0.0, 0.6)}
    problem = cx.pde(equation, **(STATED | changed))
    whole = cx.solve(problem, tolerance=1e-4)
    assert error_of(whole, exact, 0.6) < 1e-4
    part = cx.solve(problem, tolerance=1e-4, steps=3, out=tmp_path / "run")
    assert part.status == "max_steps" and part.verdict.word == "not solved"
    assert 0 < part.model.ends[-1] < 0.6
    with pytest.raises(cx.errors.UsageError, match="of 512 points drawn from it lie outside"):
        part.evaluate(over=cx.Box([0.0] * 3, [0.6, 1.0, 1.0]), constraint="equation", heldout=512)
    rest = cx.resume(tmp_path / "run", problem, steps=1000)
    assert rest.status == "converged"
    p = np.random.default_rng(1).uniform([0, 0, 0], [0.6, 1, 1], (50, 3))
    np.testing.assert_allclose(rest(p), whole(p), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_system_of_order_one_conserves_what_it_should():
    def waves(w, p):  # p_t + div v = 0, v_t + grad p = 0
        time = cx.partial(w, 0)(p)
        dx, dy = cx.partial(w, 1)(p), cx.partial(w, 2)(p)
        return time[0] + dx[1] + dy[2], time[1] + dx[0], time[2] + dy[0]

    def exact(p):
        x, y = jnp.pi * p[1], jnp.pi * p[2]
        a = jnp.sqrt(2.0) * jnp.pi
        swing = jnp.sin(a * p[0]) / jnp.sqrt(2.0)
        along = swing * jnp.sin(x) * jnp.cos(y), swing * jnp.cos(x) * jnp.sin(y)
        return jnp.stack([jnp.cos(a * p[0]) * jnp.cos(x) * jnp.cos(y), *along])

    problem = cx.pde(
        waves,
        over=SQUARE,
        time=(0.0, 0.5),
        start=lambda x: exact(jnp.array([0.0, *x])),
        boundary={
            **dict.fromkeys(("left", "right"), lambda w, p: w(p)[1]),
            **dict.fromkeys(("bottom", "top"), lambda w, p: w(p)[2]),
        },
        width=7,
    )
    solution = cx.solve(problem, tolerance=1e-3)
    assert solution.verdict.word == "solved"
    assert error_of(solution, exact, 0.5) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heat_2d", "wave_2d"])
def test_gallery_against_its_closed_forms(name):
    solution = cx.solve(cx.load_problem(name))
    error, estimate = solution.gap.constraints[0].error, solution.error_estimate()
    assert solution.verdict.word == "solved"
    assert error is not None and error < 1e-7
    assert isinstance(estimate, cx.results.PlaneTimeErrorEstimate)
    assert error / 3 < estimate.relative < 3 * error


@pytest.mark.slow
def test_the_same_statement_is_trained():
    box = cx.Box([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    problem = cx.pde(
        heat,
        **STATED,
        model=cx.RandomFeatures(box, "scalar", width=300),
        reference=lambda p: jnp.exp(-(jnp.pi**2) * p[0] / 2) * bump(p[1:]),
    )
    solution = cx.solve(problem)
    names = [item.name for item in solution.gap.constraints]
    assert names == ["heat", "start", "left", "right", "bottom", "top"]
    assert solution.gap.constraints[0].error == pytest.approx(0, abs=1e-2)
