"""Constant indices that lie outside of an array: JAX takes the last entry there, without a word."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend import core

from constrainednn._common.messages import users_line
from constrainednn.errors import ProblemError

# What turns a constant index into the one that is looked up, from parameters and values.
_OF_INDICES: dict[str, Callable[..., Any]] = {
    "add": lambda _, a, b: a + b,
    "lt": lambda _, a, b: a < b,
    "select_n": lambda _, which, *cases: cases[int(which)],
    "convert_element_type": lambda params, x: np.asarray(x).astype(params["new_dtype"]),
}


def refuse_indices(program: Any, label: str) -> None:
    """Refuse a traced program with a constant index that lies outside of its axis.

    Not looked at: indices that depend on an argument or stand in an array, under `jax.vmap`, and
    in branches of `jax.lax.cond`, which may never be taken.

    Raises:
        ProblemError: With the index, the axis, and the user's line.
    """
    if found := _outside(program, {}):
        index, length, traceback = found
        at = traceback and users_line(Exception().with_traceback(traceback.as_python_traceback()))
        raise ProblemError(
            f"{label}: index {index} is outside of an axis with {length} "
            f"{'entry' if length == 1 else 'entries'}{at or ''}. JAX would take the last one there."
        )


def _outside(program: Any, known: dict[Any, Any]) -> tuple[int, int, Any] | None:
    """The first such index, the length of its axis, and where it stands."""

    def value(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else known.get(v)

    for equation in program.eqns:
        name, values = equation.primitive.name, [value(v) for v in equation.invars]
        if name == "dynamic_slice":
            for index, length in zip(values[1:], equation.invars[0].aval.shape, strict=True):
                if index is not None and not 0 <= index < length:
                    # A negative one has been counted from the end.
                    index = int(index) - (length if index < 0 else 0)
                    return index, length, equation.source_info.traceback
        elif name in _OF_INDICES and all(v is not None and np.ndim(v) == 0 for v in values):
            known[equation.outvars[0]] = _OF_INDICES[name](equation.params, *values)
        for part in equation.params.values():
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                alike = len(inner.invars) == len(values) and name not in ("scan", "while")
                given = dict(zip(inner.invars, values, strict=True)) if alike else {}
                if found := _outside(inner, given):
                    return found
    return None
