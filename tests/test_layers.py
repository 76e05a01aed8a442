"""Who may import whom, and what importing may do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import constrainednn

PACKAGE = Path(constrainednn.__file__).parent

# A module may import only from lines above its own.
LAYERS = [
    ["_errors", "_paths"],
    [
        "_files",
        "_keys",
        "_legendre",
        "_memory",
        "_missing",
        "_numpy_twin",
        "_sinks",
        "_statistics",
        "_terminal",
        "_validate",
    ],
    [
        "_archive",
        "_blocks",
        "_domains",
        "_error_equation",
        "_lock",
        "_methods._abstract",
        "_signatures",
        "_targets",
        "_trees",
        "_unknowns",
        "_watching",
        "_law",
        "_workers",
    ],
    [
        "_folders",
        "_gauss_newton",
        "_methods._levenberg_marquardt",
        "_methods._optax",
        "_profile",
        "_samplers",
    ],
    ["_models", "_run_folder", "_scheme"],
    ["_calculus", "_march", "_pieces", "_show"],
    ["_elements", "_field", "_path"],
    ["_defect"],
    ["_curvature", "_relative_residual", "_scan"],
    ["_problem", "_refinement"],
    ["_boundary", "_experiments", "_fit", "_image", "_residuals", "_resolve"],
    ["_windows"],
    ["_delay", "_inverse", "_inverse_bvp"],
    ["_inverse_experiments"],
    ["_state_experiments"],
    ["_bvp", "_ivp"],
    ["_reference"],
    ["_estimates", "_rows", "_terms"],
    ["_gap"],
    ["_check", "_evaluation", "_one_experiment"],
    ["_solution"],
    ["_drawing", "_provenance", "_report", "_stages"],
    ["_error_estimate", "_plots", "_run"],
    ["_verdict"],
    ["_store"],
    ["_solve_pieces", "_training"],
    ["_together"],
    ["_solve"],
    ["_compare", "_ensemble", "_load", "testing"],
    ["_resume", "_study_runs"],
    ["_study_folder"],
    ["_study_table"],
    ["_study", "_study_plots"],
    ["cli"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# One-line delegates: methods of results that hand themselves to what draws, prints or stores them.
DELEGATES = {
    ("_estimates", "_report"),
    ("_gap", "_report"),
    ("_solution", "_compare"),
    ("_solution", "_estimates"),
    ("_solution", "_error_estimate"),
    ("_solution", "_plots"),
    ("_solution", "_report"),
    ("_solution", "_store"),
    ("_solution", "_verdict"),
    ("_ensemble", "_study_plots"),
    ("_study_table", "_study_plots"),
}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {
    module_name(path): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" and "problems" not in path.relative_to(PACKAGE).parts
}


def imported(node):
    """Full names of the modules that an import statement may load."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative import"
    # `from package import name` may name a module.
    return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def imports(tree):
    """Pairs (module, is inside a function) of all imports of a file."""
    found = []

    def visit(node, inside):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.extend((name, inside) for name in imported(node))
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            return  # names for type checkers: nothing is loaded
        inside = inside or isinstance(node, (ast.FunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, False)
    return found


def own(name):
    """The module of this package that an import names, or None."""
    short = name.removeprefix("constrainednn.")
    return short if short != name and short in RANK else None


def test_every_module_has_a_layer():
    assert sorted(MODULES) == sorted(RANK)


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_from_layers_above_it(name):
    for target, inside in imports(MODULES[name]):
        other = own(target)
        if other is None or (inside and (name, other) in DELEGATES):
            continue
        assert RANK[other] < RANK[name], f"{name} imports {other}"
        assert other != "cli"


def test_delayed_imports_are_the_delegates_and_those_of_the_command_line():
    delayed = {
        (name, own(target))
        for name, tree in MODULES.items()
        for target, inside in imports(tree)
        if inside and own(target) and name != "cli"
    }
    assert delayed == DELEGATES


@pytest.mark.parametrize("slow", ["matplotlib", "scipy.stats", "rich", "jinja2"])
def test_slow_packages_are_imported_inside_functions_only(slow):
    for name, tree in MODULES.items():
        for node in tree.body:  # imports under `if TYPE_CHECKING` are no statements of the body
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                loaded = imported(node)
                assert not any(f"{item}.".startswith(f"{slow}.") for item in loaded), name


def run(code):
    """Run code in a fresh process, without the settings that conftest makes."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=settings,
        check=False,
    )


def test_importing_the_package_and_its_command_line_loads_nothing_heavy():
    code = (
        "import sys, constrainednn, constrainednn.cli\n"
        "heavy = ('jax', 'jaxlib', 'numpy', 'scipy', 'matplotlib', 'equinox', 'optax')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_every_public_name_resolves_and_importing_it_changes_nothing():
    code = """
import importlib, os, sys, warnings
import jax, equinox, jaxtyping, numpy, optax, scipy
import constrainednn as cx
before = dict(jax.config.values), list(warnings.filters), dict(os.environ), list(sys.path)
missing = [name for name in cx.__all__ if getattr(cx, name, None) is None]
importlib.import_module("constrainednn.testing")
after = dict(jax.config.values), list(warnings.filters), dict(os.environ), list(sys.path)
assert not missing, missing
assert before == after
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stub_lists_what_it_imports():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    names = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names == set(constrainednn.__all__)
