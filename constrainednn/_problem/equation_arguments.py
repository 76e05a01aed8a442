"""The arguments of an equation, some of them unknown."""

import copy
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._problem.unknowns import Unknown, is_unknown, unknowns_of
from constrainednn.errors import BadValueError


class Arguments:
    """Arguments of an equation, and an initial value, as functions of the unknowns in them.

    Equal ones are equal and have one hash, so that nothing is compiled twice for them.

    Args:
        args: The arguments.
        y0: The initial value, if there are unknowns in it: "y0", or "y0.part" for a part of it.

    Raises:
        ValueError: If two unknowns would have one name.
    """

    def __init__(self, args: PyTree, y0: PyTree = None):
        leaves, self._structure = jax.tree.flatten((args, y0), is_leaf=is_unknown)
        self.unknowns = unknowns_of(args)
        for name, item in unknowns_of(y0).items():
            name = "y0" if name == "args" else f"y0.{name}"
            if name in self.unknowns:
                raise BadValueError(
                    f"args and y0 both hold an unknown {name!r}: rename that of args."
                )
            self.unknowns[name] = item
        self._hold([np.asarray(leaf) if _is_numeric(leaf) else leaf for leaf in leaves])

    def _hold(self, leaves: list[Any]) -> None:
        self._leaves = leaves
        self._key = self._structure, tuple(map(_content, leaves))

    @property
    def start(self) -> Float[np.ndarray, " q"]:
        """The first trained values."""
        raw = [np.ravel(np.asarray(item.raw)) for item in self.unknowns.values()]
        return np.concatenate(raw) if raw else np.zeros(0)

    def __call__(self, raw: Float[Array, " q"]) -> PyTree:
        """The arguments, with numbers put in."""
        return self.both(raw)[0]

    def both(
        self, raw: Float[Array, " q"], constants: Sequence[Array | None] | None = None
    ) -> tuple[PyTree, PyTree]:
        """The arguments and the initial value, with numbers and constants put in."""
        filled, place = [], 0
        for leaf in self._leaves if constants is None else map(_either, self._leaves, constants):
            if isinstance(leaf, Unknown):
                size, shape = leaf.raw.size, leaf.raw.shape
                filled.append(leaf.at(raw[place : place + size].reshape(shape)))
                place += size
            else:
                filled.append(jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf)
        return jax.tree.unflatten(self._structure, filled)

    def without_constants(self) -> tuple["Arguments", list[np.ndarray | None]]:
        """The same with holes where there are arrays, and what belongs into them."""
        rest, arrays = copy.copy(self), [isinstance(leaf, np.ndarray) for leaf in self._leaves]
        pairs = list(zip(self._leaves, arrays, strict=True))
        rest._hold([None if array else leaf for leaf, array in pairs])
        return rest, [leaf if array else None for leaf, array in pairs]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arguments) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class TracedArguments(eqx.Module):
    """Arguments whose constants are traced: what differs in them alone is compiled once.

    Attributes:
        constants: Arrays in the places where they belong, None in others.
        rest: The arguments without them.
    """

    constants: list[Array | None]
    rest: Arguments

    def __init__(self, arguments: "Arguments | TracedArguments"):
        if isinstance(arguments, TracedArguments):
            self.constants, self.rest = arguments.constants, arguments.rest
        else:
            self.rest, numbers = arguments.without_constants()
            self.constants = [None if n is None else jnp.asarray(n) for n in numbers]

    @property
    def unknowns(self) -> dict[str, Unknown]:
        """The unknowns by name."""
        return self.rest.unknowns

    def __call__(self, raw: Float[Array, " q"]) -> PyTree:
        """The arguments, with numbers put in."""
        return self.both(raw)[0]

    def both(self, raw: Float[Array, " q"]) -> tuple[PyTree, PyTree]:
        """The arguments and the initial value, with numbers put in."""
        return self.rest.both(raw, self.constants)


def _either(leaf: Any, constant: Array | None) -> Any:
    return leaf if constant is None else constant


def _is_numeric(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _content(leaf: Any) -> Any:
    if is_unknown(leaf):  # its numbers are handed in
        return Unknown, leaf.raw.shape, leaf.low, leaf.high
    if isinstance(leaf, np.ndarray):
        return leaf.shape, str(leaf.dtype), leaf.tobytes()
    return leaf
