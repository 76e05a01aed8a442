"""The error of a march, estimated by solving its windows again with more polynomials.

On the same windows and elements, from the solution found, one or two Gauss-Newton steps in a richer
space solve the equation of the error for the residual that the solution leaves: the rows of the
richer space see what the solution's own rows missed. What it finds at the end of a window is
carried into the next, so that errors grow or fade as the equation lets them. So is an error like
the round-off of a solve, which enters at the start of each window: both solutions may share theirs.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.discretisation import Discretisation, Span, at_start
from constrainednn._pde.elements.mesh import State
from constrainednn._pde.elements.monitor import state_at_end
from constrainednn._pde.elements.window import carrying_step, newton_step

# Polynomials more in time and in space.
MORE = 2, 4
# A second step that changes the error by more than this share says that it is far from linear.
_NONLINEAR = 0.3
# Round-off that enters at each window, in last digits of u, of random sign in each polynomial.
_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Richer:
    """A solution solved again with more polynomials.

    Attributes:
        c: Coefficients of each window.
        trusted: For each window, False from where the error is too large for its linear equation.
        rounding: For each window, coefficients of an error as round-off may make it.
    """

    c: list[Float[np.ndarray, "_ _ _ d"]]
    trusted: list[bool]
    rounding: list[Float[np.ndarray, "_ _ _ d"]]


def solved_again(
    disc: Discretisation,
    start: State,
    times: Float[np.ndarray, " W_1"],
    windows: list[tuple[Float[np.ndarray, " _"], Float[np.ndarray, "_ _ _ d"]]],
) -> Richer:
    """Solve all windows again.

    Args:
        disc: The richer discretisation.
        start: The start in it.
        times: Ends of the windows.
        windows: Elements and coefficients of each, as they were found.
    """
    found, trusted, state = [], [], start
    carried, rounding, sizes = State(start.edges, np.zeros_like(start.S)), [], 0.0
    rng, eps = np.random.default_rng(0), float(jnp.finfo(jnp.result_type(float)).eps)
    for number, (edges, own) in enumerate(windows):
        h = times[number + 1] - times[number]
        span = Span(times[number], h)
        state, carried = state.on(edges), carried.on(edges)
        c = np.zeros((len(own), *disc.shape, own.shape[3]))
        c[:, : own.shape[1], : own.shape[2]] = own
        for item in (state, state_at_end(disc, h, edges, c)):
            sizes = np.maximum(sizes, np.abs(item.S).max(axis=(0, 2, 3)))
        digits = rng.normal(size=state.S.shape[1:]) / np.arange(1, disc.shape[1] + 1)[:, None]
        errors = carried.S + _DIGITS * eps * sizes[:, None, None] * digits
        padded, here = c, at_start(disc, span, edges, c)
        try:
            first, grown = carrying_step(here, span, state, c, errors[..., None])
            c = newton_step(here, span, state, first)
            change, grown = c - first, grown[..., 0]
        except np.linalg.LinAlgError:
            change, grown = np.full_like(c, np.nan), np.full_like(c, np.nan)
        error, second = (np.sqrt((item**2).sum()) for item in (c - padded, change))
        least = 1e3 * np.finfo(float).eps * np.sqrt((c**2).sum())
        near = bool(second <= max(_NONLINEAR * error, least))
        trusted.append(near and all(trusted[-1:]))
        found.append(c)
        rounding.append(grown)
        state, carried = (state_at_end(disc, h, edges, item) for item in (c, grown))
    return Richer(found, trusted, rounding)
