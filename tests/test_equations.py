"""Differential-algebraic, delay and integral equations, inequalities and invariants."""

import itertools
import math
import signal
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._ode.schemes.delays import step_ends
from constrainednn._pieces import march

SMALL = {"heldout": 64, "monitor": 16}


def relative(found, true):
    """The largest over components of the relative L2 error."""
    return (np.linalg.norm(found - true, axis=0) / np.linalg.norm(true, axis=0)).max()


# Differential-algebraic equations


@pytest.mark.slow
def test_robertson_with_conservation_is_the_same_solution(solved):
    algebraic, rates = solved("robertson_dae", **SMALL), solved("robertson", **SMALL)
    t = np.geomspace(1e-6, 1e5, 400)
    assert relative(np.asarray(algebraic(t)), np.asarray(rates(t))) < 1e-12
    assert np.abs(np.asarray(algebraic(t)).sum(axis=1) - 1).max() < 1e-12


@pytest.mark.slow
def test_pendulum_in_coordinates_is_the_one_in_its_angle(solved):
    solution = solved("pendulum_dae", **SMALL)
    swing = cx.ivp(lambda t, s, args: -9.81 * jnp.sin(s[0]), (np.pi / 2, 0.0), (0, 10), order=2)
    angle = cx.solve(swing, **SMALL)
    t = np.linspace(0, 10, 500)
    a, w = np.asarray(angle(t)), np.asarray(angle.derivative(t))
    true = np.stack(
        [np.sin(a), -np.cos(a), np.cos(a) * w, np.sin(a) * w, w**2 + 9.81 * np.cos(a)], axis=1
    )
    assert relative(np.asarray(solution(t)), true) < 1e-10
    # What should be conserved is, and is reported.
    assert solution.gap["energy"].heldout_rms.value < 1e-10
    assert solution.gap["rod"].heldout_rms.value < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    "mass",
    [
        slow([2.0, 1.0]),
        slow(np.array([[2.0, 1.0], [0.0, 1.0]])),
        np.array([[1.0, 1.0], [2.0, 2.0]]),  # singular, and no row is zero
    ],
)
def test_mass_matrices(mass):
    """M y' = f with f = M (-y), or with what a singular M leaves."""
    M = np.diag(mass) if np.ndim(mass) == 1 else np.asarray(mass)
    singular = np.linalg.matrix_rank(M) < 2

    def field(t, y, args):
        if singular:  # y0 + y1 decays, and y0 = 2 y1
            total = -(y[0] + y[1])
            free = y[0] - 2 * y[1]
            return jnp.stack([total + 2 * free, 2 * total - free])
        return jnp.asarray(M) @ -y

    start = np.array([2.0, 1.0])
    solution = cx.solve(cx.ivp(field, jnp.asarray(start), (0.0, 3.0), mass=mass), **SMALL)
    t = np.linspace(0, 3, 50)
    assert relative(np.asarray(solution(t)), start * np.exp(-t)[:, None]) < 1e-12


def algebraic(t, y, args):
    return jnp.stack([-y[0], y[1] - y[0] ** 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"y0": jnp.array([1.0, 0.5])},
            r"y0 does not satisfy the algebraic equations of mass=: their residual is \[-?0.5\].*"
            r"y0 = \[1.0, 1.0\] may",
        ),
        (
            {"vector_field": lambda t, y, args: jnp.stack([y[1], y[0] - 1.0])},
            r"the index is above 1",
        ),
        ({"mass": [1.0, 0.0, 0.0]}, r"mass must be 2 finite numbers.*got shape \(3,\)"),
        ({"mass": [0.0, 0.0]}, "mass is zero: there is no differential equation"),
        ({"mass": [1.0, np.nan]}, "mass must be 2 finite numbers"),
        (
            {"order": 2, "y0": (jnp.ones(2), jnp.ones(2)), "vector_field": lambda t, y, a: y[0]},
            "mass= is for first-order equations",
        ),
    ],
)
def test_algebraic_equations_that_cannot_be_right(change, words):
    given = {"vector_field": algebraic, "y0": jnp.ones(2), "mass": [1.0, 0.0], **change}
    with pytest.raises(ValueError, match=words):
        cx.ivp(given.pop("vector_field"), given.pop("y0"), (0.0, 1.0), **given)


@pytest.mark.slow
def test_no_error_estimate_with_a_mass_matrix():
    solution = cx.solve(cx.ivp(algebraic, jnp.ones(2), (0.0, 1.0), mass=[1.0, 0.0]), **SMALL)
    with pytest.raises(ValueError, match=r"error_estimate needs .* without mass= and delays="):
        solution.error_estimate()
    with pytest.raises(ValueError, match="compare needs"):
        solution.compare()


