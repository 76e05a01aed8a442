"""The error of a march, estimated by solving its windows again with more polynomials.

On the same windows and elements, from the solution found, one or two Gauss-Newton steps in a richer
space solve the equation of the error for the residual that the solution leaves: the rows of the
richer space see what the solution's own rows missed. What it finds at the end of a window is
carried into the next, so that errors grow or fade as the equation lets them.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.discretisation import Discretisation, Span, at_start
from constrainednn._pde.elements.mesh import State
from constrainednn._pde.elements.monitor import state_at_end
from constrainednn._pde.elements.window import newton_step

# Polynomials more in time and in space.
MORE = 2, 4
# A second step that changes the error by more than this share says that it is far from linear.
_NONLINEAR = 0.3


@dataclasses.dataclass(frozen=True)
class Richer:
    """A solution solved again with more polynomials.

    Attributes:
        c: Coefficients of each window.
        trusted: For each window, False from where the error is too large for its linear equation.
    """

    c: list[Float[np.ndarray, "_ _ _ d"]]
    trusted: list[bool]


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
    for number, (edges, own) in enumerate(windows):
        h = times[number + 1] - times[number]
        span = Span(times[number], h)
        state = state.on(edges)
        c = np.zeros((len(own), *disc.shape, own.shape[3]))
        c[:, : own.shape[1], : own.shape[2]] = own
        padded, here = c, at_start(disc, span, edges, c)
        try:
            first = newton_step(here, span, state, c)
            c = newton_step(here, span, state, first)
            change = c - first
        except np.linalg.LinAlgError:
            change = np.full_like(c, np.nan)
        error, second = (np.sqrt((item**2).sum()) for item in (c - padded, change))
        digits = 1e3 * np.finfo(float).eps * np.sqrt((c**2).sum())
        near = bool(second <= max(_NONLINEAR * error, digits))
        trusted.append(near and all(trusted[-1:]))
        found.append(c)
        state = state_at_end(disc, h, edges, c)
    return Richer(found, trusted)
