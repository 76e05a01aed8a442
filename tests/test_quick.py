"""What the quick command still proves: every public name is used by a test that is not slow."""

import ast
import re
from inspect import ismodule
from pathlib import Path

import constrainednn as cx

# Results have no name in a test: here is what gives them, where that is not the name in lower case.
GIVEN_BY = {
    "AbstractShape": "HalfSpace",
    "AbstractTarget": "target",
    "Comparison": "compare",
    "ConstraintGap": "constraints",
    "CrossValidation": "cross_validate",
    "Draw": "draw",
    "Estimate": "heldout",
    "Finding": "check",
    "FiniteLoss": "finite",
    "GapReport": "gap",
    "Law": "fit_law",
    "Paired": "compare",
    "ObjectiveGap": "objective",
    "PieceHistory": "pieces",
    "PlaneTimeErrorEstimate": "error_estimate",
    "RegionBoundary": "boundary",
    "Sink": "sinks",
    "Solution": "solve",
    "SpaceErrorEstimate": "error_estimate",
    "SpaceTimeErrorEstimate": "error_estimate",
    "SpaceTimePieces": "pde",
    "StudyProgress": "progress",
    "TensorBoard": "test_tensorboard_files_read_back",
}


def used_by_quick_tests(tree):
    """Names in the tests that are not slow, and in what these use of their file."""
    defined, used, todo = {}, set(), []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            name = getattr(target, "name", getattr(target, "id", ""))
            defined[name] = node
            marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", ())]
            if name.startswith("test_") and "pytest.mark.slow" not in marks:
                todo.append(name)
    while todo:
        name = todo.pop()
        if name in used:
            continue
        used.add(name)
        for node in ast.walk(defined.get(name, ast.Module([], []))):
            for key in {"attr", "id", "arg"} & set(node._fields):
                todo.append(getattr(node, key))
    return used


def snake(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def test_every_public_name_is_used_by_a_quick_test():
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    used = set().union(*(used_by_quick_tests(ast.parse(file.read_text())) for file in files))
    packages = [item for item in (getattr(cx, name) for name in cx.__all__) if ismodule(item)]
    lacking = [
        name
        for name in {*cx.__all__, *(name for package in packages for name in package.__all__)}
        if name not in used and GIVEN_BY.get(name, snake(name)) not in used
    ]
    assert lacking == []
