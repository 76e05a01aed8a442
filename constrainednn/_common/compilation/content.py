"""What a function reads, compared by content: when two functions are the same.

Its code, integers, flags, strings and, through all functions of the user that it names, globals.
What cannot be compared, such as an object of a class of the user's, is unknown.
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
# Types compared by value.
_BY_VALUE = (type(None), bool, int, float, complex, str, bytes, range, type(...))
# Types compared by identity, if they belong to a library.
_BY_IDENTITY = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType),
    *(np.ufunc, np.dtype, jax.Array),
)
# Names by which code may read what is not found here, or distinguish a number from an argument.
_HIDDEN = frozenset(
    (
        *("eval", "exec", "globals", "locals", "vars", "open", "__import__", "isinstance", "type"),
        *("getattr", "hasattr", "setattr", "__dict__", "environ", "getenv", "input"),
        *("random", "rand", "randn", "perf_counter", "monotonic"),
        *("load", "loadtxt", "genfromtxt", "fromfile", "read_text", "read_bytes"),
    )
)
# All this is read in each call, so limit the bytes of an array, items of a list and functions.
_SMALL, MOST_ITEMS = 1 << 16, 256

# The user's functions and modules, numbered in the order in which they are visited.
Visited = dict[Any, int]


class Unknown(Exception):  # noqa: N818  (it says what a value is)
    """A value that cannot be compared with others."""


@jax.tree_util.register_static
class Constant:
    """A value that is not an argument, compared by `content`, or by identity without any."""

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
    except ValueError:  # a cell is still empty
        raise Unknown from None
    return cells, fn.__defaults__, fn.__kwdefaults__


def of_library(value: Any) -> bool:
    # By globals: a wrapper carries the module name of what it wraps.
    if isinstance(value, types.FunctionType):
        name = value.__globals__.get("__name__")
    else:
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return _in_library(name)


@functools.lru_cache(maxsize=4096)
def _in_library(name: str | None) -> bool:
    """By location too: a user's file may have the name of a standard module."""
    root = str(name).partition(".")[0]
    if root not in _LIBRARIES:
        return False
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is None or root == "constrainednn" or str(file).startswith(_LIBRARY_FOLDERS)


def read_by(fn: types.FunctionType, visited: Visited) -> Hashable:
    """What a function reads besides what it holds: its code, and globals."""
    names = names_in(fn)
    if not vars(fn).keys() <= {"__wrapped__"} or len(visited) > MOST_ITEMS:
        raise Unknown
    read = sorted(names & fn.__globals__.keys())
    return fn.__code__, tuple((n, content_of(fn.__globals__[n], names, visited)) for n in read)


def content_of(value: Any, names: frozenset[str], visited: Visited) -> Hashable:
    """The content by which a constant is compared; of a user's module, entries in `names`."""
    if type(value) in _BY_VALUE:
        # As text, -0.0 differs from 0.0, and NaN equals itself.
        return type(value), repr(value) if isinstance(value, (float, complex)) else value
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind in "fiubcSU" and value.nbytes <= _SMALL:
            return value.shape, value.dtype.str, value.tobytes()
        raise Unknown
    if isinstance(value, (tuple, list, dict)) and len(value) > MOST_ITEMS:
        raise Unknown
    if isinstance(value, (tuple, list)) and of_library(type(value)):
        return type(value), tuple(content_of(part, names, visited) for part in value)
    if type(value) is dict:
        return dict, tuple(content_of(item, names, visited) for item in value.items())
    if isinstance(value, (types.FunctionType, types.ModuleType)) and not of_library(value):
        function = isinstance(value, types.FunctionType)
        index = id(value) if function else (id(value), names)
        if index in visited:
            return "visited", visited[index]
        visited[index] = len(visited)
        if function:
            held = content_of(held_by(value), names_in(value), visited)
            return read_by(value, visited), held
        some = sorted(names & vars(value).keys())
        return tuple((name, content_of(vars(value)[name], names, visited)) for name in some)
    if isinstance(value, _BY_IDENTITY) or type(value).__module__.startswith(("jax", "equinox")):
        wrapped = getattr(value, "__wrapped__", None)  # by jit, say
        if of_library(value if isinstance(value, type) else type(value)):
            return Constant(value), content_of(wrapped, names, visited)
    raise Unknown


def names_in(fn: types.FunctionType) -> frozenset[str]:
    """Names of globals and attributes in a user's function, and in functions nested in it."""
    names = frozenset() if of_library(fn) else _names_of_code(fn.__code__)
    if names is None:
        raise Unknown
    return names


@functools.lru_cache(maxsize=4096)
def _names_of_code(code: types.CodeType) -> frozenset[str] | None:
    """None for code that writes to its closure or globals, or reads what is not found here."""
    names = set(code.co_names)
    for step in dis.get_instructions(code):
        writes = step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
        writes |= step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")
        imports = step.opname == "IMPORT_NAME" and not _in_library(step.argval)
        if writes or imports or step.argval in _HIDDEN:
            return None
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            inner = _names_of_code(part)
            if inner is None:
                return None
            names |= inner
    return frozenset(names)
