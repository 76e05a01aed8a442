"""One compiled program for functions that differ only in the numbers that they hold.

A user's function that is made anew is another object, for which jax compiles again. Where a
function goes into what is compiled it is therefore taken apart here: floats and arrays that it
closes over, or has as defaults, become arguments of the program. All else that it reads is told by
content: its code, whole numbers, flags, strings and, through all functions of the user that it
names, globals. What cannot be told, such as an object of the user's own, leaves a function as it
is.

Whether numbers may be arguments is seen while a program is traced: once with the function as it is,
once with arguments in place of its numbers. Both must make the same of the function's own
arguments, operation by operation. Where they do not, as for `if nu > 0.1`, or where a number is an
exponent, functions of this code are compiled one by one.
"""

import contextlib
import dis
import functools
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.compilation.outline import outline, same

# Packages whose own globals do not change.
_LIBRARIES = sys.stdlib_module_names | {
    *("builtins", "constrainednn", "equinox", "jax", "jaxlib", "jaxtyping", "numpy", "optax"),
    *("diffrax", "lineax", "optimistix", "scipy"),
}
# Told by their value.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...))
# Told by being the same object, if they are of a library.
_LASTING = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType),
    *(np.ufunc, np.dtype, jax.Array),
)
# Names by which code may read what is not seen here, or tell a number from an argument.
_HIDDEN = frozenset(
    ("eval", "exec", "globals", "locals", "vars", "open", "__import__", "isinstance", "type")
)
# Looked at in each call: bytes of a constant array, and parts of a list, or functions, at most.
_SMALL, _MOST = 1 << 16, 256

# Functions and modules of a user in the order in which they were met.
Seen = dict[Any, int]

_refused: set[types.CodeType | None] = set()


class _Unknown(Exception):  # noqa: N818  (it says what a value is)
    """A value that cannot be told from others."""


class Decided(BaseException):
    """A function turned out to need its numbers. No `except Exception` of a user takes it."""


@jax.tree_util.register_static
class _Constant:
    """A value that is no argument, and what tells it from others: by default that it is itself."""

    def __init__(self, value: Any, content: Hashable = None):
        self.value, self.content = value, content

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Constant) or self.content != other.content:
            return False
        return self.content is not None or self.value is other.value

    def __hash__(self) -> int:
        return hash(id(self.value) if self.content is None else self.content)


class _Opened(eqx.Module):
    """A function taken apart.

    Attributes:
        held: What its cells hold, its defaults, and those given by name; of a `functools.partial`
            the function, its arguments, and those given by name.
        plain: The function as it is.
    """

    held: tuple
    plain: _Constant

    def restored(self) -> Callable:
        """The function with what is held now."""
        fn, (first, second, named) = self.plain.value, _restored(self.held)
        if isinstance(fn, functools.partial):
            return functools.partial(first, *second, **named)
        cells = tuple(map(types.CellType, first))
        made = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, second, cells)
        made.__kwdefaults__, made.__qualname__ = named, fn.__qualname__
        return made


class _Shared:
    """What stands for an opened function where it is traced."""

    def __init__(self, opened: _Opened):
        self.opened = opened
        self.__name__ = getattr(opened.plain.value, "__name__", "partial")

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the function with arguments for its numbers, if that computes the same."""
        plain = self.opened.plain.value
        numbers, structure = jax.tree.flatten(self.opened.held)
        if not numbers:
            return plain(*args, **named)

        def filled(numbers: list) -> Any:
            held = jax.tree.unflatten(structure, numbers)
            return _Opened(held, self.opened.plain).restored()(*args, **named)

        try:
            expected = outline(lambda _: plain(*args, **named), [])
        except Exception:  # noqa: BLE001  (the user's own)
            expected = None
        if expected is None:
            plain(*args, **named)  # raises it as it is
        with contextlib.suppress(Exception):  # it needs a number in Python
            if expected is not None and same(expected, outline(filled, numbers)):
                return filled(numbers)
        _refused.add(_code(plain))
        raise Decided


def opened(tree: PyTree) -> PyTree:
    """A tree with functions taken apart, so that their numbers are leaves as any others."""
    return jax.tree.map(_opened_leaf, tree)


def closed(tree: PyTree) -> PyTree:
    """The tree that was opened, with functions to call where it is traced."""
    is_opened = lambda node: isinstance(node, _Opened)  # noqa: E731
    return jax.tree.map(
        lambda node: _Shared(node) if is_opened(node) else node, tree, is_leaf=is_opened
    )


def until_decided(fn: Callable) -> Callable:
    """What opens, traces and computes, called again where a function is to stay as it is."""

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        while True:
            with contextlib.suppress(Decided):
                return fn(*args)

    return call


def compiled(fn: Callable) -> Callable:
    """As `equinox.filter_jit`, with one program for functions that differ only in numbers."""
    program: Any = eqx.filter_jit(functools.wraps(fn)(lambda *args: fn(*closed(args))))
    call: Any = until_decided(functools.wraps(fn)(lambda *args: program(*opened(args))))
    call._cached = program._cached  # to count programs
    return call


def _opened_leaf(leaf: Any) -> Any:
    if isinstance(leaf, _Shared):
        return leaf.opened
    if type(leaf) not in (types.FunctionType, functools.partial) or _code(leaf) in _refused:
        return leaf
    with contextlib.suppress(_Unknown, RecursionError):
        found = _open(leaf, frozenset(), {})
        return found if isinstance(found, _Opened) else leaf
    return leaf


def _code(fn: Any) -> types.CodeType | None:
    """Of the user's function, where others are made of it."""
    if isinstance(fn, functools.partial):
        return _code(fn.func)
    if not isinstance(fn, types.FunctionType):
        return None
    if _of_library(fn) and fn.__closure__:
        with contextlib.suppress(_Unknown):
            inner = [part for part in _held(fn)[0] if isinstance(part, types.FunctionType)]
            return _code(inner[0]) if inner else fn.__code__
    return fn.__code__


