"""Equations that change abruptly: breaks, the look after the march, rest, noise, NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from scipy.special import erf

import constrainednn as cx
from constrainednn._ode.schemes.delays import step_ends
from constrainednn._solve.problem_files import load_module, resolve

UNIT = np.linspace(0.0, 1.0, 200)
SMALL = {"heldout": 64, "monitor": 16}


def switched(t, y, args):
    """y' = 1 - y after the switch, -y before it."""
    return jnp.where(t > args, 1.0, 0.0) - y


def after_switch(t, c, start):
    return start * np.exp(-t) + np.where(t > c, -np.expm1(-(t - c)), 0.0)


def pulsed(t, y, args):
    """A Gaussian pulse of area one at args[0], of width args[1]."""
    z = (t - args[0]) / args[1]
    return jnp.exp(-(z**2) / 2) / (args[1] * np.sqrt(2 * np.pi)) - 0.01 * y


def after_pulse(t, c, width):
    z = (t - c) / width - 0.01 * width
    gone = np.exp(-0.01 * (t - c) + (0.01 * width) ** 2 / 2)
    return np.exp(-0.01 * t) + gone * (1 + erf(z / np.sqrt(2))) / 2


@functools.cache
def doses(breaks=True, backwards=False):
    problem = load_module(resolve("doses")[0]).problem()
    scheme = problem.scheme
    end = float(problem.reference(24.0))
    span, start = ((24.0, 0.0), end) if backwards else ((0.0, 24.0), 0.0)
    again = cx.ivp(
        scheme.field.fn,
        start,
        span,
        args=scheme.field.args,
        breaks=scheme.breaks if breaks else (),
        max_window=1.0 if backwards else np.inf,
    )
    return problem, cx.solve(again, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="named"),
        slow({"breaks": False}, id="found"),
        slow({"backwards": True}, id="backwards"),
    ],
)
def test_doses_against_the_superposition_of_their_closed_forms(how):
    problem, solution = doses(**how)
    t = 24.0 * UNIT
    known = np.asarray(jax.vmap(problem.reference)(jnp.asarray(t)))
    assert solution.status == "converged"
    # Errors of the tolerance's size grow by exp(0.3 * 24) backwards.
    grown = 100 if "backwards" in how else 1
    np.testing.assert_allclose(solution(t), known, rtol=0, atol=1e-11 * grown)
    ends = solution.model.ends
    if "breaks" not in how:
        assert set(problem.scheme.breaks) <= set(ends.tolist())
        assert solution.history.pieces.found == ()
    if "backwards" in how:
        assert np.abs(np.diff(ends)).max() <= 1.0 + 1e-5
    if how == {}:
        assert len(ends) < 30


@pytest.mark.slow
def test_unknowns_of_doses_from_data():
    # Doses that the march does not see would be explained by other constants.
    problem = load_module(resolve("doses")[0]).problem()
    t = np.array([0.5, 1, 2, 3, 4, 5, 5.9, 6.5, 7, 8, 9, 10, 11.5])
    y = np.asarray(jax.vmap(problem.reference)(jnp.asarray(t)))
    data = cx.Data((t, y))
    args = (cx.Unknown(30.0, low=0), cx.Unknown(0.1, low=0))
    for breaks in (problem.scheme.breaks[:3], ()):
        fit = cx.ivp(problem.scheme.field.fn, 0.0, (0.0, 12.0), args=args, data=data, breaks=breaks)
        solution = cx.solve(fit, **SMALL)
        assert solution.status == "converged"
        np.testing.assert_allclose(solution.model.args, [20.0, 0.3], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("backwards", "count"), [(False, 3), (False, 12), (True, 12)])
def test_a_jump_anywhere_is_resolved(backwards, count):
    # Without a second look a third of a percent of these were wrong by up to 1e-3: jumps beside
    # the ends of windows.
    rng = np.random.default_rng(3)
    span = (3.0, 0.0) if backwards else (0.0, 3.0)
    for c in rng.uniform(0.0, 3.0, count):
        start = float(after_switch(span[0], c, 1.0))
        solution = cx.solve(cx.ivp(switched, start, span, args=c), **SMALL)
        assert solution.status == "converged"
        error = np.abs(solution(3 * UNIT) - after_switch(3 * UNIT, c, 1.0)).max()
        assert error < 2e-11, c  # the tolerance, grown by exp(3)


def jump_beside_a_start():
    return cx.solve(cx.ivp(switched, 1.0, (0.0, 3.0), args=1e-5), **SMALL)


@pytest.mark.slow
def test_a_jump_between_the_start_of_a_window_and_its_first_node_is_found():
    solution = jump_beside_a_start()
    np.testing.assert_allclose(solution(3 * UNIT), after_switch(3 * UNIT, 1e-5, 1.0), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.1, 1e-2, 1e-3])
