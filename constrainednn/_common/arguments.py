"""Checks of settings that every layer shares: one wording for one mistake."""

import inspect
import math
import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constrainednn._common.messages import refuse_traced, shown
from constrainednn.errors import BadTypeError, BadValueError

if TYPE_CHECKING:
    import numpy as np


# Above, a copy of an array does not fit into memory; a view of one number may claim any size.
_MOST_ENTRIES = 10**9
# Each leaf is an operation of its own in what is compiled: of 10,000 the compiler takes minutes.
_MOST_LEAVES = 1000


def as_count(value: Any, what: str, *, least: int = 1, most: int = 10**9) -> int:
    """Return `value` as an int from `least` to `most`, or raise naming `what`."""
    try:
        # bool is an int in Python; points=True is a mistake, not one point.
        number = None if _kind(value) == "b" else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise BadTypeError(
            f"{what} must be an integer, got {shown(value)} ({type(value).__name__}). "
            f"Write a whole number such as {max(least, min(most, 100))}, without quotes."
        )
    if number < least:
        raise BadValueError(f"{what} must be at least {least}, got {shown(number)}.")
    if number > most:
        raise BadValueError(f"{what} must be at most {most}, got {shown(number)}.")
    return number


def as_seed(value: Any) -> int:
    """Return `value` as a seed; a key holds 32 bits where jax does without 64."""
    return as_count(value, "seed", least=0, most=2**32 - 1)


def as_real(value: Any, what: str) -> float:
    """Return `value` as a float, which may be infinite or NaN, or raise naming `what`."""
    single = hasattr(value, "__float__") and getattr(value, "shape", ()) == ()
    try:
        # By its kind: NumPy drops imaginary parts with no more than a warning.
        number = float(value) if single and _kind(value) in "fiu?" else None
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        number = None
    if number is None:
        refuse_traced(value, what)
        raise BadTypeError(
            f"{what} must be a number, got {shown(value)} ({type(value).__name__}). "
            "Write it without quotes."
        )
    return number


def as_positive(value: Any, what: str) -> float:
    """Return `value` as a finite float above zero, or raise naming `what`."""
    number = as_real(value, what)
    if not (math.isfinite(number) and number > 0):
        raise BadValueError(f"{what} must be finite and above zero, got {number}.")
    return number


def as_reals(value: Any, what: str) -> "np.ndarray":
    """Return `value` as a NumPy array of real numbers, or raise naming `what`."""
    import numpy as np  # not above: the command line shows its help without

    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, or what is no array at all
        refuse_traced(value, what)
        array = np.asarray(None)
    if array.size > _MOST_ENTRIES:
        raise BadValueError(
            f"{what} has shape {array.shape}; at most {_MOST_ENTRIES} entries fit into memory."
        )
    if array.dtype.kind not in "fiub":
        complex_too = array.dtype.kind == "c"
        raise BadTypeError(
            f"{what} must hold real numbers in rows of equal length, got {shown(value)} "
            f"({type(value).__name__})."
            + complex_too
            * " Write real and imaginary part as two components."
        )
    if array.dtype.kind in "iu" and array.size and max(array.max(), -int(array.min())) > 2**53:
        raise BadValueError(
            f"{what} holds whole numbers above 2**53, which change when they become floating-point "
            "numbers. Subtract an offset first."
        )
    with np.errstate(over="ignore"):  # to infinity, which whoever asks refuses in its own words
        return array.astype(float) if array.dtype.itemsize > 8 else array


def as_pair(value: Any, what: str, example: str) -> tuple[float, float]:
    """Return `value` as two floats, or raise naming `what`."""
    row = isinstance(value, (tuple, list)) or getattr(value, "ndim", 0) == 1
    if not row or len(value) != 2:
        raise BadValueError(f"{what} must be a pair {example}, got {shown(value)}.")
    return as_real(value[0], f"start of {what}"), as_real(value[1], f"end of {what}")


def as_function(value: Any, what: str, example: str) -> Callable[..., Any]:
    """Return `value` if it can be called, or raise naming `what`."""
    if not callable(value):
        raise BadTypeError(f"{what} must be a function such as {example}, got {shown(value)}.")
    return value


def check_takes(fn: Callable[..., Any], given: Sequence[Any], must: str) -> None:
    """Refuse a function that cannot be called with these arguments: `must` begins the message."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some callables do not tell; where they are called, they do
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        raise BadTypeError(f"{must}, but it takes {signature}: {error}.") from None


def as_path(value: Any, what: str) -> Path:
    """Return `value` as a path, or raise naming `what`."""
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise BadTypeError(f"{what} must be the name of a file or folder, got {shown(value)}.")
    return Path(value)


def leaves_of(tree: Any, what: str, *, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves of a pytree, or raise naming `what` where jax cannot flatten it."""
    import jax  # nor this

    try:
        return jax.tree.leaves(tree, is_leaf=is_leaf)
    except (TypeError, ValueError) as error:
        raise BadTypeError(
            f"{what} is no pytree: {shown(str(error))}. The keys of a dict must be of one kind."
        ) from None


def few_leaves_of(tree: Any, what: str) -> list[Any]:
    """The leaves of a pytree that is compiled, or raise naming `what` where that has no end."""
    leaves = leaves_of(tree, what)
    if len(leaves) > _MOST_LEAVES:
        raise BadValueError(
            f"{what} has {len(leaves)} numbers or arrays of its own; more than {_MOST_LEAVES} take "
            "too long to compile. Put them into one array: jax.numpy.array([...])."
        )
    for leaf in leaves:
        if getattr(leaf, "size", 0) > _MOST_ENTRIES:
            raise BadValueError(
                f"{what} has an array of shape {leaf.shape}; at most {_MOST_ENTRIES} entries fit "
                "into memory."
            )
    return leaves


def as_arrays(tree: Any, what: str) -> Any:
    """Return a pytree with its numbers as jax arrays, or raise naming `what`."""
    import jax

    if not few_leaves_of(tree, what):
        raise BadTypeError(f"{what} must hold numbers, got {shown(tree)}. Is a return missing?")
    return jax.tree.map(lambda leaf: _as_array(leaf, what), tree)


def as_argument(leaf: Any) -> Any:
    """A leaf of args: numbers become arrays, and other constants stay what they are."""
    import numpy as np

    return as_arrays(leaf, "args") if isinstance(leaf, (float, np.ndarray)) else leaf


def _as_array(leaf: Any, what: str) -> Any:
    import jax
    import jax.numpy as jnp
    import numpy as np

    if type(leaf) is int and abs(leaf) >= 2**31:  # jax has no longer ones than 64 bits
        leaf = as_real(leaf, what)
    array = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
    numeric = array and (leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number))
    if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "iu":
        held = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
        if (held != leaf).any():
            raise BadValueError(
                f"{what} holds whole numbers that change when they become {held.dtype}. Write "
                "jax.config.update('jax_enable_x64', True) before the first array."
            )
    try:
        if numeric or isinstance(leaf, (bool, int, float, complex)):
            return jnp.asarray(leaf)
    except (TypeError, ValueError):  # extended precision is none of jax's
        pass
    raise BadTypeError(f"{what} must hold numbers or arrays of such, got {shown(leaf)}.")


def _kind(value: Any) -> str:
    """What NumPy calls this kind of number, such as "f"; "?" for what has no dtype."""
    if isinstance(value, bool):
        return "b"
    return str(getattr(getattr(value, "dtype", None), "kind", "?"))
