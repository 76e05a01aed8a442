"""Boundary value problems against closed forms, special functions and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cash_mazzia import CASES, LINEAR, errors
from scipy.special import erf, mathieu_a

import constrainednn as cx
from constrainednn._gap.residuals import residuals_at
from constrainednn._ode.linearised.division import divided, heads, unknowns_of
from constrainednn._ode.schemes import boundary_values

# The default tolerance asks each element for a residual of 1e-12 of the solution; 100 times that
# leaves room for the amplification by a well-conditioned problem.
REACHED = 1e-10


def error(u, known):
    """Largest relative L2 error over the components."""
    u, known = np.asarray(u), np.asarray(known)
    return np.max(np.linalg.norm(u - known, axis=0) / np.linalg.norm(known, axis=0))


def places(solution):
    return np.linspace(*solution.problem.scheme.span, 2001)


def solved(*arguments, **keywords):
    return cx.solve(cx.bvp(*arguments, **keywords))


def both_zero(left, right):
    return jnp.stack([left[0], right[0]])


def test_exponential(boundary):
    x = places(boundary)
    known = np.stack([np.sinh(1 - x), -np.cosh(1 - x)], axis=1) / np.sinh(1)
    assert boundary.status == "converged"
    assert error(boundary(x), known) < REACHED
    assert boundary.history.pieces.monitor.max() < 1e-12


def test_boundary_conditions_and_continuity_hold_to_rounding(boundary):
    rounding = 100 * np.finfo(float).eps
    assert abs(boundary(0.0)[0] - 1) < rounding
    assert abs(boundary(1.0)[0]) < rounding
    ends = boundary.model.ends[1:-1]
    before = boundary(np.nextafter(ends, 0.0))
    assert np.abs(np.asarray(before) - np.asarray(boundary(ends))).max() < rounding


def test_training_loss_is_the_weighted_mean_over_all_elements(boundary):
    """sum_j (h_j / T) sum_i q_i |r|^2 with Gauss weights, by hand."""
    gap, model = boundary.gap.constraints[0], boundary.model
    nodes, weights = np.polynomial.legendre.leggauss(32)
    total = 0.0
    for low, high in zip(model.ends[:-1], model.ends[1:], strict=True):
        x = low + (high - low) * (nodes + 1) / 2
        r = residuals_at(boundary.problem.constraints[0].residual, model, x)
        total += (high - low) * (weights / 2) @ (r**2).sum(axis=1)
    assert np.isclose(total, gap.train, rtol=1e-6)


@pytest.mark.slow
def test_unknown_parameter_of_scipys_sturm_liouville_problem():
    """y'' = -k^2 y with k unknown on [0, pi]: k = 1, y = sin x."""
    found = solved(
        lambda x, y, p: jnp.stack([y[1], -(p[0] ** 2) * y[0]]),
        lambda left, right, p: jnp.stack([left[0], right[0], left[1] - p[0]]),
        (0.0, np.pi),
        lambda x: jnp.stack([jnp.sin(1.2 * x), 1.2 * jnp.cos(1.2 * x)]),
        p=[1.2],
    )
    x = places(found)
    assert found.status == "converged"
    assert abs(float(found.model.parameters[0]) - 1) < REACHED
    assert error(found(x), np.stack([np.sin(x), np.cos(x)], axis=1)) < REACHED


@pytest.mark.slow
def test_room_for_more_elements_changes_no_step(monkeypatch):
    """Damped steps too: elements of length zero, kept for the next division, take no part."""
    found = []
    for room in (16, 256):
        monkeypatch.setattr(boundary_values, "_ROOM", room)
        problem = cx.bvp(
            lambda x, y, p: jnp.stack([y[1], -(p[0] ** 2) * y[0]]),
            lambda left, right, p: jnp.stack([left[0], right[0], left[1] - p[0]]),
            (0.0, np.pi),
            lambda x: jnp.stack([jnp.sin(x), jnp.cos(x)]),
            p=[0.5],
        )
        found.append(solved_by_scheme(problem, 1e-9))
    few, many = found
    assert few.steps == many.steps > 4
    np.testing.assert_allclose(many.model.parameters, [1.0], rtol=1e-13)
    x = np.linspace(0, np.pi, 50)
    np.testing.assert_allclose(jax.vmap(many.model)(x), jax.vmap(few.model)(x), atol=1e-14)


@pytest.mark.slow
def test_singular_term_of_emdens_equation():
    """y'' + 2 y' / x + y^5 = 0, y = (1 + x^2 / 3)^(-1/2)."""
    found = solved(
        lambda x, y: jnp.stack([y[1], -(y[0] ** 5)]),
        lambda left, right: jnp.stack([left[1], right[0] - np.sqrt(3 / 4)]),
        (0.0, 1.0),
        [1.0, 0.0],
        S=[[0.0, 0.0], [0.0, -2.0]],
    )
    x = places(found)
    known = (1 + x**2 / 3) ** -0.5
    assert error(found(x), np.stack([known, -x / 3 * known**3], axis=1)) < REACHED
    assert found.gap.constraints[0].worst.residual < 1e-9  # finite up to the singular end


