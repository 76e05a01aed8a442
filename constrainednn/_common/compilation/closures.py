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
import functools
import types
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.compilation.content import (
    MOST,
    Constant,
    Seen,
    Unknown,
    content_of,
    held_by,
    names_in,
    of_library,
    read_by,
)
from constrainednn._common.compilation.outline import outline, same
from constrainednn._common.compilation.trial import agrees

# Code of functions that are compiled one by one, and kinds of calls that were found to agree.
_refused: set[types.CodeType] = set()
_agreed: set[Hashable] = set()


class Decided(BaseException):
    """A function turned out to need its numbers. No `except Exception` of a user takes it."""


class _Opened(eqx.Module):
    """A function taken apart.

    Attributes:
        held: What its cells hold, its defaults, and those given by name; of a `functools.partial`
            the function, its arguments, and those given by name.
        plain: The function as it is.
    """

    held: tuple
    plain: Constant

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
            if (
                expected is not None
                and same(expected, outline(filled, numbers))
                and self._agrees(args, named)
                and _opened_leaf(plain).plain
                == self.opened.plain  # it did not change what it reads
            ):
                return filled(numbers)
        if (code := _code(plain)) is not None:
            _refused.add(code)
        raise Decided

    def _agrees(self, args: tuple, named: dict) -> bool:
        """Evaluate the function with and without arguments for its numbers, once for each kind."""
        with jax.ensure_compile_time_eval():  # its numbers, which are traced in `opened`
            here = _opened_leaf(self.opened.plain.value)
            if here.plain != self.opened.plain:  # it changed what it reads
                return False
            numbers, structure = jax.tree.flatten(here.held)
            leaves, shape = jax.tree.flatten((args, named))
            kinds = tuple((np.shape(x), getattr(x, "dtype", None)) for x in (*numbers, *leaves))
            index = here.plain, structure, shape, kinds
            if index in _agreed:
                return True

            def filled(numbers: list) -> Any:
                held = jax.tree.unflatten(structure, numbers)
                return _Opened(held, here.plain).restored()(*args, **named)

            def plain(tried: list) -> Any:
                own = tried is numbers
                return self.opened.plain.value(*args, **named) if own else filled(tried)

            if agrees(plain, filled, numbers):
                _agreed.add(index)
            return index in _agreed


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
    with contextlib.suppress(Unknown, RecursionError):
        found = _open(leaf, frozenset(), {})
        return found if isinstance(found, _Opened) else leaf
    return leaf


def _code(fn: Any) -> types.CodeType | None:
    """Of the user's function, where others are made of it."""
    if isinstance(fn, functools.partial):
        return _code(fn.func)
    if not isinstance(fn, types.FunctionType):
        return None
    if of_library(fn) and fn.__closure__:
        with contextlib.suppress(Unknown):
            inner = [part for part in held_by(fn)[0] if isinstance(part, types.FunctionType)]
            return _code(inner[0]) if inner else fn.__code__
    return fn.__code__


def _open(value: Any, names: frozenset[str], seen: Seen) -> Any:
    """A value with its numbers as leaves, and constants about the rest."""
    if type(value) is float:
        return jnp.asarray(value)  # of weak type, as a number of Python is
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:  # it multiplies otherwise
        raise Unknown
    numeric = isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind in "fiubc"
    if numeric and value.dtype.itemsize > 8 << (value.dtype.kind == "c"):  # such as a long double
        raise Unknown
    if numeric or isinstance(value, jax.Array):
        return np.asarray(value) if isinstance(value, np.floating) else value
    if type(value) is functools.partial:
        held = (value.func, value.args, value.keywords)
        return _Opened(tuple(_open(part, names, seen) for part in held), Constant(value, "partial"))
    if isinstance(value, types.FunctionType) and not of_library(value):
        return _open_function(value, seen)
    if isinstance(value, types.FunctionType) and value.__closure__:
        with contextlib.suppress(Unknown):  # what jax makes of a function, as its gradient, is
            return _open_function(value, seen)
    if type(value) is dict and list(value) != sorted(value, key=str):
        raise Unknown  # a tree forgets the order of its keys
    if value is not None and of_library(type(value)):
        try:
            children, structure = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
        except (TypeError, ValueError):  # keys that cannot be sorted
            raise Unknown from None
        if len(children) != 1 or children[0] is not value:
            if len(children) > MOST:
                raise Unknown
            parts = [_open(child, names, seen) for child in children]
            # A list without numbers is the very list, which may be there to be filled.
            if jax.tree.leaves(parts) or not isinstance(value, (list, dict)):
                return jax.tree.unflatten(structure, parts)
    return Constant(value, content_of(value, names, seen))


def _open_function(fn: types.FunctionType, seen: Seen) -> _Opened:
    if id(fn) in seen:  # it calls itself
        raise Unknown
    names, within = names_in(fn), seen | {id(fn): len(seen)}
    content, held = read_by(fn, within), tuple(_open(part, names, within) for part in held_by(fn))
    return _Opened(held, Constant(fn, content))


def _restored(held: Any) -> Any:
    def restore(node: Any) -> Any:
        if isinstance(node, _Opened):
            return node.restored()
        return node.value if isinstance(node, Constant) else node

    return jax.tree.map(restore, held, is_leaf=lambda node: isinstance(node, (_Opened, Constant)))
