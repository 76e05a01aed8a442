"""The driver of problems that are trained step by step: Python over compiled chunks of steps.

Everything that affects the result (monitor evaluations, snapshots, redraws, stage ends) happens at
step numbers fixed by the settings, and chunks end there. The clock only decides how many steps are
taken between checks for signals, and when a checkpoint is due; neither splitting a run into chunks
nor resuming from a checkpoint changes a bit of it.
"""

import math
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from constrainednn._checks.check import check_before_solve
from constrainednn._checks.finiteness import check_finite
from constrainednn._checks.stages import check_stages
from constrainednn._gap.objectives.lagrangian import Minimised, minimised, soft_constraints
from constrainednn._gap.residuals import holds_already, monitor_loss
from constrainednn._solve.training.checkpoints import (
    contents,
    restore_monitoring,
    restore_points,
    restored_model,
    stage_of,
)
from constrainednn._solve.training.diagnosis import (
    out_of_memory,
    raised_at,
    refuse_dense,
    refuse_stale,
    refuse_what_is_compiled,
    warn_of_float32,
    why_converged,
    why_max_steps,
    why_nonfinite,
    why_stalled,
)
from constrainednn._solve.training.loss_reached import least_loss, reached
from constrainednn._solve.training.monitoring import Monitoring, lazy, log_place, next_log_spaced
from constrainednn._solve.training.stage_state import InStage
from constrainednn._solve.training.steps import (
    CHUNK,
    MonitorRequest,
    Raised,
    RunRequests,
    StageRequests,
    Start,
    begin,
    is_out_of_memory,
    on_device,
)
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn._storage.run_folder import Checkpoint
from constrainednn.methods.base import CONVERGED, NONFINITE, RUNNING, STALLED
from constrainednn.methods.stages import Stage, described, trained_numbers
from constrainednn.models.recipes import trainable_mask
from constrainednn.runs.history import Status
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Run

# Seconds between two looks at the clock.
_LOOK_EVERY = 0.3