def test_pulses_wider_than_the_spacing_are_resolved(width):
    for c in (50.3, 17.77):
        solution = cx.solve(cx.ivp(pulsed, 1.0, (0.0, 100.0), args=(c, width)), **SMALL)
        # A pulse is above rounding for some fifteen times its width.
        assert solution.history.pieces.spacing < 15e-3
        assert solution.status == "converged"
        t = 100 * UNIT
        np.testing.assert_allclose(solution(t), after_pulse(t, c, width), rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_pulse_of_a_thousandth_of_the_interval_is_found():
    def pulse(t, y, args):
        return jnp.where((t > 1) & (t < 1.001), 1000.0, 0.0) - y

    solution = cx.solve(cx.ivp(pulse, 0.0, (0.0, 10.0)), **SMALL)
    known = 1000 * -np.expm1(-0.001) * np.exp(-(10.0 - 1.001))
    assert solution.status == "converged" and len(solution.history.pieces.found) >= 2
    np.testing.assert_allclose(solution(10.0), known, rtol=1e-11)


@pytest.mark.slow
def test_the_scan_says_how_finely_it_looked_and_is_saved(tmp_path):
    solution = jump_beside_a_start()
    pieces = solution.history.pieces
    assert 0 < pieces.spacing < 0.01
    assert any(abs(t - 1e-5) < 1e-12 for t in pieces.found)
    solution.save(tmp_path / "run")
    again = cx.load_solution(tmp_path / "run", solution.problem).history.pieces
    assert again.spacing == pieces.spacing and again.found == pieces.found


# At rest ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e6])
def test_a_step_response_from_rest(unit):
    def force(t, y, args):
        return jnp.where(t > args[0], args[1], 0.0) - y

    for c in (0.123, 0.77, 1.268, 2.9):
        solution = cx.solve(cx.ivp(force, 0.0, (0.0, 3.0), args=(c, unit)), **SMALL)
        assert solution.status == "converged", solution.reason
        known = unit * after_switch(3 * UNIT, c, 0.0)
        np.testing.assert_allclose(solution(3 * UNIT), known, rtol=0, atol=2e-12 * unit)


@pytest.mark.slow
def test_mass_and_spring_at_rest_until_a_force_comes():
    def field(t, y, args):
        return jnp.where(t > args, 1.0, 0.0) - 4 * y[0]

    for c in (0.3, 1.4575, 2.2):
        solution = cx.solve(cx.ivp(field, (0.0, 0.0), (0.0, 3.0), args=c, order=2), **SMALL)
        assert solution.status == "converged", solution.reason
        z = np.maximum(3 * UNIT - c, 0.0)
        np.testing.assert_allclose(solution(3 * UNIT), (1 - np.cos(2 * z)) / 4, atol=2e-12)


@pytest.mark.slow
def test_a_ramp_from_rest():
    def field(t, y, args):
        return jnp.maximum(t - args, 0.0) - y

    for c in (0.2722591368573657, 0.595539133527766, 1.38):
        solution = cx.solve(cx.ivp(field, 0.0, (0.0, 3.0), args=c), **SMALL)
        assert solution.status == "converged" and solution.model.count < 300
        z = np.maximum(3 * UNIT - c, 0.0)
        np.testing.assert_allclose(solution(3 * UNIT), z + np.expm1(-z), atol=2e-12)


@pytest.mark.slow
def test_dry_friction_until_it_sticks():
    # x'' = -x - mu sign(x'): half circles around +mu and -mu, smaller by 2 mu each time.
    mu, start = 0.06, 1.46

    def friction(t, y, args):
        return jnp.stack([y[1], -y[0] - args * jnp.sign(y[1])])

    t = 10.0 * UNIT
    solution = cx.solve(cx.ivp(friction, np.array([start, 0.0]), (0.0, 10.0), args=mu), **SMALL)
    half = np.floor(t / np.pi)
    known = (-1) ** half * (mu + (start - 2 * mu * half - mu) * np.cos(t - half * np.pi))
    assert solution.status == "converged", solution.reason
    np.testing.assert_allclose(solution(t)[:, 0], known, rtol=0, atol=1e-11)


# Rounding and noise -------------------------------------------------------------------------------


@pytest.mark.slow
def test_heat_on_a_ring_with_components_that_stay_zero():
    def ring(t, y, args):
        return 100 * (jnp.roll(y, 1) + jnp.roll(y, -1) - 2 * y)

    start = np.sin(2 * np.pi * np.arange(8) / 8)
    solution = cx.solve(cx.ivp(ring, start, (0.0, 0.05)), **SMALL)
    rate = 200 * (np.cos(2 * np.pi / 8) - 1)
    assert solution.status == "converged" and solution.model.count < 60
    known = np.exp(rate * 0.05 * UNIT)[:, None] * start
    np.testing.assert_allclose(solution(0.05 * UNIT), known, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_noise_of_lower_precision_neither_stops_a_march_nor_goes_unsaid():
    # sin in single precision: 6e-8 of noise, on average much less.
    def single(t, y, args):
        return jnp.sin(t.astype(jnp.float32)).astype(t.dtype) - y

    solution = cx.solve(cx.ivp(single, 1.0, (0.0, 5.0)), **SMALL)
    t = 5 * UNIT
    known = (np.sin(t) - np.cos(t)) / 2 + 1.5 * np.exp(-t)
    assert solution.status == "converged" and solution.model.count < 100
    assert "noise of the vector field hides residuals below" in solution.reason
    np.testing.assert_allclose(solution(t), known, rtol=0, atol=2e-7)


@pytest.mark.slow
def test_noise_of_an_ill_conditioned_solve_inside_the_field():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    A = jnp.asarray(left @ np.diag(np.logspace(0, -8, 6)) @ right)
    start = rng.normal(size=6)

    def field(t, y, args):
        return -jnp.linalg.solve(A, A @ y)

    solution = cx.solve(cx.ivp(field, start, (0.0, 5.0)), **SMALL)
    assert solution.status == "converged" and solution.model.count < 100
    known = np.exp(-5 * UNIT)[:, None] * start
    np.testing.assert_allclose(solution(5 * UNIT), known, rtol=0, atol=1e-7)  # 1e8 eps, and more


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_where_the_field_is_not_finite_is_named(bad):
    def field(t, y, args):
        return jnp.where(t > 2, args, -y)

    solution = cx.solve(cx.ivp(field, 1.0, (0.0, 5.0), args=bad), **SMALL)
    assert solution.status == "blow_up" and abs(solution.model.ends[-1] - 2) < 1e-12
    assert "the vector field is NaN or infinite at t = 2.0" in solution.reason


@pytest.mark.slow
def test_nothing_is_marched_through_a_pole():
    solution = cx.solve(cx.ivp(lambda t, y, args: 1 / (t - 2.0) - y, 1.0, (0.0, 5.0)), **SMALL)
    assert solution.status == "blow_up" and abs(solution.model.ends[-1] - 2) < 1e-6


# Statements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"breaks": [1.0, 4.0]}, ValueError, r"breaks must lie within span=\(0, 3\), got \[4.0\]"),
        ({"breaks": [np.nan]}, ValueError, "breaks must be finite"),
        ({"breaks": "one"}, TypeError, "breaks"),
        ({"max_window": 0.0}, ValueError, "max_window must be positive"),
        ({"max_window": -1.0}, ValueError, "max_window must be positive"),
        ({"max_window": np.nan}, ValueError, "max_window must be positive"),
        ({"max_window": 1e-9}, ValueError, "fits 3e.09 times into span"),
    ],
)
def test_breaks_and_windows_that_cannot_be(change, kind, text):
    with pytest.raises(kind, match=text):
        cx.ivp(switched, 1.0, (0.0, 3.0), args=1.0, **change)


