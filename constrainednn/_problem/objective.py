"""An objective: a function of the model whose mean over a domain should be least."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array

from constrainednn._common.messages import shown
from constrainednn._problem.constraint import Constraint
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.domains.samplers.base import AbstractSampler
from constrainednn.errors import BadTypeError, BadValueError, UsageError


class Value(eqx.Module):
    """A function whose mean counts in a loss as it is, and not that of its square."""

    fn: Callable[[Any, Any], Any]

    def __call__(self, u: Any, x: Any) -> Array:
        """The value at one point."""
        return self.fn(u, x)


class Objective(eqx.Module):
    """A function whose mean over a domain is minimised, subject to the constraints of a problem.

    The mean may be of any sign, and is no sum of squares: a cost, an energy, a length.

    Args:
        fn: A plain function `fn(u, x)` of the model and one point that returns one number.
        over: A domain. Training points are drawn from it, and so are, independently, the held-out
            points on which the objective is judged.
        points: Number of training points.
        sampler: How the training points are drawn.
        name: Default: the function's name. No constraint of the problem may have it.

    Raises:
        TypeError, ValueError: If a setting cannot be right, naming it.
    """

    stated: Constraint

    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        *,
        over: AbstractDomain,
        points: int | None = None,
        sampler: AbstractSampler | None = None,
        name: str | None = None,
    ):
        if not callable(fn):
            raise BadTypeError(f"an Objective takes a function fn(u, x), got {shown(fn)}.")
        if isinstance(over, type) or not isinstance(over, AbstractDomain):
            raise BadTypeError(
                f"over of an Objective must be a domain, such as cx.Box([-1, -1], [1, 1]), got "
                f"{shown(over)}. Its mean is over a population, which finite sets do not have."
            )
        if isinstance(sampler, Adaptive):
            raise BadValueError(
                "an Objective has no points where it should be zero, so cx.domains.Adaptive() has "
                "nothing to go by. Leave out sampler=, or take cx.domains.Sobol()."
            )
        try:
            stated = Constraint(fn, over=over, points=points, sampler=sampler, name=name)
        except UsageError as error:
            raise type(error)(_of_objective(str(error))) from None
        self.stated = eqx.tree_at(lambda item: item.residual, stated, Value(fn))

    @property
    def name(self) -> str:
        """Its name."""
        return self.stated.name


def _of_objective(sentence: str) -> str:
    """What a constraint says of a function and its points, said of an objective."""
    for ours, theirs in (
        ("name of a constraint", "name of an objective"),
        ("the constraint's random", "the objective's random"),
        ("constraint ", "objective "),
        ("residual(u, x)", "fn(u, x)"),
        ("residual", "fn"),
    ):
        sentence = sentence.replace(ours, theirs)
    return sentence


def label_of(item: Constraint) -> str:
    """What messages call a constraint, or the objective."""
    kind = "objective" if isinstance(item.residual, Value) else "constraint"
    return f"{kind} {item.name!r}"
