"""Random keys: one seed, many named streams."""

import zlib

import jax
import numpy as np
from jaxtyping import Key


def stream(key: Key[jax.Array, ""], name: str) -> Key[jax.Array, ""]:
    """Derive the key of a named stream, e.g. "heldout/on_circle".

    The result depends on `key` and `name` only, so adding, removing or changing one stream never
    shifts another.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def numpy_generator(key: Key[jax.Array, ""]) -> np.random.Generator:
    """Make the NumPy generator that belongs to a JAX key.

    Points and first parameters are drawn by NumPy: `jax.random` compiles anew for every shape,
    which would cost seconds before the first step.
    """
    return np.random.default_rng([int(word) for word in np.asarray(jax.random.key_data(key))])
