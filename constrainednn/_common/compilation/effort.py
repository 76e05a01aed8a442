"""How much work XLA puts into a program: little where compiling would take longer than running.

The program of a projection is long, a training step holds several copies, and with few numbers in
it a step is over in milliseconds. Without LLVM's optimisation such a program compiles about five
times as fast and runs at up to half the speed.
"""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

# Of what is quick to compile, on CPU.
_QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# With more numbers in its arguments a program is optimised in any case.
_FEW = 2**16


def compiles_long(arguments: PyTree) -> bool:
    """True for arguments that hold a long program and few numbers.

    A class says of its instances that they are long programs by an attribute `is_long_program`.
    """
    if jax.default_backend() != "cpu":
        return False
    nodes = jax.tree.leaves(arguments, is_leaf=_is_long)
    if not any(map(_is_long, nodes)):
        return False
    return (
        sum(np.size(leaf) for leaf in jax.tree.leaves(arguments) if hasattr(leaf, "dtype")) <= _FEW
    )


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
