"""The references that benchmarks are measured against: two computations of each agree."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    "decay", "oscillator", "lotka_volterra", "van_der_pol_1", "van_der_pol_10", "van_der_pol_1000",
    "pendulum", "lorenz_short", "lorenz_long", "robertson", "exponential", "sturm_liouville",
    "emden", "shock", "nonlinear_boundary", "large", "boundary_layer", "bratu_lower",
    "bratu_upper", "mathieu",
)  # fmt: skip


@pytest.fixture
def references(monkeypatch, tmp_path):
    pytest.importorskip("mpmath")
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    monkeypatch.setenv("CONSTRAINEDNN_REFERENCES", str(tmp_path))  # computed, not read
    return importlib.import_module("references")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_computations_agree_to_rounding(references, name):
    """A closed form against Gauss collocation, Taylor series against Gauss, Gauss against Radau."""
    assert references.reference(name).disagreement < 2.3e-16


@pytest.mark.slow
def test_every_reference_is_tried(references):
    assert set(NAMES) == set(references._COMPUTATIONS)


@pytest.mark.slow
def test_a_wrong_constant_would_show(references):
    """The closed form exp(-t) against y' = -1.0001 y."""
    exact, _ = references._decay()
    wrong = lambda: (exact, lambda t, y: [references.mpf("-1.0001") * y[0]])  # noqa: E731
    with references.mp.workdps(references.DIGITS):
        found = references._ClosedForm(wrong, (0.0, 5.0))()
    assert 1e-5 < found.disagreement < 1e-2
