"""Why a run ended: memory, precision, or steps that cannot be taken."""

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from constrainednn._checks.finiteness import check_finite, check_gradient
from constrainednn._common.memory import available_memory, equations_of, refuse_too_large
from constrainednn._common.messages import shown
from constrainednn._gap.objectives.lagrangian import Minimised, Soft
from constrainednn._gap.residuals import loss_at
from constrainednn._problem.constraint import is_drawn_again
from constrainednn._problem.problem import Problem
from constrainednn._solve.training.stage_state import InStage
from constrainednn._solve.training.steps import Chunk, advance
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn.domains.base import AbstractDomain
from constrainednn.errors import BadValueError, ProblemError
from constrainednn.methods.augmented_lagrangian import AugmentedLagrangian
from constrainednn.methods.base import AbstractResidual
from constrainednn.methods.endings import along_gradient
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt, least_numbers, operations
from constrainednn.methods.stages import Stage
from constrainednn.methods.variable_projection import VariableProjection
from constrainednn.runs.rates import Rate, rate_of
from constrainednn.runs.run import Run

# Methods that hold the Jacobian.
_DENSE = (LevenbergMarquardt, VariableProjection)
# Operations of one step that are announced: about ten seconds in which nothing else is heeded.
_LONG = 1e12
# A loss above this is that of a constraint with inequalities which does not hold.
_VIOLATED = 1e-6
_SMALLER = (
    "Lower points= or the width, or take a first-order method: cx.Optax(optax.lbfgs()), "
    "--method lbfgs"
)
# Of fewer steps nothing is said: the first ones are typical of nothing.
_LEAST_STEPS = 50
# The monitor loss has parted from the training loss where it is so many times as large.
_PARTED = 4.0
# An objective that is so many times its first size below zero may have no minimum.
_DEEP = 100.0
_UNBOUNDED = (
    ", and the objective still falls faster and faster: it may be unbounded below. Bound the "
    "model's values, by with_projection(inequalities=...) or with_output, or look for a missing "
    "constraint"
)


