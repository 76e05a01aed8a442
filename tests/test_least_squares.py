"""Levenberg-Marquardt on published least-squares problems with known minima."""

import jax.numpy as jnp
import numpy as np
import pytest
from minimised import minimised
from more_garbow_hillstrom import SUMS
from nist import FITS

import constrainednn as cx
from constrainednn.methods.base import CONVERGED, STALLED

LM = cx.LevenbergMarquardt()
# Certified to eleven digits; the minimum is flat, so parameters show half of those of the loss.
DIGITS = 1e-9


def ended(fn, start, steps):
    """Parameters, state and verdict."""
    return minimised(LM, fn, start, steps)[:3]


def squares(fn, params):
    r = np.asarray(fn(params))
    return float(r @ r)


@pytest.mark.parametrize("name", FITS)
def test_certified_parameters_give_the_certified_sum_of_squares(name):
    fit = FITS[name]
    if name == "Lanczos1":
        pytest.skip("its sum, 1e-25, needs more digits of the parameters than are published")
    assert squares(fit.residual, np.array(fit.certified)) == pytest.approx(fit.squares, rel=DIGITS)


def reaches(fit, start):
    params, _, verdict = ended(fit.residual, jnp.asarray(start, float), 3000)
    found = squares(fit.residual, params)
    assert verdict == CONVERGED
    assert found < 1e-20 or found == pytest.approx(fit.squares, rel=DIGITS)


def test_an_easy_nist_minimum_is_found_from_the_far_start():
    reaches(FITS["Misra1a"], FITS["Misra1a"].far)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_every_nist_minimum_is_found_from_both_starts(name):
    reaches(FITS[name], FITS[name].near)
    if name == "MGH10":
        pytest.skip("from its far start a valley is followed for more than 3,000 steps")
    reaches(FITS[name], FITS[name].far)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_minima_of_more_garbow_and_hillstrom(name):
    fn, start, minima = SUMS[name]
    params, _, verdict = ended(fn, jnp.asarray(start, float), 3000)
    found = squares(fn, params)
    assert verdict == CONVERGED
    assert found < 1e-20 or any(found == pytest.approx(m, rel=1e-4) for m in minima)


@pytest.mark.slow
def test_a_residual_that_sees_no_parameter_has_not_converged():
    # Gulf's problem from a hundred times its start: exp underflows at all points.
    fn, start, _ = SUMS["11 Gulf"]
    params, state, verdict = ended(fn, 100 * jnp.asarray(start), 10)
    assert verdict == STALLED
    assert "no longer depends on 3 of 3 parameters" in LM.explain(params, state)[0]
