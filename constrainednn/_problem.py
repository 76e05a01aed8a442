"""Constraints and problems: what the user states."""

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from constrainednn._domains import AbstractDomain, Data, Points
from constrainednn._errors import BadTypeError, BadValueError
from constrainednn._keys import stream
from constrainednn._missing import Present, missing_values
from constrainednn._models import AbstractRecipe, is_recipe
from constrainednn._samplers import SAMPLERS, AbstractSampler, Independent
from constrainednn._scheme import AbstractScheme
from constrainednn._targets import AbstractTarget
from constrainednn._validate import as_count, as_function, as_positive, leaves_of, shown

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
        sampler: How the training points are drawn. Held-out points are always independent.
        weight: Factor of this constraint in the total loss.
        name: Default: the function's name. Must be unique in a problem, since the random streams
            are named by it.
        target: Set that the model's values should fill, if there is one: it allows the verdict
            "collapsed" in the gap report.

    Raises:
        TypeError, ValueError: If a setting cannot be right, naming it.
    """

    residual: Callable[[Any, Any], Any]
    over: AbstractDomain | Points | Data
    points: int | None
    sampler: AbstractSampler
    weight: float
    name: str
    target: AbstractTarget | None

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
    ):
        self.residual = residual
        self.name = _constraint_name(residual, name)
        label = f"constraint {self.name!r}"
        _check_signature(residual, label)
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
        self.sampler = Independent() if sampler is None else sampler
        if not isinstance(self.sampler, AbstractSampler):
            raise BadTypeError(
                f"{label}: sampler must be an object such as cx.Sobol(), got {shown(sampler)}. "
                + "Known: "
                + ", ".join(f"cx.{known.__name__}()" for known in SAMPLERS)
                + ", or an AbstractSampler of your own."
            )
        self.weight = as_positive(weight, f"{label}: weight")
        if target is not None and not isinstance(target, AbstractTarget):
            raise BadTypeError(f"{label}: target must be e.g. cx.Circle(), got {shown(target)}.")
        self.target = target


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
        trainable: As `where` in `equinox.tree_at`: from the model to the part that is trained.
            Default: every inexact array outside `Frozen`.
        reference: A known solution, called like the model; the report then shows the error.
        scheme: How a model made of pieces is solved; set by `ivp` and `bvp`.
        source: Where it was loaded from; set by `load_problem`.

    Raises:
        TypeError, ValueError: If a part cannot be right, naming it.
    """

    constraints: tuple[Constraint, ...]
    model: PyTree
    trainable: Callable[[Any], Any] | None
    reference: Callable[[Any], Any] | None
    scheme: AbstractScheme | None
    source: Source | None = eqx.field(static=True)

    def __init__(
        self,
        constraints: Constraint | Sequence[Constraint],
        model: PyTree,
        *,
        trainable: Callable[[Any], Any] | None = None,
        reference: Callable[[Any], Any] | None = None,
        scheme: AbstractScheme | None = None,
        source: Source | None = None,
    ):
        given: list[Any] = [constraints]
        if isinstance(constraints, (list, tuple)):
            given = [*constraints]
        for item in given:
            if not isinstance(item, Constraint):
                raise BadTypeError(
                    f"constraints must be cx.Constraint objects, got {shown(item)}. "
                    "Write cx.Constraint(residual, over=domain), or a list of such."
                )
        if not given:
            raise BadValueError("constraints must hold at least one cx.Constraint, got none.")
        names = [item.name for item in given]
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
            raise BadTypeError(f"scheme of Problem is set by ivp and bvp, got {shown(scheme)}.")
        self.constraints = tuple(given)
        self.model = model
        self.trainable = trainable
        self.reference = reference
        self.scheme = scheme
        self.source = source

    def build_model(self, *, key: Key[Array, ""]) -> PyTree:
        """The ready model: built from its recipe with the stream "model", or as given."""
        if not is_recipe(self.model):
            return self.model
        if not isinstance(self.model, AbstractRecipe):
            _check_recipe(self.model)
        model = self.model(key=stream(key, "model"))
        if is_recipe(model):
            raise BadTypeError(f"The recipe {self.model!r} built a model without any parameters.")
        return model


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


def _check_signature(residual: Callable, label: str) -> None:
    try:
        signature = inspect.signature(residual)
    except (TypeError, ValueError):  # some callables do not tell; the trial evaluation will
        return
    try:
        signature.bind(object(), object())
    except TypeError as error:
        raise BadTypeError(
            f"{label}: residual must take the model and one point, residual(u, x), "
            f"but it takes {signature}. {str(error).capitalize()}."
        ) from None


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
