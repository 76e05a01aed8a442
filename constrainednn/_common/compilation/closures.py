"""One compiled program for functions that differ only in the numbers that they hold.

A user's function that is defined again is a new object, for which jax compiles again. A function
that is part of a compiled program is therefore lifted: floats and arrays that it closes over, or
has as defaults, become arguments of the program. Everything else that it reads is compared by
content: its code, integers, flags, strings and, through all functions of the user that it names,
globals. If something cannot be compared, such as an object of a class of the user's, the function
is left as it is.

Whether numbers may become arguments is decided during tracing. The function is traced once as it
is and once with arguments in place of its numbers; both must do the same to the function's own
arguments, operation by operation. Where they differ, as for `if nu > 0.1`, or where a number is an
exponent, functions with this code are compiled one by one.
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
    MOST_ITEMS,
    Constant,
    Unknown,
    Visited,
    content_of,
    held_by,
    names_in,
    of_library,
    read_by,
)
from constrainednn._common.compilation.effort import Programs
from constrainednn._common.compilation.outline import outline, same
from constrainednn._common.compilation.trial import agrees

# Code of functions that are compiled one by one, and signatures of calls that were compared.
_not_shared: set[types.CodeType] = set()
_verified: set[Hashable] = set()


class Retrace(BaseException):
    """A function needs its numbers in Python. A user's `except Exception` does not catch it."""


class _LiftedFunction(eqx.Module):
    """A function whose numbers are leaves of a tree.

    Attributes:
        held: Contents of its cells, its defaults, and its keyword defaults; for a
            `functools.partial` the function, its arguments, and its keyword arguments.
        plain: The function as it is.
    """

    held: tuple
    plain: Constant

    def restored(self) -> Callable:
        """The function with the present numbers."""
        fn, (first, second, named) = self.plain.value, _restored(self.held)
        if isinstance(fn, functools.partial):
            return functools.partial(first, *second, **named)
        cells = tuple(map(types.CellType, first))
        made = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, second, cells)
        made.__kwdefaults__, made.__qualname__ = named, fn.__qualname__
        return made


