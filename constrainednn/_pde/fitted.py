"""Unknowns of an equation in space and time, estimated from data.

For given unknowns the equation is marched as usual. In each window of the solution the derivatives
of its coefficients by the unknowns solve the linearised window, with a right-hand side for each
unknown; the state at its start depends on them through the windows before.

Symbols (others in `_fitting/fit.py` and `elements/window.py`)::

    symbol  shape            meaning
    S       (E, o, Kx, d, q) derivative of the state at the start of a window by the unknowns
    C       (E, Kt, Kx, d, q) the same of its coefficients
"""

import dataclasses
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from constrainednn._common.compilation.closures import compiled
from constrainednn._fitting.fit import AbstractShooting, Part, Trial, useful_parts
from constrainednn._fitting.observations import rows_along, rows_of
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._pde.conditions import FlatStart
from constrainednn._pde.elements.discretisation import Span, at_start
from constrainednn._pde.elements.mesh import State, on_elements
from constrainednn._pde.elements.monitor import state_at_end
from constrainednn._pde.elements.window import by_unknowns
from constrainednn._pde.scheme import SpaceTimeScheme, in_chunks
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import Observed, Watch
from constrainednn.models.space_time import SpaceTimePieces

# Until the unknowns are fitted to solutions of this tolerance, none is sharper.
_ROUGH = 1e-6


class FittedSpaceTimeScheme(AbstractFittedScheme):
    """Windows in time, each with elements in space, of an equation that holds unknowns.

    Attributes:
        arguments: From the unknowns to the arguments of the equation.
        march: The equation with the first values of the unknowns.
    """

    arguments: Arguments | TracedArguments
    march: SpaceTimeScheme

    default_tolerance = SpaceTimeScheme.default_tolerance
    digits = SpaceTimeScheme.digits

    def __repr__(self) -> str:
        return f"{self.march!r} on the unknowns"

    def at(self, model: SpaceTimePieces) -> SpaceTimeScheme:
        """The problem for the unknowns that were found."""
        return self.march.given(model.parameters)

    def shooting(
        self,
        model: SpaceTimePieces,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "_Marches":
        """Marches on increasing parts of the time."""
        return _Marches(self, model, observed, tolerance, key, watch)

    def sensitivities(
        self, model: SpaceTimePieces, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""
        C = np.zeros((*model.coefficients.shape, model.parameters.size))
        found = np.concatenate(self._derivatives(model))
        C[: len(found)] = found
        r, S = rows_along(model, jnp.asarray(C, model.coefficients.dtype), observed)
        return np.asarray(r, float), np.asarray(S, float)

    def _derivatives(self, u: SpaceTimePieces) -> list[Float[np.ndarray, "_ Kt Kx d q"]]:
        """C of each window."""
        scheme = self.at(u)
        disc = scheme.discretisation(scheme.shape, jax.random.key(0))
        q, d, found = u.parameters.size, u.coefficients.shape[3], []
        edges, c = u.pieces()
        fn = lambda x: in_chunks(_start_by_unknowns, scheme.start, x)  # noqa: E731
        state = State(edges[0], on_elements(fn, edges[0], scheme.shape[1])[0])
        for number, (ends, own) in enumerate(zip(edges, c, strict=True)):
            span = Span(u.ends[number], u.ends[number + 1] - u.ends[number])
            state = state.on(ends)
            here = at_start(disc, span, ends, own)
            S = state.S.reshape(*state.S.shape[:3], d, q)
            found.append(by_unknowns(here, span, ends, own, S))
            flat = found[-1].reshape(*found[-1].shape[:3], d * q)
            state = state_at_end(disc, span.h, ends, flat)
        return found


@compiled
def _start_by_unknowns(start: FlatStart, x: Float[Array, " n"]) -> Float[Array, "n o dq"]:
    by = jax.jacfwd(lambda z, x: start.given(z)(x))
    slopes = jax.vmap(by, in_axes=(None, 0))(start.unknowns, x)
    return slopes.reshape(*slopes.shape[:2], -1)


class _Marches(AbstractShooting):
    """Marches for given unknowns."""

    def __init__(
        self,
        scheme: FittedSpaceTimeScheme,
        model: SpaceTimePieces,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.model, self.observed = scheme, model, observed
        self.key, self.compile, self.run, self.warm = key, 0.0, 0.0, False
        self.rows = rows_of(model, observed).size
        allowed = scheme.goal(tolerance, model.parameters.dtype)
        self.stages = useful_parts(self._reached, model.parameters.size, allowed, _ROUGH)
        # Signals and progress only: a march is too short to save its state.
        self.watch: Watch = lambda taken, done, residual, state: watch(taken, done, residual, None)

    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """March for given unknowns over a fraction of the time."""
        at, (begin, end) = jnp.asarray(z, jnp.result_type(float)), self.scheme.march.time
        stop = end if stage.share == 1.0 else begin + stage.share * (end - begin)
        march = dataclasses.replace(self.scheme.march.given(at), time=(begin, stop))
        found = march.solve(
            self.model,
            tolerance=stage.tolerance,
            steps=max(steps, 1),
            key=self.key,
            watch=self.watch,
        )
        began = time.perf_counter()
        r, S = self.scheme.sensitivities(found.model, self.observed)
        elapsed, first = time.perf_counter() - began, not self.warm
        self.warm = True
        self.compile += found.compile + (elapsed if first else 0.0)
        self.run += found.run + (0.0 if first else elapsed)
        return Trial(found, r, S)

    def _reached(self, share: float) -> int:
        """The number of rows on a fraction of the time."""
        begin, end = self.scheme.march.time
        stop = begin + share * (end - begin)
        cut = eqx.tree_at(lambda u: u.times, self.model, self.model.times.at[1].set(stop))
        return int(np.isfinite(rows_of(cut, self.observed)).sum())