@pytest.mark.slow
@pytest.mark.parametrize("eps", [1e-3, 1e-4])
def test_shock_layer_in_the_middle(eps):
    """eps y'' + x y' = -eps pi^2 cos(pi x) - pi x sin(pi x) on [-1, 1]."""

    def field(x, y):
        source = eps * jnp.pi**2 * jnp.cos(jnp.pi * x) + jnp.pi * x * jnp.sin(jnp.pi * x)
        return jnp.stack([y[1], -(x * y[1] + source) / eps])

    found = solved(
        field, lambda left, right: jnp.stack([left[0] + 2, right[0]]), (-1.0, 1.0), [0.0, 0.0]
    )
    x = places(found)
    known = np.cos(np.pi * x) + erf(x / np.sqrt(2 * eps)) / erf(1 / np.sqrt(2 * eps))
    assert found.status == "converged"
    assert error(np.asarray(found(x))[:, :1], known[:, None]) < REACHED
    shortest = np.argmin(np.diff(found.model.ends))
    assert abs(found.model.ends[shortest]) < 10 * np.sqrt(eps)  # elements gather at the layer


@pytest.mark.slow
@pytest.mark.parametrize("eps", [1e-3, 1e-6])
def test_linear_layer_at_an_end_needs_few_steps(eps):
    """y'' = y' / eps: from a guess without the layer, and Newton's method solves lines at once."""
    found = solved(
        lambda x, y: jnp.stack([y[1], y[1] / eps]),
        lambda left, right: jnp.stack([left[0], right[0] - 1]),
        (0.0, 1.0),
        lambda x: jnp.stack([x, jnp.ones_like(x)]),
    )
    x = np.append(places(found), 1 - eps * np.linspace(0, 20, 50))
    known = np.exp((x - 1) / eps) - np.exp(-1 / eps)
    assert found.status == "converged"
    assert np.abs(np.asarray(found(x))[:, 0] - known / -np.expm1(-1 / eps)).max() < REACHED
    assert found.steps < 30
    assert found.model.count < 300


@pytest.mark.slow
def test_a_singular_end_may_be_written_into_the_field():
    """y'' + 2 y' / x = -1, y'(0) = 0: no point lies on the end. y = (1 - x^2) / 6."""
    found = solved(
        lambda x, y: jnp.stack([y[1], -1 - 2 * y[1] / x]),
        lambda left, right: jnp.stack([left[1], right[0]]),
        (0.0, 1.0),
        [0.0, 0.0],
    )
    x = places(found)
    assert found.status == "converged"
    assert np.abs(np.asarray(found(x))[:, 0] - (1 - x**2) / 6).max() < REACHED


