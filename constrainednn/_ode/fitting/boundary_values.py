"""Unknowns of a boundary value problem, estimated from data.

For given unknowns the problem is solved as usual, with them as its parameters p, fixed by the
additional conditions p = z. The derivative of the solution in z obeys the linearised equation and
conditions, with right-hand sides that are zero except in the additional conditions:

    e' = f_y e + f_p dp,    linearised conditions = 0,    dp = 1.
"""

import dataclasses
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._common.compilation.closures import compiled
from constrainednn._fitting.fit import AbstractShooting, Part, Trial
from constrainednn._fitting.observations import rows_of
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._ode.linearised.defect import OnStates, linearise, linearise_conditions
from constrainednn._ode.linearised.element_step import BoundaryProblem
from constrainednn._ode.linearised.error_equation import Conditions, ErrorEquation, between_ends
from constrainednn._ode.linearised.sampled_solution import sample
from constrainednn._ode.schemes.boundary_fields import BoundaryConditions, BoundaryField
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import Observed, Watch
from constrainednn.models.legendre import integrals
from constrainednn.models.pieces import Pieces, stack_pieces


class WithArguments(eqx.Module):
    """A user's function whose third argument holds unknowns, as a function of raw numbers."""

    fn: Callable[..., Array]
    arguments: Arguments

    def __call__(self, *given: PyTree) -> Array:
        """Evaluate with the values of the unknowns."""
        first, second, raw, *rest = given
        return self.fn(first, second, self.arguments(raw), *rest)


class WithFixedUnknowns(eqx.Module):
    """Boundary conditions, with the parameters fixed at given values."""

    conditions: BoundaryConditions
    z: Float[Array, " q"]

    def __call__(
        self, left: Float[Array, " d"], right: Float[Array, " d"], p: Float[Array, " q"]
    ) -> Float[Array, " d_q"]:
        """Evaluate for values at both ends."""
        return jnp.concatenate([self.conditions(left, right, p), p - self.z])


class SolutionMoved(eqx.Module):
    """A model moved along its derivatives with respect to the unknowns.

    Attributes:
        model: The model.
        slopes: Its derivatives, side by side.
        by: How far along each.
    """

    model: Pieces
    slopes: Pieces
    by: Float[Array, " q"]

    def __call__(self, x: Float[Array, ""]) -> Float[Array, " d"]:
        """Evaluate at one point."""
        return self.model(x) + self.slopes(x).reshape(-1, self.by.size) @ self.by

    @property
    def parameters(self) -> Float[Array, " q"]:
        """The unknowns."""
        return self.model.parameters + self.by

    @property
    def args(self) -> PyTree:
        """The arguments of the equation."""
        return self.model.arguments(self.parameters)


class FittedBoundaryScheme(AbstractFittedScheme):
    """Elements between two ends, whose equation or conditions hold unknowns.

    Attributes:
        field: The equation.
        conditions: As many as there are components.
        arguments: From the unknowns to the arguments of both.
        span: Left and right end.
        width: Number of features in an element.
    """

    field: BoundaryField
    conditions: BoundaryConditions
    arguments: Arguments | TracedArguments
    span: tuple[float, float]
    width: int

    def __repr__(self) -> str:
        return f"elements with {self.width} features, Gauss-Newton on the unknowns"

    def forward(self, z: Float[Array, " q"]) -> BoundaryValueScheme:
        """The forward problem for given unknowns."""
        held = BoundaryProblem(self.field, WithFixedUnknowns(self.conditions, z))
        return BoundaryValueScheme(held, self.span, self.width)

    def at(self, model: PyTree) -> BoundaryValueScheme:
        """The problem for the unknowns that were found."""
        return self.forward(model.parameters)

    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "_BoundaryShooting":
        """Solves of the forward problem."""
        return _BoundaryShooting(self, model, observed, tolerance, key, watch)

    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""
        r, S = _moved_rows(model, self._slopes(model), observed)
        return np.asarray(r, float), np.asarray(S, float)

    def _slopes(self, model: Pieces) -> Pieces:
        """Derivatives of the model with respect to the unknowns, side by side."""
        path, z = sample(model), jnp.asarray(model.parameters)
        F, _, A, B = linearise(OnStates(self.field), path.t, path.Y[:, 1:], path.p, path.size)
        _, (left, right, by_p) = linearise_conditions(
            WithFixedUnknowns(self.conditions, z), path, path.Y, path.p
        )
        d, q = F.shape[2], path.p.size
        none = np.zeros((*A.shape[:3], q)), np.zeros((len(A) - 1, d, q))
        conditions = Conditions(left, right, by_p, np.eye(d + q)[:, d:])
        e, _ = between_ends(ErrorEquation(path.half, A, B, *none), conditions)
        e = (e * path.size[:, None]).reshape(*e.shape[:2], d * q)
        # The polynomial through the start and the nodes, represented by its derivative.
        width = len(path.s)
        head = np.linalg.solve(integrals(path.s, width, 1)[1], e[:, 1:] - e[:, :1])
        return stack_pieces(path.ends, e[:, :1], head, unravel=_flat)


class _BoundaryShooting(AbstractShooting):
    """Solves for given unknowns, each from the same guess, so that a resumed run repeats them."""

    def __init__(
        self,
        scheme: FittedBoundaryScheme,
        model: Pieces,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.guess, self.observed = scheme, model, observed
        self.tolerance, self.key = tolerance, key
        self.stages = [Part(1.0, scheme.goal(tolerance, model.parameters.dtype))]
        self.rows = rows_of(model, observed).size
        self.compile, self.run, self.warm = 0.0, 0.0, False
        self.watch: Watch = lambda taken, done, residual, state: watch(taken, done, residual, None)

    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """Solve for given unknowns."""
        at = jnp.asarray(z, jnp.result_type(float))
        guess = eqx.tree_at(lambda u: u.parameters, self.guess, at)
        found = self.scheme.forward(at).solve(
            guess,
            tolerance=self.tolerance,
            steps=max(steps, 1),
            key=self.key,
            watch=self.watch,
        )
        model = eqx.tree_at(
            lambda u: (u.parameters, u.arguments), found.model, (at, self.scheme.arguments)
        )
        began, before = time.perf_counter(), self.warm
        r, S = self.scheme.sensitivities(model, self.observed)
        if found.status != "converged":  # no solution, so nothing to compare with data
            r = np.full_like(r, np.nan)
        elapsed, self.warm = time.perf_counter() - began, True
        self.compile += found.compile + (0.0 if before else elapsed)
        self.run += found.run + (elapsed if before else 0.0)
        return Trial(dataclasses.replace(found, model=model), r, S)


@compiled
def _moved_rows(
    model: Pieces, slopes: Pieces, observed: tuple[Observed, ...]
) -> tuple[Float[Array, " N"], Float[Array, "N q"]]:
    along = lambda by: rows_of(SolutionMoved(model, slopes, by), observed)  # noqa: E731
    still = jnp.zeros_like(model.parameters)
    return along(still), jax.jacfwd(along)(still)


def _flat(y: Array) -> Array:
    return y
