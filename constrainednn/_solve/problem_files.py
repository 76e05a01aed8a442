"""Find a Problem in a file or in the gallery."""

import hashlib
import importlib.util
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType

from constrainednn._common.messages import known_names, shown, user_traceback
from constrainednn._common.paths import gallery
from constrainednn.errors import LoadError


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


PREFIX = "_constrainednn_problem_"
_loaded: dict[Path, ModuleType] = {}


def _clashes(path: Path) -> bool:
    """True if a module that is installed, or loaded from elsewhere, has the name of a file."""
    loaded = getattr(sys.modules.get(path.stem), "__file__", str(path))
    return loaded != str(path) or path.stem in sys.stdlib_module_names


def load_module(path: Path) -> ModuleType:
    """Run a problem file under a private module name. Problem files are code: this executes it.

    One of the gallery is run once: its functions stay the same ones, and nothing is compiled for
    them twice. Any other may have changed, or what it reads.

    Raises:
        LoadError: If it does not run; `details` holds the traceback of the file's own frames.
    """
    if path in _loaded:
        return _loaded[path]
    name = f"{PREFIX}{path.stem}"  # so that a file called jax.py does not replace jax
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module
    if folder not in sys.path:
        sys.path.append(folder)  # last, for the same reason
    # Files appear only where the user asked for them; a stale cache could hide an edit, too.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    if _clashes(path) and path not in gallery().values():  # none of which imports another
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


def file_digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
