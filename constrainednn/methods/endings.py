"""When Levenberg-Marquardt has ended, and what parameters have to do with it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn.methods.base import AbstractResidual
from constrainednn.methods.damped_steps import Factored, column_norms

# Columns that fell below this share of their largest norm may have vanished.
_FALLEN = 1e-8
# A loss that changes by what its gradient promises, or not at all, does so up to this share.
_AGREES = 0.3


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
    # Where no parameter has an effect at all there is nothing to tell a minimum by.
    return (present < _FALLEN * largest) & unseen | ~jnp.any(present > 0)


def along_gradient(residual: AbstractResidual, params: PyTree) -> str:
    """Say which parameters carry the gradient of a loss that no step lowers, and what belies it.

    Args:
        residual: The residual.
        params: Parameters at which its gradient is not zero.
    """
    cosines, ahead, behind = map(np.asarray, _looked_along(residual, params))
    names = _names(params)
    most = np.argsort(-np.abs(cosines))[:3]
    shown = ", ".join(f"{names[i]} (cosine {abs(cosines[i]):.2g})" for i in most if cosines[i])
    falls, rises = float(np.median(ahead)), float(np.median(behind))
    if max(abs(falls - 1), abs(rises - 1)) < _AGREES:
        what = "the loss falls there for the smallest of steps only, so curved is it"
    elif max(abs(falls), abs(rises)) < _AGREES:
        what = "the loss does not change there: rounding, or a residual made of steps"
    elif falls < 0 < rises:
        what = "the loss rises on both sides: a kink, such as that of an absolute value"
    elif falls < 0:
        what = "the loss falls the other way: a derivative of the residual is wrong"
    else:
        what = f"the loss changes there by {falls:.2g} of what its gradient promises"
    return f"most of it is along {shown}, and {what}"


@compiled
def _looked_along(
    residual: AbstractResidual, params: PyTree
) -> tuple[Float[Array, " P"], Float[Array, " k"], Float[Array, " k"]]:
    """Cosines of columns with the residual, and changes of the loss along its gradient.

    Returns:
        The cosines; the fall of the loss along the descent in scaled parameters, and its rise the
        other way, at several lengths, both as shares of what the gradient promises.
    """
    theta, unravel = ravel_pytree(params)
    r, J = residual.jacobian(params)
    present = column_norms(J)
    D = jnp.where(present > 0, present, 1)
    cosines = (J / D[None]).T @ r / jnp.linalg.norm(r)
    direction = -cosines / D
    slope = J @ direction
    # Parts of the way to the minimum of the linear model.
    lengths = -(r @ slope) / (slope @ slope) * jnp.asarray([1e-3, 1e-4, 1e-5, 1e-6], r.dtype)

    def share(length: Array) -> Array:
        change = residual(unravel(theta + length * direction)) - r
        # Of squares the difference would have half of the digits.
        return change @ (change + 2 * r) / (2 * jnp.abs(length) * (r @ slope))

    return cosines, lax.map(share, lengths), -lax.map(share, -lengths)


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
