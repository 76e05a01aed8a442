"""Unknowns of an equation in space alone, estimated from data.

For given unknowns the elements are solved as usual, from the same guess. The derivatives of the
coefficients by the unknowns solve the linearised equation on the elements of the solution, with a
right-hand side for each unknown.

Symbols (others in `_fitting/fit.py`)::

    symbol  shape          meaning
    C       (N, n, d, q)   derivative of the coefficients by the unknowns
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from constrainednn._fitting.fit import AbstractShooting, Part, Trial
from constrainednn._fitting.observations import rows_along, rows_of
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._pde.stationary.constants import centred
from constrainednn._pde.stationary.scheme import StationaryScheme, coefficients
from constrainednn._pde.stationary.system import System
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import Observed, Watch
from constrainednn.models.space import SpacePieces

# Until the unknowns are fitted to solutions of these tolerances, none is sharper: with wrong
# unknowns there may be singularities in corners that the solution with the right ones has not.
_ROUGH = 1e-3, 1e-6


class FittedStationaryScheme(AbstractFittedScheme):
    """Elements in space of an equation that holds unknowns.

    Attributes:
        arguments: From the unknowns to the arguments of the equation.
        elements: The equation with the first values of the unknowns.
    """

    arguments: Arguments | TracedArguments
    elements: StationaryScheme

    default_tolerance = StationaryScheme.default_tolerance
    digits = StationaryScheme.digits

    def __repr__(self) -> str:
        return f"{self.elements!r} on the unknowns"

    def at(self, model: SpacePieces) -> StationaryScheme:
        """The problem for the unknowns that were found."""
        return self.elements.given(model.parameters)

    def shooting(
        self,
        model: SpacePieces,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "_Solves":
        """Solves of the forward problem."""
        return _Solves(self, model, observed, tolerance, key, watch)

    def sensitivities(
        self, model: SpacePieces, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""
        C = np.zeros((*model.coefficients.shape, model.parameters.size))
        C[: model.count] = self._derivatives(model)
        r, S = rows_along(model, jnp.asarray(C, model.coefficients.dtype), observed)
        return np.asarray(r, float), np.asarray(S, float)

    def _derivatives(self, u: SpacePieces) -> Float[np.ndarray, "N n d q"]:
        """C, with the constants that make the means zero where there are any."""
        scheme = self.at(u)
        mesh, disc = scheme.mesh_of(u), scheme.discretisation(u.width, jax.random.key(0))
        try:
            C = System(disc, mesh).by_unknowns(coefficients(u))
        except np.linalg.LinAlgError:
            return np.full((u.count, *u.coefficients.shape[1:], u.parameters.size), np.nan)
        each = [centred(disc.equations, mesh, u.width, one) for one in np.moveaxis(C, -1, 0)]
        return np.stack(each, axis=-1)


class _Solves(AbstractShooting):
    """Solves for given unknowns, each from the same guess, so that a resumed run repeats them."""

    def __init__(
        self,
        scheme: FittedStationaryScheme,
        model: SpacePieces,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.guess, self.observed, self.key = scheme, model, observed, key
        self.rows = rows_of(model, observed).size
        allowed = scheme.goal(tolerance, model.parameters.dtype)
        # There is no part of space on which the equation can be solved alone.
        tolerances = {max(rough, allowed) for rough in (*_ROUGH, allowed)}
        self.stages = [Part(1.0, item) for item in sorted(tolerances, reverse=True)]
        self.compile, self.run, self.warm = 0.0, 0.0, False
        self.watch: Watch = lambda taken, done, residual, state: watch(taken, done, residual, None)

    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """Solve for given unknowns."""
        at = jnp.asarray(z, jnp.result_type(float))
        found = self.scheme.elements.given(at).solve(
            eqx.tree_at(lambda u: u.parameters, self.guess, at),
            tolerance=stage.tolerance,
            steps=max(steps, 1),
            key=self.key,
            watch=self.watch,
        )
        began = time.perf_counter()
        r, S = self.scheme.sensitivities(found.model, self.observed)
        if found.status not in ("converged", "interrupted"):  # nothing to compare with data
            r = np.full_like(r, np.nan)
        elapsed, first = time.perf_counter() - began, not self.warm
        self.warm = True
        self.compile += found.compile + (elapsed if first else 0.0)
        self.run += found.run + (0.0 if first else elapsed)
        return Trial(found, r, S)
