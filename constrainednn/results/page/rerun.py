"""The command, or the lines of Python, that run a problem again; and the problem's text."""

import hashlib
import inspect
import re
import shlex

from constrainednn._problem.problem import Problem, Source
from constrainednn._storage.files import read_limited
from constrainednn.errors import StoreError
from constrainednn.results.facts import Facts
from constrainednn.runs.history import Settings

# What the command line takes where nothing is said.
_DEFAULTS = {"seed": 0, "tolerance": 0.0, "heldout": 4096, "monitor": 1024, "redraw": None}
_STEPS, _STEPS_IN_PIECES = 1000, 100_000
_NAMED = re.compile(r"(\w+): ")
# A source that takes longer to scroll through is no part of a page.
_MOST_BYTES = 60_000


def title_of(problem: Problem) -> str:
    """What was solved: the name of its file, or those of its constraints."""
    source = problem.source
    if source is None:
        names = [item.name for item in problem.constraints]
        return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return source.path.stem if source.name == "problem" else f"{source.path.stem}: {source.name}"


def again(facts: Facts) -> tuple[str, bool]:
    """What runs it again, and whether that is a command of a shell."""
    problem, settings = facts.problem, facts.settings
    method = "" if problem.scheme.in_pieces else settings.method
    named = _NAMED.match(method)
    staged = ", then " in method
    usual = _STEPS_IN_PIECES if problem.scheme.in_pieces else _STEPS
    given: dict[str, object] = {name: getattr(settings, name) for name in _DEFAULTS}
    given = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    if settings.steps != usual and not staged:
        given = {"steps": settings.steps} | given
    if settings.early_stopping:
        given["early_stopping"] = True
    source = problem.source
    plain = named is not None or method in ("", "LevenbergMarquardt()")
    double = settings.dtype == "float64"  # as the command line always has it
    if source is not None and source.settings is not None and plain and double:
        return _command(source, named[1] if named else "", given), True
    return _python(source, settings, method, given), False


def _command(source: Source, method: str, given: dict[str, object]) -> str:
    words = ["constrainednn", "solve", _file(source)]
    for key, value in source.settings or ():
        words += ["--set", f"{key}={value}"]
    if method:
        words += ["--method", method]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def _file(source: Source) -> str:
    """What the command line and `load_problem` call a problem."""
    name = source.path.stem if source.gallery else source.path.name
    return name if source.name == "problem" else f"{name}:{source.name}"


def _python(
    source: Source | None, settings: Settings, method: str, given: dict[str, object]
) -> str:
    lines = ["import jax", "import constrainednn as cx", ""]
    lines.insert(1, f'jax.config.update("jax_enable_x64", {settings.dtype == "float64"})')
    lines.append("problem = ...  # stated in Python: what was solved stands above")
    if source is not None:
        keywords = [f"{key}={value!r}" for key, value in source.settings or ()]
        if source.settings is None:
            keywords = ["..."]
        lines[-1] = f"problem = cx.load_problem({', '.join([repr(_file(source)), *keywords])})"
    arguments = ["problem"]
    if method not in ("", "LevenbergMarquardt()"):
        lines.append(f"method = ...  # {method}")
        arguments.append("method")
    arguments += [f"{name}={value!r}" for name, value in given.items()]
    return "\n".join([*lines, f"solution = cx.solve({', '.join(arguments)})"])


def sources(problem: Problem) -> tuple[tuple[tuple[str, str], ...], str]:
    """Names and texts of the files of a problem, or of its residuals; and what to know of them."""
    if problem.source is None:
        found = _residuals(problem)
        where = "Stated in Python; these are its residuals." if found else ""
        return found, where or "Stated in Python, where its text cannot be read."
    found, changed = [], []
    for name, digest in problem.source.files:
        path = problem.source.path.parent / name
        try:
            content = read_limited(path.resolve(), _MOST_BYTES)
        except StoreError as error:
            changed.append(f"{name}: {error}")
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            changed.append(f"{name} has been changed since it was loaded.")
        else:
            found.append((name, content.decode(errors="replace")))
    main = problem.source.path.name
    found.sort(key=lambda item: item[0] != main)
    return tuple(found), " ".join(changed)


def _residuals(problem: Problem) -> tuple[tuple[str, str], ...]:
    """The text of each residual that is a function of the user's."""
    found = []
    for item in problem.constraints:
        fn = inspect.unwrap(item.residual)
        ours = str(getattr(fn, "__module__", "")).startswith("constrainednn.")
        if not inspect.isfunction(fn) or ours:
            continue
        try:
            found.append((item.name, inspect.cleandoc(inspect.getsource(fn))))
        except (OSError, TypeError):  # typed at a prompt
            continue
    return tuple(found)
