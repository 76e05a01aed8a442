"""When Levenberg-Marquardt has ended, and what a parameter has to do with it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn.methods.damped_steps import Factored

# Columns that fell below this share of their largest norm may have vanished.
_FALLEN = 1e-8


def is_ended(
    at: Factored,
    dampings: Float[Array, " k"],
    loss: Float[Array, ""],
    noise: Float[Array, ""],
    tried: tuple[int, Bool[Array, ""]],
) -> Bool[Array, ""]:
    """True if there is no gradient, or no decrease that rounding of so many rows would not hide."""
    (m, accepted), eps, length = tried, jnp.finfo(loss.dtype).eps, jnp.sqrt(loss)
    # Directions that J does not resolve (a symmetry, say) promise decreases that are rounding.
    resolved = at.s > 10 * jnp.sqrt(len(at.W)) * eps * jnp.max(at.s)
    predicted = jnp.max(at._replace(g=jnp.where(resolved, at.g, 0)).promised(dampings))
    return (
        (jnp.linalg.norm(at.s * at.g) <= 10 * eps * jnp.max(at.s) * length)
        | (predicted <= jnp.maximum(10 * eps * length, noise) * length)
        # A sum of m squares is rounded by about sqrt(m) eps; a decrease below that may not show.
        | (~accepted & (predicted <= 100 * jnp.sqrt(m) * eps * loss))
    )


def is_stationary(
    J: Float[Array, "m P"],
    r: Float[Array, " m"],
    present: Float[Array, " P"],
    vanished: Bool[Array, " P"],
    noise: Float[Array, ""],
) -> Bool[Array, ""]:
    """True if no single parameter lowers the loss, by the column norms as they are now.

    A parameter alone promises a decrease of |r|^2 cos^2, with the angle between its column and r.
    Near a minimum the loss is flat: its last digits show no gradient below the root of eps.
    """
    eps = jnp.finfo(r.dtype).eps
    length = jnp.linalg.norm(r)
    units = J / jnp.where(present > 0, present, 1)[None]
    decrease = jnp.max(jnp.abs(units.T @ r)) ** 2
    flat = decrease <= jnp.maximum(1e4 * eps * length, noise) * length
    # A residual that is rounding has nowhere to go, whatever its columns are.
    return flat & ((length <= 100 * noise) | ~jnp.any(vanished))


def vanished_columns(
    theta: Float[Array, " P"],
    present: Float[Array, " P"],
    largest: Float[Array, " P"],
    length: Float[Array, ""],
) -> Bool[Array, " P"]:
    """Parameters that the residual no longer sees: a plateau.

    Their columns fell by orders, which alone may be the way from a steep start to a minimum, and
    a change by the parameter's own size would not show in a residual of this length.
    """
    unseen = jnp.abs(theta) * present < jnp.finfo(theta.dtype).eps ** 0.5 * length
    return (present < _FALLEN * largest) & unseen


def some_of(params: PyTree, chosen: Int[np.ndarray, " n"]) -> str:
    """How many parameters were chosen, and some of their names."""
    names = _names(params)
    shown = ", ".join(names[i] for i in chosen[:3]) + (", ..." if chosen.size > 3 else "")
    return f"{chosen.size} of {len(names)} parameters ({shown})"


def _names(params: PyTree) -> list[str]:
    """A name for each of the raveled parameters, such as ['rate'] or .layers[0].weight[3, 1]."""
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path)
        names += [
            f"{name}[{', '.join(map(str, index))}]" if index else name
            for index in np.ndindex(leaf.shape)
        ]
    return names