@pytest.mark.slow
def test_half_line_by_truncation():
    """Blasius's boundary layer; its shear at the wall to 16 digits in Boyd, SIAM Rev. 50 (2008)."""
    shear = [
        float(
            solved(
                lambda x, y: jnp.stack([y[1], y[2], -y[0] * y[2] / 2]),
                lambda left, right: jnp.stack([left[0], left[1], right[1] - 1.0]),
                (0.0, length),
                lambda x: jnp.stack([x - 1 + jnp.exp(-x), 1 - jnp.exp(-x), jnp.exp(-x)]),
            )(0.0)[2]
        )
        for length in (6.0, 15.0)
    ]
    off = np.abs(np.array(shear) - 0.332057336215196)
    assert off[0] > 1e-4  # too short
    assert off[1] < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("name, settings", [
    ("bratu", {"branch": "lower"}),
    ("bratu", {"branch": "upper"}),
    ("boundary_layer", {"eps": 1e-3}),
])  # fmt: skip
def test_gallery_with_closed_forms(name, settings):
    found = cx.solve(cx.load_problem(name, **settings))
    x = places(found)
    known = jax.vmap(found.problem.reference)(x)
    assert found.status == "converged"
    assert error(found(x), known) < REACHED
    assert found.gap.constraints[0].error < REACHED


@pytest.mark.slow
def test_eigenvalues_are_those_of_mathieus_equation():
    found = [cx.solve(cx.load_problem("sturm_liouville", index=i)) for i in range(3)]
    values = [float(item.model.parameters[0]) for item in found]
    assert np.allclose(values, [mathieu_a(i, 5.0) for i in range(3)], rtol=1e-12, atol=1e-11)
    # Oscillation theorem: the i-th eigenfunction has i zeros inside.
    zeros = [
        int((np.diff(np.sign(np.asarray(item(places(item)))[:, 0])) != 0).sum()) for item in found
    ]
    assert zeros == [0, 1, 2]


@pytest.mark.slow
def test_nonlinear_boundary_conditions_agree_with_scipy():
    from scipy.integrate import solve_bvp

    def field(x, y, xp=jnp):
        return xp.stack([y[1], -xp.sin(y[0])])

    def bc(left, right, xp=jnp):
        return xp.stack([left[0] ** 2 + left[1] - 1.0, right[1] * right[0] + 0.2])

    guess = np.array([0.5, 0.5])
    ours = solved(field, bc, (0.0, 1.0), guess)
    x = np.linspace(0.0, 1.0, 21)
    theirs = solve_bvp(
        lambda x, y: field(x, y, np), lambda a, b: bc(a, b, np), x, np.tile(guess[:, None], 21),
        tol=1e-10, max_nodes=10**5,
    )  # fmt: skip
    assert theirs.status == 0
    # Conditions of degree two may have several solutions; ours must be one, and here the same.
    assert error(ours(x), theirs.sol(x).T) < 1e-8


@pytest.mark.slow
def test_sixty_equations():
    """Thirty copies of y'' = y side by side, d = 60."""
    n = 30
    found = solved(
        lambda x, y: jnp.concatenate([y[n:], y[:n]]),
        lambda left, right: jnp.concatenate([left[:n], right[:n] - 1]),
        (0.0, 1.0),
        np.zeros(2 * n),
    )
    x = places(found)
    assert (
        error(np.asarray(found(x))[:, :n], np.sinh(x)[:, None] / np.sinh(1) * np.ones(n)) < REACHED
    )


@pytest.mark.slow
def test_dividing_elements_does_not_change_the_function(boundary):
    model = boundary.model
    edges, parts = model.ends, np.array([1, 2, 3, 4] + [1] * (model.count - 4))
    new_edges, new = divided(edges, unknowns_of(model), parts, 16)
    from constrainednn.models.pieces import stack_pieces

    whole = stack_pieces(new_edges, new.y[:-1, None], heads(new), unravel=lambda y: y)
    x = places(boundary)[:-1]
    rounding = 1e3 * np.finfo(float).eps
    assert np.abs(np.asarray(jax.vmap(whole)(x)) - np.asarray(boundary(x))).max() < rounding


@pytest.mark.slow
def test_saved_and_loaded_gives_the_same_numbers(boundary, tmp_path):
    boundary.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", boundary.problem)
    assert again.gap.train == boundary.gap.train
    assert again.gap.heldout == boundary.gap.heldout


