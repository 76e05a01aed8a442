"""Whether two functions are the same, except for numbers that are arguments of one of them.

Both are traced. Operations that do not depend on an argument of the function only turn numbers
into numbers and are left out; all others must be the same, in the same order, on the same inputs.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.extend import core

# What a value in a traced program depends on: arguments of the function, its numbers, or neither.
_ARGUMENT, _NUMBER, _FIXED = 2, 1, 0

Outline = tuple[Hashable, list["_Operation"]]


class NeedsNumber(Exception):  # noqa: N818  (it says what a function does)
    """A number cannot be an argument, although the function can be traced with it as one."""


class _Operation(NamedTuple):
    """One that depends on an argument: its name, its results, and the kind of each input."""

    what: Hashable
    inputs: tuple[Hashable, ...]


class _Argument(NamedTuple):
    """A value that depends on arguments of the function, numbered by first use."""

    place: int


def outline(fn: Callable, numbers: list) -> Outline:
    """What a function returns, and what it does to its arguments, operation by operation.

    Raises:
        NeedsNumber: If a number is an exponent, since a power with a traced exponent has another
            derivative rule, or if there is a callback to Python, which may hold a number.
    """
    program, returned = jax.make_jaxpr(fn, return_shape=True)(numbers)
    of_constants = [_ARGUMENT if isinstance(c, Tracer) else _FIXED for c in program.consts]
    kinds = [*of_constants, *[_NUMBER] * len(program.jaxpr.invars)]
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(returned))
    return (shapes, jax.tree.structure(returned)), [*_operations(program.jaxpr, kinds)]


def same(plain: Outline, filled: Outline) -> bool:
    """True if two outlines differ only where the second one has numbers."""

    def alike(one: tuple, other: tuple) -> bool:
        if len(one) != len(other):  # a loop takes as inputs numbers that were literals in it
            one = tuple(v for v in one if isinstance(v, _Argument))
            other = tuple(v for v in other if isinstance(v, _Argument))
        return len(one) == len(other) and all(
            b == _NUMBER or a == b for a, b in zip(one, other, strict=True)
        )

    return (
        plain[0] == filled[0]
        and [one.what for one in plain[1]] == [other.what for other in filled[1]]
        and all(alike(a.inputs, b.inputs) for a, b in zip(plain[1], filled[1], strict=True))
    )


def _operations(program: Any, kinds: list[int]) -> Iterator[_Operation]:
    known = dict(zip([*program.constvars, *program.invars], kinds, strict=True))
    arguments: dict[Any, int] = {}

    def seen(v: Any) -> Hashable:
        if isinstance(v, core.Literal):
            return repr(v.val)
        if known[v] != _ARGUMENT:
            return known[v]
        return _Argument(arguments.setdefault(v, len(arguments)))

    for equation in program.eqns:
        of = [_FIXED if isinstance(v, core.Literal) else known[v] for v in equation.invars]
        kind = max(of, default=_FIXED)
        known |= dict.fromkeys(equation.outvars, kind)
        if kind != _ARGUMENT and not equation.effects:
            continue
        name = equation.primitive.name
        if (name == "pow" and of[1] == _NUMBER) or "callback" in name:
            raise NeedsNumber
        results = tuple((v.aval.shape, v.aval.dtype) for v in equation.outvars)
        yield _Operation((name, results), tuple(map(seen, equation.invars)))
        for key, value in equation.params.items():
            for part in value if isinstance(value, tuple) else (value,):
                inner = getattr(part, "jaxpr", part)
                if isinstance(inner, core.Jaxpr):
                    given = _given(equation, key, of)
                    if len(given) != len(inner.invars):
                        given = [_ARGUMENT] * len(inner.invars)
                    yield from _operations(inner, [_FIXED] * len(inner.constvars) + given)


def _given(equation: Any, key: str, of: list[int]) -> list[int]:
    """Kinds of the inputs of a program inside an operation, from those of the operation."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return of[1:]
    if name == "scan":
        if "num_consts" in params:
            first, carried = params["num_consts"], params["num_carry"]
        else:  # as jax 0.12 states them; where this fails, nothing is shared
            first, carried = map(len, params["ft_in"].unpack()[:2])
        return [*of[:first], *[_ARGUMENT] * carried, *of[first + carried :]]
    if name == "while":
        own, other = params["cond_nconsts"], params["body_nconsts"]
        held = of[:own] if key == "cond_jaxpr" else of[own : own + other]
        return [*held, *[_ARGUMENT] * (len(of) - own - other)]
    return of