@pytest.mark.slow
def test_unknown_of_a_differential_algebraic_equation():
    def reaction(t, y, args):
        return jnp.stack([-args["rate"] * y[0], y[0] + y[1] - 1.0])

    t = np.linspace(0.0, 2.0, 20)
    seen = np.stack([np.exp(-1.5 * t), 1 - np.exp(-1.5 * t)], axis=1)
    problem = cx.ivp(
        reaction,
        jnp.array([1.0, 0.0]),
        (0.0, 2.0),
        mass=[1.0, 0.0],
        args={"rate": cx.Unknown(1.0)},
        data=cx.Data((t, seen), holdout=0.0),
    )
    assert abs(float(cx.solve(problem, **SMALL).model.args["rate"]) - 1.5) < 1e-12


# Delays


@pytest.mark.slow
def test_delay_equation_against_its_closed_form(solved):
    solution = solved("delay", **SMALL)
    t = np.linspace(0, 10, 1001)
    true = np.array(
        [sum((-1) ** k * max(x - k + 1, 0) ** k / math.factorial(k) for k in range(12)) for x in t]
    )
    np.testing.assert_allclose(np.asarray(solution(t)), true, atol=1e-12)
    assert solution.gap["late"].error < 1e-12


@pytest.mark.slow
def test_several_delays_and_a_vector_against_a_known_solution():
    """With the forcing that makes (sin t, e^-t) the solution, past included."""
    delays = (0.7, 1.3)

    def field(t, y, args, first, second):
        wanted = jnp.stack([jnp.cos(t), -jnp.exp(-t)])
        before = jnp.stack([jnp.sin(t - 0.7) * jnp.exp(-(t - 1.3)), jnp.sin(t - 1.3)])
        return wanted + args * (jnp.stack([first[0] * second[1], second[0]]) - before)

    def history(t):
        return jnp.stack([jnp.sin(t), jnp.exp(-t)])

    problem = cx.ivp(field, history(0.0), (0.0, 4.0), args=0.5, delays=delays, history=history)
    solution = cx.solve(problem, **SMALL)
    t = np.linspace(0, 4, 200)
    assert relative(np.asarray(solution(t)), np.stack([np.sin(t), np.exp(-t)], axis=1)) < 1e-11
    assert solution.status == "converged"


def test_steps_end_at_jumps_and_are_no_longer_than_the_shortest_delay():
    np.testing.assert_allclose(step_ends((1.0, 4.5), np.array([1.0])), [1, 2, 3, 4, 4.5])
    ends = np.asarray(step_ends((0.0, 5.0), np.array([1.0, 1.5])))
    assert np.diff(ends).max() <= 1.0 + 1e-12 and {1.5, 2.5, 4.0, 4.5} <= set(ends)
    assert step_ends((0.0, 3.0), np.array([0.1]))[-1] == 3.0
    assert len(step_ends((0.0, 3.0), np.array([0.1]))) == 31
    assert step_ends((0.0, 1.0), np.array([7.0])) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"history": None}, r"delays= needs the solution before the start.*from -1 to 0"),
        (
            {"history": lambda t: jnp.where(t < -0.5, jnp.nan, 1.0)},
            r"history is NaN or infinite at t=-1; the delays reach back to -1.*shorter",
        ),
        ({"history": lambda t: jnp.ones(2)}, r"history must return the shape of y0, \(\)"),
        ({"delays": 0.0}, "delays must be positive and finite"),
        ({"delays": [1.0, -1.0]}, "delays must be positive and finite"),
        ({"delays": 1e-9}, "fits more than 100000 times into span"),
        ({"span": (1.0, 0.0)}, "is solved forwards in time"),
        ({"delays": None}, "history= is for equations with delays"),
        ({"args": cx.Unknown(1.0)}, "delays= is for first-order equations without unknowns"),
        (
            {"vector_field": lambda t, y, args: -y},
            r"vector_field must take f\(t, y, args, delayed\)",
        ),
    ],
)
def test_delays_that_cannot_be_right(change, words):
    given = {
        "vector_field": lambda t, y, args, before: -before,
        "y0": 1.0,
        "span": (0.0, 2.0),
        "delays": 1.0,
        "history": lambda t: jnp.ones(()),
        **change,
    }
    if "args" in change:
        given["data"] = cx.Data((np.arange(3) / 2, np.ones(3)), holdout=0.0)
    with pytest.raises((TypeError, ValueError), match=words):
        cx.ivp(**given)


@pytest.mark.slow
def test_history_of_another_solution_that_is_too_short():
    earlier = cx.solve(cx.ivp(lambda t, y, args: -y, 1.0, (-0.5, 0.0)), **SMALL)
    with pytest.raises(ValueError, match=r"history cannot be evaluated at t=-1: the solution"):
        cx.ivp(lambda t, y, args, past: -past, 1.0, (0.0, 2.0), delays=1.0, history=earlier)


@pytest.mark.slow
def test_blow_up_between_delays_keeps_what_was_before():
    problem = cx.ivp(
        lambda t, y, args, before: y**2 * before,
        1.0,
        (0.0, 3.0),
        delays=0.25,
        history=lambda t: jnp.ones(()),
    )
    solution = cx.solve(problem, **SMALL)
    assert solution.status == "blow_up" and 0.5 < solution.model.ends[-1] < 1.0
    assert np.isfinite(solution.gap.heldout.value)