class Training:
    """The state of one run; `go` takes it from the first trial, or a checkpoint, to its end.

    Args:
        run: What is asked for.
        stages: What trains.
        checked: True if the problem was checked with another seed, so that only numbers differ.
        start: What finds the model to train from.
    """

    def __init__(
        self, run: Run, stages: list[Stage], *, checked: bool = False, start: Start | None = None
    ):
        self.run, self.problem, self.stages = run, run.problem, stages
        self.checked, self.start = checked, start
        self.limit = sum(stage.steps for stage in stages)
        self.key = jax.random.key(run.seed)
        # Completed steps, and those that led to the parameters that are returned.
        self.step, self.best_step = 0, 0
        self.losses: list[np.ndarray] = []
        self.monitoring = Monitoring(early_stopping=run.early_stopping)
        self.compile_seconds = self.run_seconds = 0.0
        self.train_loss, self.cut_short = np.nan, False

    def go(self) -> RunRequests:
        """Yield requests for steps and monitor losses, and return the outcome."""
        started = time.perf_counter()
        self.show("compiling")
        self.model = self.problem.build_model(key=self.key)
        check_stages(self.stages, self.problem, self.model)
        points = self.points = TrainingPoints(self.problem.statements, self.key, self.run.counts)
        if not self.checked:
            warn_of_float32(self.stages, self.run.tolerance)
        checkpoint = self.run.checkpoint
        holds = lazy(lambda: holds_already(self.problem, self.model, points.train, points.monitor))
        if checkpoint is None:
            if self.checked:
                for item, drawn in points.pairs:
                    check_finite(item, self.model, drawn)
            else:
                check_before_solve(self.problem, self.model, points.train, at_rounding=holds)
            yield from self.watch()
        self.unit = points.common_unit(self.model)
        self.soft = soft_constraints(self.problem, self.model, points.train)
        self.least = least_loss(
            self.problem, self.model, points.train, self.run.tolerance, self.unit
        )
        self.squared = float(np.square(self.unit))  # infinite where losses are
        self.dense = []
        for stage in self.stages:
            params, static = eqx.partition(self.model, self.mask(stage))
            refuse_stale(stage, self.run, self.soft)
            self.dense.append(refuse_dense(stage, self.residual(static), params))
        self.settings = self.run.begin(described(self.stages, self.model), self.limit)
        self.compile_seconds += time.perf_counter() - started
        if (not checkpoint or not checkpoint.step) and self.limit and holds():
            status, reason = Status.CONVERGED, "the constraints hold before training"
        else:
            if self.start and self.limit and not checkpoint:
                found = self.start(self.problem, self.model, points, self.unit, self.soft)
                self.model, compiling, self.run_seconds = found
                self.compile_seconds += compiling
            status, reason = yield from self.train(checkpoint)
            if self.run.early_stopping:
                self.choose()
        return self.outcome(status, reason)

    def train(self, checkpoint: Checkpoint | None) -> StageRequests:
        """Take all stages; return a status and its reason."""
        reached = 0 if checkpoint is None else stage_of(checkpoint, len(self.stages))
        verdict = RUNNING
        for index, stage in list(enumerate(self.stages))[reached:]:
            try:
                verdict = yield from self.run_stage(index, checkpoint if index == reached else None)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if is_out_of_memory(error):
                    return Status.OUT_OF_MEMORY, out_of_memory(error, self.step)
                raise
            except Raised as raised:
                if not self.step:  # nothing is lost yet, and the whole traceback may help
                    raise raised.error from None
                return Status.NONFINITE, raised_at(raised.error, self.step)
            if verdict == NONFINITE:
                seen = np.concatenate([[np.inf], *self.losses])[1:] * self.squared
                part = stage.trainable or self.problem.trainable
                return Status.NONFINITE, why_nonfinite(seen, self.last.model, part, self.points)
            self.cut_short |= verdict == RUNNING and stage.trainable is None
            last = index == len(self.stages) - 1
            if self.monitoring.past_the_best():
                step = self.monitoring.lowest[0]
                reason = f"no monitor loss is lower than that of step {step}"
                return Status.EARLY_STOPPED, reason
            if self.run.stop and not (last and (verdict != RUNNING or self.step == self.limit)):
                return Status(self.run.stop.status), f"{self.run.stop.name} at step {self.step}"
        return self.ending(verdict)

    def ending(self, verdict: int) -> tuple[Status, str]:
        """How the last stage ended: status and reason."""
        loss = self.total_loss(self.model)
        if ended := reached(self.problem, loss, self.least, self.run.tolerance, self.step):
            return ended
        if verdict == CONVERGED and not self.cut_short:
            return Status.CONVERGED, why_converged(self.last, self.points)
        if verdict == STALLED:
            return Status.STALLED, why_stalled(self.last, self.points)
        seen = np.concatenate([np.zeros(0), *self.losses])[: self.last.begun if verdict else None]
        facts = self.limit, self.run.tolerance, self.last.sizes
        losses = seen * self.squared, self.monitoring.losses
        return Status.MAX_STEPS, why_max_steps(self.problem, *losses, *facts)

    def run_stage(self, index: int, checkpoint: Checkpoint | None) -> StageRequests:
        """Take the steps of one stage, or the rest of them, and return its last verdict."""
        now = self.entered(index, checkpoint)
        started = time.perf_counter()
        refuse_what_is_compiled(self.dense[index], now.chunk(0))
        yield now.chunk(0)
        self.compile_seconds += time.perf_counter() - started
        end, pace = now.begun + now.stage.steps, 1
        try:
            while self.step < end and not self.run.stop:
                if now.verdict != RUNNING and not self.only_on_this_draw(now.verdict):
                    break
                if self.monitoring.past_the_best():
                    break
                self.redraw_where_due(now)
                stop = min(end, self.step + max(pace, 1), self.next_event())
                chunk = now.chunk(stop - self.step)
                try:
                    found, elapsed, share = yield chunk
                except Raised:
                    if chunk.steps == 1:
                        raise
                    pace = 0  # once more, one by one, up to the step that raises
                    continue
                losses = now.take(found)
                self.run_seconds += share
                self.losses.append(losses)
                self.step += len(losses)
                self.model = now.model
                if len(losses):
                    self.train_loss = float(losses[-1]) * self.squared
                    # At most a doubling, since the first steps of a chunk may be untypical.
                    fitting = int(_LOOK_EVERY * len(losses) / (elapsed + 1e-9))
                    pace = min(CHUNK, 2 * pace, max(1, fitting))
                    if log_place(self.step) is not None:
                        yield from self.watch()
                self.show("training")
                if self.run.folder is not None and self.run.folder.due:
                    self.keep(index, now)
        except Raised:
            # The last parameters may be those that cannot be evaluated.
            seen = bool(jnp.isfinite(now.best[1]))
            self.model = eqx.combine(now.best[0] if seen else now.params, now.static)
            raise
        except (MemoryError, jax.errors.JaxRuntimeError):  # the caller looks what it is
            self.keep(index, now)
            self.model = self.better(now)
            raise
        self.keep(index, now)
        now.params, now.best = jax.tree.map(on_device, (now.params, now.best))
        self.last = now
        self.model = self.better(now)
        return RUNNING if self.only_on_this_draw(now.verdict) else now.verdict

    def entered(self, index: int, checkpoint: Checkpoint | None) -> InStage:
        """A stage at its first step, or where a checkpoint left it."""
        stage = self.stages[index]
        mask = self.mask(stage)
        if checkpoint is not None:
            self.restore(checkpoint)
        params, static = eqx.partition(self.model, mask)
        residual = self.residual(static)
        now = InStage.entered(stage, params, static, residual, self.least, self.step)
        if checkpoint is not None:
            facts = checkpoint.facts
            now.begun, now.first, now.verdict = facts["begun"], facts["first"], facts["verdict"]
            now.state, now.best = self.run.restored(
                (now.state, now.best), checkpoint, "method", older=True
            )
        return now

    def redraw_where_due(self, now: InStage) -> None:
        """New training points after so many steps, or where the method is done with the old."""
        redraw = self.run.redraw
        if redraw and (now.verdict != RUNNING or self.step >= self.points.drawn_at + redraw):
            self.points.redraw(self.model, self.step)
            now.residual = self.residual(now.static)
            # Losses on different draws do not compare.
            now.forget_best()
            now.first = self.step
        if now.verdict != RUNNING:
            now.state, now.verdict = begin(now.stage.method, now.residual, now.params), RUNNING

    def keep(self, index: int, now: InStage) -> None:
        """Save all that the rest of the run depends on."""
        # The trained part only: a frozen bound may well be infinite.
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(now.params))
        if self.run.folder is None or not finite:
            return
        more = {"compile_seconds": self.compile_seconds, "run_seconds": self.run_seconds}
        more |= {"stage": index, "cut": self.cut_short}
        arrays, facts = contents(self.model, now, self.losses, self.monitoring, self.points)
        statement = self.run.statement([self.monitoring.losses[0][1]])
        self.run.save(self.step, arrays, facts | more | {"statement": statement})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set everything but the method's own state to what it was."""
        facts, points, blank = checkpoint.facts, self.points, self.model
        self.model = restored_model(self.problem, blank, points, self.run, checkpoint)
        restore_monitoring(self.monitoring, self.run, checkpoint, blank)
        self.step, self.losses = checkpoint.step, [checkpoint.arrays["loss"]]
        self.train_loss = float(self.losses[0][-1]) * self.squared if self.step else np.nan
        self.compile_seconds += facts["compile_seconds"]
        self.run_seconds, self.cut_short = facts["run_seconds"], facts.get("cut", False)
        restore_points(points, self.monitoring, self.run, checkpoint, self.model)

    def only_on_this_draw(self, verdict: int) -> bool:
        """True for a method that converged on training points which are to be drawn again.

        Converged on fresh points, with no more than the step that found it, is converged.
        """
        fresh = self.step <= self.points.drawn_at + 1
        return bool(self.run.redraw) and verdict == CONVERGED and not fresh

    def better(self, now: InStage) -> PyTree:
        """The last model of a stage, or the best seen if its loss is truly lower."""
        params, self.best_step = now.better(self.total_loss(now.model), self.losses, self.step)
        return eqx.combine(params, now.static)

    def mask(self, stage: Stage) -> PyTree:
        """What is trained in a stage."""
        return trainable_mask(self.model, stage.trainable or self.problem.trainable)

    def residual(self, static: PyTree) -> Minimised:
        return minimised(self.problem, static, self.points.train, self.unit, self.soft)

    def next_event(self) -> int:
        """The next step at which something other than stepping happens."""
        redraw = self.points.drawn_at + self.run.redraw if self.run.redraw else math.inf
        return int(min(next_log_spaced(self.step), redraw))

    def watch(self) -> StageRequests:
        """Take the monitor loss, and a snapshot at some of the steps that are log-spaced."""
        points = self.points
        loss = yield MonitorRequest(self.problem, self.model, points.train, points.monitor)
        self.monitoring.take(self.step, loss, self.model, points.train, points.last_draw)

    def choose(self) -> None:
        """Return to the parameters with the lowest monitor loss, if the last are not better."""
        seen, points = self.monitoring, self.points
        step, loss = seen.lowest
        if step != self.step:
            loss = monitor_loss(self.problem, self.model, points.train, points.monitor)
        if seen.is_better_than(loss):
            self.model = jax.tree.map(on_device, dict(seen.snapshots)[step])
            self.best_step = step
            points.train, points.last_draw = seen.best_points, seen.best_draw
        seen.thin_out()

    def total_loss(self, model: PyTree) -> float:
        """The training loss, like those of the steps in squares of the common unit."""
        return sum(self.points.losses(model, self.unit).values())

    def outcome(self, status: Status, reason: str) -> Outcome:
        """What was found, to be measured."""
        return Outcome(
            model=self.model,
            status=status,
            reason=reason,
            steps=self.step,
            parameters=trained_numbers(self.stages, self.model, self.problem.trainable),
            history=self.monitoring.history(
                [loss * self.squared for loss in self.losses], self.best_step, self.points
            ),
            compile=self.compile_seconds,
            run=self.run_seconds,
            settings=self.settings,
            streams=self.points.streams(),
        )

    def show(self, phase: str) -> None:
        self.run.tell(phase, self.step, self.limit, float(self.train_loss), self.monitoring.last)