@pytest.mark.slow
def test_ill_posed_problem_is_called_singular():
    found = solved(
        lambda x, y: jnp.stack([y[1], jnp.zeros(())]),
        lambda left, right: jnp.stack([left[1], right[1]]),  # any constant satisfies these
        (0.0, 1.0),
        [1.0, 0.0],
    )
    assert found.status == "stalled"
    assert "do not determine" in found.reason


@pytest.mark.slow
def test_eigenfunction_with_one_condition_too_many_is_not_a_solution():
    """y'' = -p y, y(0) = y(1) = 0, y'(0) = y'(1): the guess shrinks to zero, where any p does."""
    found = solved(
        lambda x, y, p: jnp.stack([y[1], -p[0] * y[0]]),
        lambda left, right, p: jnp.stack([left[0], right[0], left[1] - right[1]]),
        (0.0, 1.0),
        lambda x: jnp.stack([x * (1 - x), 1 - 2 * x]),
        p=[10.0],
    )
    assert found.status == "stalled"
    assert "do not determine" in found.reason


@pytest.mark.slow
def test_problem_without_solution_is_not_called_converged():
    """y'' + y = 1 + cos x, y'(0) = y'(pi) = 0: resonance, no solution exists."""
    found = cx.solve(
        cx.bvp(
            lambda x, y: jnp.stack([y[1], 1 - y[0] + jnp.cos(x)]),
            lambda left, right: jnp.stack([left[1], right[1]]),
            (0.0, np.pi),
            [0.0, 0.0],
        )
    )
    assert found.status == "stalled"


@pytest.mark.slow
def test_signal_is_seen_within_newtons_method():
    """Bratu's equation beyond its turning point: Newton's method goes on for long."""
    problem = cx.bvp(
        lambda x, y: jnp.stack([y[1], -5 * jnp.exp(y[0])]), both_zero, (0.0, 1.0), [0.0, 0.0]
    )
    seen = []
    model = problem.build_model(key=jax.random.key(0))
    found = problem.scheme.solve(
        model, tolerance=0.0, steps=1000, key=jax.random.key(1),
        watch=lambda taken, done, residual, state: seen.append(taken) or len(seen) == 3,
    )  # fmt: skip
    assert found.status == "interrupted"
    assert 3 <= found.steps == seen[-1] <= 15
    assert len(found.pieces.edges) == 9  # before any element was divided


LINE = (lambda x, y: jnp.stack([y[1], y[0]]), both_zero, (0.0, 1.0), [0.0, 0.0])


@pytest.mark.parametrize("change, message", [
    ({0: lambda x, y: y[:1]}, "fun must return 2 numbers"),
    ({0: lambda x: x}, "fun must take 2 arguments"),
    ({1: lambda a, b: a[:1]}, "bc must return 2 numbers"),
    ({2: (1.0, 0.0)}, "span must be two finite ends a < b"),
    ({2: (0.0, np.nan)}, "span must be two finite ends"),
    ({2: 1.0}, "span must be a pair"),
    ({3: [[0.0, 0.0]]}, "guess must be an array of shape"),
    ({3: [np.nan, 0.0]}, "guess must be finite"),
    ({3: lambda x: jnp.where(x > 0.5, jnp.nan, jnp.zeros(2))}, "guess must be finite, .* at x"),
    ({"p": [1.0]}, "must take 3 arguments, with p"),
    ({"p": [[1.0]]}, "p must be finite numbers of shape"),
    ({"S": [1.0]}, "S must have shape"),
    ({"width": 1}, "width must be at least 2"),
])  # fmt: skip
@pytest.mark.usefixtures("as_released")
def test_bad_statements_are_refused(change, message):
    arguments = [change.get(i, value) for i, value in enumerate(LINE)]
    keywords = {key: value for key, value in change.items() if isinstance(key, str)}
    with pytest.raises((ValueError, TypeError), match=message):
        cx.bvp(*arguments, **keywords)