@pytest.mark.slow
def test_step_limit_and_interruption_of_a_delay_equation(tmp_path, monkeypatch):
    monkeypatch.setattr(march, "_FIRST_TRIES", 2)
    monkeypatch.setattr(march, "_LOOK_EVERY", 0.0)
    problem = cx.ivp(
        lambda t, y, args, before: -before,
        1.0,
        (0.0, 4.0),
        delays=1.0,
        history=lambda t: jnp.ones(()),
    )
    assert cx.solve(problem, steps=30, **SMALL).status == "max_steps"
    whole = cx.solve(problem, **SMALL)
    for looks in (1, 8):
        seen = itertools.count(1)

        def progress(now, seen=seen, looks=looks):
            if now.phase == "solving, %" and next(seen) == looks:
                signal.raise_signal(signal.SIGINT)

        out = tmp_path / str(looks)
        assert cx.solve(problem, **SMALL, out=out, progress=progress).status == "interrupted"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cx.errors.RunWarning)
            rest = cx.resume(out, problem)
        assert (rest.status, rest.reason, rest.steps) == ("converged", whole.reason, whole.steps)
        np.testing.assert_array_equal(rest.model.head, whole.model.head)
        np.testing.assert_array_equal(rest.model.edges, whole.model.edges)


# Integrals


@pytest.mark.slow
@pytest.mark.parametrize("name", [slow("volterra"), "fredholm"])
def test_integral_equations_against_their_closed_forms(solved, name):
    (gap,) = solved(name, **SMALL).gap.constraints
    assert gap.error < 1e-10


def test_integral_of_polynomials_is_exact():
    for nodes in (1, 3, 8):
        for power in {0, 1, 2 * nodes - 1}:
            found = cx.integral(lambda s, power=power: s**power, -0.5, 2.0, nodes=nodes)
            true = (2.0 ** (power + 1) - (-0.5) ** (power + 1)) / (power + 1)
            np.testing.assert_allclose(found, true, rtol=1e-13)
    np.testing.assert_allclose(cx.integral(jnp.cos, 1.0, 0.0), -math.sin(1.0), rtol=1e-14)
    both = cx.integral(lambda s: jnp.stack([s, jnp.exp(s)]), 0.0, 1.0)
    np.testing.assert_allclose(both, [0.5, math.e - 1], rtol=1e-14)


@pytest.mark.usefixtures("as_released")
def test_integral_refuses_what_is_none():
    with pytest.raises(TypeError, match="integrand of integral"):
        cx.integral(1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="low of integral"):
        cx.integral(jnp.sin, jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match="nodes of integral must be at least 1"):
        cx.integral(jnp.sin, 0.0, 1.0, nodes=0)


# Inequalities and invariants


def test_inequalities_are_zero_where_they_hold():
    value = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(cx.at_most(value, 0.5), [0, 0, 1.5])
    np.testing.assert_array_equal(cx.at_least(value, 0.5), [1.5, 0.5, 0])


@pytest.mark.slow
def test_monotone_fit_falls_less_than_the_fit_alone(solved):
    t = np.linspace(0, 4, 400)
    falls = []
    for monotone in (True, False):
        solution = solved("monotone_fit", settings={"monotone": monotone}, steps=200)
        falls.append(-np.minimum(np.diff(np.asarray(solution(t))), 0).sum())
    assert falls[0] < 0.01 < 0.1 < falls[1]


@pytest.mark.slow
def test_family_of_oscillators(solved):
    solution = solved("damped_family", settings={"width": 200, "end": 3.0}, **SMALL)
    (gap,) = solution.gap.constraints
    assert gap.error < 1e-5
    value = solution(jnp.array([1.0, 1.0]))  # critical damping: (1 + t) e^-t
    np.testing.assert_allclose(value, 2 * math.exp(-1), atol=1e-4)


@pytest.mark.slow
def test_invariant_that_is_none_is_seen_to_drift():
    def field(t, y, args):
        return jnp.stack([y[1], -args * y[0]])

    def energy(t, y, args):
        return y[1] ** 2 + args * y[0] ** 2

    def wrong(t, y, args):
        return y[0] ** 2

    problem = cx.ivp(field, jnp.array([1.0, 0.0]), (0.0, 5.0), args=4.0, invariants=[energy, wrong])
    gap = cx.solve(problem, **SMALL).gap
    assert gap["energy"].heldout_rms.value < 1e-12
    assert gap["wrong"].heldout_rms.value > 0.1


@pytest.mark.usefixtures("as_released")
def test_invariants_that_are_none():
    with pytest.raises(TypeError, match="invariants of ivp must be a function"):
        cx.ivp(algebraic, jnp.ones(2), (0.0, 5.0), invariants=3)
