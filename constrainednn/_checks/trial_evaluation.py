"""One evaluation of a residual, traced: what is wrong with it is said at once."""

import inspect
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.compilation.indices import refuse_indices
from constrainednn._common.messages import users_line
from constrainednn._ode.functions import NEEDS_VALUE
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.objective import Value, label_of
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import ProblemError, UsageError

_TRACERS = tuple(f"{Path(inspect.getfile(package)).parent}/" for package in (jax, eqx))


def trial(constraint: Constraint, model: PyTree, train: Draw) -> tuple[int, ...]:
    """Evaluate the residual's shape at one point, with rank promotion refused.

    Raises:
        ProblemError: If the result is no real array with entries, or shapes do not fit.
    """
    label = label_of(constraint)

    def evaluate(u: PyTree, x: PyTree) -> jax.Array:
        r = constraint.residual(u, x)
        kind = _refusal(r)
        if kind:
            raise ProblemError(f"{label}: the residual returns {kind}")
        return jnp.asarray(r)

    before = _random_state(constraint.residual)
    with jax.numpy_rank_promotion("raise"):
        shape = tuple(traced(label, evaluate, model, train.points).shape)
    if _random_state(constraint.residual) != before:
        raise ProblemError(
            f"{label}: the residual draws random numbers while it is compiled, and would keep them "
            "for ever. Make them a part of the point, as in over=cx.Interval(0, 1) * cx.Normal(1)."
        )
    return shape


def refuse_several(item: Constraint, shape: tuple[int, ...]) -> None:
    """Refuse an objective of several numbers.

    Raises:
        ProblemError: With its shape.
    """
    if isinstance(item.residual, Value) and shape != ():
        raise ProblemError(
            f"{label_of(item)} must be one number at a point, of shape (), got shape {shape}. "
            "Write how its entries count together, such as jnp.sum(...)."
        )


def _random_state(residual: Callable) -> list[str]:
    """The states of the generators that a residual names and might draw from without a key."""
    if not inspect.isfunction(residual):
        return []
    used = inspect.getclosurevars(residual)
    states = []
    for item in {**used.globals, **used.nonlocals}.values():
        if item is random:
            states.append(repr(random.getstate()))
        elif item is np or item is np.random:
            states.append(repr([np.asarray(part).tolist() for part in np.random.get_state()]))  # noqa: NPY002
        elif isinstance(item, np.random.Generator):
            states.append(repr(item.bit_generator.state))
    return states


def traced(label: str, fn: Callable[[Any, Any], PyTree], u: PyTree, points: PyTree) -> PyTree:
    """Shapes of `fn(u, x)` at one of the points; what jax says about it in our words."""
    canonical = jax.dtypes.canonicalize_dtype
    x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], canonical(leaf.dtype)), points
    )
    shapes = jax.tree.map(lambda leaf: leaf.shape, x)
    try:
        program, shape, _ = eqx.filter_make_jaxpr(fn)(u, x)
        refuse_indices(program.jaxpr, label)
        return shape
    except ProblemError:
        raise
    except jax.errors.TracerArrayConversionError as error:
        raise ProblemError(
            f"{label}: a NumPy function was called on a traced array{users_line(error)}. "
            "Use jax.numpy there: import jax.numpy as jnp."
        ) from None
    except NEEDS_VALUE as error:
        raise ProblemError(
            f"{label}: Python needs the value of a traced array{users_line(error)}. "
            "Use jax.numpy.where instead of if, index jax arrays instead of lists, and leave out "
            "float(), int() and .item()."
        ) from None
    except (ValueError, TypeError, IndexError) as error:
        if "rank_promotion" not in str(error) and not _raised_by_library(error):
            if isinstance(error, UsageError):
                raise ProblemError(f"{label}: {error}") from error
            raise  # the user's own exception keeps its type and message
        found = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ProblemError(
            f"{label}: shapes do not fit{users_line(error)}. A point has shape {shapes} and the "
            "function sees one point at a time, never a batch; the model is "
            f"{_describe(u)}. {found}"
        ) from error


def _refusal(r: Any) -> str:
    allowed = "Return one array of real numbers, zero where the condition holds."
    if r is None:
        return f"None. Is the return statement missing? {allowed}"
    if isinstance(r, (tuple, list, dict, str, bytes)):
        return f"a {type(r).__name__}. {allowed} Join parts with jnp.concatenate or jnp.stack."
    if not (hasattr(r, "dtype") and hasattr(r, "shape")) and not isinstance(r, (int, float)):
        return f"a {type(r).__name__}. {allowed}"
    dtype = jnp.result_type(r)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return "complex numbers. Stack real and imaginary part: jnp.stack([r.real, r.imag])."
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"{dtype} numbers, whose gradient is zero. {allowed}"
    if jnp.size(r) == 0:
        return f"no entries: an array of shape {jnp.shape(r)}, whose mean is NaN. {allowed}"
    return ""


def some_points(points: PyTree, index: np.ndarray) -> str:
    first = index[:5]
    parts = []
    for i in first:
        x = jax.tree.map(lambda leaf: np.asarray(leaf[i]).round(6).tolist(), points)  # noqa: B023
        parts.append(f"point {i}: {x}")
    return "; ".join(parts)


def _describe(model: PyTree) -> str:
    sizes = {
        name: getattr(model, name)
        for name in ("in_size", "out_size", "in_features", "out_features")
        if hasattr(model, name)
    }
    text = ", ".join(f"{name}={value}" for name, value in sizes.items())
    return f"{type(model).__name__}({text})"


def _raised_by_library(error: BaseException) -> bool:
    """True if the exception comes from inside jax or equinox, not from the user's own raise."""
    return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_TRACERS)
