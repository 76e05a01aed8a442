"""Who may import whom, and what importing may do."""

import ast
import collections
import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

import constrainednn

PACKAGE = Path(constrainednn.__file__).parent


def test_packages_import_only_from_those_below_and_without_cycles(monkeypatch):
    """The contracts of pyproject.toml, on this checkout; delayed imports count as well."""
    monkeypatch.chdir(PACKAGE.parent)
    assert lint_imports(no_logo=True, cache_dir=None) == 0


def test_longest_chain_of_packages():
    """From the command line down to what every package may use."""
    graph = grimp.build_graph("constrainednn", exclude_type_checking_imports=True, cache_dir=None)
    below = collections.defaultdict(set)
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            here, there = module.split(".")[1:2], other.split(".")[1:2]
            packages = (
                here and there and all((PACKAGE / item[0]).is_dir() for item in (here, there))
            )
            if packages and here != there:
                below[here[0]].add(there[0])

    @functools.cache
    def longest(package):
        return 1 + max(map(longest, below[package]), default=0)

    assert max(map(longest, list(below))) <= 11


def lines_of_function(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)


@functools.cache
def parsed():
    return {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def test_folders_files_and_functions_stay_small():
    files = [path for path in parsed() if "problems" not in path.parts]
    folders = collections.Counter(path.parent for path in files if path.name != "__init__.py")
    assert {folder.name: count for folder, count in folders.items() if count > 9} == {}
    long_files = [path.name for path in files if len(path.read_text().splitlines()) > 350]
    long_functions = [
        f"{path.name}: {node.name}"
        for path in files
        for node in ast.walk(parsed()[path])
        if isinstance(node, ast.FunctionDef) and lines_of_function(node) > 60
    ]
    assert (long_files, long_functions) == ([], [])


@pytest.mark.parametrize("slow", ["matplotlib", "scipy.stats", "rich"])
def test_slow_packages_are_imported_inside_functions_only(slow):
    for path, tree in parsed().items():
        for node in tree.body:  # `if TYPE_CHECKING` is no import statement
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert not any(f"{name}.".startswith(f"{slow}.") for name in names), path


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


@pytest.mark.parametrize("stub", list(PACKAGE.rglob("*.pyi")), ids=lambda path: path.parent.name)
def test_stub_lists_what_it_imports(stub):
    names = {
        alias.name
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    module = ".".join(stub.parent.relative_to(PACKAGE.parent).parts)
    assert names == set(importlib.import_module(module).__all__)
