"""Equations in space alone, on an interval and on rectangles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx

D = cx.partial
SQUARE = cx.Box([0.0, 0.0], [1.0, 1.0])
SIDES = "left", "right", "bottom", "top"


def wall(u, x):
    return u(x)


def sines(x):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


def laplacian(u, x):
    return D(u, 0, order=2)(x) + D(u, 1, order=2)(x)


def poisson(u, x):
    return laplacian(u, x) + 2 * jnp.pi**2 * sines(x)


def slope(u, x, n):
    return n @ jax.grad(u)(x)


def grid(low, high, n=41):
    axes = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))


def error_of(solution, exact, points):
    known = np.asarray(jax.vmap(exact)(jnp.asarray(points)))
    return np.linalg.norm(solution(points) - known) / np.linalg.norm(known)


@pytest.fixture(scope="module")
def solved_poisson():
    return cx.solve(cx.pde(poisson, over=SQUARE, boundary=wall, reference=sines))


def test_equation_of_poisson_is_solved_to_rounding(solved_poisson):
    assert error_of(solved_poisson, sines, grid([0, 0], [1, 1])) < 1e-14
    assert solved_poisson.verdict.word == "solved"
    names = [item.name for item in solved_poisson.gap.constraints]
    assert names == ["poisson", *SIDES, "jumps"]
    assert isinstance(solved_poisson.model, cx.models.SpacePieces)


@pytest.mark.slow
def test_error_of_the_equation_of_poisson_is_known(solved_poisson):
    estimate = solved_poisson.error_estimate()
    assert isinstance(estimate, cx.results.SpaceErrorEstimate)
    assert estimate.label == "at rounding" and estimate.rounding < 1e-13
    assert solved_poisson.plot().axes and solved_poisson.plot_moments().axes
    assert estimate.plot().axes


def test_training_points_measure_the_area(solved_poisson):
    for number, known in ((0, 2 / 3), (1, 1 / 3), (5, 2 / 3)):  # the mean of x^2 + y^2
        train = solved_poisson.streams[number].train
        assert train.weights @ (train.points**2).sum(axis=1) == pytest.approx(known, rel=1e-12)


@pytest.mark.slow
def test_collocation_finds_the_same(solved_poisson):
    found = solved_poisson.compare()
    assert found.difference < 1e-12 and "40 x 40 Chebyshev nodes" in found.solver
    assert "up to" not in str(found)
    layer = cx.solve(
        cx.pde(
            lambda u, x: second(u, x) / 5 - u(x) * cx.derivative(u)(x),
            over=cx.Interval(-1.0, 1.0),
            boundary=lambda u, x: u(x) + x,
        )
    )
    assert layer.compare().difference < 1e-10
    with pytest.raises(cx.errors.UsageError, match="one rectangle"):
        cx.solve(cx.load_problem("l_shape"), tolerance=1e-2).compare()


@pytest.mark.slow
def test_saved_and_loaded(solved_poisson, tmp_path):
    solved_poisson.save(tmp_path / "run")
    problem = cx.pde(poisson, over=SQUARE, boundary=wall, reference=sines)
    again = cx.load_solution(tmp_path / "run", problem)
    assert str(again.gap) == str(solved_poisson.gap)
    np.testing.assert_array_equal(again([0.3, 0.4]), solved_poisson([0.3, 0.4]))


def test_outside_is_refused(solved_poisson):
    with pytest.raises(cx.errors.UsageError, match="from 0 to 1"):
        solved_poisson([0.5, 1.2])


def second(u, x):
    return cx.derivative(cx.derivative(u))(x)


@pytest.mark.slow
def test_an_interval_has_conditions_with_normals():
    def flux(u, x, n):
        return n * cx.derivative(u)(x) - jnp.cos(1.0)

    problem = cx.pde(
        lambda u, x: second(u, x) + u.args["force"] * jnp.sin(x),
        over=cx.Interval(0.0, 1.0),
        boundary={"left": wall, "right": flux},
        args={"force": 1.0},
    )
    solution = cx.solve(problem)
    x = np.linspace(0, 1, 33)
    np.testing.assert_allclose(solution(x), np.sin(x), atol=1e-14)
    assert solution.verdict.word == "solved"
    assert [item.name for item in solution.gap.finite] == ["left", "right"]


@pytest.mark.slow
def test_a_layer_is_resolved_where_it_is():
    thin = 1e-3
    problem = cx.pde(
        lambda u, x: thin * second(u, x) - cx.derivative(u)(x),
        over=cx.Interval(0.0, 1.0),
        boundary=lambda u, x: u(x) - x,
    )
    solution = cx.solve(problem)
    x = np.linspace(0, 1, 401)
    np.testing.assert_allclose(solution(x), np.exp((x - 1) / thin), atol=1e-12)
    low, high = solution.model.corners
    lengths = (high - low)[:, 0]
    assert lengths[np.argmax(high)] < 0.01 < 0.05 < lengths[np.argmin(low)]


@pytest.mark.slow
def test_a_beam_of_order_four_and_a_nonlinear_equation():
    beam = cx.pde(
        lambda u, x: second(cx.derivative(cx.derivative(u)), x) - jnp.exp(x),
        over=cx.Interval(0.0, 1.0),
        boundary=lambda u, x: (u(x) - jnp.exp(x), cx.derivative(u)(x) - jnp.exp(x)),
    )
    x = np.linspace(0, 1, 33)
    np.testing.assert_allclose(cx.solve(beam)(x), np.exp(x), rtol=1e-13)
    bratu = cx.pde(
        lambda u, x: second(u, x) + jnp.exp(u(x)), over=cx.Interval(0.0, 1.0), boundary=wall
    )
    theta = 1.5171645990507543704  # theta = sqrt(2) cosh(theta / 4)
    assert np.isclose(theta, np.sqrt(2) * np.cosh(theta / 4), rtol=1e-15)
    known = 2 * np.log(np.cosh(theta / 4) / np.cosh(theta / 2 * (x - 0.5)))
    solution = cx.solve(bratu)
    np.testing.assert_allclose(solution(x), known, atol=1e-13)
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_sides_may_have_conditions_of_different_kinds():
    def exact(x):
        return jnp.exp(x[0]) * jnp.cos(2 * x[1])

    problem = cx.pde(
        lambda u, x: laplacian(u, x) + 3 * exact(x),
        over=SQUARE,
        boundary={
            "left": lambda u, x: u(x) - exact(x),
            "right": lambda u, x, n: slope(u, x, n) + u(x) - slope(exact, x, n) - exact(x),
            "bottom": lambda u, x, n: slope(u, x, n) - slope(exact, x, n),
            "top": lambda u, x: u(x) - exact(x),
        },
    )
    solution = cx.solve(problem)
    assert error_of(solution, exact, grid([0, 0], [1, 1])) < 1e-13
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_what_is_known_up_to_a_constant_is_fixed_at_a_point():
    def exact(x):
        return jnp.cos(jnp.pi * x[0]) * jnp.cos(jnp.pi * x[1])

    def equation(u, x):
        return laplacian(u, x) + 2 * jnp.pi**2 * exact(x)

    sides = dict.fromkeys(SIDES, slope)
    fixed = {**sides, (0.0, 0.0): lambda u, x: u(x) - 1.0}
    solution = cx.solve(cx.pde(equation, over=SQUARE, boundary=fixed))
    assert error_of(solution, exact, grid([0, 0], [1, 1])) < 1e-13
    assert solution.gap.finite[0].name == "at (0, 0)"
    assert solution.verdict.word == "solved"


@pytest.mark.slow
def test_a_bump_is_found_and_estimated():
    def bump(x):
        return jnp.exp(-((x[0] - 0.3) ** 2 + (x[1] - 0.6) ** 2) / (2 * 0.03**2))

    problem = cx.pde(
        lambda u, x: laplacian(u, x) - laplacian(bump, x),
        over=SQUARE,
        boundary=lambda u, x: u(x) - bump(x),
        width=12,
    )
    solution = cx.solve(problem, tolerance=1e-7)
    error = error_of(solution, bump, grid([0, 0], [1, 1], 101))
    low, high = solution.model.corners
    area, middle = (high - low).prod(axis=1), (low + high) / 2
    near = np.hypot(*(middle - [0.3, 0.6]).T) < 0.1
    assert area[near].max() < 0.1 * area.max()
    estimate = solution.error_estimate()
    assert error / 3 < estimate.relative < 3 * error and error < 1e-8
    assert solution.verdict.word == "solved"


ENDS = {"left": lambda u, x: u(x) - 1, "right": lambda u, x: u(x) - 1}
FREE = dict.fromkeys(("left", "right"), lambda u, x, n: cx.derivative(u)(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("residual", "boundary"),
    [
        # A third condition, which contradicts the others; no solution balances load and flux; a
        # solution whose slope is infinite at an end.
        (second, {**ENDS, (0.5,): lambda u, x: u(x) - 1.2}),
        (lambda u, x: second(u, x) - 1, {**FREE, (0.5,): lambda u, x: u(x) - 1}),
        (lambda u, x: x * second(u, x) + cx.derivative(u)(x) / 2, lambda u, x: u(x) - x),
        # Not determined, though zero solves it, at an eigenvalue.
        (lambda u, x: second(u, x) + np.pi**2 * u(x), wall),
    ],
)
def test_what_has_no_solution_or_many_is_not_called_solved(residual, boundary):
    problem = cx.pde(residual, over=cx.Interval(0.0, 1.0), boundary=boundary)
    for tolerance in (1e-2, 1e-4):
        assert cx.solve(problem, tolerance=tolerance).verdict.word in ("not solved", "cannot tell")


def transport(u, x):
    return D(u, 0)(x) + D(u, 1)(x)


def turning(u, x):
    return (0.5 - x[1]) * D(u, 0)(x) + (x[0] - 0.5) * D(u, 1)(x)


def near_the_left(u, x):
    return jnp.where(x[0] < 0.3, u(x), 0.0)


LINE, UNIT_DISK = cx.Interval(0.0, 1.0), cx.domains.Ball(2)


@pytest.mark.parametrize(
    ("residual", "over", "boundary", "words"),
    [
        # Polynomials go on from the left alone as if they knew what comes in below.
        (transport, SQUARE, {"left": wall}, r"0\) at 'bottom' to \(1, .*at 'right'.*at 'bottom'"),
        slow(transport, SQUARE, {"left": wall, "bottom": near_the_left}, "add one at 'bottom'"),
        slow(transport, UNIT_DISK, {}, "at 'circle' to .* at 'circle'"),
        # Near the middle they go round; in the corners none carries a condition.
        slow(turning, SQUARE, {"left": wall}, "boundary states none at either"),
        (lambda u, x: cx.derivative(u)(x) - u(x), LINE, {}, "from 0 at 'left' to 1 at 'right'"),
    ],
)
def test_characteristics_without_a_condition_are_refused(residual, over, boundary, words):
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.pde(residual, over=over, boundary=boundary)


def out_of_a_corner(u, x):
    return x @ jax.grad(u)(x) + u(x) - 1


def cauchy_riemann(w, x):
    (u_x, u_y), (v_x, v_y) = jax.jacfwd(w)(x)
    return u_x - v_y, u_y + v_x


@pytest.mark.parametrize(
    ("residual", "boundary", "changed"),
    [
        # One end of each is enough, whichever way time goes; both may have conditions that agree.
        (transport, {"left": wall, "bottom": wall}, {}),
        slow(transport, {"right": wall, "top": wall}, {}),
        (transport, {"top": wall, "bottom": wall}, {}),
        slow(transport, wall, {}),
        slow(transport, wall, {"over": UNIT_DISK}),
        slow(lambda u, x: D(u, 0)(x) - u(x) ** 2, {"left": wall}, {}),
        # Nothing comes in from where the speed is zero; u = 1 is the only regular solution.
        slow(out_of_a_corner, {}, {}),
        (lambda u, x: x * cx.derivative(u)(x) + u(x) - 1, {}, {"over": LINE}),
        slow(lambda u, x: cx.derivative(u)(x), {(0.5,): wall}, {"over": LINE}),
        # The direction depends on u, or is none.
        (lambda u, x: u(x) * D(u, 0)(x) + D(u, 1)(x), {"bottom": wall}, {}),
        slow(cauchy_riemann, {"left": wall}, {"guess": jnp.zeros(2)}),
    ],
)
def test_characteristics_with_a_condition_are_not_refused(residual, boundary, changed):
    cx.pde(residual, **({"over": SQUARE, "boundary": boundary} | changed))


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_the_estimate_is_the_error(tolerance):
    def exact(x):
        return jnp.sin(10 * x[0]) * jnp.sin(10 * x[1])

    problem = cx.pde(
        lambda u, x: laplacian(u, x) + 100 * u(x) + 100 * exact(x),
        over=SQUARE,
        boundary=lambda u, x: u(x) - exact(x),
        width=8,
    )
    solution = cx.solve(problem, tolerance=tolerance)
    points = grid([0, 0], [1, 1])
    error = error_of(solution, exact, points)
    estimate = solution.error_estimate()
    assert isinstance(estimate, cx.results.SpaceErrorEstimate)
    assert error / 3 < estimate.relative < 3 * error < 3 * tolerance
    known = np.asarray(jax.vmap(exact)(jnp.asarray(points)))
    left = known - solution(points) - estimate(points)[:, 0]
    assert np.linalg.norm(left) < 0.7 * np.linalg.norm(known - solution(points))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("poisson", 1e-14),
        ("nonlinear_poisson", 1e-14),
        ("helmholtz", 1e-12),
        ("plate", 1e-12),
        ("plate_supported", 1e-13),
        ("cantilever", 1e-11),
        ("kovasznay", 1e-11),
    ],
)
def test_gallery_against_its_closed_forms(name, bound):
    solution = cx.solve(cx.load_problem(name))
    assert solution.verdict.word == "solved"
    assert solution.gap.constraints[0].error == pytest.approx(0, abs=bound)


@pytest.mark.slow
def test_a_run_that_reached_its_limit_is_resumed_to_the_same_digits(tmp_path):
    def cubic(u, x):
        return laplacian(u, x) - u(x) ** 3 + 100 * jnp.exp(-20 * ((x - 0.5) ** 2).sum())

    problem = cx.pde(cubic, over=SQUARE, boundary=wall, width=10)
    whole = cx.solve(problem, tolerance=1e-5)
    part = cx.solve(problem, tolerance=1e-5, steps=6, out=tmp_path / "run")
    assert part.status == "max_steps" and part.verdict.word == "not solved"
    linear = cx.solve(cx.load_problem("helmholtz"), steps=1)
    assert (linear.status, linear.steps) == ("max_steps", 1)
    rest = cx.resume(tmp_path / "run", problem, steps=1000)
    assert rest.status == "converged"
    points = grid([0, 0], [1, 1], 11)
    np.testing.assert_allclose(rest(points), whole(points), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
def test_the_same_statement_is_trained(dim):
    box = cx.Box([0.0] * dim, [1.0] * dim)

    def exact(x):
        return jnp.prod(jnp.sin(jnp.pi * x))

    problem = cx.pde(
        lambda u, x: cx.laplacian(u)(x) + dim * jnp.pi**2 * exact(x),
        over=box,
        boundary=lambda u, x, n: u(x) + 0 * n[0],
        model=cx.RandomFeatures(box, "scalar", width=400),
        reference=exact,
    )
    solution = cx.solve(problem)
    assert solution.gap.constraints[0].error == pytest.approx(0, abs=1e-6 if dim == 2 else 1e-2)


L_SHAPE = cx.Box([-1.0, -1.0], [1.0, 1.0]) - cx.Box([0.0, -1.0], [1.0, 0.0])


def test_boxes_are_put_together(as_released):
    assert isinstance(L_SHAPE, cx.domains.Boxes) and len(L_SHAPE.low) == 3
    points = np.asarray(jax.vmap(L_SHAPE.place)(jax.random.uniform(jax.random.key(0), (4096, 2))))
    assert L_SHAPE.holds(points).all()
    assert not L_SHAPE.holds(np.array([0.5, -0.5]))
    error = points.std(axis=0) / 64  # of the mean, which is (-1/6, 1/6)
    assert (np.abs(points.mean(axis=0) - [-1 / 6, 1 / 6]) < 4 * error).all()
    whole = L_SHAPE | cx.Box([0.0, -1.0], [1.0, 0.0])
    assert whole == cx.Box([-1.0, -1.0], [1.0, 1.0])
    assert L_SHAPE & cx.Box([0.0, 0.0], [2.0, 2.0]) == cx.Box([0.0, 0.0], [1.0, 1.0])
    small = cx.Box([0.0, 0.0], [1.0, 1.0]) - cx.Box([0.5, 0.5], [0.502, 0.502])
    assert isinstance(small, cx.domains.Boxes) and len(small.low) == 8
    beside = cx.Box([0.0, 0.0], [0.1 + 0.2, 1.0]) | cx.Box([0.3, 0.0], [1.0, 2.0])
    assert isinstance(beside, cx.domains.Boxes) and len(beside.low) == 3
    overlap = cx.Box([0.0], [2.0]) | cx.Box([1.0], [3.0])
    assert overlap == cx.Box([0.0], [3.0])  # what is in both counts once
    with pytest.raises(cx.errors.UsageError, match="is empty"):
        _ = cx.Box([0.0], [1.0]) - cx.Box([-1.0], [2.0])
    with pytest.raises(cx.errors.UsageError, match="combines shapes"):
        _ = L_SHAPE - cx.Interval(0.0, 1.0)  # pyright: ignore[reportOperatorIssue]


def test_a_side_may_have_several_parts():
    hole = cx.Box([0.0, 0.0], [3.0, 3.0]) - cx.Box([1.0, 1.0], [2.0, 2.0])
    problem = cx.pde(poisson, over=hole, boundary=wall)
    left = {item.name: item.over for item in problem.constraints}["left"]
    assert isinstance(left, cx.domains.Segments)
    points = np.asarray(jax.vmap(left.place)(jnp.linspace(0.001, 0.999, 400)[:, None]))
    assert set(np.round(points[:, 0], 12)) == {0.0, 2.0}  # the hole is to the left of x = 2
    assert np.isclose((points[:, 0] == 2.0).mean(), 1 / 4, atol=0.01)
    assert problem.model.count == 8


@pytest.mark.slow
def test_a_corner_that_points_inwards_is_graded():
    problem = cx.load_problem("l_shape")
    solution = cx.solve(problem, tolerance=1e-4)
    assert np.isclose(solution([-0.5, 0.5]), solution([[-0.5, 0.5]])[0])
    with pytest.raises(cx.errors.UsageError, match=r"known in Boxes\(3 in"):
        solution([0.5, -0.5])
    error = solution.gap.constraints[0].error
    estimate = solution.error_estimate()
    assert isinstance(estimate, cx.results.SpaceErrorEstimate)
    assert error is not None and error / 3 < estimate.relative < 3 * error and error < 1e-5
    low, high = solution.model.corners
    smallest = (high - low).min(axis=1)
    assert smallest.min() < 1e-2 * smallest.max()
    assert np.abs(low[np.argmin(smallest)]).max() < 0.01  # at the corner
    train = solution.streams[0].train
    np.testing.assert_allclose(train.weights @ train.points, [-1 / 6, 1 / 6], rtol=1e-12)
    assert solution.verdict.word == "solved"
    assert solution.plot().axes


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"over": cx.Box([0] * 3, [1] * 3)}, "give model="),
        ({"boundary": {"front": wall}}, "'left', 'right', 'bottom', 'top'"),
        ({"boundary": {(0.0, 2.0): wall}}, r"the point \(0.0, 2.0\)"),
        ({"boundary": "periodic"}, "a condition"),
        ({"start": sines}, "start= is for equations in time"),
        ({"mesh": [0.0, 0.5, 1.0]}, "along each coordinate"),
        ({"mesh": ([0.0, 0.5], [0.0, 1.0])}, "ascend from 0 to 1"),
        ({"boundary": {"left": wall}}, "needs 1 condition at 'right'"),
        ({"guess": lambda x: jnp.log(x[0] - 0.3)}, "guess of pde is NaN"),
        ({"args": {"k": cx.Unknown(1.0)}}, "nothing to estimate them from"),
        ({"width": 3}, "at least 6"),
    ],
)
def test_refused(changed, words):
    with pytest.raises(cx.errors.UsageError, match=words):
        cx.pde(poisson, **({"over": SQUARE, "boundary": wall} | changed))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cavity_to_four_digits():
    solution = cx.solve(cx.load_problem("cavity"), tolerance=1e-3)
    assert solution.status == "converged"
    assert solution.error_estimate().relative < 1e-4
    # What flows to the right through a section flows back below it, and likewise up and down.
    y, weights = np.polynomial.legendre.leggauss(60)
    y = (y + 1) / 2
    for at in (0.3, 0.5):
        across = solution(np.stack([np.full_like(y, at), y], axis=1))[:, 0]
        up = solution(np.stack([y, np.full_like(y, at)], axis=1))[:, 1]
        assert max(abs(weights @ across), abs(weights @ up)) < 1e-5
    # Found by elements of 12 x 12 polynomials, to six digits.
    known = [-0.0572210, -0.1787527, 0.6194201]
    found = [solution(np.array([0.5, y]))[0] for y in (0.1016, 0.5, 0.9531)]
    np.testing.assert_allclose(found, known, atol=3e-5)


@pytest.mark.slow
def test_a_cube_by_random_features():
    solution = cx.solve(cx.load_problem("poisson_3d"))
    assert solution.gap["poisson"].error < 1e-8
