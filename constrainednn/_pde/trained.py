"""The statement of `pde` for a model that is trained, on points drawn over the domain."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from constrainednn._pde.conditions import WithArguments
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import SchemeResult, TrainedScheme
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Points
from constrainednn.domains.regions.base import AbstractShape
from constrainednn.errors import BadValueError
from constrainednn.models.random_features import FeatureNetwork
from constrainednn.models.recipes import is_recipe, trainable_mask

# Training points of the equation, and of each condition, at least; and for each parameter.
_POINTS, _FOR_EACH = (2000, 200), (4, 0.5)
# Of the pieces that a model is compared with, and Newton steps at most.
_TOLERANCE, _STEPS = 1e-7, 20_000


class TrainedField(TrainedScheme):
    """An equation in time that a model is trained on.

    Attributes:
        elements: How the same statement is solved in pieces, which tells the model's error.
    """

    elements: SpaceTimeScheme

    def in_elements(self) -> SchemeResult:
        """The same statement, solved in pieces."""
        begun = self.elements.begun(self.elements.shape[1], 1e-3)
        return self.elements.solve(
            self.elements.level(begun)[0],
            tolerance=_TOLERANCE,
            steps=_STEPS,
            key=jax.random.key(0),
            watch=lambda *_: False,
        )


class Stated(NamedTuple):
    """A condition beside the equation.

    Attributes:
        name: Of its constraint.
        residual: Of the model and a point.
        over: Where it holds.
    """

    name: str
    residual: Callable[[Any, Any], Any]
    over: AbstractDomain | Points


def trained(
    residual: Callable[[Any, Array], Any],
    model: PyTree,
    conditions: Sequence[Stated],
    *,
    over: AbstractDomain,
    args: PyTree,
    name: str,
    observed: list[Constraint],
    reference: Callable[[Array], PyTree] | None,
    scheme: TrainedScheme | None = None,
) -> Problem:
    """The same constraints as for elements, but for jumps."""
    built = model(key=jax.random.key(0)) if is_recipe(model) else model
    _refuse_other_size(built, over)
    trained_ones = eqx.filter(built, trainable_mask(built, None))
    count = sum(leaf.size for leaf in jax.tree.leaves(trained_ones))
    many, few = (
        max(least, round(share * count)) for least, share in zip(_POINTS, _FOR_EACH, strict=True)
    )
    constraints = [Constraint(residual, over=over, points=many, name=name)]
    for item in conditions:
        drawn = None if isinstance(item.over, Points) else few
        constraints.append(Constraint(item.residual, over=item.over, points=drawn, name=item.name))
    if args is not None:
        build = functools.partial(_built, model, args)
        model = build if is_recipe(model) else WithArguments(model, args)
    return Problem([*constraints, *observed], model, reference=reference, scheme=scheme)


def _refuse_other_size(built: PyTree, over: AbstractDomain) -> None:
    """Refuse a network or features that take other points than the equation has.

    Of a model of another kind nothing is known: `solve` tries the residual with it.

    Raises:
        ValueError: With the size to write.
    """
    if isinstance(built, eqx.nn.MLP):
        size, write = built.in_size, "cx.MLP({}, ...)"
    elif isinstance(built, eqx.nn.Linear):
        size, write = built.in_features, "cx.Linear({}, ...)"
    elif isinstance(built, FeatureNetwork):
        size, write = built.inner.value[0].shape[1], f"cx.RandomFeatures({over!r}, ...)"
    else:
        return
    wanted, shape = "scalar", ()
    if isinstance(over, AbstractShape):
        wanted = len(over.bounds[0])
        shape = (wanted,)
    # Features take a number as a point of one coordinate.
    if size == wanted or (isinstance(built, FeatureNetwork) and (size, shape) == (1, ())):
        return
    quoted = repr(wanted)
    raise BadValueError(
        f"model= takes points of size {size!r}, and those of the equation have shape {shape}: "
        f"write {write.replace('{}', quoted)}."
    )


def _built(recipe: Callable[..., PyTree], args: PyTree, *, key: Key[Array, ""]) -> WithArguments:
    return WithArguments(recipe(key=key), args)
