"""Functions in a problem file that state problems and name methods."""

import dataclasses
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import optax

from constrainednn._common.messages import known_names, user_traceback
from constrainednn._common.paths import gallery
from constrainednn._problem.problem import Problem, Source
from constrainednn._solve.problem_files import PREFIX, file_digest, load_module, resolve
from constrainednn.errors import LoadError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.first_order import Optax
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.stages import Stage

# Arguments of `solve` and `study`: a setting of the same name could not be told from them.
RESERVED = (
    *("method", "steps", "seed", "tolerance", "heldout", "monitor", "redraw", "progress", "out"),
    *("early_stopping", "engine"),
    *("time_limit", "sinks", "vary", "seeds", "workers", "executor", "members"),
)


def load_problem(source: str | Path, **settings: Any) -> Problem:
    """Load a problem from a file, or from the gallery by name.

    Args:
        source: A path, `FILE:NAME`, or the name of a gallery problem. A name with ".py" or a path
            separator is a file.
        settings: Keywords of the problem function, such as `width=128`.

    Raises:
        LoadError: If there is no such problem, or its file does not run.
    """
    path, name = resolve(str(source))
    return build(load_module(path), path, name, settings)


def problem_keywords(value: Any) -> dict[str, inspect.Parameter]:
    """The settings that a problem function takes."""
    return {} if isinstance(value, Problem) else dict(inspect.signature(value).parameters)


def find(module: ModuleType, path: Path, name: str) -> Any:
    """MonitorRequest up the problem or problem function called `name`."""
    value = getattr(module, name, None)
    if isinstance(value, Problem) or (callable(value) and not isinstance(value, type)):
        return value
    problems = [key for key, item in vars(module).items() if isinstance(item, Problem)]
    public = [
        key
        for key, item in vars(module).items()
        if not key.startswith("_") and getattr(item, "__module__", None) == module.__name__
    ]
    found = problems or public
    listing = f"Found: {', '.join(found)}. " if found else ""
    if name != "problem":
        found = [*problems, *(key for key in public if key not in problems)]
        raise LoadError(
            f"{path.name} defines no Problem named {name!r}. {known_names(name, found)}"
        )
    example = problems[0] if problems else "NAME"
    raise LoadError(
        f"{path.name} defines no Problem. {listing}Assign one to 'problem', "
        f"or use {path.name}:{example}."
    )


def build(module: ModuleType, path: Path, name: str, settings: dict[str, Any]) -> Problem:
    """Call the problem function with its settings, or return the problem."""
    value = find(module, path, name)
    known = problem_keywords(value)
    for key in known:
        if key in RESERVED:
            raise LoadError(
                f"{path.name}: {name}() has a keyword {key!r}, which is an argument of solve or "
                f"study. Give it another name, such as my_{key}."
            )
    for key in settings:
        if key not in known:
            raise LoadError(f"{path.name} has no setting {key!r}. {known_names(key, known)}")
    if isinstance(value, Problem):
        return dataclasses.replace(value, source=_source(path, name, settings))
    missing = [
        key
        for key, item in known.items()
        if item.default is inspect.Parameter.empty
        and key not in settings
        and item.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    if missing:
        raise LoadError(
            f"{path.name}: {name}() needs a value for {', '.join(missing)}. "
            "Give each keyword a default."
        )
    try:
        built = value(**settings)
    except Exception as error:  # whatever a user's file raises is reported as its own
        raise LoadError(
            f"{path.name}: {name}() raises {type(error).__name__}: {error}",
            user_traceback(error),
        ) from error
    if not isinstance(built, Problem):
        raise LoadError(
            f"{path.name}: {name}() returns {type(built).__name__}; it must return a cx.Problem."
        )
    return dataclasses.replace(built, source=_source(path, name, settings))


def _source(path: Path, name: str, settings: dict[str, Any]) -> Source:
    """Where a problem came from, with the modules beside its file that were imported."""
    path = path.resolve()
    beside = {path}
    for module_name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not module_name.startswith(PREFIX):
            found = Path(file)
            if found.parent == path.parent and found.suffix == ".py":
                beside.add(found)
    plain = all(isinstance(value, (bool, int, float, str)) for value in settings.values())
    return Source(
        path,
        path in {item.resolve() for item in gallery().values()},
        name,
        tuple(settings.items()) if plain else None,
        tuple((file.name, file_digest(file)) for file in sorted(beside)),
    )


def find_method(name: str, methods: dict[str, Any]) -> AbstractMethod | Stage | list[Stage]:
    """The method that the command line calls `name`: one of the problem file's, or a common one.

    Raises:
        LoadError: With the known names.
    """
    known = list(dict.fromkeys([*methods, "lm", "gd", "adam", "lbfgs"]))
    if name in methods:
        return methods[name]
    if name not in known:
        raise LoadError(f"no method is named {name!r}. {known_names(name, known)}")
    if name == "lm":
        return LevenbergMarquardt()
    common = {"gd": lambda: optax.sgd(1e-2), "adam": lambda: optax.adam(1e-3), "lbfgs": optax.lbfgs}
    return Optax(common[name]())


def methods_of(module: ModuleType, path: Path) -> dict[str, Any]:
    """The methods that a problem file names.

    Raises:
        LoadError: If they are no dict.
    """
    methods = getattr(module, "methods", {})
    if not isinstance(methods, dict):
        raise LoadError(f"{path.name}: methods must be a dict of names to methods.")
    return methods
