"""How much work XLA puts into a program: little where compiling would take longer than running.

Without LLVM's optimisation a program compiles three to five times as fast. With few numbers to
compute with it runs as fast, since most of a step is then calls of LAPACK and what XLA does around
them; with more of them it takes up to twice as long.
"""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

# Of what is quick to compile, on CPU.
_QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# With more numbers in its arguments a program is optimised; and with more than the second, in any
# case: the program of a projection is long, and a training step holds about ten of them.
_FEW, _FEW_OF_LONG = 2**8, 2**16


def compiles_quickly(arguments: PyTree, points: PyTree = ()) -> bool:
    """Whether a program with these arguments is better compiled quickly than well.

    A class says of its instances that they are long programs by an attribute `is_long_program`.

    Args:
        arguments: What is computed with.
        points: Where: these count for long programs alone, others are soon done with them.
    """
    if jax.default_backend() != "cpu":
        return False
    numbers = _numbers(arguments)
    if numbers <= _FEW:
        return True
    nodes = jax.tree.leaves(arguments, is_leaf=_is_long)
    return numbers + _numbers(points) <= _FEW_OF_LONG and any(map(_is_long, nodes))


def _numbers(tree: PyTree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def _is_long(node: Any) -> bool:
    return getattr(type(node), "is_long_program", False)


@functools.cache
def quick_options() -> dict[str, Any]:
    """XLA's options for a program that is to compile quickly, those that this version knows."""
    known = {}
    for name, value in _QUICK.items():
        try:
            jax.jit(lambda x: -x, compiler_options={name: value}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:  # options come and go
            continue
        known[name] = value
    return known
