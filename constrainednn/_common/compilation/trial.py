"""Whether a program with numbers as arguments computes what the function itself computes.

An outline shows what is done to a function's own arguments, not what Python or NumPy did to its
numbers before: sorting keys, changing an array in place, double precision. So both are evaluated,
with the numbers that the function holds and with others.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jaxtyping import PyTree

from constrainednn._common.compilation.effort import least

# Sets of numbers that are tried besides those that the function holds.
_OTHERS = 2
# Differences of this many rounding errors of the largest value are rounding.
_ROUNDING = 1e5

Values = dict[int, np.ndarray]


def agrees(
    plain: Callable[[list], PyTree], filled: Callable[[list], PyTree], numbers: list
) -> bool:
    """Compare two ways to evaluate a function of numbers, with random values for what is traced.

    Args:
        plain: Evaluates it as Python does, with floats and arrays.
        filled: Evaluates it with traced numbers.
        numbers: Those that the function holds.
    """
    generator, values = np.random.default_rng(0), {}
    program = _program(jax.make_jaxpr(filled)(numbers), generator, values)
    for other in range(_OTHERS + 1):
        tried = [_moved(number, generator) for number in numbers] if other else numbers
        alone = _program(jax.make_jaxpr(lambda tried=tried: plain(tried))(), generator, values)
        seen = [*zip(alone(), program(*map(jnp.asarray, tried)), strict=True)]
        if not all(_alike(np.asarray(a), np.asarray(b)) for a, b in seen):
            return False
        if not other and not all(np.isfinite(a).any() or not a.size for a, _ in seen):
            return False  # nothing finite to compare
    return True


def _program(closed: Any, generator: np.random.Generator, values: Values) -> Callable[..., list]:
    """Compile a traced program, with the same values for the same traced constants."""
    constants = []
    for constant in closed.consts:
        if isinstance(constant, Tracer):
            constant = values.setdefault(id(constant), _random(constant, generator))
        constants.append(constant)

    def evaluated(constants: list, numbers: tuple) -> list:
        return core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, constants))(*numbers)

    once = jax.jit(evaluated, compiler_options=least())
    return lambda *numbers: once(constants, numbers)


def _random(leaf: Any, generator: np.random.Generator) -> np.ndarray:
    """Values for an argument; random keys raise, so that functions of them are not shared."""
    if np.dtype(leaf.dtype).kind in "fc":
        return np.asarray(generator.uniform(0.2, 0.9, leaf.shape), leaf.dtype)
    return np.ones(leaf.shape, leaf.dtype)


def _moved(number: Any, generator: np.random.Generator) -> Any:
    """Another number of the same kind, far enough away to change the order of several."""
    if np.asarray(number).dtype.kind not in "fc":
        return number
    # Smaller ones: a number that must lie below one stays there.
    factors = generator.uniform(0.4, 0.9, np.shape(number))
    if getattr(number, "weak_type", False) and not np.ndim(number):
        return float(number * factors)
    moved = (np.asarray(number) * factors).astype(number.dtype)
    return jnp.asarray(moved) if isinstance(number, jax.Array) else moved


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool((one == other).all())
    finite = np.isfinite(one)
    slack = _ROUNDING * np.finfo(one.dtype).eps * np.abs(one[finite]).max(initial=0.0)
    near = np.abs(one[finite] - other[finite]) <= slack
    return bool((finite == np.isfinite(other)).all() and near.all())
