"""Which constraints are affine in a value, or have the same slopes at all points."""

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
    program, points = _slopes(fn, x, y)
    return not any(_reached(program.jaxpr, [True] + [False] * points))


def slopes_are_shared(fn: Callable[[Any, Any], Array], x: PyTree, y: Float[Array, " n"]) -> bool:
    """True if no operation of dfn/dy depends on x; where that cannot be seen, False.

    Args:
        fn: From a point and the model's value there to a vector.
        x: A point, for its shapes.
        y: A value, for its shape.
    """
    program, points = _slopes(fn, x, y)
    return not any(_reached(program.jaxpr, [False] + [True] * points))


def _slopes(fn: Callable, x: PyTree, y: Array) -> tuple[Any, int]:
    """The program of dfn/dy, from y and the arrays of x, and the number of those."""
    flat, structure = jax.tree.flatten(x)

    def slopes(y: Array, *flat: Array) -> Array:
        return jacobian(lambda y: fn(jax.tree.unflatten(structure, flat), y), y)[1]

    return jax.make_jaxpr(slopes)(y, *flat), len(flat)


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
