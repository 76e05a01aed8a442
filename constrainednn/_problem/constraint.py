"""A constraint: a residual over a domain."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from constrainednn._common.arguments import as_count, as_positive, check_takes
from constrainednn._common.messages import shown
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.missing import Present, missing_values
from constrainednn.domains.samplers.base import AbstractSampler
from constrainednn.domains.samplers.draws import SAMPLERS
from constrainednn.domains.samplers.random import Independent
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.targets.sets import AbstractTarget

# Names are written into tables, messages and figures.
_LONGEST_NAME = 200


class Constraint(eqx.Module):
    """A condition that the model should satisfy at every point of a domain.

    Args:
        residual: A plain function `residual(u, x)` of the model and one point, zero where the
            condition holds; returns an array of any shape. Its mean square is the loss.
        over: Where the condition should hold: a domain (a probability measure), `Points` (used
            whole, no gap) or `Data` (split by rows).
        points: Number of training points drawn from a domain. `Points` and `Data` bring their own.
        sampler: How the training points are drawn. Default: where the residual of a problem takes
            derivatives of the model over an interval, a box or a product of these, Gauss's rule in
            one dimension and scrambled Sobol points in two; elsewhere independent draws.
            Held-out points are always independent.
        weight: Factor of this constraint in the total loss.
        name: Default: the function's name. Must be unique in a problem, since the random streams
            are named by it.
        tolerance: Size of the residual, |r|, above which a point counts as a violation. The report
            then bounds the share of fresh points that violate, which it can for a number named
            before the run only, and a solution that violates it at more than 1 % of points is
            "not solved". It does not change what is trained.
        target: Set that the model's values should fill, if there is one: it allows the verdict
            "collapsed" in the gap report.

    Raises:
        TypeError, ValueError: If a setting cannot be right, naming it.
    """

    residual: Callable[[Any, Any], Any]
    over: AbstractDomain | Points | Data
    points: int | None
    sampler: AbstractSampler
    names_sampler: bool
    weight: float
    name: str
    target: AbstractTarget | None
    tolerance: float | None

    def __init__(
        self,
        residual: Callable[[Any, Any], Any],
        *,
        over: AbstractDomain | Points | Data,
        points: int | None = None,
        sampler: AbstractSampler | None = None,
        weight: float = 1.0,
        name: str | None = None,
        target: AbstractTarget | None = None,
        tolerance: float | None = None,
    ):
        self.residual = residual
        self.name = _constraint_name(residual, name)
        label = f"constraint {self.name!r}"
        must = f"{label}: residual must take the model and one point, residual(u, x)"
        check_takes(residual, (None, None), must)
        if not isinstance(over, (AbstractDomain, Points, Data)):
            raise BadTypeError(
                f"{label}: over must be a domain, Points or Data, got {shown(over)}. "
                "Write e.g. over=cx.Interval(0, 1), or over=cx.Points(array) for given points."
            )
        self.over = over
        if isinstance(over, Data) and missing_values(over.rows)[0]:
            self.residual = Present(residual, over.rows)
        if isinstance(over, AbstractDomain):
            self.points = as_count(100 if points is None else points, f"{label}: points")
        elif points is not None or sampler is not None:
            raise BadValueError(
                f"{label}: over={over!r} brings its own points. Leave out points= and sampler=."
            )
        else:
            self.points = None
        # A problem, which knows the model, replaces one that is not named.
        self.sampler = Independent() if sampler is None else sampler
        self.names_sampler = sampler is not None
        if not isinstance(self.sampler, AbstractSampler):
            raise BadTypeError(
                f"{label}: sampler must be an object such as cx.domains.Sobol(), "
                f"got {shown(sampler)}. Known: "
                + ", ".join(f"cx.domains.{known.__name__}()" for known in SAMPLERS)
                + ", or an AbstractSampler of your own."
            )
        self.weight = as_positive(weight, f"{label}: weight")
        if target is not None and not isinstance(target, AbstractTarget):
            raise BadTypeError(f"{label}: target must be e.g. cx.Circle(), got {shown(target)}.")
        self.target = target
        self.tolerance = None
        if tolerance is not None:
            self.tolerance = as_positive(tolerance, f"{label}: tolerance")


def _constraint_name(residual: Callable, name: str | None) -> str:
    if not callable(residual):
        raise BadTypeError(f"residual must be a function residual(u, x), got {shown(residual)}.")
    if name is None:
        name = getattr(residual, "__name__", type(residual).__name__)
        if name == "<lambda>":
            raise BadValueError(
                "A lambda has no name to key the constraint's random streams. "
                "Write name='...' beside it."
            )
    if not isinstance(name, str) or not name.strip():
        raise BadValueError(f"name of a constraint must be text, got {shown(name)}.")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadValueError(
            f"name of a constraint must be at most {_LONGEST_NAME} printable characters, got "
            f"{shown(name)} of length {len(name)}."
        )
    return name


def is_drawn_again(constraint: Constraint) -> bool:
    """True if redraws change the training points of a constraint."""
    return isinstance(constraint.over, AbstractDomain) and constraint.sampler.random
