"""What training lowers: a squared residual or, where there is an objective, that and the rows.

Constraints that a projection of the model enforces are no rows: they hold whatever is trained.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from constrainednn._gap.holds.kind import is_enforced
from constrainednn._gap.residual_vector import ResidualVector, Rows, residual_vector, rows
from constrainednn._problem.objective import Value
from constrainednn._problem.problem import Problem
from constrainednn.domains.samplers.base import Draw
from constrainednn.methods.base import AbstractLagrangian

# Places of constraints.
Soft = tuple[int, ...]


class Lagrangian(AbstractLagrangian):
    """The mean of an objective over its training points, and the rows of soft constraints.

    Attributes:
        objective: The function.
        points: Its points.
        weights: Their weights, which sum to one.
        soft: The rows; None if there are none.
        static: The model with the trained leaves taken out.
    """

    objective: Value
    points: PyTree[Array]
    weights: Float[Array, " n"]
    soft: ResidualVector | None
    static: PyTree

    def parts(self, params: PyTree) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        """Evaluate the mean and the rows."""
        u = eqx.combine(params, self.static)
        mean = jnp.vdot(self.weights, jax.vmap(lambda x: self.objective(u, x))(self.points))
        return mean, jnp.zeros(0, mean.dtype) if self.soft is None else self.soft(params)


# A ResidualVector or a Lagrangian; `as_stages` sees to it that a method gets what it is for.
Minimised: TypeAlias = Any


def soft_constraints(problem: Problem, model: PyTree, draws: Sequence[Draw]) -> Soft:
    """Those that no projection in the model enforces; all without any and without objective."""
    pairs = enumerate(zip(problem.constraints, draws, strict=False))
    found = tuple(
        place
        for place, (item, drawn) in pairs
        if not is_enforced(item.residual, model, drawn.points)
    )
    return found or (() if problem.objective else tuple(range(len(problem.constraints))))


def minimised(
    problem: Problem, static: PyTree, draws: Sequence[Draw], unit: float, soft: Soft
) -> Minimised:
    """What a method is to lower, as a function of the trained parameters.

    Args:
        problem: The problem.
        static: The model with the trained leaves taken out.
        draws: Training points of all statements.
        unit: What rows are divided by.
        soft: From `soft_constraints`.
    """
    chosen = [problem.constraints[place] for place in soft]
    blocks: tuple[Rows, ...] = rows(chosen, [draws[place] for place in soft], unit)
    if problem.objective is None:
        return residual_vector(chosen, static, blocks)
    function, drawn = problem.objective.stated.residual, draws[-1]
    assert isinstance(function, Value)
    return Lagrangian(
        function,
        jax.tree.map(jnp.asarray, drawn.points),
        jnp.asarray(drawn.weights),
        residual_vector(chosen, static, blocks) if chosen else None,
        static,
    )
