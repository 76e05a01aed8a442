"""What all packages of the comparison share: equations, conditions, and how runs are read."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"
NAMES = "oscillator", "lotka_volterra", "poisson", "heat", "wave", "burgers"
# Of derivatives by differences of order four at this step: truncation 1e-5 of the largest term,
# and less of rounding.
STEP, ACCURACY = 1e-3, 1e-4


@pytest.fixture
def modules(monkeypatch):
    """`common` and `collect`, forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [str(PEERS), *sys.path])
    yield importlib.import_module("common"), importlib.import_module("collect")
    del sys.modules["common"], sys.modules["collect"]


def inner_points(problem):
    """Random points that are away from the edges, and from the front of Burgers' equation."""
    low, high = np.array(problem.low), np.array(problem.high)
    return low + (high - low) * np.random.default_rng(0).uniform(0.05, 0.45, (50, len(low)))


@pytest.mark.parametrize("name", NAMES)
def test_exact_solutions_satisfy_the_equations_that_all_packages_are_given(modules, name):
    common, _ = modules
    problem = common.PROBLEMS[name]
    z = inner_points(problem)
    terms = []

    def derivative(k, i, order):
        shift = np.zeros(z.shape[1])
        shift[i] = STEP
        at = [problem.exact(z + j * shift)[:, k : k + 1] for j in (-2, -1, 0, 1, 2)]
        weights = {1: (1, -8, 0, 8, -1), 2: (-1, 16, -30, 16, -1)}[order]
        found = sum(w * u for w, u in zip(weights, at, strict=True)) / (12 * STEP**order)
        terms.append(np.max(np.abs(found)))
        return found

    u = np.hsplit(problem.exact(z), problem.outputs)
    rows = common.residual(name, np, np.hsplit(z, z.shape[1]), u, derivative)
    assert np.max(np.abs(rows)) < ACCURACY * max(terms)


@pytest.mark.parametrize("name", NAMES)
def test_conditions_give_a_network_the_values_of_the_solution_at_the_edges(modules, name):
    common, _ = modules
    problem = common.PROBLEMS[name]
    z = inner_points(problem)
    y = list(np.random.default_rng(1).normal(size=(problem.outputs, len(z), 1)))
    sides = [(0, problem.low[0])]
    if name != "poisson" and len(problem.low) == 2:
        sides += [(1, problem.low[1]), (1, problem.high[1])]
    for i, end in sides:
        edge = z.copy()
        edge[:, i] = end
        u = np.hstack(common.conditions(name, np, np.hsplit(edge, z.shape[1]), y))
        assert np.max(np.abs(u - problem.exact(edge))) < 1e-14
    inside = np.hstack(common.conditions(name, np, np.hsplit(z, z.shape[1]), y))
    assert np.min(np.abs(inside - problem.exact(z)).max(axis=0)) > 1e-3  # the network has a say


def test_runs_are_ordered_by_what_was_measured(modules, tmp_path):
    _, collect = modules
    found = {"jinns": 1e-3, "constrainednn, network": 1e-2, "fastlsq": 1e-5}
    for label, error in found.items():
        run = {
            "problem": "heat", "label": label, "version": "1", "method": "", "compiling": 0.5,
            "neural": label != "fastlsq", "points": [[1.0, 1.0], [2.0, error]],
        }  # fmt: skip
        (tmp_path / f"{label}.json").write_text(json.dumps(run))
    runs = collect.read(tmp_path)
    assert [run.label for run in runs] == ["fastlsq", "jinns", "constrainednn, network"]
    assert [run.error for run in runs] == [1e-5, 1e-3, 1e-2]
    rows = [line for line in collect.table(runs).splitlines() if line.startswith("| heat")]
    assert rows[0].startswith("| heat | FastLSQ (features not trained) | 1.0e-05 | 2 (0.5) |")


def test_every_package_has_a_colour_and_every_problem_a_panel(modules):
    common, collect = modules
    runs = collect.read(PEERS / "results")
    assert {run.label for run in runs} <= set(collect.COLOURS)
    assert {run.problem for run in runs} <= set(common.PROBLEMS)
