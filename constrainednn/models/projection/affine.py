"""Which constraints are affine in the model's value: read off the program of their slopes."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from constrainednn.models.projection.rows import jacobian


def is_affine(fn: Callable[[Any, Any], Array], x: PyTree, y: Float[Array, " n"]) -> bool:
    """True if no operation of dfn/dy depends on y; where that cannot be seen, False.

    Args:
        fn: From a point and the model's value there to a vector.
        x: A point, for its shapes.
        y: A value, for its shape.
    """
    flat, structure = jax.tree.flatten(x)

    def slopes(y: Array, *flat: Array) -> Array:
        return jacobian(lambda y: fn(jax.tree.unflatten(structure, flat), y), y)[1]

    program = jax.make_jaxpr(slopes)(y, *flat)
    inputs = [True] + [False] * len(flat)
    return not any(_reached(program.jaxpr, inputs))


def _reached(program: Any, inputs: list[bool]) -> list[bool]:
    """Which results of a program depend on the marked inputs."""
    marked = {var for var, mark in zip(program.invars, inputs, strict=True) if mark}
    is_marked = lambda atom: not hasattr(atom, "val") and atom in marked  # noqa: E731
    for equation in program.eqns:
        marks = [is_marked(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr") if equation.primitive.name in ("pjit", "jit") else None
        if inner is not None:
            results = _reached(inner.jaxpr, marks)
        else:
            results = [any(marks)] * len(equation.outvars)
        marked |= {var for var, mark in zip(equation.outvars, results, strict=True) if mark}
    return [is_marked(atom) for atom in program.outvars]
