"""Equations in one variable that a model is trained on."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._common.batched import in_blocks
from constrainednn._ode.bvp_arguments import unchanged
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.trained.interpolant import derivatives, interpolant
from constrainednn._ode.trained.models import Guessed, Windowed, has_head, head
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import AbstractPieceScheme, TrainedScheme
from constrainednn.domains.boxes import Interval
from constrainednn.domains.samplers.base import Draw
from constrainednn.domains.samplers.draws import draw
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.stages import Stage
from constrainednn.models.pieces import Pieces

# Steps of the head alone: nearly linear, it takes a few.
_OF_HEAD = 30


class TrainedEquation(TrainedScheme):
    """An equation in one variable that a model is trained on."""

    @abc.abstractmethod
    def as_pieces(self, model: PyTree) -> tuple[AbstractPieceScheme, Pieces, Pieces]:
        """What the error of pieces is estimated from: their scheme, the model, a guess."""


def default_stages(model: Windowed | Guessed, steps: int | None) -> list[Stage]:
    """The head alone, everything, the head alone: where everything is hardly linear, it is.

    Measured on decay, an oscillator, Van der Pol's and Lotka and Volterra's equations against the
    middle stage alone: ten to a thousand times smaller errors in the same time.
    """
    steps, method = 1000 if steps is None else steps, LevenbergMarquardt()
    if not has_head(model):
        return [Stage(method, steps=steps)]
    few = min(_OF_HEAD, steps // 4)
    return [
        Stage(method, steps=few, trainable=head),
        Stage(method, steps=steps - 2 * few),
        Stage(method, steps=few, trainable=head),
    ]


class TrainedBoundaryValues(TrainedEquation):
    """A boundary value problem, its conditions among the rows of the loss.

    Attributes:
        equation: Its field and conditions.
        guess: The pieces that they would be solved from.
    """

    equation: BoundaryValueScheme
    guess: Pieces

    def as_pieces(self, model: Guessed) -> tuple[BoundaryValueScheme, Pieces, Pieces]:
        """The model as one piece or more, with what was found for unknown parameters."""
        edges = np.asarray(self.equation.span, float)
        parameters = np.asarray(model.parameters, float)
        found = interpolant(model, edges, 1, unravel=unchanged, parameters=parameters)
        return self.equation, found, self.guess


class TrainedWindows(TrainedEquation):
    """An initial value problem, trained in windows one after another.

    Attributes:
        equation: Its field.
        edges: Ends of the windows.
    """

    equation: InitialValueScheme
    edges: tuple[float, ...]

    @property
    def windows(self) -> int:
        """Their number."""
        return len(self.edges) - 1

    def training_points(self, model: PyTree, constraint: Constraint) -> Draw | None:
        """The same points in each window that was trained, weighted by its length."""
        if self.windows == 1:
            return None
        assert constraint.points is not None
        each = constraint.points // self.windows
        cube = draw(Interval(0.0, 1.0), each, constraint.sampler, key=jax.random.key(0))
        edges = np.asarray(self.edges[: model.trained + 1])
        total = edges[-1] - edges[0]
        lengths = np.diff(edges)
        t = edges[:-1, None] + lengths[:, None] * cube.points
        weights = lengths[:, None] / total * cube.weights
        share = (t - min(edges[0], edges[-1])) / abs(total)
        dtype = jnp.result_type(float)
        columns = (t.ravel(), weights.ravel(), share.reshape(-1, 1))
        return Draw(*(column.astype(dtype) for column in columns))

    def covered(self, model: PyTree, constraint: Constraint) -> Interval | None:
        """The windows that were trained, where the run ended before the last."""
        del constraint
        if model.trained == self.windows:
            return None
        return Interval(*sorted((self.edges[0], self.edges[model.trained])))

    def window(self, problem: Problem, model: Windowed, k: int) -> Problem:
        """The problem of one window alone."""
        equation = problem.constraints[0]
        assert equation.points is not None
        part = Constraint(
            equation.residual,
            over=Interval(*sorted(self.edges[k : k + 2])),
            points=equation.points // self.windows,
            sampler=equation.sampler,
            name=equation.name,
        )
        return Problem(part, model.window(k), trainable=problem.trainable)

    def joined(self, model: Windowed, k: int, window: Windowed) -> Windowed:
        """The model with a window that was trained, and the next one started at its end."""
        end = np.asarray([self.edges[k + 1]], jnp.result_type(float))
        order = self.equation.field.order
        state = in_blocks(eqx.Partial(derivatives, window, order), end)[0, :order]
        return model.joined(k, window, jnp.asarray(state))

    def as_pieces(self, model: Windowed) -> tuple[InitialValueScheme, Pieces, Pieces]:
        """The model as one piece or more per window; there is no guess."""
        field = self.equation.field
        edges = np.asarray(self.edges[: model.trained + 1])
        found = interpolant(model, edges, field.order, unravel=field.unravel)
        return self.equation, found, found