@pytest.mark.slow
def test_check_has_no_doubts_about_a_flat_guess():
    assert [finding.warnings for finding in cx.check(cx.bvp(*LINE))] == [(), ()]


@pytest.mark.parametrize("keyword, value, message", [
    ("method", cx.LevenbergMarquardt(), "leave out method="),
    ("redraw", 10, "leave out redraw="),
    ("tolerance", 1e-17, "below the rounding"),
])  # fmt: skip
def test_settings_of_other_methods_are_refused(keyword, value, message):
    with pytest.raises(ValueError, match=message):
        cx.solve(cx.bvp(*LINE), **{keyword: value})


# The classical linear test set: see cash_mazzia.py.


def classical(number, eps):
    problem = next(item for item in LINEAR if item.number == number)
    return problem, cx.bvp(
        problem.field, problem.conditions, problem.span, [0.0, 0.0], args=float(eps)
    )


def solved_by_scheme(problem, tolerance):
    """Without the gap report, whose programs are compiled for each problem."""
    return problem.scheme.solve(
        problem.build_model(key=jax.random.key(0)), tolerance=tolerance, steps=1000,
        key=jax.random.key(1), watch=lambda *now: False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number, eps", [(2, 1e-6), (9, 1e-4), (16, 1 / 1001)])
def test_loose_tolerance_is_kept_and_needs_no_more_elements(number, eps):
    problem, stated = classical(number, eps)
    loose, tight = (solved_by_scheme(stated, tolerance) for tolerance in (1e-3, 1e-9))
    for found, tolerance in ((loose, 1e-3), (tight, 1e-9)):
        assert found.status == "converged"
        assert errors(problem, eps, jax.vmap(found.model)).max() < 10 * tolerance
    assert loose.model.count <= tight.model.count


@pytest.mark.slow
def test_classical_set_is_solved_or_said_not_to_be_with_more_elements_for_more_digits():
    tolerances = (10.0 ** -np.arange(3, 13)).tolist()
    solved, silent, counts = np.zeros(10, int), [], {}
    for problem, eps in CASES:
        stated = classical(problem.number, eps)[1]
        for i, tolerance in enumerate(tolerances):
            found = solved_by_scheme(stated, tolerance)
            right = errors(problem, eps, jax.vmap(found.model)).max() <= 10 * tolerance
            solved[i] += found.status == "converged" and bool(right)
            if found.status == "converged" and not right:
                silent.append((problem.number, eps, tolerance))
            if found.status == "converged":
                counts.setdefault((problem.number, eps), []).append(found.model.count)
    assert not silent
    assert (solved >= 51).all(), solved
    assert all(count == sorted(count) for count in counts.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [7, 6])
def test_error_is_known_where_modes_grow_and_decay_fast_at_a_turning_point(number):
    """A rule that damps growing modes, as Radau's does, makes the error equation ill-posed here."""
    problem, stated = classical(number, 1e-6)
    solution = cx.solve(stated, tolerance=1e-3)
    estimate = solution.error_estimate()
    known = np.stack(np.broadcast_arrays(*problem.solution(estimate.t, 1e-6)), axis=1)
    true = np.abs(known - np.asarray(jax.vmap(solution.model)(estimate.t))).max(axis=0)
    assert solution.verdict.success
    assert np.all(np.abs(estimate.estimate).max(axis=0) < 3 * true)
    assert np.all(np.abs(estimate.estimate).max(axis=0) > true / 3)


@pytest.mark.slow
def test_singular_members_of_the_classical_set_are_called_singular():
    """No. 16 where 1 / eps is even, and no. 17 at eps = 0.01: cos(2 atan(10 x)) is zero at both
    ends."""
    for number, eps in ((16, 1 / 100), (17, 1e-2)):
        found = solved_by_scheme(classical(number, eps)[1], 1e-6)
        assert found.status == "stalled", number
        assert "singular" in found.reason, number


@pytest.mark.slow
def test_long_oscillation_is_followed_to_its_end():
    """y'' = -2 y on (0, 300), started like an initial value problem."""
    found = solved_by_scheme(
        cx.bvp(
            lambda x, y: jnp.stack([y[1], -2 * y[0]]),
            lambda left, right: jnp.stack([left[0] - 1, left[1]]),
            (0.0, 300.0),
            [0.0, 0.0],
        ),
        1e-12,
    )
    x = np.linspace(0.0, 300.0, 2001)
    assert found.status == "converged"
    known = np.cos(np.sqrt(2) * x)
    assert np.abs(np.asarray(jax.vmap(found.model)(x))[:, 0] - known).max() < 1e-11


def troesch(x, y, args):
    return jnp.stack([y[1], args["mu"] * jnp.sinh(args["mu"] * y[0])])


def zero_and_one(left, right, args):
    return jnp.stack([left[0], right[0] - 1])


@pytest.mark.slow
def test_continuation_reaches_what_a_flat_guess_does_not():
    """Troesch's problem; (y'(1)/2)^2 = (y'(0)/2)^2 + sinh(mu/2)^2 is its first integral."""
    mu = 20.0
    found = solved_by_scheme(
        cx.bvp(
            troesch, zero_and_one, (0.0, 1.0), lambda x: jnp.stack([x, 1.0 + 0 * x]),
            args={"mu": mu}, continuation=("mu", [1.0, 3.0, 5.0, 8.0, 12.0, 16.0, mu]),
        ),
        1e-10,
    )  # fmt: skip
    slopes = [float(found.model(jnp.asarray(end))[1]) for end in (0.0, 1.0)]
    assert found.status == "converged"
    # y'(0) from Troesch's closed form with elliptic functions, to seven digits.
    assert np.isclose(slopes[0], 1.648773182e-8, rtol=1e-6)
    assert np.isclose(slopes[1], np.hypot(slopes[0], 2 * np.sinh(mu / 2)), rtol=1e-8)


@pytest.mark.slow
def test_solution_as_guess_brings_its_elements():
    problem, stated = classical(2, 1e-2)
    first = solved_by_scheme(stated, 1e-12)
    again = cx.bvp(problem.field, problem.conditions, problem.span, first.model, args=1e-2)
    assert np.array_equal(again.model.ends, first.model.ends)
    assert solved_by_scheme(again, 1e-12).steps <= 2


@pytest.mark.slow
def test_other_arguments_need_no_compilation():
    from constrainednn._ode.linearised.elements import solve_elements

    solved_by_scheme(classical(2, 0.1)[1], 1e-6)
    before = solve_elements.programs()
    solved_by_scheme(classical(2, 0.05)[1], 1e-6)
    assert solve_elements.programs() == before


@pytest.mark.slow
def test_field_that_is_not_finite_is_named_with_its_place():
    found = solved_by_scheme(
        cx.bvp(
            lambda x, y: jnp.stack([y[1], jnp.where(x > 2, jnp.nan, -y[0])]),
            both_zero,
            (0.0, 3.0),
            [1.0, 0.0],
        ),
        1e-6,
    )
    assert found.status == "stalled"
    assert "the vector field is NaN at x = 2." in found.reason


@pytest.mark.parametrize("keywords, message", [
    ({"mesh": [0.0, 0.5]}, "from one end of span to the other"),
    ({"mesh": [0.0, 0.6, 0.5, 1.0]}, "increasing"),
    ({"continuation": ("eps", [1.0])}, "varies a number in args"),
    ({"args": {"eps": 1.0}, "continuation": ("mu", [1.0])}, "args has eps"),
    ({"args": {"eps": 1.0}, "continuation": ("eps", [1.0, 2.0])}, "the last value"),
    ({"args": {"eps": 1.0}, "continuation": "eps"}, "a name and values"),
    ({"args": {"eps": cx.Unknown(1.0)}}, "holds a cx.Unknown"),
])  # fmt: skip
@pytest.mark.usefixtures("as_released")
def test_bad_meshes_and_continuations_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        cx.bvp(troesch, zero_and_one, (0.0, 1.0), [0.0, 0.0], **keywords)


@pytest.mark.slow
def test_element_at_rounding_does_not_hide_those_above_the_tolerance():
    """Rounding of 1e9 (y2 - cos x) is larger than the residual that the third equation leaves."""
    steep, slope = 1e9, 70.0

    def field(x, y):
        stiff = jnp.where(x < 0.125, steep * (y[1] - jnp.cos(x)), 0.0)
        return jnp.stack([stiff + jnp.cos(x), -jnp.sin(x), -slope * (x - 0.55) * y[2] ** 2])

    def exact(x):
        third = 2 / (slope * (x - 0.55) ** 2 + 2)
        return np.stack([np.sin(x), np.cos(x), third], axis=1)

    start = jnp.asarray(exact(np.zeros(1))[0])
    stated = cx.bvp(field, lambda left, right: left - start, (0.0, 1.0), start.tolist())
    found = solved_by_scheme(stated, 1e-11)
    x = np.linspace(0, 1, 501)
    off = np.abs(np.asarray(jax.vmap(found.model)(x)) - exact(x)).max()
    assert found.status != "converged" or off < 1e-10


@pytest.mark.slow
def test_field_may_be_infinite_at_an_end_whatever_the_room_for_more_elements():
    """y' = -y / (1 - x): the solution 1 - x goes through the singular end."""
    for count in (8, 127, 128):
        stated = cx.bvp(
            lambda x, y: -y / (1 - x),
            lambda left, right: left - 1,
            (0.0, 1.0),
            [1.0],
            mesh=np.linspace(0, 1, count + 1),
        )
        found = solved_by_scheme(stated, 1e-9)
        assert found.status == "converged", (count, found.reason)
        assert abs(float(found.model(jnp.asarray(0.5))[0]) - 0.5) < 1e-9


@pytest.mark.slow
def test_jump_far_from_zero_ends_where_digits_of_x_do():
    """Elements of a few last digits of x are not divided into some of length zero."""
    start = 1e6
    stated = cx.bvp(
        lambda x, y: jnp.stack([y[1], jnp.where(x - start < 0.3137, 0.0, 1.0)]),
        both_zero,
        (start, start + 1.0),
        [0.0, 0.0],
    )
    found = solved_by_scheme(stated, 1e-12)
    assert (np.diff(np.asarray(found.model.ends)) > 0).all()
    assert found.model.count < 200
    # y = -c x, then (x - j)^2 / 2 - c x with c = (1 - j)^2 / 2.
    c = (1 - 0.3137) ** 2 / 2
    assert abs(float(found.model(jnp.asarray(start + 0.2))[0]) + 0.2 * c) < 1e-6


@pytest.mark.slow
def test_error_of_a_problem_with_a_singular_term_is_not_called_a_kink():
    for width, tolerance in ((4, 1e-10), (6, 1e-6), (16, 1e-4)):
        solution = cx.solve(
            cx.bvp(
                lambda x, y: jnp.stack([y[1], -(y[0] ** 5)]),
                lambda left, right: jnp.stack([left[1], right[0] - np.sqrt(0.75)]),
                (0.0, 1.0),
                [1.0, 0.0],
                S=[[0.0, 0.0], [0.0, -2.0]],
                width=width,
            ),
            tolerance=tolerance,
        )
        found = solution.error_estimate()
        assert solution.verdict.success, (width, solution.verdict)
        known = 1 / np.sqrt(1 + found.t**2 / 3)
        true = np.abs(known - np.asarray(solution(found.t))[:, 0]).max()
        assert true < 3 * np.abs(found.estimate[:, 0]).max() + 1e-14


def test_more_unknown_parameters_than_an_element_can_take_are_refused():
    with pytest.raises(ValueError, match="width=3 is too small for 4 unknown parameters"):
        cx.bvp(
            lambda x, y, p: -y * p[:1],
            lambda left, right, p: jnp.concatenate([left - 1, p]),
            (0.0, 1.0),
            [1.0],
            p=[1.0, 1.0, 1.0, 1.0],
            width=3,
        )
