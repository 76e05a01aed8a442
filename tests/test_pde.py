"""Equations in space and time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx

D = cx.partial


def wall(u, p):
    return u(p)


def heat(u, p):
    return D(u, 0)(p) - D(D(u, 1), 1)(p) / 4


def heat_problem(**changed):
    stated = {
        "over": cx.Interval(0.0, 1.0),
        "time": (0.0, 1.0),
        "start": lambda x: jnp.sin(jnp.pi * x),
        "boundary": wall,
    }
    return cx.pde(heat, **(stated | changed))


def grid(low, high, time=1.0):
    t, x = np.meshgrid(np.linspace(0, time, 41), np.linspace(low, high, 101), indexing="ij")
    return t, x, np.stack([t, x], axis=-1)


def relative(found, known):
    return np.linalg.norm(found - known) / np.linalg.norm(known)


@pytest.fixture(scope="module")
def solved_heat():
    return cx.solve(heat_problem())


def test_heat_is_solved(solved_heat):
    t, x, p = grid(0.0, 1.0)
    known = np.exp(-(np.pi**2) * t / 4) * np.sin(np.pi * x)
    error = relative(solved_heat(p), known)
    assert error < 1e-11
    assert solved_heat.verdict.word == "solved"
    assert {item.name for item in solved_heat.gap.constraints} == {
        *("heat", "start", "left", "right", "jumps"),
    }
    distance = solved_heat.gap["heat"].distance  # from held-out points to the nearest rows
    assert (np.diff(distance.edges) > 0).all() and distance.edges[-1] < 0.1


@pytest.mark.slow
def test_error_of_heat_is_known(solved_heat):
    t, x, p = grid(0.0, 1.0)
    error = relative(solved_heat(p), np.exp(-(np.pi**2) * t / 4) * np.sin(np.pi * x))
    estimate = solved_heat.error_estimate()
    assert error / 3 < max(estimate.relative, estimate.rounding) < max(3 * error, 1e-13)


@pytest.mark.slow
def test_saved_and_loaded(solved_heat, tmp_path):
    solved_heat.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", heat_problem())
    assert str(again.gap) == str(solved_heat.gap)
    np.testing.assert_array_equal(again([0.3, 0.4]), solved_heat([0.3, 0.4]))


def test_outside_is_refused(solved_heat):
    with pytest.raises(cx.errors.UsageError, match=r"from 0 to 1 and from 0 to 1, got 0.5, 1.2"):
        solved_heat([0.5, 1.2])
    with pytest.raises(cx.errors.UsageError, match=r"of 64 points .* outside.*from 0 to 1 and"):
        solved_heat.evaluate(over=cx.Box((0, 0), (2, 1)), constraint="heat", heldout=64)


@pytest.mark.slow
def test_march_that_reached_its_limit_is_resumed_to_the_same_digits(tmp_path):
    def burgers(u, p):
        return D(u, 0)(p) + u(p) * D(u, 1)(p) - 0.05 * D(u, 1, order=2)(p)

    problem = cx.pde(
        burgers,
        over=cx.Interval(-1.0, 1.0),
        time=(0.0, 0.5),
        start=lambda x: -jnp.sin(jnp.pi * x),
        boundary=wall,
    )
    whole = cx.solve(problem)
    part = cx.solve(problem, steps=6, out=tmp_path / "run")
    assert part.status == "max_steps"
    assert part.verdict.word == "not solved"
    reached = part.model.ends[-1]
    assert reached < 0.5
    assert f"{reached}" in part.gap["left"].measure  # measured as far as it got
    places = np.stack([np.full(50, reached / 2), np.linspace(-1, 1, 50)], axis=1)
    np.testing.assert_array_equal(part(places), whole(places))
    with pytest.raises(cx.errors.UsageError, match=r"of 64 points .* outside.*from 0 to .*, got "):
        part.evaluate(over=cx.Box((0.0, -1.0), (0.5, 1.0)), constraint="burgers", heldout=64)
    within = cx.Box((0.0, -1.0), (reached, 1.0))
    assert np.isfinite(part.evaluate(over=within, constraint="burgers").heldout_rms.value)
    rest = cx.resume(tmp_path / "run", problem, steps=10_000)
    assert rest.status == "converged"
    np.testing.assert_array_equal(rest.model.times, whole.model.times)
    np.testing.assert_array_equal(rest.model.coefficients, whole.model.coefficients)


def test_training_points_weigh_as_the_held_out_ones(solved_heat):
    # Both measure the same mean: of x^2 + t^2 over the unit square 2/3, along a side in time 1/3.
    for name, known in (("heat", 2 / 3), ("left", 1 / 3), ("start", 1 / 3), ("jumps", 2 / 3)):
        index = [item.name for item in solved_heat.problem.constraints].index(name)
        train = solved_heat.streams[index].train
        assert train.weights @ (train.points**2).sum(axis=1) == pytest.approx(known, rel=1e-12)


@pytest.mark.slow
def test_wave_of_order_two_starts_with_value_and_velocity():
    def wave(u, p):
        return D(D(u, 0), 0)(p) - 4 * D(D(u, 1), 1)(p)

    def start(x):
        return jnp.sin(jnp.pi * x) + jnp.sin(4 * jnp.pi * x) / 2, jnp.zeros_like(x)

    stated = {"over": cx.Interval(0.0, 1.0), "time": (0.0, 1.0), "boundary": wall}
    solution = cx.solve(cx.pde(wave, start=start, **stated))
    t, x, p = grid(0.0, 1.0)
    low = np.sin(np.pi * x) * np.cos(2 * np.pi * t)
    known = low + np.sin(4 * np.pi * x) * np.cos(8 * np.pi * t) / 2
    assert relative(solution(p), known) < 1e-11
    assert solution.verdict.word == "solved"
    with pytest.raises(cx.errors.UsageError, match=r"pair \(u, du/dt\)"):
        cx.pde(wave, start=lambda x: jnp.sin(x), **stated)


@pytest.mark.slow
def test_periodic_convection_goes_around():
    def convection(u, p):
        return D(u, 0)(p) + 40 * D(u, 1)(p)

    solution = cx.solve(
        cx.pde(
            convection,
            over=cx.Interval(0.0, 2 * math.pi),
            time=(0.0, 0.2),
            start=jnp.sin,
            boundary="periodic",
        )
    )
    t, x, p = grid(0.0, 2 * math.pi, 0.2)
    assert relative(solution(p), np.sin(x - 40 * t)) < 1e-11
    assert solution.verdict.word == "solved"
    assert "periodic" in [item.name for item in solution.gap.constraints]


@pytest.mark.slow
def test_flux_with_the_outward_normal():
    # u = exp(-t) cos x has du/dn = -sin(1) exp(-t) at the right end and 0 at the left one.
    def diffusion(u, p):
        return D(u, 0)(p) - D(D(u, 1), 1)(p)

    def flux(u, p, n):
        return n * D(u, 1)(p) + jnp.exp(-p[0]) * jnp.sin(p[1])

    solution = cx.solve(
        cx.pde(diffusion, over=cx.Interval(0.0, 1.0), time=(0.0, 1.0), start=jnp.cos, boundary=flux)
    )
    t, x, p = grid(0.0, 1.0)
    assert relative(solution(p), np.exp(-t) * np.cos(x)) < 1e-11
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_classical_solver_agrees(solved_heat):
    comparison = solved_heat.compare()
    assert comparison.difference < 1e-9
    assert "Chebyshev" in comparison.solver


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tolerance", "bound"),
    [
        ("reaction", 1e-12, 1e-11),
        ("klein_gordon", 1e-11, 1e-11),
        ("burgers", 1e-11, 1e-11),
        ("fisher", 1e-11, 1e-11),
        ("schroedinger", 1e-8, 1e-9),
    ],
)
def test_gallery_against_its_closed_forms(name, tolerance, bound):
    solution = cx.solve(cx.load_problem(name), tolerance=tolerance)
    (t0, low), (t1, high) = (
        getattr(solution.problem.constraints[0].over, k) for k in ("low", "high")
    )
    t, x = np.meshgrid(np.linspace(t0, t1, 41), np.linspace(low, high, 201), indexing="ij")
    p = np.stack([t.ravel(), x.ravel()], axis=1)
    values = [
        np.stack(jax.tree.leaves(fn(p))) for fn in (solution, jax.vmap(solution.problem.reference))
    ]
    error = relative(*values)
    assert error < bound
    assert solution.verdict.word == "solved"
    estimate = solution.error_estimate()
    assert estimate.label == "at rounding" or error / 3 < estimate.relative < 3 * error


@pytest.mark.slow
def test_the_same_statement_trains_a_network():
    features = cx.RandomFeatures(cx.Box([0.0, 0.0], [1.0, 1.0]), "scalar", width=300)
    solution = cx.solve(heat_problem(model=features))
    t, x, p = grid(0.0, 1.0)
    known = np.exp(-(np.pi**2) * t / 4) * np.sin(np.pi * x)
    assert relative(solution(p), known) < 1e-6
    names = [item.name for item in solution.gap.constraints]
    assert names == ["heat", "start", "left", "right"]


@pytest.mark.slow
def test_system_of_two():
    # A wave as two equations of order one: u_t = v_x, v_t = u_x.
    def system(w, p):
        u_t, v_t = D(w, 0)(p)
        u_x, v_x = D(w, 1)(p)
        return u_t - v_x, v_t - u_x

    solution = cx.solve(
        cx.pde(
            system,
            over=cx.Interval(0.0, 2 * math.pi),
            time=(0.0, 1.0),
            start=lambda x: (jnp.sin(x), jnp.zeros_like(x)),
            boundary="periodic",
        )
    )
    t, x, p = grid(0.0, 2 * math.pi)
    u, v = solution(p)
    assert relative(u, np.sin(x) * np.cos(t)) < 1e-11
    assert relative(v, np.cos(x) * np.sin(t)) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize(("growth", "tolerance"), [(10, 1e-10), (14, 1e-10)])
def test_estimate_follows_an_error_that_grows(growth, tolerance):
    # Round-off jumps of derivatives act like sources: a solution that shares them hides them.
    def unstable(u, p):
        source = 9 * jnp.cos(9 * p[0]) - growth * jnp.sin(9 * p[0])
        return D(u, 0)(p) - D(u, 1, order=2)(p) - growth * u(p) - source

    problem = cx.pde(
        unstable,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=lambda x: 0 * x,
        boundary=lambda u, p: D(u, 1)(p),
    )
    solution = cx.solve(problem, tolerance=tolerance)
    t, _, p = grid(0.0, 1.0)
    error = relative(solution(p), np.sin(9 * t))
    estimate, round_off = solution.error_estimate(), np.exp(growth) * np.finfo(float).eps
    # Round-off differs between processors, and grows as any error does.
    assert error / 3 < max(estimate.relative, estimate.rounding) < max(3 * error, round_off)


@pytest.mark.slow
def test_a_term_that_is_switched_by_the_value_is_seen():
    def switched(u, p):
        return D(u, 0)(p) + jnp.where(u(p) > 10, 1.0, 0.0) * D(u, 1)(p)

    problem = cx.pde(
        switched,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 0.2),
        start=lambda x: 20 + jnp.sin(2 * jnp.pi * x),
        boundary="periodic",
    )
    t, x, p = grid(0.0, 1.0, 0.2)
    assert relative(cx.solve(problem)(p), 20 + np.sin(2 * np.pi * (x - t))) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_conditions_have_no_unit(factor):
    solution = cx.solve(heat_problem(boundary=lambda u, p: factor * u(p)))
    t, x, p = grid(0.0, 1.0)
    assert relative(solution(p), np.exp(-(np.pi**2) * t / 4) * np.sin(np.pi * x)) < 1e-11
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_beam_of_order_two_and_four():
    def beam(u, p):
        return D(u, 0, order=2)(p) + D(u, 1, order=4)(p)

    problem = cx.pde(
        beam,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 0.2),
        start=lambda x: (jnp.sin(jnp.pi * x), 0 * x),
        boundary=lambda u, p: jnp.stack([u(p), D(u, 1, order=2)(p)]),
    )
    solution = cx.solve(problem)
    t, x, p = grid(0.0, 1.0, 0.2)
    assert relative(solution(p), np.sin(np.pi * x) * np.cos(np.pi**2 * t)) < 1e-10
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_no_condition_where_none_is_needed():
    problem = cx.pde(
        lambda u, p: (1 + p[1]) * (D(u, 0)(p) + jnp.sqrt(u(p)) ** 2),
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=lambda x: 1 + x,
        boundary={},
    )
    t, x, p = grid(0.0, 1.0)
    assert relative(cx.solve(problem)(p), (1 + x) * np.exp(-t)) < 1e-11


def test_a_start_that_misses_a_condition_is_said():
    with pytest.warns(cx.errors.ProblemWarning, match="condition at the right end by 1"):
        heat_problem(start=lambda x: 1 + 0 * x)


def far(u, p):
    return D(u, 0)(p) - D(D(u, 1), 1)(p) - u(p + jnp.asarray([0.0, 0.1]))


def fifth(u, p):
    return D(u, 0)(p) + D(D(D(D(D(u, 1), 1), 1), 1), 1)(p)


def backwards(u, p):
    return D(u, 0)(p) + D(D(u, 1), 1)(p)


def turning(u, p):
    return D(u, 0)(p) - (0.5 - p[0]) * D(u, 1, order=2)(p)


def nothing(u, p):
    return None


def still(u, p):
    return D(D(u, 1), 1)(p)


def broken(u, p):
    return D(u, 0)(p) - u.slope(p)


@pytest.mark.parametrize(
    ("residual", "changed", "words"),
    [
        (heat, {"boundary": {"left": wall}}, "needs 2 conditions .* boundary states 1"),
        (heat, {"boundary": lambda u, p: jnp.stack([u(p), D(u, 1)(p)])}, "states 4"),
        (heat, {"boundary": {}}, "boundary states 0"),
        (heat, {"start": lambda x: (x, x)}, "start must return u alone"),
        (heat, {"start": lambda x: np.sin(x)}, "written with jax.numpy"),
        (heat, {"start": lambda x: jnp.exp(1j * x)}, "start of pde is complex"),
        slow(turning, {}, "ill-posed forwards in time"),
        (nothing, {}, "returns nothing"),
        (heat, {"boundary": "neumann"}, "boundary must be a condition"),
        (heat, {"boundary": {"top": wall}}, "boundary must be a condition"),
        (heat, {"time": (1.0, 0.0)}, "time must go forwards"),
        (heat, {"start": lambda x: 1 / x}, "start of pde is NaN or infinite at x = 0"),
        (heat, {"mesh": [0.0, 0.5]}, "mesh must begin and end where over= does"),
        (far, {}, "away from its point"),
        slow(fifth, {"boundary": "periodic"}, "sees derivatives of order"),
        (backwards, {}, "ill-posed forwards in time"),
        (still, {}, "no derivative of u by time"),
        (broken, {}, "cannot be evaluated"),
    ],
)
def test_refused(residual, changed, words):
    stated = {
        "over": cx.Interval(0.0, 1.0),
        "time": (0.0, 1.0),
        "start": lambda x: jnp.sin(jnp.pi * x),
        "boundary": wall,
    }
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.pde(residual, **(stated | changed))
