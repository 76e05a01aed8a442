"""Constraints and problems: what the user states."""

import dataclasses
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from constrainednn._common.arguments import as_function, leaves_of
from constrainednn._common.messages import shown
from constrainednn._common.random_keys import stream
from constrainednn._common.tables import html_table
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.data_rows import split_rows
from constrainednn._problem.default_sampler import default_sampler, is_even
from constrainednn._problem.objective import Objective
from constrainednn._problem.scheme import AbstractScheme, TrainedScheme
from constrainednn.domains.finite import Data, Points
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.models.recipes import AbstractRecipe, Place, is_recipe
from constrainednn.targets.image import model_inputs


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a problem was loaded from.

    Attributes:
        path: The file, absolute.
        gallery: True for a file that comes with the package.
        name: Name of the problem in it.
        settings: Keywords that its function was called with, as pairs; None if one of them is
            neither a number nor text.
        files: Names and SHA-256 of the file and of those that it imports beside it, as pairs.
    """

    path: Path
    gallery: bool
    name: str
    settings: tuple[tuple[str, Any], ...] | None
    files: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """One SHA-256 for all files."""
        text = "".join(f"{name} {digest}\n" for name, digest in self.files)
        return hashlib.sha256(text.encode()).hexdigest()

    def recorded(self, folder: Path) -> dict[str, Any] | None:
        """As plain data, if it can be; the path is relative to a folder."""
        if self.settings is None:
            return None
        path = self.path.stem if self.gallery else os.path.relpath(self.path, folder.resolve())
        return {
            "path": path,
            "gallery": self.gallery,
            "name": self.name,
            "settings": dict(self.settings),
            "files": dict(self.files),
        }


class Problem(eqx.Module):
    """Constraints, the model that should satisfy them, and what of it is trained.

    Args:
        constraints: One constraint or a sequence of them.
        model: A recipe (called with `key=`; holds no inexact array), or a ready model: any pytree.
        objective: What should be least, subject to the constraints. Default: nothing; the
            constraints alone are to be met.
        trainable: As `where` in `equinox.tree_at`: from the model to the part that is trained.
            Default: every inexact array outside `Frozen`.
        reference: A known solution, called like the model; the report then shows the error, and
            how far an objective is above its value there.
        scheme: How the solution is found; set by `ivp`, `bvp` and `pde`. Default: by training.
        source: Where it was loaded from; set by `load_problem`.

    Raises:
        TypeError, ValueError: If a part cannot be right, naming it.
    """

    constraints: tuple[Constraint, ...]
    model: PyTree
    objective: Objective | None
    trainable: Callable[[Any], Any] | None
    reference: Callable[[Any], Any] | None
    scheme: AbstractScheme
    source: Source | None = eqx.field(static=True)

    def __init__(
        self,
        constraints: Constraint | Sequence[Constraint],
        model: PyTree,
        *,
        objective: Objective | None = None,
        trainable: Callable[[Any], Any] | None = None,
        reference: Callable[[Any], Any] | None = None,
        scheme: AbstractScheme | None = None,
        source: Source | None = None,
    ):
        several = isinstance(constraints, (list, tuple))
        given: list[Any] = [*constraints] if several else [constraints]
        for item in given:
            if not isinstance(item, Constraint):
                raise BadTypeError(
                    f"constraints must be cx.Constraint objects, got {shown(item)}. "
                    "Write cx.Constraint(residual, over=domain), or a list of such."
                )
        if not given:
            raise BadValueError("constraints must hold at least one cx.Constraint, got none.")
        if objective is not None and not isinstance(objective, Objective):
            raise BadTypeError(
                f"objective of Problem must be a cx.Objective, got {shown(objective)}. "
                "Write cx.Objective(fn, over=domain), for fn(u, x) of the model and one point."
            )
        names = [item.name for item in given]
        if objective is not None and objective.name in names:
            raise BadValueError(
                f"The objective and a constraint are both named {objective.name!r}. Names keep "
                f"their random streams apart: give one of them another with "
                f"name={objective.name + '_2'!r}."
            )
        for name in names:
            if names.count(name) > 1:
                raise BadValueError(
                    f"Two constraints are named {name!r}. Names keep their random streams apart: "
                    f"give one of them another with name={name + '_2'!r}."
                )
        leaves_of(model, "model")
        if is_recipe(model) and not callable(model):
            raise BadTypeError(
                f"model {shown(model)} holds no floating-point array and cannot be called with "
                "key=. Give a model with parameters, or a recipe such as cx.MLP(2, 2)."
            )
        for value, name in ((trainable, "trainable"), (reference, "reference")):
            if value is not None:
                as_function(value, f"{name} of Problem", "lambda u: u")
        if scheme is not None and not isinstance(scheme, AbstractScheme):
            raise BadTypeError(
                f"scheme of Problem is set by ivp, bvp and pde, got {shown(scheme)}."
            )
        self.model = model
        self.objective = objective
        self.trainable = trainable
        self.reference = reference
        self.scheme = TrainedScheme() if scheme is None else scheme
        self.source = source
        self.constraints = tuple(given)
        self._choose_samplers()

    def _choose_samplers(self) -> None:
        """Give statements that name no sampler the one that suits the model."""
        unnamed = [item for item in self.statements if not item.names_sampler]
        if self.scheme.in_pieces or not any(is_even(item.over) for item in unnamed):
            return
        try:
            model = self.build_model(key=jax.random.key(0))
        except Exception:  # noqa: BLE001  (a recipe of the user's, which `solve` calls again)
            return
        samplers = [
            item.sampler if item.names_sampler else default_sampler(item, model)
            for item in self.statements
        ]
        where = lambda items: [item.sampler for item in items]  # noqa: E731
        self.constraints = eqx.tree_at(where, self.constraints, samplers[: len(self.constraints)])
        if self.objective is not None:
            where = lambda item: item.stated.sampler  # noqa: E731
            self.objective = eqx.tree_at(where, self.objective, samplers[-1])

    @property
    def statements(self) -> tuple[Constraint, ...]:
        """What points are drawn for: the constraints and, last, the objective."""
        return self.constraints + (() if self.objective is None else (self.objective.stated,))

    def _repr_html_(self) -> str:
        rows = [
            (
                item.name,
                shown(item.over),
                "its own" if item.points is None else item.points,
                shown(item.sampler),
                f"{item.weight:g}",
            )
            for item in self.constraints
        ]
        # An address says nothing, and is another one each time.
        model = re.sub(r" at 0x[0-9a-f]+", "", shown(self.model))
        lines = ["solved in pieces" if self.scheme.in_pieces else f"model: {model}"]
        if self.objective is not None:
            stated = self.objective.stated
            lines.append(f"minimises the mean of {stated.name} over {shown(stated.over)}")
        if self.source is not None:
            lines.append(f"from {self.source.path.name}, {self.source.name}")
        lines.append("with a reference" if self.reference is not None else "without a reference")
        return html_table(("constraint", "over", "points", "sampler", "weight"), rows, lines)

    def places(self, *, key: Key[Array, ""]) -> list[Place]:
        """What each statement is over; of data that hold rows out, the inputs trained on.

        Args:
            key: Key of the run, which splits the rows.
        """
        holds_out = lambda over: isinstance(over, Data) and over.judging_rows > 0  # noqa: E731
        if not any(holds_out(item.over) for item in self.statements):
            return [item.over for item in self.statements]
        rows = split_rows(self.statements, key=key)
        found = []
        for i, item in enumerate(self.statements):
            train = rows[i][0] if holds_out(item.over) else None
            if train is None:
                found.append(item.over)
            elif len(train):
                found.append(Points(model_inputs(train.points)))
        return found

    def build_model(self, *, key: Key[Array, ""]) -> PyTree:
        """The ready model: built from its recipe with the stream "model", or as given."""
        if not is_recipe(self.model):
            return self.model
        recipe = self.model
        if isinstance(recipe, AbstractRecipe):
            recipe = recipe.spread_over(self.places(key=key))
        else:
            _check_recipe(recipe)
        model = recipe(key=stream(key, "model"))
        if is_recipe(model):
            raise BadTypeError(f"The recipe {self.model!r} built a model without any parameters.")
        return model


def _check_recipe(model: Callable) -> None:
    try:
        inspect.signature(model).bind(key=jax.random.key(0))
    except TypeError:
        raise BadTypeError(
            f"model {shown(model)} holds no floating-point array, so it must be a recipe that "
            "takes key=, e.g. def recipe(*, key): return equinox.nn.MLP(2, 2, 64, 1, key=key)."
        ) from None
    except ValueError:
        return
