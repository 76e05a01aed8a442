"""How much work XLA puts into a program: less where compiling would take longer than running.

On CPUs LLVM's full optimisation takes a third to half of the time of compiling and gains little,
between a tenth and nothing where it was measured: most of a step is calls of LAPACK and what XLA
does around them. Without any a program compiles three to five times as fast as with it. With few
numbers to compute with it runs as fast; with more of them it takes up to twice as long.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

# Of LLVM's optimisation: none, and some.
_NONE, _SOME = 0, 1
# With more numbers in its arguments a program is optimised. The second is for the program of a
# projection: it is long, and a training step holds about ten of them.
_FEW, _FEW_OF_LONG = 2**8, 2**16


class Programs:
    """A function compiled with as much work as pays for its arguments.

    Args:
        jit: From `compiler_options=` to the compiled function.
        once: It is called so rarely that no optimisation pays.
    """

    def __init__(self, jit: Callable[..., Callable], *, once: bool = False):
        made: Any = functools.cache(lambda level: jit(compiler_options=options(level)))
        self._made = made
        self._most = _NONE if once else _SOME

    def __call__(self, args: Sequence[Any], arguments: PyTree, points: PyTree = ()) -> Any:
        """The value at `args`; the rest as in `level`."""
        try:
            return self.chosen(arguments, points)(*args)
        except ValueError as error:
            if "compiler_options" not in str(error):
                raise
        # Within another program, whose options count; fn itself holds its tracers.
        return self._made(None)(*args)

    def chosen(self, arguments: PyTree, points: PyTree = ()) -> Any:
        """The compiled function for these."""
        found = level(arguments, points)
        return self._made(found if found is None else min(found, self._most))

    def count(self) -> int:
        """Programs compiled so far."""
        made = (self._made(each) for each in (None, _NONE, _SOME))
        return sum(getattr(fn, "_cached", fn)._cache_size() for fn in made)  # equinox wraps its own


def level(arguments: PyTree, points: PyTree = ()) -> int | None:
    """The level of optimisation for a program with these arguments.

    A class says of its instances that they are long programs by an attribute `is_long_program`.

    Args:
        arguments: What is computed with.
        points: Where: these count for long programs alone, others are soon done with them.

    Returns:
        None where XLA is not to be told: on other devices, and within another program.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))
    if traced or jax.default_backend() != "cpu":
        return None
    numbers = _numbers(arguments)
    if any(map(_is_long, jax.tree.leaves(arguments, is_leaf=_is_long))):
        return _NONE if numbers + _numbers(points) <= _FEW_OF_LONG else _SOME
    return _NONE if numbers <= _FEW else _SOME


def _numbers(tree: PyTree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def _is_long(node: Any) -> bool:
    return getattr(type(node), "is_long_program", False)


def least() -> dict[str, Any] | None:
    """Options for a program that is run once, with a few numbers."""
    return options(_NONE if jax.default_backend() == "cpu" else None)


@functools.cache
def options(level: int | None) -> dict[str, Any] | None:
    """XLA's options for a level, those that this version knows."""
    if level is None:
        return None
    wanted = {"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False}
    known = {}
    for name, value in wanted.items():
        try:
            jax.jit(lambda x: -x, compiler_options={name: value}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:  # options come and go
            continue
        known[name] = value
    return known
