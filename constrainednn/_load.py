"""Find a Problem in a file or in the gallery."""

import dataclasses
import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import optax

from constrainednn._check import user_frames
from constrainednn._errors import LoadError
from constrainednn._methods._abstract import AbstractMethod
from constrainednn._methods._levenberg_marquardt import LevenbergMarquardt
from constrainednn._methods._optax import Optax
from constrainednn._paths import gallery
from constrainednn._problem import Problem, Source
from constrainednn._stages import Stage
from constrainednn._validate import known_names, shown

# Arguments of `solve` and `study`: a setting of the same name could not be told from them.
RESERVED = (
    *("method", "steps", "seed", "tolerance", "heldout", "monitor", "redraw", "progress", "out"),
    *("early_stopping", "engine"),
    *("time_limit", "sinks", "vary", "seeds", "workers", "executor", "members"),
)


def resolve(source: str) -> tuple[Path, str]:
    """Turn FILE, FILE:NAME or a gallery name into a path and the name of the problem in it.

    Raises:
        LoadError: If there is no such file, with near names.
    """
    path_text, name = source, "problem"
    head, colon, tail = source.rpartition(":")
    if colon and tail.isidentifier():
        path_text, name = head, tail
    if not (path_text.endswith(".py") or os.sep in path_text or "/" in path_text):
        known = gallery()
        if path_text in known:
            return known[path_text], name
        raise LoadError(
            f"no gallery problem is named {path_text!r}. {known_names(path_text, known)} "
            "A file of your own ends in .py."
        )
    path = Path(path_text)
    try:
        exists = path.exists()
    except OSError as error:
        raise LoadError(f"{shown(path_text)} is no file name: {error.strerror}.") from None
    if not (exists or path_text.isprintable()):
        raise LoadError(f"there is no file {shown(path_text)}.")
    if path.is_dir():
        raise LoadError(f"{path} is a folder; name a .py file in it.")
    if path.suffix != ".py":
        raise LoadError(f"{path} does not end in .py; a problem file is Python code.")
    if path.is_file():
        return path, name
    siblings = sorted(item.name for item in path.parent.glob("*.py"))
    raise LoadError(
        f"there is no file {path}. Problem files there: {known_names(path.name, siblings)}"
    )


_PREFIX = "_constrainednn_problem_"
_loaded: dict[Path, ModuleType] = {}


def load_module(path: Path) -> ModuleType:
    """Run a problem file under a private module name. Problem files are code: this executes it.

    One of the gallery is run once: its functions stay the same ones, and nothing is compiled for
    them twice. Any other may have changed, or what it reads.

    Raises:
        LoadError: If it does not run; `details` holds the traceback of the file's own frames.
    """
    if path in _loaded:
        return _loaded[path]
    # A private name, so that a file called jax.py does not replace jax.
    name = f"{_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module
    if folder not in sys.path:
        sys.path.append(folder)  # last, for the same reason
    # Files appear only where the user asked for them; a stale cache could hide an edit, too.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    clashing = getattr(sys.modules.get(path.stem), "__file__", str(path)) != str(path)
    if clashing or path.stem in sys.stdlib_module_names:
        warnings.warn(
            f"{path.name} has the name of a module that is installed: a file beside it that "
            f"imports {path.stem} gets that one.",
            stacklevel=3,
        )
    environment = _read_at_start()
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        details = "".join(traceback.format_exception_only(error))
        file = Path(error.filename or path).name  # it may be a file that this one imports
        raise LoadError(f"{file}:{error.lineno}:{error.offset}: {error.msg}", details) from None
    except ModuleNotFoundError as error:
        raise LoadError(
            f"{path.name} imports {error.name!r}, which is not installed here. Install it, or put "
            f"{error.name}.py beside {path.name}.",
            user_traceback(error),
        ) from None
    except SystemExit as error:
        raise LoadError(
            f"{path.name} calls sys.exit({error.code!r}) while it is loaded. "
            "Put it under if __name__ == '__main__':."
        ) from None
    except Exception as error:  # whatever a user's file raises is reported as its own
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = (
                f" Names without a folder are looked for in {Path.cwd()}; for a file beside "
                f"{path.name} write Path(__file__).parent / 'NAME'."
            )
        raise LoadError(
            f"{path.name} raises {type(error).__name__}: {error}{hint}", user_traceback(error)
        ) from error
    finally:
        sys.dont_write_bytecode = before
    late = sorted(dict(_read_at_start().items() ^ environment.items()))
    if late:
        raise LoadError(
            f"{path.name} changes {', '.join(late)}, which is read before problem files are: it "
            "would have no effect. Set it in the shell."
        )
    if path in gallery().values():
        _loaded[path] = module
    return module


def _read_at_start() -> dict[str, str]:
    """The environment variables that jax and the libraries below it read once."""
    known = ("JAX_", "XLA_", "OMP_NUM_", "OPENBLAS_NUM_", "MKL_NUM_")
    return {key: value for key, value in os.environ.items() if key.startswith(known)}


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
    """Look up the problem or problem function called `name`."""
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
        if isinstance(file, str) and not module_name.startswith(_PREFIX):
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


def file_digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


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


def user_traceback(error: BaseException) -> str:
    """The traceback with only the user's frames; empty if there are none."""
    lines = traceback.format_list(user_frames(error))
    return "".join(["Traceback (your files only):\n", *lines]).rstrip() if lines else ""
