"""The error of a network that was trained on a `pde`: the same statement is solved in pieces."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._pde.trained import TrainedField
from constrainednn.errors import BadValueError
from constrainednn.results.error_estimate.field import FieldErrorEstimate
from constrainednn.results.facts import Facts
from constrainednn.runs.history import Status


def trained_error(facts: Facts) -> FieldErrorEstimate:
    """Compare on the held-out points of the equation.

    Raises:
        ValueError: If the statement is not solved in pieces either.
    """
    scheme = facts.problem.scheme
    assert isinstance(scheme, TrainedField)
    found = scheme.in_elements()
    if found.status != Status.CONVERGED:
        raise BadValueError(
            f"error_estimate compares with the same statement in pieces, which ended as "
            f"{found.status}: {found.reason}. Solve it without model= to see more."
        )
    points = facts.streams[0].heldout
    assert points is not None
    values = lambda u: np.asarray(in_blocks(eqx.Partial(flat_value, u), points.points))  # noqa: E731
    true, computed = values(found.model), values(facts.model)
    errors, sizes = (np.sqrt((item**2).mean(axis=0)) for item in (true - computed, true))
    size = float(np.linalg.norm(sizes)) or 1.0
    components = errors / np.where(sizes > 0, sizes, 1.0)
    rounding = 1e3 * float(jnp.finfo(jnp.result_type(float)).eps)
    relative = float(np.linalg.norm(errors)) / size
    return FieldErrorEstimate(found.model, facts.model, relative, components, rounding)
