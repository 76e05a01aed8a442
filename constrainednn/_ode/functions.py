"""What a user's function takes and returns, found by tracing alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.arguments import as_arrays, as_function, check_takes, leaves_of
from constrainednn._common.compilation.indices import refuse_indices
from constrainednn.errors import BadTypeError, ProblemError

# Raised by jax where Python code needs the value of a traced array.
NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerIntegerConversionError,
)


def returned(
    fn: Callable[..., PyTree], arguments: tuple, *, name: str, takes: str
) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of what a function returns; arguments that are not arrays are passed as they are.

    Args:
        fn: The function.
        arguments: What it is called with.
        name: Its name in messages.
        takes: What it must take, in words.

    Raises:
        TypeError: If it cannot be called like this, or returns complex or less precise numbers.
        ProblemError: If Python code in it needs the value of an argument.
    """
    as_function(fn, name, "lambda t, y, args: -y")
    check_takes(fn, arguments, f"{name} must take {takes}")
    arrays = [i for i, part in enumerate(arguments) if _is_numeric(part)]

    def call(parts):
        filled = list(arguments)
        for i, part in zip(arrays, parts, strict=True):
            filled[i] = part
        try:
            value = fn(*filled)
        except (IndexError, TypeError, ValueError) as error:  # arguments in another order, say
            shapes = ", ".join(str(jax.tree.map(jnp.shape, part)) for part in parts)
            error.add_note(f"{name} is called as {takes}, with arrays of shapes {shapes}.")
            raise
        return as_arrays(value, f"what {name} returns")

    try:
        program, found = jax.make_jaxpr(call, return_shape=True)([arguments[i] for i in arrays])
        refuse_indices(program.jaxpr, name)
    except jax.errors.TracerArrayConversionError as error:
        raise ProblemError(
            f"{name} passes a traced array to NumPy. Use jax.numpy instead, also for arrays that "
            "are indexed: import jax.numpy as jnp."
        ) from error
    except NEEDS_VALUE as error:
        raise ProblemError(
            f"{name} needs the value of a traced array in Python. Write jnp.where(condition, a, b) "
            "instead of if, jnp.sin and so on instead of math.sin, and leave out float() and int()."
            " If a switch is at a known point, also give it to breaks= of ivp or mesh= of bvp."
        ) from error
    except KeyError as error:
        for part in arguments:
            if isinstance(part, dict):
                error.add_note(f"{name} reads {error}; there is: {', '.join(map(str, part))}.")
        raise
    expected = jnp.result_type(float)
    for leaf in jax.tree.leaves(found):
        if leaf.dtype.kind == "c":
            raise BadTypeError(
                f"{name} returns complex numbers. Write real and imaginary part as two components."
            )
        if leaf.dtype.kind == "f" and leaf.dtype != expected:
            raise BadTypeError(
                f"{name} returns {leaf.dtype} although its arguments are {expected}: digits are "
                f"lost. Look for an array or a cast of type {leaf.dtype} in it."
            )
    return found


def _is_numeric(part: Any) -> bool:
    """Whether all leaves are arrays; strings, functions and flags are not traced."""
    leaves = leaves_of(part, "argument")
    return bool(leaves) and all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
