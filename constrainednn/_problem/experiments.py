"""Several experiments with shared unknowns: what a user states, and the model of their solutions.

In a problem each constraint belongs to one experiment, and its residual sees the solution of that
one alone. `apart` takes constraint and model apart, so that what measures a solution knows of one
experiment only, and what is compiled for one serves the others.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import leaves_of
from constrainednn._common.messages import shown
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.unknowns import Unknown, is_unknown
from constrainednn.domains.finite import Data
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.pieces import Pieces

_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """One of several experiments in `ivp`, with what is its own.

    An `Unknown` in `y0` or `args` is this experiment's alone, and is named after it:
    "cold.y0". Shared ones belong into `args` or `y0` of `ivp`.

    Args:
        data: What was observed, as in `ivp`. Rows are held out within the experiment, as each
            `Data` says.
        y0: Its initial value, as in `ivp`, whose own is the default.
        span: Its start and end; default: those of `ivp`.
        args: Entries of `args` that it has instead of those of `ivp`, or besides them, as a dict: a
            temperature, a dose.
        breaks: Times at which its equation jumps, as in `ivp`, whose own are the default.
        name: Default: "experiment 1", "experiment 2", ...
        heldout: True if nothing is fitted to its data, which judge the whole: does what was learned
            from the others hold here?

    Raises:
        TypeError, ValueError: If a setting cannot be right, naming it.
    """

    data: Data | Constraint | Sequence[Data | Constraint]
    y0: PyTree = None
    span: tuple[float, float] | None = None
    args: dict[str, Any] | None = None
    breaks: Sequence[float] | None = None
    name: str | None = None
    heldout: bool = False

    def __post_init__(self):
        if self.args is not None and not isinstance(self.args, dict):
            raise BadTypeError(
                f"args of Experiment must be a dict of what is its own, got {shown(self.args)}. "
                "Write e.g. args={'temperature': 300.0}."
            )
        leaves_of(self.args, "args of Experiment")
        leaves_of(self.y0, "y0 of Experiment")
        if not isinstance(self.heldout, bool):
            raise BadTypeError(
                f"heldout of Experiment must be True or False, {shown(self.heldout)}."
            )
        name = self.name
        if name is None:
            return
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise BadValueError(f"name of Experiment must be printable text, got {shown(name)}.")
        if len(name) > _LONGEST_NAME:
            raise BadValueError(
                f"name of Experiment must be at most {_LONGEST_NAME} characters, got {len(name)}."
            )

    @property
    def unknowns(self) -> list[Unknown]:
        """The unknowns that are its own."""
        leaves = leaves_of((self.args, self.y0), "an experiment", is_leaf=is_unknown)
        return [leaf for leaf in leaves if is_unknown(leaf)]


class Experiments(eqx.Module):
    """The model of several experiments: `model["name"]` or `model[0]` is the solution of one.

    Attributes:
        parts: Their solutions, without the unknowns.
        parameters: The unknowns of all.
        places: Where the unknowns of each are among these.
        names: Their names.
    """

    parts: tuple[Pieces, ...]
    parameters: Float[Array, " q"]
    places: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __getitem__(self, which: int | str) -> Pieces:
        index = self.index(which)
        own = self.parameters[jax.numpy.asarray(self.places[index], int)]
        return eqx.tree_at(lambda u: u.parameters, self.parts[index], own)

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        return sum(part.numbers for part in self.parts) + self.parameters.size

    def index(self, which: int | str) -> int:
        """The number of an experiment.

        Raises:
            KeyError, IndexError: If there is none of that name or number.
        """
        if isinstance(which, str):
            if which not in self.names:
                raise KeyError(
                    f"no experiment is named {which!r}; there is: {', '.join(self.names)}"
                )
            return self.names.index(which)
        if not -len(self.names) <= which < len(self.names):
            raise IndexError(f"there are {len(self.names)} experiments, got number {which}.")
        return which % len(self.names)

    @property
    def asked_alone(self) -> str:
        """A sentence for who asks all of what only one can tell."""
        name = self.names[0]
        return (
            f"this solution is that of {len(self.names)} experiments: ask one of them, such as "
            f"solution[{name!r}] or solution[0]. There is: {', '.join(self.names)}."
        )


class Found(eqx.Module):
    """Arguments of one experiment whose unknowns were found: there is nothing to put in."""

    args: PyTree

    def __call__(self, parameters: Array) -> PyTree:
        """The arguments."""
        return self.args


class OfExperiment(eqx.Module):
    """A residual of the solution of one experiment, as one of the model of all.

    Attributes:
        residual: The user's residual.
        index: Number of the experiment.
        name: Its name.
        heldout: True if nothing is fitted to it.
    """

    residual: Callable[[Any, Any], Any]
    index: int = eqx.field(static=True)
    name: str = eqx.field(static=True)
    heldout: bool = eqx.field(static=True)

    def __call__(self, u: Experiments, x: PyTree) -> Any:
        """Evaluate at one point."""
        return self.residual(u[self.index], x)


def of_experiment(constraint: Constraint) -> OfExperiment | None:
    """The residual with its experiment; None for a constraint of a problem without any."""
    residual = constraint.residual
    return residual if isinstance(residual, OfExperiment) else None


def apart(constraint: Constraint, model: PyTree) -> tuple[Constraint, PyTree]:
    """A constraint and the model of the one experiment that it belongs to, if there are any."""
    own = of_experiment(constraint)
    if own is None:
        return constraint, model
    return eqx.tree_at(lambda c: c.residual, constraint, own.residual), model[own.index]
