"""What a user's function takes and returns, found without computing anything."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_arrays, as_function, leaves_of
from constrainednn.errors import BadTypeError, ProblemError

# What jax raises where Python needs the value of a traced array.
NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerIntegerConversionError,
)


def returned(
    fn: Callable[..., PyTree], arguments: tuple, *, name: str, takes: str
) -> PyTree[jax.ShapeDtypeStruct]:
    """The shapes that a function returns for arguments; other ones than arrays are handed on.

    Args:
        fn: The function.
        arguments: What it is called with.
        name: Its name in messages.
        takes: What it must take, in words.

    Raises:
        TypeError: If it cannot be called so, or returns less precise or complex numbers.
        ProblemError: If it needs the value of an argument in Python.
    """
    as_function(fn, name, "lambda t, y, args: -y")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        signature = None  # some callables do not tell
    if signature is not None:
        try:
            signature.bind(*arguments)
        except TypeError as error:
            raise BadTypeError(
                f"{name} must take {takes}, but it takes {signature}: {error}."
            ) from None
    arrays = [i for i, part in enumerate(arguments) if _is_numeric(part)]

    def call(parts):
        filled = list(arguments)
        for i, part in zip(arrays, parts, strict=True):
            filled[i] = part
        return as_arrays(fn(*filled), f"what {name} returns")

    try:
        found = jax.eval_shape(call, [arguments[i] for i in arrays])
    except jax.errors.TracerArrayConversionError as error:
        raise ProblemError(
            f"{name} meets NumPy with a traced array. Use jax.numpy there, for arrays that are "
            "indexed too: import jax.numpy as jnp."
        ) from error
    except NEEDS_VALUE as error:
        raise ProblemError(
            f"{name} needs the value of a traced array in Python. Write jnp.where(condition, a, b) "
            "instead of if, jnp.sin and so on instead of math.sin, and leave out float() and int()."
            " A switch at a known place is named besides, by breaks= of ivp or mesh= of bvp."
        ) from error
    except KeyError as error:
        for part in arguments:
            if isinstance(part, dict):
                error.add_note(f"{name} looks for {error}; there is: {', '.join(map(str, part))}.")
        raise
    expected = jnp.result_type(float)
    for leaf in jax.tree.leaves(found):
        if leaf.dtype.kind == "c":
            raise BadTypeError(
                f"{name} returns complex numbers. Write real and imaginary part as two components."
            )
        if leaf.dtype.kind == "f" and leaf.dtype != expected:
            raise BadTypeError(
                f"{name} returns {leaf.dtype} where it is given {expected}, and digits are lost. "
                f"Look for an array or a cast that is {leaf.dtype} in it."
            )
    return found


def _is_numeric(part: Any) -> bool:
    """Whether all leaves are numbers in arrays; strings, functions and flags are not traced."""
    leaves = leaves_of(part, "argument")
    return bool(leaves) and all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
