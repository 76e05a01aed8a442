"""Stages: methods with their numbers of steps, one after another."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx

from constrainednn._methods._abstract import AbstractMethod
from constrainednn._methods._levenberg_marquardt import LevenbergMarquardt
from constrainednn._validate import as_count


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
        self.trainable = trainable


def _as_method(method: Any) -> AbstractMethod:
    if isinstance(method, AbstractMethod):
        return method
    if isinstance(method, type) and issubclass(method, AbstractMethod):
        raise TypeError(f"method is the class {method.__name__}; write {method.__name__}().")
    if hasattr(method, "init") and hasattr(method, "update"):
        raise TypeError("method is an optax transformation; write cx.Optax(...) around it.")
    raise TypeError(
        "method must be e.g. cx.LevenbergMarquardt() or cx.Optax(optax.adam(1e-3)), "
        f"got {method!r}."
    )


def as_stages(
    method: AbstractMethod | Stage | Sequence[Stage] | None, steps: int | None
) -> list[Stage]:
    if steps is not None:
        steps = as_count(steps, "steps", least=0)
    if isinstance(method, (list, tuple)) and not hasattr(method, "update"):
        stages = list(method)
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise TypeError(f"A sequence of stages holds cx.Stage objects, got {method!r}.")
        if steps is not None:
            raise ValueError("Stages have their own steps: leave out steps=, or set it in each.")
        return stages
    if isinstance(method, Stage):
        return [
            method
            if steps is None
            else Stage(method.method, steps=steps, trainable=method.trainable)
        ]
    chosen = LevenbergMarquardt() if method is None else _as_method(method)
    return [Stage(chosen, steps=1000 if steps is None else steps)]
