"""Problems of `ivp` and `bvp` whose model is trained."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn._common.arguments import as_count
from constrainednn._ode.schemes.boundary_fields import (
    BoundaryConditions,
    BoundaryEquationResidual,
    BoundaryField,
    ConditionsResidual,
)
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.field import EquationResidual
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.trained.models import GuessedRecipe, WindowedRecipe, as_recipe, scaled
from constrainednn._ode.trained.scheme import TrainedBoundaryValues, TrainedWindows
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn.domains.boxes import Interval
from constrainednn.domains.finite import Points
from constrainednn.domains.samplers.grids import GaussQuadrature
from constrainednn.errors import BadValueError
from constrainednn.models.pieces import Pieces
from constrainednn.models.recipes import trainable_mask

# Training points of a window for each trained parameter of a component, and at least.
_FOR_EACH, _LEAST = 2, 50
# A window longer than so many of the fastest times of decay at its start is not for a network.
_STIFF = 1e3


def refuse_mixed(
    model: Any, points: int | None, windows: int = 1, *, beside: Mapping[str, Any]
) -> None:
    """Refuse settings of pieces beside a model, and settings of a model without one.

    Raises:
        ValueError: With the name of the first that is given.
    """
    if model is None:
        for name, given in (("points", points is not None), ("windows", windows != 1)):
            if given:
                raise BadValueError(
                    f"{name}= is for a model that is trained, model=cx.MLP(...); without one, "
                    "windows and their nodes are chosen by tolerance= of solve."
                )
        return
    for name, value in beside.items():
        if value is not None and np.size(value):
            raise BadValueError(
                f"{name}= needs the windows of polynomials that are solved where no model= is "
                f"given: leave out model=, or {name}=."
            )


def trained_initial_values(
    scheme: InitialValueScheme,
    state: Float[np.ndarray, "p d"],
    model: Any,
    *,
    points: int | None,
    windows: int,
    name: str,
    reference: Callable[[Any], Any] | None,
) -> Problem:
    """An initial value problem for a model in scaled time, on equal windows."""
    count, recipe = as_count(windows, "windows of ivp"), as_recipe(model, scheme.span)
    edges = tuple(np.linspace(*scheme.span, count + 1).tolist())
    _refuse_stiff(scheme, state, edges)
    rows = _points(points, recipe, state.shape[1])
    equation = Constraint(
        EquationResidual(scheme.field),
        over=Interval(*sorted(scheme.span)),
        points=rows * count,
        sampler=GaussQuadrature(),
        name=name,
    )
    start = tuple(map(tuple, state.tolist()))
    return Problem(
        equation,
        WindowedRecipe(recipe, edges, start, scheme.field.unravel),
        reference=reference,
        scheme=TrainedWindows(scheme, edges),
    )


def trained_boundary_values(
    scheme: BoundaryValueScheme,
    guess: Any,
    first: Float[np.ndarray, " d"],
    pieces: Pieces,
    model: Any,
    *,
    points: int | None,
    reference: Callable[[Any], Any] | None,
) -> Problem:
    """A boundary value problem for a model in scaled places, added to the guess.

    Args:
        scheme: Its field and conditions.
        guess: As the user gave it.
        first: The guess at the left end.
        pieces: The guess as pieces, with the first values of unknown parameters.
        model: What is trained.
        points: Number of training points.
        reference: A known solution.
    """
    recipe, statement = as_recipe(model, scheme.span), scheme.statement
    field, conditions = statement.field, statement.conditions
    assert isinstance(field, BoundaryField) and isinstance(conditions, BoundaryConditions)
    around = _Called(guess) if callable(guess) else tuple(first.tolist())
    constraints = [
        Constraint(
            BoundaryEquationResidual(field),
            over=Interval(*scheme.span),
            points=_points(points, recipe, len(first)),
            sampler=GaussQuadrature(),
            name="equation",
        ),
        Constraint(
            ConditionsResidual(conditions, scheme.span),
            over=Points(np.asarray(scheme.span[:1])),
            name="boundary",
        ),
    ]
    start = tuple(np.asarray(pieces.parameters).tolist())
    return Problem(
        constraints,
        GuessedRecipe(recipe, start, around, scheme.span, len(first)),
        reference=reference,
        scheme=TrainedBoundaryValues(scheme, pieces),
    )


class _Called:
    """A guess as a function that holds no arrays of the model."""

    def __init__(self, guess: Callable[[Array], Any]):
        self.guess = guess

    def __call__(self, x: Array) -> Any:
        return self.guess(x)


def _points(points: int | None, recipe: Callable, d: int) -> int:
    """Training points of one window."""
    if points is not None:
        return as_count(points, "points")
    model = scaled(recipe, d, key=jax.random.key(0))
    trained: PyTree = eqx.filter(model, trainable_mask(model, None))
    count = sum(leaf.size for leaf in jax.tree.leaves(trained))
    return max(_LEAST, round(_FOR_EACH * count / d))


def _refuse_stiff(
    scheme: InitialValueScheme, state: Float[np.ndarray, "p d"], edges: tuple[float, ...]
) -> None:
    """Refuse what decays much faster than a window is long."""
    field, (p, d) = scheme.field, state.shape

    def slope(y: Float[Array, " pd"]) -> Float[Array, " pd"]:
        y = y.reshape(p, d)
        return jnp.concatenate([y[1:].ravel(), field(jnp.asarray(edges[0]), y)])

    J = np.asarray(jax.jacfwd(slope)(jnp.asarray(state.ravel())))
    way = np.sign(edges[1] - edges[0])
    rate = float(np.max(-way * np.linalg.eigvals(J).real)) if np.isfinite(J).all() else 0.0
    length = abs(edges[1] - edges[0])
    if rate * length > _STIFF:
        raise BadValueError(
            f"the equation is stiff: at the start something decays in {1 / rate:.1e}, and a window "
            f"is {length:.3g} long. Leave out model=: windows of polynomials solve it; or write "
            f"windows={int(np.ceil(rate * abs(edges[-1] - edges[0]) / _STIFF))}."
        )