class _BoundFunction:
    """What stands in for a lifted function where it is traced."""

    def __init__(self, lifted: _LiftedFunction):
        self.lifted = lifted
        self.__name__ = getattr(lifted.plain.value, "__name__", "partial")

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the function with its numbers as arguments, if that computes the same."""
        plain = self.lifted.plain.value
        numbers, structure = jax.tree.flatten(self.lifted.held)
        if not numbers:
            return plain(*args, **named)

        def filled(numbers: list) -> Any:
            held = jax.tree.unflatten(structure, numbers)
            return _LiftedFunction(held, self.lifted.plain).restored()(*args, **named)

        try:
            expected = outline(lambda _: plain(*args, **named), [])
        except Exception:  # noqa: BLE001  (the user's own)
            expected = None
        if expected is None:
            plain(*args, **named)  # raises the user's exception
        with contextlib.suppress(Exception):  # a number is needed in Python
            if (
                expected is not None
                and same(expected, outline(filled, numbers))
                and self._agrees(args, named)
                and _lift_leaf(plain).plain == self.lifted.plain  # what it reads has not changed
            ):
                return filled(numbers)
        if (code := _code(plain)) is not None:
            _not_shared.add(code)
        raise Retrace

    def _agrees(self, args: tuple, named: dict) -> bool:
        """Evaluate with and without numbers as arguments, once for each signature."""
        with jax.ensure_compile_time_eval():  # concrete numbers: those in `lifted` are traced
            here = _lift_leaf(self.lifted.plain.value)
            if here.plain != self.lifted.plain:  # what it reads has changed
                return False
            numbers, structure = jax.tree.flatten(here.held)
            leaves, shape = jax.tree.flatten((args, named))
            kinds = tuple((np.shape(x), getattr(x, "dtype", None)) for x in (*numbers, *leaves))
            index = here.plain, structure, shape, kinds
            if index in _verified:
                return True

            def filled(numbers: list) -> Any:
                held = jax.tree.unflatten(structure, numbers)
                return _LiftedFunction(held, here.plain).restored()(*args, **named)

            def plain(tried: list) -> Any:
                own = tried is numbers
                return self.lifted.plain.value(*args, **named) if own else filled(tried)

            if agrees(plain, filled, numbers):
                _verified.add(index)
            return index in _verified


def lift_numbers(tree: PyTree) -> PyTree:
    """Lift the functions in a tree, so that their numbers are leaves like any others."""
    return jax.tree.map(_lift_leaf, tree)


def bind_numbers(tree: PyTree) -> PyTree:
    """The inverse of `lift_numbers` within a trace: functions that can be called."""
    is_lifted = lambda node: isinstance(node, _LiftedFunction)  # noqa: E731
    return jax.tree.map(
        lambda node: _BoundFunction(node) if is_lifted(node) else node, tree, is_leaf=is_lifted
    )


def with_retrace(fn: Callable) -> Callable:
    """Wrap a function that lifts, traces and computes: call it again after each `Retrace`."""

    @functools.wraps(fn)
    def call(*args: Any, **named: Any) -> Any:
        while True:
            with contextlib.suppress(Retrace):
                return fn(*args, **named)

    return call


def compiled(fn: Callable, *, once: bool = False) -> Callable:
    """Like `equinox.filter_jit`, with one program for functions that differ only in numbers.

    Args:
        fn: The function.
        once: It is called so rarely that no optimisation pays.
    """
    bound = functools.wraps(fn)(lambda *args: fn(*bind_numbers(args)))
    jit: Any = eqx.filter_jit
    programs = Programs(functools.partial(jit, bound), once=once)

    def called(*args: Any) -> Any:
        lifted = lift_numbers(args)
        return programs(lifted, lifted)

    def lower(*args: Any) -> Any:
        lifted = lift_numbers(args)
        return programs.chosen(lifted).lower(*lifted)

    call: Any = with_retrace(functools.wraps(fn)(called))
    call.programs = programs.count
    call.lower = with_retrace(lower)
    return call


def _lift_leaf(leaf: Any) -> Any:
    if isinstance(leaf, _BoundFunction):
        return leaf.lifted
    if type(leaf) not in (types.FunctionType, functools.partial) or _code(leaf) in _not_shared:
        return leaf
    with contextlib.suppress(Unknown, RecursionError):
        found = _lift(leaf, frozenset(), {})
        return found if isinstance(found, _LiftedFunction) else leaf
    return leaf


def _code(fn: Any) -> types.CodeType | None:
    """The code of the user's function, also where a library's function wraps it."""
    if isinstance(fn, functools.partial):
        return _code(fn.func)
    if not isinstance(fn, types.FunctionType):
        return None
    if of_library(fn) and fn.__closure__:
        with contextlib.suppress(Unknown):
            inner = [part for part in held_by(fn)[0] if isinstance(part, types.FunctionType)]
            return _code(inner[0]) if inner else fn.__code__
    return fn.__code__


def _lift(value: Any, names: frozenset[str], visited: Visited) -> Any:
    """A value with its numbers as leaves, and the rest as constants."""
    if type(value) is float:
        return jnp.asarray(value)  # weakly typed, like a Python float
    # A subclass such as np.matrix may multiply differently.
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        raise Unknown
    numeric = isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind in "fiubc"
    if numeric and value.dtype.itemsize > 8 << (value.dtype.kind == "c"):  # such as a long double
        raise Unknown
    if numeric or isinstance(value, jax.Array):
        return np.asarray(value) if isinstance(value, np.floating) else value
    if type(value) is functools.partial:
        held = (value.func, value.args, value.keywords)
        return _LiftedFunction(
            tuple(_lift(part, names, visited) for part in held), Constant(value, "partial")
        )
    if isinstance(value, types.FunctionType) and not of_library(value):
        return _lift_function(value, visited)
    if isinstance(value, types.FunctionType) and value.__closure__:
        with contextlib.suppress(Unknown):  # jax's wrappers, such as a gradient, can be lifted
            return _lift_function(value, visited)
    if type(value) is dict and list(value) != sorted(value, key=str):
        raise Unknown  # a tree forgets the order of its keys
    if value is not None and of_library(type(value)):
        try:
            children, structure = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
        except (TypeError, ValueError):  # keys that cannot be sorted
            raise Unknown from None
        if len(children) != 1 or children[0] is not value:
            if len(children) > MOST_ITEMS:
                raise Unknown
            parts = [_lift(child, names, visited) for child in children]
            # A list without numbers stays the same object: the function may append to it.
            if jax.tree.leaves(parts) or not isinstance(value, (list, dict)):
                return jax.tree.unflatten(structure, parts)
    return Constant(value, content_of(value, names, visited))


def _lift_function(fn: types.FunctionType, visited: Visited) -> _LiftedFunction:
    if id(fn) in visited:  # recursive
        raise Unknown
    names, within = names_in(fn), visited | {id(fn): len(visited)}
    content, held = read_by(fn, within), tuple(_lift(part, names, within) for part in held_by(fn))
    return _LiftedFunction(held, Constant(fn, content))


def _restored(held: Any) -> Any:
    def restore(node: Any) -> Any:
        if isinstance(node, _LiftedFunction):
            return node.restored()
        return node.value if isinstance(node, Constant) else node

    return jax.tree.map(
        restore, held, is_leaf=lambda node: isinstance(node, (_LiftedFunction, Constant))
    )
