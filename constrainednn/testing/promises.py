"""A promise that is kept or broken."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def promise(kept: bool, sentence: str) -> None:
    """Raise where a promise is broken."""
    # Not a bare assert: python -O would drop it.
    if not kept:
        raise AssertionError(f"Broken promise: {sentence}.")


def kind(tree: PyTree) -> str:
    """Structure, shapes and dtypes, to compare and to show."""
    leaves, structure = jax.tree.flatten(eqx.filter(tree, eqx.is_array_like))
    return f"{[(np.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]} in {structure}"


def finite(tree: PyTree) -> bool:
    """True if every floating-point leaf is finite."""
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    )


def same(one: PyTree, other: PyTree) -> bool:
    """Equal bits, NaN included."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() if eqx.is_array_like(a) else a == b
        for a, b in pairs
    )


def close(one: PyTree, other: PyTree, *, loose: bool = False) -> bool:
    """Equal to rounding of about 1000 operations; `loose` where a step may amplify it."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if not np.issubdtype(a.dtype, np.floating):
            if not np.array_equal(a, b):
                return False
            continue
        eps = float(np.finfo(a.dtype).eps)
        allowed = (eps**0.5 if loose else 1e3 * eps) * max(1.0, float(np.abs(b).max(initial=0)))
        if not np.all(np.abs(a - b) <= allowed):
            return False
    return True