def raised_at(error: Exception, step: int) -> str:
    """One line of what a callback or a check inside of a residual raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Tracebacks are quoted, with advice around them: the last line that names an error says what.
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    line = named[-1] if named else (lines or [type(error).__name__])[0]
    return f"at step {step}: the residual raised {shown(line)}. The best parameters are kept"


def out_of_memory(error: Exception, step: int) -> str:
    detail = (str(error).splitlines() or [""])[0][:200]
    return f"out of memory after step {step}: {detail}. Lower points or width."


def refuse_step(needed: int, what: str) -> None:
    refuse_too_large(
        needed,
        f"A step of Levenberg-Marquardt {what}",
        _SMALLER,
    )


def warn_of_float32(stages: Sequence[Stage], tolerance: float) -> None:
    if jnp.result_type(float) != jnp.float32:
        return
    if 0 < tolerance < float(jnp.finfo(jnp.float32).eps):
        warnings.warn(
            f"tolerance={tolerance:g} is below the rounding of float32, 1.2e-07: it may never be "
            "reached. Write jax.config.update('jax_enable_x64', True) before the first array.",
            stacklevel=7,
        )
    elif any(isinstance(stage.method, _DENSE) for stage in stages):
        warnings.warn(
            "Levenberg-Marquardt in float32 stops near a relative residual of 1e-7. For float64 "
            "write jax.config.update('jax_enable_x64', True) before the first array.",
            stacklevel=7,
        )


def refuse_dense(stage: Stage, residual: Minimised, params: PyTree) -> int:
    """What a step holds in dense arrays at least, in bytes; refused if that cannot fit.

    Warns of steps so long that a signal would wait for minutes.
    """
    if not isinstance(stage.method, _DENSE):
        return 0
    m = jax.eval_shape(residual, params).size
    leaves = jax.tree.leaves(params)
    P = sum(leaf.size for leaf in leaves)
    needed = least_numbers(m, P) * leaves[0].dtype.itemsize
    what = f"with {m} residual entries and {P} parameters"
    refuse_step(needed, what)
    if operations(m, P) > _LONG:
        warnings.warn(
            f"A step of Levenberg-Marquardt {what} takes some {operations(m, P):.0e} "
            "operations, a minute on a few cores for every 5e12, and a signal or time_limit= "
            f"is heeded only between steps. {_SMALLER}.",
            stacklevel=8,
        )
    return needed


def refuse_stale(stage: Stage, run: Run, soft: Soft) -> None:
    """Refuse multipliers of points that are drawn again, and early stopping beside them."""
    if not (soft and isinstance(stage.method, AugmentedLagrangian)):
        return
    if run.early_stopping:
        raise BadValueError(
            "early_stopping goes by the monitor loss, which trades a violation for a lower "
            "objective, and multipliers do not. Leave it out."
        )
    if run.redraw:
        raise BadValueError(
            f"redraw={run.redraw} draws other points, and the multipliers are of those before. "
            "Leave it out."
        )


def why_converged(now: InStage, points: TrainingPoints) -> str:
    """What is known of a stationary point: unused parameters, inequalities that are violated."""
    method, reason = now.stage.method, "no step can lower the loss further"
    if isinstance(method, AugmentedLagrangian):
        reason = method.why_converged
    if isinstance(method, _DENSE) and (unseen := method.unseen(now.params, now.state)):
        reason += f"; the residual does not depend on {unseen}"
    for item, drawn in points.pairs:
        one = jax.tree.map(lambda leaf: leaf[0], drawn.points)
        program = jax.make_jaxpr(lambda x, item=item: item.residual(now.model, x))(one)
        names = {part.params.get("name") for part in equations_of(program.jaxpr)}
        if "violation" in names and loss_at(item, now.model, drawn) > _VIOLATED * item.weight:
            return (
                f"{reason}, and {item.name!r} does not hold. Inequalities in a residual leave "
                "minima of their own: build signs and bounds into the model with cx.with_output"
            )
    return reason


def why_stalled(now: InStage, points: TrainingPoints) -> str:
    """Why no step lowers the loss: where the residual ends, or along which parameters."""
    clause, ahead = now.stage.method.explain(now.params, now.state)
    reason = "no step lowers the loss, although its gradient is not zero"
    if ahead is not None:
        model = eqx.combine(ahead, now.static)
        try:
            for item, drawn in points.pairs:
                check_finite(item, model, drawn)
        except ProblemError as error:
            return f"{reason}: steps that would lower it end at a cliff. There, {error}"
    if clause or not isinstance(now.residual, AbstractResidual):
        return clause or reason
    return f"{reason}: {along_gradient(now.residual, now.params)}"


def why_max_steps(
    problem: Problem,
    losses: Float[np.ndarray, " steps"],
    monitor: Sequence[tuple[int, float]],
    limit: int,
    tolerance: float = 0.0,
    sizes: tuple[int, int] | None = None,
) -> str:
    """What the last decade of steps says of more of them, more points, or a wider model.

    Args:
        problem: What was trained; of an objective it is said only if it may have no minimum.
        losses: Training loss before each step that counts.
        monitor: Pairs (step, monitor loss).
        limit: Number of steps that were allowed.
        tolerance: Root of the loss that was asked for; zero for none.
        sizes: Residual entries and trained numbers, if known.
    """
    reason = f"the limit of {limit} steps is reached"
    taken = len(losses)
    if problem.objective is not None:
        return reason + (_UNBOUNDED if _seems_unbounded(losses) else "")
    if limit < _LEAST_STEPS:
        return reason
    train = rate_of(np.arange(1.0, taken + 1), losses, taken)
    watched = np.array([pair for pair in monitor if pair[0] <= taken], float).reshape(-1, 2)
    fresh = rate_of(watched[:, 0], watched[:, 1], taken)
    if train is None:
        return reason
    if fresh is not None and watched[-1, 1] > _PARTED * losses[-1]:
        behind = "no longer falls" if fresh.level else "stays behind"
        return (
            f"{reason}: the monitor loss {behind}, {watched[-1, 1]:.1e} against {losses[-1]:.1e} "
            f"on the training points{_rows_for(sizes)}. More {_points_of(problem)} help more than "
            "steps"
        )
    if train.level:
        return (
            f"{reason}: the training loss has levelled off{_rows_for(sizes)}. Not more steps but a "
            "wider model, another start (seed=) or another method may help"
        )
    slower = train if fresh is None or train.power > fresh.power else fresh
    return f"{reason}: {_still_falling(slower, tolerance)}"


def _still_falling(rate: Rate, tolerance: float) -> str:
    """The rate in words, and how many steps it asks for."""
    words = "the losses still fall"
    if not rate.steady:
        return f"{words}, but not steadily: how many more steps are needed cannot be told"
    if rate.decades:
        words += f": a digit of the root of the loss takes {2 / -rate.decades:.2g} steps"
    else:
        words += (
            f", over the last decade of steps as steps^{rate.power:.1f}. At this rate ten times "
            f"the steps divide the root of the loss by {10 ** (-rate.power / 2):.2g}"
        )
    if not tolerance:
        return words
    needed = rate.steps_to(tolerance**2)
    if np.isfinite(needed):
        return f"{words}, and some {needed:.2g} steps in all reach tolerance={tolerance:g}"
    return f"{words}, and ten times the steps would not reach tolerance={tolerance:g}"


def _rows_for(sizes: tuple[int, int] | None) -> str:
    return f" ({sizes[0]} residual entries for {sizes[1]} parameters)" if sizes else ""


def _seems_unbounded(losses: Float[np.ndarray, " steps"]) -> bool:
    """True for an objective that fell far below zero, most of the way in the last half."""
    if len(losses) < 2 or not np.isfinite(losses).all():
        return False
    first, middle, last = losses[0], losses[len(losses) // 2], losses[-1]
    return bool(last < -_DEEP * max(abs(first), 1.0) and last < 2 * middle)


def _points_of(problem: Problem) -> str:
    """What there can be more of to train on, and how it is asked for."""
    if any(map(is_drawn_again, problem.statements)):
        return "points, points= or redraw=,"
    domains = any(isinstance(item.over, AbstractDomain) for item in problem.statements)
    return "points, points=," if domains else "rows"


def why_nonfinite(
    seen: Float[np.ndarray, " steps"], model: PyTree, trainable: Any, points: TrainingPoints
) -> str:
    """How NaN came about: steps too long, or a constraint and a point where it began.

    Args:
        seen: Losses of the steps.
        model: The last model.
        trainable: What is trained of it.
        points: Constraints with their training points.

    Raises:
        ProblemError: If that is so before the first step.
    """
    step, losses = len(seen), points.losses(model, 1.0)
    where = f"at step {step}"
    largest = max(losses, key=lambda name: np.nan_to_num(losses[name], nan=np.inf))
    # A diverging loss is no fault of the residual.
    if seen.size and seen[-1] > 1e3 * seen[0]:
        return (
            f"{where}: the loss grew from {seen[0]:.3g} to {seen[-1]:.3g}, most of it in "
            f"constraint {largest!r}. The steps are too long: lower the learning rate."
        )
    try:
        for item, drawn in points.pairs:
            check_finite(item, model, drawn)
        for item, drawn in points.pairs:
            problem = Problem(item, model, trainable=trainable)
            check_gradient(problem, item, model, drawn, thorough=True)
    except ProblemError as error:
        if step == 0:
            raise
        return f"{where}: {error}"
    return (
        f"{where}: the step itself was NaN or infinite, with a loss of {losses[largest]:.3g} in "
        f"constraint {largest!r}. A smaller learning rate may help."
    )


def refuse_what_is_compiled(dense: int, chunk: Chunk) -> None:
    """Refuse a step that is large and does not fit, by what its compiled program needs."""
    # Large is what takes more than a twentieth: to ask the compiler is to compile twice.
    if dense and 20 * dense > (available_memory() or math.inf):
        compile_only: Any = advance  # its type has no `lower`
        arguments = (*chunk[:-1], jnp.asarray(0))
        analysis = compile_only.lower(*arguments).compile().compiled.memory_analysis()
        refuse_step(analysis.temp_size_in_bytes, "by the compiler's account")
