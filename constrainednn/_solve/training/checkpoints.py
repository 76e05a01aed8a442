"""The contents of a training checkpoint besides the method's own state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._gap.residuals import monitor_loss
from constrainednn._problem.problem import Problem
from constrainednn._solve.training.monitoring import Monitoring
from constrainednn._solve.training.stage_state import InStage
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn._storage.run_folder import Checkpoint
from constrainednn.errors import StoreError
from constrainednn.methods.base import NONFINITE, RUNNING
from constrainednn.runs.run import Run

# What a checkpoint says besides its arrays.
_FACTS = {
    **dict.fromkeys(("stage", "begun", "first", "verdict"), int),
    **dict.fromkeys(("monitor_steps", "snapshot_steps", "redraws"), list),
    **dict.fromkeys(("compile_seconds", "run_seconds"), float),
    **dict.fromkeys(("points", "statement"), str),
}


def contents(
    model: PyTree,
    now: InStage,
    losses: Sequence[np.ndarray],
    monitoring: Monitoring,
    points: TrainingPoints,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a checkpoint, but for those that only the trainer knows."""
    snapshots = tuple(shown for _, shown in monitoring.snapshots)
    arrays = {}
    trees = {"model": model, "method": (now.state, now.best), "snapshots": snapshots}
    for name, part in trees.items():
        arrays |= tree_to_arrays(part, name)
    arrays |= points.arrays(points.train, "draw")
    if monitoring.best_points:
        arrays |= points.arrays(monitoring.best_points, "chosen")
    steps, monitor = zip(*monitoring.losses, strict=True)
    arrays["loss"] = np.concatenate([np.zeros(0), *losses])
    arrays["monitor"] = np.asarray(monitor, float)
    facts = {
        "monitor_steps": steps,
        "snapshot_steps": [step for step, _ in monitoring.snapshots],
        "redraws": points.redraws,
        "chosen_draw": monitoring.best_draw,
        "points": points.digest,
        "begun": now.begun,
        "first": now.first,
        "verdict": now.verdict,
    }
    return arrays, facts


def stage_of(checkpoint: Checkpoint, stages: int) -> int:
    """The stage of a checkpoint, once it is known to be one of such a run.

    Raises:
        StoreError: If it is not.
    """
    checkpoint.check(_FACTS, {"loss": checkpoint.step})
    checkpoint.check({}, {"monitor": len(checkpoint.facts["monitor_steps"])})
    stage, verdict = checkpoint.facts["stage"], checkpoint.facts["verdict"]
    if not (0 <= stage < stages and RUNNING <= verdict <= NONFINITE):
        raise StoreError(
            f"checkpoint-{checkpoint.step:09d}.npz is damaged: it is of stage {stage} with "
            f"verdict {verdict}."
        )
    return stage


def restored_model(
    problem: Problem, blank: PyTree, points: TrainingPoints, run: Run, checkpoint: Checkpoint
) -> PyTree:
    """The model of a checkpoint, once the problem and the points are known to be the same.

    Raises:
        StoreError: If they are not.
    """
    if checkpoint.facts["points"] != points.digest:
        raise StoreError(
            f"{run.where}: the points drawn from the seed are not those of the run. "
            "The problem differs, or the version of NumPy draws others."
        )
    model = run.restored(blank, checkpoint, "model")
    if not run.allow_changed:
        first = monitor_loss(problem, blank, points.train, points.monitor)
        run.refuse_another(checkpoint.facts["statement"], [first])
    return model


def restore_monitoring(
    monitoring: Monitoring, run: Run, checkpoint: Checkpoint, blank: PyTree
) -> None:
    """Set monitor losses and snapshots to what they were; `blank` is a model of the same shape."""
    facts = checkpoint.facts
    snapshots = run.restored(tuple(blank for _ in facts["snapshot_steps"]), checkpoint, "snapshots")
    monitoring.snapshots = list(zip(facts["snapshot_steps"], snapshots, strict=True))
    seen = checkpoint.arrays["monitor"].tolist()
    monitoring.losses = list(zip(facts["monitor_steps"], seen, strict=True))


def restore_points(
    points: TrainingPoints, monitoring: Monitoring, run: Run, checkpoint: Checkpoint, model: PyTree
) -> None:
    """Set the training points to those of the last redraw, and the best ones to what they were.

    Raises:
        StoreError: If the checkpoint does not fit the points.
    """
    facts, arrays, first = checkpoint.facts, checkpoint.arrays, points.train
    points.redraws = list(facts["redraws"])
    try:
        if run.early_stopping:
            checkpoint.check({"chosen_draw": int}, {})
            monitoring.best_draw = facts["chosen_draw"]
            monitoring.best_points = points.restored(
                first, monitoring.best_draw, model, arrays, "chosen"
            )
        points.last_draw = len(points.redraws)
        points.restored(first, points.last_draw, model, arrays, "draw")
    except ValueError as error:
        raise StoreError(f"{run.where} is damaged: {error}.") from None