def _open(value: Any, names: frozenset[str], seen: Seen) -> Any:
    """A value with its numbers as leaves, and constants about the rest."""
    if type(value) is float:
        return jnp.asarray(value)  # of weak type, as a number of Python is
    numeric = isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind in "fiubc"
    if numeric or isinstance(value, jax.Array):
        return np.asarray(value) if isinstance(value, np.floating) else value
    if type(value) is functools.partial:
        held = (value.func, value.args, value.keywords)
        return _Opened(
            tuple(_open(part, names, seen) for part in held), _Constant(value, "partial")
        )
    if isinstance(value, types.FunctionType) and not _of_library(value):
        return _open_function(value, seen)
    if isinstance(value, types.FunctionType) and value.__closure__:
        with contextlib.suppress(_Unknown):  # what jax makes of a function, as its gradient, is
            return _open_function(value, seen)
    if value is not None and _of_library(type(value)):
        try:
            children, structure = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
        except (TypeError, ValueError):  # keys that cannot be sorted
            raise _Unknown from None
        if len(children) != 1 or children[0] is not value:
            if len(children) > _MOST:
                raise _Unknown
            parts = [_open(child, names, seen) for child in children]
            # A list without numbers is the very list, which may be there to be filled.
            if jax.tree.leaves(parts) or not isinstance(value, (list, dict)):
                return jax.tree.unflatten(structure, parts)
    return _Constant(value, _content(value, names, seen))


def _open_function(fn: types.FunctionType, seen: Seen) -> _Opened:
    if id(fn) in seen:  # it calls itself
        raise _Unknown
    names, within = _names(fn), seen | {id(fn): len(seen)}
    content, held = _read(fn, within), tuple(_open(part, names, within) for part in _held(fn))
    return _Opened(held, _Constant(fn, content))


def _restored(held: Any) -> Any:
    def restore(node: Any) -> Any:
        if isinstance(node, _Opened):
            return node.restored()
        return node.value if isinstance(node, _Constant) else node

    return jax.tree.map(restore, held, is_leaf=lambda node: isinstance(node, (_Opened, _Constant)))


def _held(fn: types.FunctionType) -> tuple:
    try:
        cells = tuple(cell.cell_contents for cell in fn.__closure__ or ())
    except ValueError:  # nothing is in one yet
        raise _Unknown from None
    return cells, fn.__defaults__, fn.__kwdefaults__


def _of_library(value: Any) -> bool:
    # By globals: what wraps a function bears the name of its module.
    if isinstance(value, types.FunctionType):
        name = value.__globals__.get("__name__")
    else:
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return _in_library(name)


def _in_library(name: str | None) -> bool:
    return str(name).partition(".")[0] in _LIBRARIES


def _read(fn: types.FunctionType, seen: Seen) -> Hashable:
    """What a function reads besides what it holds: its code, and globals."""
    names = _names(fn)
    if not vars(fn).keys() <= {"__wrapped__"} or len(seen) > _MOST:
        raise _Unknown
    read = sorted(names & fn.__globals__.keys())
    return fn.__code__, tuple((n, _content(fn.__globals__[n], names, seen)) for n in read)


def _content(value: Any, names: frozenset[str], seen: Seen) -> Hashable:
    """What tells a constant from others; of a user's module the entries with these names."""
    if isinstance(value, _PLAIN):
        # Written out -0.0 is no 0.0, and NaN the same as itself.
        return type(value), repr(value) if isinstance(value, (float, complex)) else value
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind in "fiubcSU" and value.nbytes <= _SMALL:
            return value.shape, value.dtype.str, value.tobytes()
        raise _Unknown
    if isinstance(value, (tuple, list, dict)) and len(value) > _MOST:
        raise _Unknown
    if isinstance(value, (tuple, list)) and _of_library(type(value)):
        return type(value), tuple(_content(part, names, seen) for part in value)
    if type(value) is dict:
        return dict, tuple(_content(item, names, seen) for item in value.items())
    if isinstance(value, (types.FunctionType, types.ModuleType)) and not _of_library(value):
        function = isinstance(value, types.FunctionType)
        index = id(value) if function else (id(value), names)
        if index in seen:
            return "seen", seen[index]
        seen[index] = len(seen)
        if function:
            held = _content(_held(value), _names(value), seen)
            return _read(value, seen), held
        some = sorted(names & vars(value).keys())
        return tuple((name, _content(vars(value)[name], names, seen)) for name in some)
    if isinstance(value, _LASTING) or type(value).__module__.startswith(("jax", "equinox")):
        wrapped = getattr(value, "__wrapped__", None)  # by jit, say
        if _of_library(value if isinstance(value, type) else type(value)):
            return _Constant(value), _content(wrapped, names, seen)
    raise _Unknown


def _names(fn: types.FunctionType) -> frozenset[str]:
    """Names of globals and attributes in a function of the user, and in functions in it."""
    names = frozenset() if _of_library(fn) else _names_seen(fn.__code__)
    if names is None:
        raise _Unknown
    return names


@functools.lru_cache(maxsize=4096)
def _names_seen(code: types.CodeType) -> frozenset[str] | None:
    """None for code that writes to what it holds, or reads what is not seen here."""
    names = set(code.co_names)
    for step in dis.get_instructions(code):
        writes = step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
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