def test_breaks_are_sorted_and_counted_once():
    problem = cx.ivp(
        switched, 1.0, (3.0, 0.0), args=1.0, breaks=[1.0, 2.0, 1.0, 3.0, 0.1 + 0.2, 0.3]
    )
    assert problem.scheme.breaks == pytest.approx((2.0, 1.0, 0.3), abs=1e-15)


def test_breaks_of_a_delay_equation_come_back_after_the_delay():
    ends = np.asarray(step_ends((0.0, 3.0), np.array([1.0]), (0.3,)))
    np.testing.assert_allclose(ends, [0, 0.3, 1, 1.3, 2, 2.3, 3])


@pytest.mark.slow
def test_a_step_comes_back_after_the_delay():
    # y' = -y(t - 1) + step at 0.3: y gains (t - 0.3), then loses its integral a delay later.
    def field(t, y, args, before):
        return jnp.where(t > 0.3, 1.0, 0.0) - before

    problem = cx.ivp(
        field, 0.0, (0.0, 2.0), delays=1.0, history=lambda t: jnp.zeros(()), breaks=[0.3]
    )
    solution, t = cx.solve(problem, **SMALL), 2.0 * UNIT
    known = np.maximum(t - 0.3, 0) - np.maximum(t - 1.3, 0) ** 2 / 2
    np.testing.assert_allclose(solution(t), known, rtol=0, atol=1e-13)
    assert 0 < solution.history.pieces.spacing < 0.1


@pytest.mark.slow
def test_a_field_that_is_not_finite_just_after_a_break_ends_the_march():
    problem = cx.ivp(
        lambda t, y, args: jnp.where((t > 1) & (t < 1.0001), jnp.nan, -y),
        1.0,
        (0.0, 2.0),
        breaks=(1.0,),
    )
    solution = cx.solve(problem, heldout=64, monitor=16)
    assert (solution.status, solution.verdict.word) == ("blow_up", "not solved")
    assert "NaN or infinite at t = 1" in solution.reason
