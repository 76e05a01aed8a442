"""The progress of a stage of a training run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._gap.objectives.lagrangian import Minimised
from constrainednn._solve.training.steps import Chunk, begin
from constrainednn.methods.augmented_lagrangian import AugmentedLagrangian
from constrainednn.methods.base import RUNNING, AbstractResidual
from constrainednn.methods.stages import Stage


@dataclasses.dataclass
class InStage:
    """Where a stage has got to.

    Attributes:
        begun: The step at which it began.
        first: The step from which losses compare: its beginning, or the last redraw.
    """

    stage: Stage
    static: PyTree
    residual: Minimised
    params: PyTree
    state: PyTree
    best: tuple[PyTree, Array]
    least_loss: Array
    begun: int
    first: int
    verdict: int = RUNNING

    @classmethod
    def entered(
        cls,
        stage: Stage,
        params: PyTree,
        static: PyTree,
        residual: Minimised,
        least_loss: float,
        step: int,
    ) -> "InStage":
        """A stage before the first of its steps."""
        dtype = jax.tree.leaves(params)[0].dtype
        return cls(
            stage,
            static,
            residual,
            params,
            state=begin(stage.method, residual, params),
            best=(params, jnp.asarray(jnp.inf, dtype)),
            least_loss=jnp.asarray(least_loss, dtype),
            begun=step,
            first=step,
        )

    def chunk(self, steps: int) -> Chunk:
        """Steps to ask for."""
        return Chunk(
            self.stage.method,
            self.residual,
            self.params,
            self.state,
            self.best,
            self.least_loss,
            steps,
        )

    def take(self, found: Any) -> np.ndarray:
        """Go on from what a chunk found, and return the losses of its steps."""
        self.params, self.state, self.best, losses, taken, verdict = found
        self.verdict = int(verdict)
        return np.asarray(losses)[: int(taken)]

    def forget_best(self) -> None:
        """Compare losses from here on only."""
        self.best = self.params, jnp.full_like(self.best[1], jnp.inf)

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Residual entries and trained numbers; None where an objective is lowered."""
        if not isinstance(self.residual, AbstractResidual):
            return None
        rows = jax.eval_shape(lambda params: self.residual(params), self.params).size
        return rows, sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def model(self) -> PyTree:
        """The model with the last parameters."""
        return eqx.combine(self.params, self.static)

    def better(self, last: float, losses: Sequence[np.ndarray], step: int) -> tuple[PyTree, int]:
        """The last parameters, or the best seen if their loss is truly lower; and their step.

        Near a minimum losses differ by rounding only, while the parameters still converge.
        """
        best_params, best_loss = self.best[0], float(self.best[1])
        slack = float(jnp.finfo(self.best[1].dtype).eps) ** 0.5 * abs(best_loss)
        # What an augmented Lagrangian lowers is another function after each round.
        multiplied = isinstance(self.stage.method, AugmentedLagrangian)
        if multiplied or last <= best_loss + slack:
            return self.params, step
        seen = np.concatenate([[np.inf], *losses])[1 + self.first :]
        return best_params, self.first + int(np.argmin([*np.nan_to_num(seen, nan=np.inf), np.inf]))
