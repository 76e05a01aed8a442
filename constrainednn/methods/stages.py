"""Stages: methods with their numbers of steps, one after another."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from constrainednn._common.arguments import as_count, as_function
from constrainednn._common.messages import shown
from constrainednn.errors import BadTypeError, BadValueError
from constrainednn.methods.augmented_lagrangian import AugmentedLagrangian
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt
from constrainednn.methods.variable_projection import VariableProjection
from constrainednn.models.recipes import trainable_mask


class Stage(eqx.Module):
    """A method with its own number of steps and, if wanted, its own trained part.

    Args:
        method: The method.
        steps: Largest number of steps of this stage.
        trainable: As in `Problem`; default: the problem's.
    """

    method: AbstractMethod
    steps: int
    trainable: Callable[[Any], Any] | None

    def __init__(
        self,
        method: AbstractMethod,
        *,
        steps: int,
        trainable: Callable[[Any], Any] | None = None,
    ):
        self.method = _as_method(method)
        self.steps = as_count(steps, "steps of Stage", least=0)
        if trainable is not None:
            as_function(trainable, "trainable of Stage", "lambda u: u.layers[-1]")
        self.trainable = trainable


def _as_method(method: Any) -> AbstractMethod:
    if isinstance(method, AbstractMethod):
        return method
    if isinstance(method, type) and issubclass(method, AbstractMethod):
        raise BadTypeError(f"method is the class {method.__name__}; write {method.__name__}().")
    if hasattr(method, "init") and hasattr(method, "update"):
        raise BadTypeError("method is an optax transformation; write cx.Optax(...) around it.")
    raise BadTypeError(
        f"method must be an object, got {shown(method)}; names are for the command line. There, lm "
        "is cx.LevenbergMarquardt(), gd is cx.Optax(optax.sgd(1e-2)), adam is "
        "cx.Optax(optax.adam(1e-3)), and lbfgs is cx.Optax(optax.lbfgs())."
    )


def described(stages: Sequence[Stage], model: PyTree) -> str:
    """What the stages do: their methods, steps if there are several, and what each trains.

    What `trainable=` selects is named by its leaves, since a function tells nothing of itself.
    """
    parts = []
    for stage in stages:
        text = f"{stage.method!r}"
        if len(stages) > 1:
            text += f" for {stage.steps} steps"
        if stage.trainable is not None:
            trained = eqx.filter(model, trainable_mask(model, stage.trainable))
            paths = jax.tree_util.tree_flatten_with_path(trained)[0]
            text += " on " + ", ".join(jax.tree_util.keystr(path) for path, _ in paths)
        parts.append(text)
    return ", then ".join(parts)


def trained_numbers(
    stages: Sequence[Stage], model: PyTree, trainable: Callable[[Any], Any] | None
) -> int:
    """How many numbers are trained in one stage or another.

    Args:
        stages: The stages.
        model: The model.
        trainable: What is trained in stages that do not say.
    """
    masks = [trainable_mask(model, stage.trainable or trainable) for stage in stages]
    trained = eqx.filter(model, jax.tree.map(lambda *used: any(used), *masks))
    return sum(leaf.size for leaf in jax.tree.leaves(trained))


def as_stages(
    method: AbstractMethod | Stage | Sequence[Stage] | None, steps: int | None, *, objective: bool
) -> list[Stage]:
    """Methods and stages as a list of stages, each with its steps.

    Args:
        method: As in `solve`.
        steps: As in `solve`.
        objective: True if there is an objective: the default is another one then.

    Raises:
        TypeError, ValueError: If a method is none, or is not for what is to be lowered.
    """
    stages = _as_stages(method, steps, AugmentedLagrangian if objective else LevenbergMarquardt)
    for stage in stages:
        if objective and isinstance(stage.method, (LevenbergMarquardt, VariableProjection)):
            raise BadValueError(
                f"cx.{type(stage.method).__name__}() lowers sums of squares, and an objective is "
                "none. Leave method= out, or take cx.Optax(optax.lbfgs())."
            )
        if isinstance(stage.method, AugmentedLagrangian) and not objective:
            raise BadValueError(
                "cx.methods.AugmentedLagrangian() is for problems with an objective. To meet "
                "constraints alone leave method= out."
            )
    return stages


def _as_stages(
    method: AbstractMethod | Stage | Sequence[Stage] | None,
    steps: int | None,
    default: type[AbstractMethod],
) -> list[Stage]:
    if steps is not None:
        steps = as_count(steps, "steps", least=0)
    if isinstance(method, (list, tuple)) and not hasattr(method, "update"):
        stages = list(method)
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise BadTypeError(
                f"method as a sequence holds cx.Stage objects, one or more, got {shown(method)}."
            )
        if steps is not None:
            raise BadValueError("Stages have their own steps: leave out steps=, or set it in each.")
        return stages
    if isinstance(method, Stage):
        return [
            method
            if steps is None
            else Stage(method.method, steps=steps, trainable=method.trainable)
        ]
    chosen = default() if method is None else _as_method(method)
    return [Stage(chosen, steps=1000 if steps is None else steps)]
