"""What a function reads, told by content: what makes it the same function as another.

Its code, whole numbers, flags, strings and, through all functions of the user that it names,
globals. What cannot be told, such as an object of the user's own, is unknown.
"""

import dis
import functools
import sys
import sysconfig
import types
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np

# Packages whose own globals do not change.
_LIBRARIES = sys.stdlib_module_names | {
    *("builtins", "constrainednn", "equinox", "jax", "jaxlib", "jaxtyping", "numpy", "optax"),
    *("diffrax", "lineax", "optimistix", "scipy"),
}
_LIBRARY_FOLDERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
# Told by their value.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...))
# Told by being the same object, if they are of a library.
_LASTING = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType),
    *(np.ufunc, np.dtype, jax.Array),
)
# Names by which code may read what is not seen here, or tell a number from an argument.
_HIDDEN = frozenset(
    (
        *("eval", "exec", "globals", "locals", "vars", "open", "__import__", "isinstance", "type"),
        *("getattr", "hasattr", "setattr", "__dict__", "environ", "getenv", "input"),
        *("random", "rand", "randn", "perf_counter", "monotonic"),
        *("load", "loadtxt", "genfromtxt", "fromfile", "read_text", "read_bytes"),
    )
)
# Looked at in each call: bytes of a constant array, and parts of a list, or functions, at most.
_SMALL, MOST = 1 << 16, 256

# Functions and modules of a user in the order in which they were met.
Seen = dict[Any, int]


class Unknown(Exception):  # noqa: N818  (it says what a value is)
    """A value that cannot be told from others."""


@jax.tree_util.register_static
class Constant:
    """A value that is no argument, and what tells it from others: by default that it is itself."""

    def __init__(self, value: Any, content: Hashable = None):
        self.value, self.content = value, content

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant) or self.content != other.content:
            return False
        return self.content is not None or self.value is other.value

    def __hash__(self) -> int:
        return hash(id(self.value) if self.content is None else self.content)


def held_by(fn: types.FunctionType) -> tuple:
    try:
        cells = tuple(cell.cell_contents for cell in fn.__closure__ or ())
    except ValueError:  # nothing is in one yet
        raise Unknown from None
    return cells, fn.__defaults__, fn.__kwdefaults__


def of_library(value: Any) -> bool:
    # By globals: what wraps a function bears the name of its module.
    if isinstance(value, types.FunctionType):
        name = value.__globals__.get("__name__")
    else:
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return _in_library(name)


@functools.lru_cache(maxsize=4096)
def _in_library(name: str | None) -> bool:
    """By where the package lies, too: a user's file may be called as one of Python's."""
    root = str(name).partition(".")[0]
    if root not in _LIBRARIES:
        return False
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is None or root == "constrainednn" or str(file).startswith(_LIBRARY_FOLDERS)


def read_by(fn: types.FunctionType, seen: Seen) -> Hashable:
    """What a function reads besides what it holds: its code, and globals."""
    names = names_in(fn)
    if not vars(fn).keys() <= {"__wrapped__"} or len(seen) > MOST:
        raise Unknown
    read = sorted(names & fn.__globals__.keys())
    return fn.__code__, tuple((n, content_of(fn.__globals__[n], names, seen)) for n in read)


def content_of(value: Any, names: frozenset[str], seen: Seen) -> Hashable:
    """What tells a constant from others; of a user's module the entries with these names."""
    if type(value) in _PLAIN:
        # Written out -0.0 is no 0.0, and NaN the same as itself.
        return type(value), repr(value) if isinstance(value, (float, complex)) else value
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind in "fiubcSU" and value.nbytes <= _SMALL:
            return value.shape, value.dtype.str, value.tobytes()
        raise Unknown
    if isinstance(value, (tuple, list, dict)) and len(value) > MOST:
        raise Unknown
    if isinstance(value, (tuple, list)) and of_library(type(value)):
        return type(value), tuple(content_of(part, names, seen) for part in value)
    if type(value) is dict:
        return dict, tuple(content_of(item, names, seen) for item in value.items())
    if isinstance(value, (types.FunctionType, types.ModuleType)) and not of_library(value):
        function = isinstance(value, types.FunctionType)
        index = id(value) if function else (id(value), names)
        if index in seen:
            return "seen", seen[index]
        seen[index] = len(seen)
        if function:
            held = content_of(held_by(value), names_in(value), seen)
            return read_by(value, seen), held
        some = sorted(names & vars(value).keys())
        return tuple((name, content_of(vars(value)[name], names, seen)) for name in some)
    if isinstance(value, _LASTING) or type(value).__module__.startswith(("jax", "equinox")):
        wrapped = getattr(value, "__wrapped__", None)  # by jit, say
        if of_library(value if isinstance(value, type) else type(value)):
            return Constant(value), content_of(wrapped, names, seen)
    raise Unknown


def names_in(fn: types.FunctionType) -> frozenset[str]:
    """Names of globals and attributes in a function of the user, and in functions in it."""
    names = frozenset() if of_library(fn) else _names_seen(fn.__code__)
    if names is None:
        raise Unknown
    return names


@functools.lru_cache(maxsize=4096)
def _names_seen(code: types.CodeType) -> frozenset[str] | None:
    """None for code that writes to what it holds, or reads what is not seen here."""
    names = set(code.co_names)
    for step in dis.get_instructions(code):
        writes = step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
        writes |= step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")
        imports = step.opname == "IMPORT_NAME" and not _in_library(step.argval)
        if writes or imports or step.argval in _HIDDEN:
            return None
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            inner = _names_seen(part)
            if inner is None:
                return None
            names |= inner
    return frozenset(names)
