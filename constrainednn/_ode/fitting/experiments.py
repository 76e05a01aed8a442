"""Unknowns that several experiments share, estimated from the data of all of them.

Each experiment is treated as in `initial_values.py`, with the unknowns that concern it: it is
marched alone, and its rows and their derivatives enter one least-squares problem in all unknowns.
Spans, initial values and constants are traced, so that experiments of the same shape share what is
compiled.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._fitting.fit import AbstractShooting, Part, Trial, useful_parts
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._ode.fitting.initial_values import FittedScheme, Shooting
from constrainednn._ode.schemes.field import with_args
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.experiments import Experiments, OfExperiment
from constrainednn._problem.scheme import Observed, SchemeResult, Watch
from constrainednn.errors import BadValueError


class FittedExperiments(AbstractFittedScheme):
    """Several marches whose equations hold unknowns that are estimated from all data.

    Attributes:
        fits: The scheme of each experiment.
        arguments: The unknowns of all.
        places: For each experiment, the indices of its unknowns among all.
    """

    fits: tuple[FittedScheme, ...]
    arguments: Arguments | TracedArguments
    places: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return (
            f"{len(self.fits)} marches of windows with {self.fits[0].width} features, Gauss-Newton "
            "on the unknowns"
        )

    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "_JointShooting":
        """Marches of all experiments on increasing parts of their intervals."""
        return _JointShooting(self, model, observed, tolerance, key, watch)

    def at(self, model: PyTree) -> InitialValueScheme:
        """The problem of one experiment for the unknowns that were found.

        Raises:
            ValueError: If the model is that of all experiments.
        """
        if isinstance(model, Experiments):
            raise BadValueError(model.asked_alone)
        field, width = self.fits[0].field, self.fits[0].width
        ends = float(model.ends[0]), float(model.ends[-1])
        return InitialValueScheme(with_args(field, model.args), ends, width)

    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data for a solved model, and their Jacobian for the unknowns."""
        found = [
            fit.sensitivities(model[index], _own(observed, index))
            for index, fit in enumerate(self.fits)
        ]
        return self.stacked(found)

    def stacked(
        self, found: Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, "_ _"]]]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all experiments, and their derivatives with respect to all unknowns."""
        q = sum(item.raw.size for item in self.arguments.unknowns.values())
        columns = [np.zeros((len(r), q)) for r, _ in found]
        for S, (_, own), where in zip(columns, found, self.places, strict=True):
            S[:, list(where)] = own
        return np.concatenate([r for r, _ in found]), np.concatenate(columns)


class _JointShooting(AbstractShooting):
    """Marches of all experiments for given unknowns."""

    def __init__(
        self,
        scheme: FittedExperiments,
        model: Experiments,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.names = scheme, model.names
        self.parts = [
            Shooting(fit, model[index], _own(observed, index), tolerance, key, watch)
            for index, fit in enumerate(scheme.fits)
        ]
        self.compile, self.run = 0.0, 0.0
        self.rows = sum(part.rows for part in self.parts)
        reached = lambda share: sum(part.reached(share) for part in self.parts)  # noqa: E731
        allowed = scheme.goal(tolerance, model.parameters.dtype)
        self.stages = useful_parts(reached, model.parameters.size, allowed)

    def shoot(self, z: Float[np.ndarray, " q"], stage: Part, steps: int) -> Trial:
        """Solve for given unknowns on a fraction of each interval."""
        shots, left = [], steps
        for part, where in zip(self.parts, self.scheme.places, strict=True):
            shots.append(part.shoot(z[list(where)], stage, left))
            left -= shots[-1].found.steps
        self.compile = sum(part.compile for part in self.parts)
        self.run = sum(part.run for part in self.parts)
        parts = [shot.found.model for shot in shots]
        model = Experiments(
            tuple(eqx.tree_at(lambda u: u.parameters, part, jnp.zeros(0)) for part in parts),
            jnp.asarray(z, jnp.result_type(float)),
            self.scheme.places,
            self.names,
        )
        status, reason = self._verdict([shot.found for shot in shots])
        found = SchemeResult(
            model,
            status,
            reason,
            steps - left,
            tuple(shot.found.pieces for shot in shots),
            self.compile,
            self.run,
        )
        return Trial(found, *self.scheme.stacked([(shot.r, shot.S) for shot in shots]))

    def _verdict(self, found: Sequence[SchemeResult]) -> tuple[str, str]:
        """Status and reason of the first that was interrupted, else of the first that failed."""
        pairs = list(zip(self.names, found, strict=True))
        stopped = [pair for pair in pairs if pair[1].status == "interrupted"]
        for name, item in stopped or pairs:
            if item.status != "converged":
                return item.status, f"experiment {name!r}: {item.reason}"
        windows = sum(item.model.count for item in found)
        return "converged", f"the ends of {len(found)} experiments are reached in {windows} windows"


def _own(observed: tuple[Observed, ...], index: int) -> tuple[Observed, ...]:
    """The data of one experiment, with residuals of its own model."""
    return tuple(
        Observed(item.residual.residual, item.rows, item.root)
        for item in observed
        if isinstance(item.residual, OfExperiment) and item.residual.index == index
    )
