"""Schemes whose equation holds unknowns that are estimated from data."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._fitting.fit import AbstractShooting, Fit
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.scheme import (
    AbstractPieceScheme,
    AbstractScheme,
    Observed,
    Resumable,
    SchemeResult,
    Watch,
)
from constrainednn._problem.unknowns import entry_names
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import ProblemError


class AbstractFittedScheme(AbstractPieceScheme):
    """A scheme whose equation holds unknowns that are estimated from data.

    Attributes:
        arguments: From the unknowns to the arguments of the equation.
    """

    arguments: eqx.AbstractVar[Arguments | TracedArguments]

    @abc.abstractmethod
    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> AbstractShooting:
        """A solver of the forward problem for given unknowns."""

    @abc.abstractmethod
    def at(self, model: PyTree) -> AbstractPieceScheme:
        """The problem for the unknowns that were found."""

    @abc.abstractmethod
    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""

    def solve(
        self,
        model: PyTree,
        *,
        tolerance: float,
        steps: int,
        key: Key[Array, ""],
        watch: Watch,
        resumed: Resumable | None = None,
        observed: Sequence[Observed] = (),
    ) -> SchemeResult:
        """Estimate the unknowns, on increasing parts of the interval."""
        given = {"tolerance": tolerance, "key": key, "watch": watch}
        shooting = self.shooting(model, tuple(observed), **given)
        z, dtype = np.asarray(model.parameters, float), model.parameters.dtype
        if shooting.rows < z.size:
            raise ProblemError(
                f"data: {shooting.rows} observed numbers cannot determine {z.size} unknowns, "
                f"{', '.join(entry_names(self.arguments.unknowns))}. Give more data, or fix some."
            )
        fit = Fit(shooting, self.arguments.unknowns, z, steps, watch)
        fit.eps = float(jnp.finfo(dtype).eps)
        if resumed is not None:
            fit.resume(resumed)
        return fit.run()

    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """Where the equation is defined."""
        return self.at(model).defined_at(model, points)

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """Gauss nodes of all pieces."""
        return self.at(model).training_points(model, constraint)

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain | None:
        """Where the model is defined."""
        return self.at(model).covered(model, constraint)

    def note(self, model: PyTree) -> str:
        """Where the training points lie."""
        return self.at(model).note(model)


def with_found(scheme: AbstractScheme, model: PyTree) -> AbstractScheme:
    """A scheme for the unknowns as they were found; itself where there are none."""
    return scheme.at(model) if isinstance(scheme, AbstractFittedScheme) else scheme
