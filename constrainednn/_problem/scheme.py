"""How the solution of a problem is found: trained step by step, or piece after piece."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from constrainednn._problem.constraint import Constraint
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadValueError, StoreError


@dataclasses.dataclass(frozen=True)
class PieceHistory:
    """How the pieces of a solution came about.

    Attributes:
        edges: Ends of the pieces, in order of solution.
        monitor: Size of the monitor residual of each piece, relative to the state: what was
            compared with the tolerance.
        steps: Newton steps of each piece; of the last round where all were solved together.
        rejected: Attempts that were given up: windows too long, or rounds before a refinement.
        spacing: Largest distance, in the user's time, between two places where the equation was
            looked at along the finished solution; NaN where it was not. What is narrower may have
            been missed.
        found: Times at which the equation was found to change abruptly, and windows made to end.
    """

    edges: np.ndarray
    monitor: np.ndarray
    steps: np.ndarray
    rejected: int
    spacing: float = math.nan
    found: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class SchemeResult:
    """What a scheme found.

    Attributes:
        model: The model with its pieces.
        status: A value of `Status`.
        reason: The same in a sentence.
        steps: Newton steps of all accepted pieces.
        pieces: How the pieces came about; for each experiment where there are several.
        compile: Seconds of compiling.
        run: Seconds of solving.
    """

    model: PyTree
    status: str
    reason: str
    steps: int
    pieces: "PieceHistory | tuple[PieceHistory, ...]"
    compile: float
    run: float


# What a scheme can be resumed from: arrays by name, and the rest as plain data.
Resumable = tuple[dict[str, np.ndarray], dict[str, Any]]
# Called with the Newton steps taken, the share of the work that is done, the monitor residual, and
# a function that gives what to resume from, or None in between; True stops the solve.
Watch = Callable[[int, float, float, Callable[[], Resumable] | None], bool]


class Observed(NamedTuple):
    """Rows of data and the residual of the model at one of them, times the root of its weight."""

    residual: Callable[[Any, Any], Any]
    rows: PyTree[Array]
    root: float


def counters_of(resumed: Resumable, count: int) -> list[int]:
    """The counters of a state that is resumed.

    Raises:
        StoreError: If there are others.
    """
    counters = resumed[1]["counters"]
    if len(counters) != count or min(counters) < 0:
        raise StoreError(f"the checkpoint is damaged: its counters are {counters!r:.100}.")
    return counters


class AbstractScheme(eqx.Module):
    """How the solution of a problem is found, and where its equations are then known to hold.

    Attributes:
        in_pieces: True where pieces are solved to a tolerance, without a method or a seed.
    """

    in_pieces: ClassVar[bool]

    @abc.abstractmethod
    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """The training points of a solved model; None where the constraint draws them."""

    @abc.abstractmethod
    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain | None:
        """Where a solved model is defined: all of the domain unless the run ended early.

        None for all of it.
        """

    @abc.abstractmethod
    def note(self, model: PyTree) -> str:
        """What a gap report says about the training points, if anything."""


class TrainedScheme(AbstractScheme):
    """A model that is trained by a method, step by step, on points that constraints draw."""

    in_pieces = False

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """None: constraints draw them."""
        del model, constraint

    def covered(self, model: PyTree, constraint: Constraint) -> AbstractDomain | None:
        """None: a network is defined wherever it is asked."""
        del model, constraint

    def note(self, model: PyTree) -> str:
        """Nothing."""
        del model
        return ""


class AbstractPieceScheme(AbstractScheme):
    """How a model made of pieces is solved: window after window, or all elements together.

    Steering uses monitor points of its own, drawn once from a key in scaled time and used in every
    piece, so that the features there are evaluated once.

    Attributes:
        default_tolerance: The tolerance where the user states none and it is above rounding.
        digits: How many rounding errors a tolerance must allow at least.
    """

    in_pieces = True
    default_tolerance: ClassVar[float] = 1e-12
    digits: ClassVar[float] = 50

    def goal(self, tolerance: float, dtype: jnp.dtype) -> float:
        """The tolerance to solve to: the user's, or the default for 0.

        Raises:
            ValueError: If it is below rounding.
        """
        least = self.digits * float(jnp.finfo(dtype).eps)
        if 0 < tolerance < least:
            raise BadValueError(
                f"tolerance={tolerance:g} is below the rounding of {dtype}; write at least "
                f"{least:.2g}, or leave it out."
            )
        return tolerance or max(self.default_tolerance, 2 * least)

    @abc.abstractmethod
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
        """Find the pieces.

        Args:
            model: The model before training.
            tolerance: Largest accepted monitor residual relative to the state, 0 for the default.
            steps: Largest number of Newton steps.
            key: Key of the monitor points.
            watch: Called now and then.
            resumed: The state of an earlier run to resume from.
            observed: What unknowns of the equation are estimated from.
        """

    @abc.abstractmethod
    def defined_at(self, model: PyTree, points: np.ndarray) -> np.ndarray:
        """One point, as of many, where the equation must be defined before training."""

    def note(self, model: PyTree) -> str:
        """How the rules in the pieces are weighted."""
        return (
            f"train is a Gauss rule in each of {model.count} pieces, weighted by their "
            "lengths: the gap is what the rules miss between their nodes"
        )
