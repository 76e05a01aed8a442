"""The driver of problems that are trained step by step: Python over compiled chunks of steps.

Everything that steers (monitor evaluations, snapshots, redraws, stage ends) happens at step
numbers fixed by the settings, and chunks end there. The clock only decides how many steps lie
between two looks at signals, and when a checkpoint is due; splitting a run into chunks changes no
bit of it, nor does going on from a checkpoint.
"""

import hashlib
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from constrainednn._checks.check import check_before_solve, check_trained
from constrainednn._checks.finiteness import check_finite, check_gradient
from constrainednn._common.memory import available_memory, bytes_computed
from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._gap.measure import gap_report
from constrainednn._gap.residual_vector import ResidualVector, common_unit, residual_vector, rows
from constrainednn._gap.residuals import (
    holds_already,
    loss_at,
    monitor_loss,
    residuals_at,
    root_mean_square,
)
from constrainednn._gap.streams import (
    Streams,
    draw_training,
    draw_where_large,
    drawn_again,
    drawn_arrays,
    streams_of_all,
)
from constrainednn._problem.constraint import is_drawn_again
from constrainednn._problem.problem import Problem
from constrainednn._solve.training.diagnosis import (
    SMALLER,
    is_out_of_memory,
    out_of_memory,
    raised_at,
    refuse_step,
    warn_of_float32,
)
from constrainednn._solve.training.monitoring import is_shown, lazy, log_place, next_log_spaced
from constrainednn._solve.training.steps import (
    CHUNK,
    Chunk,
    Going,
    Look,
    Part,
    Raised,
    advance,
    begin,
    on_device,
)
from constrainednn._storage.run_folder import Checkpoint
from constrainednn.domains.samplers.adaptive import Adaptive
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import ProblemError, StoreError
from constrainednn.methods.base import CONVERGED, NONFINITE, RUNNING, STALLED
from constrainednn.methods.levenberg_marquardt import LevenbergMarquardt, least_numbers, operations
from constrainednn.methods.stages import Stage, described
from constrainednn.models.recipes import trainable_mask
from constrainednn.results.solution import Solution
from constrainednn.runs.history import History, Status, Timings
from constrainednn.runs.run import Run

_LOOK_EVERY = 0.3
# Operations of one step that are announced: about ten seconds in which nothing else is heeded.
_LONG = 1e12

# Early stopping ends a run after so many times the steps of the lowest monitor loss.
_PATIENCE = 4

# What a checkpoint says besides its arrays.
_FACTS = {
    **dict.fromkeys(("stage", "begun", "first", "verdict", "drawn_at"), int),
    **dict.fromkeys(("monitor_steps", "snapshot_steps", "redraws"), list),
    **dict.fromkeys(("compile_seconds", "run_seconds"), float),
    **dict.fromkeys(("points", "statement"), str),
}


class Training:
    """The state of one run; `go` takes it from the first trial, or a checkpoint, to the report.

    Args:
        run: What is asked for.
        stages: What trains.
        checked: True if the problem was checked with another seed, so that only numbers differ.
    """

    def __init__(self, run: Run, stages: list[Stage], *, checked: bool = False):
        self.run, self.problem, self.stages, self.checked = run, run.problem, stages, checked
        self.limit = sum(stage.steps for stage in stages)
        self.key = jax.random.key(run.seed)
        # Completed steps, those at the last redraw, and those that led to the returned parameters.
        self.step = self.drawn_at = self.best_step = 0
        self.losses: list[np.ndarray] = []
        self.watched: list[tuple[int, float]] = []
        self.snapshots: list[tuple[int, PyTree]] = []
        self.redraws: list[int] = []
        # The redraw whose points are reported, and the points of the lowest monitor loss.
        self.last_draw, self.chosen_draw = 0, 0
        self.chosen_points: list[Draw] = []
        self.compile_seconds = self.run_seconds = 0.0
        self.train_loss = np.nan

    def go(self) -> Going:
        """Ask for all it takes, and return the solution."""
        started = time.perf_counter()
        self.show("compiling")
        constraints = self.problem.constraints
        self.model = self.problem.build_model(key=self.key)
        for stage in self.stages:
            check_trained(self.model, stage.trainable or self.problem.trainable)
        streams = streams_of_all(constraints, key=self.key, **self.run.counts)
        # What judges is kept apart until the end: nothing that trains or steers is handed it.
        self.train_points = [points.train for points in streams]
        self.monitor_points = [points.monitor for points in streams]
        self.heldout_points = [points.heldout for points in streams]
        self.points_digest = _digest(streams)
        if not self.checked:
            warn_of_float32(self.stages, self.run.tolerance)
        checkpoint = self.run.checkpoint
        holds = lazy(lambda: holds_already(self.problem, self.model, *self.seen()))
        if checkpoint is None:
            if self.checked:
                for item, points in zip(constraints, self.train_points, strict=True):
                    check_finite(item, self.model, points)
            else:
                check_before_solve(self.problem, self.model, self.train_points, at_rounding=holds)
            yield from self.watch()
        self.unit = self.common_unit()
        self.squared = float(np.square(self.unit))  # infinite where losses are
        dtype = str(jnp.result_type(float))
        self.dense = [self.dense_bytes(stage) for stage in self.stages]
        self.settings = self.run.begin(described(self.stages, self.model), self.limit, dtype)
        self.compile_seconds += time.perf_counter() - started
        fresh = checkpoint is None or checkpoint.step == 0
        if fresh and self.limit and holds():
            status, reason = Status.CONVERGED, "the constraints hold before training"
        else:
            status, reason = yield from self.train(checkpoint)
            if self.run.early_stopping:
                self.choose()
        with self.run.measuring(self.step):
            self.show("measuring the gap")
            return self.finish(status, reason, time.perf_counter())

    def common_unit(self) -> float:
        """What all residuals are divided by while they are squared: one, but for extreme units."""
        pairs = zip(self.problem.constraints, self.train_points, strict=True)
        sizes = [
            math.sqrt(item.weight)
            * root_mean_square(residuals_at(item.residual, self.model, points.points))
            for item, points in pairs
        ]
        return common_unit(sizes)

    def dense_bytes(self, stage: Stage) -> int:
        """What a step holds in dense arrays at least; refused here if that cannot fit."""
        if not isinstance(stage.method, LevenbergMarquardt):
            return 0
        select = stage.trainable or self.problem.trainable
        params, static = eqx.partition(self.model, trainable_mask(self.model, select))
        m = jax.eval_shape(self.residual(static), params).size
        leaves = jax.tree.leaves(params)
        P = sum(leaf.size for leaf in leaves)
        needed = least_numbers(m, P) * leaves[0].dtype.itemsize
        what = f"with {m} residual entries and {P} parameters"
        refuse_step(needed, what)
        if operations(m, P) > _LONG:
            warnings.warn(
                f"A step of Levenberg-Marquardt {what} takes some {operations(m, P):.0e} "
                "operations, a minute on a few cores for every 5e12, and a signal or time_limit= "
                f"is heeded only between steps. {SMALLER}.",
                stacklevel=8,
            )
        return needed

    def step_bytes(self, chunk: Chunk) -> int:
        """What a step computes, in bytes: more than it holds at once."""
        step = lambda params, state: chunk.method.step(chunk.residual, params, state)  # noqa: E731
        return bytes_computed(jax.make_jaxpr(step)(chunk.params, chunk.state).jaxpr)

    def seen(self) -> tuple[list[Draw], list[Draw | None]]:
        """All points that may steer, one of each kind a constraint."""
        return self.train_points, self.monitor_points

    def train(self, checkpoint: Checkpoint | None) -> Part:
        """Take all stages; return a status and its reason."""
        status, reason = Status.MAX_STEPS, f"the limit of {self.limit} steps is reached"
        reached = 0 if checkpoint is None else self.stage_of(checkpoint)
        for index, stage in enumerate(self.stages):
            if index < reached:
                continue
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
                return Status.NONFINITE, self.diagnose(stage)
            last = index == len(self.stages) - 1
            if self.past_the_best():
                step = self.chosen[0]
                reason = f"no monitor loss is lower than that of step {step}"
                return Status.EARLY_STOPPED, reason
            if self.run.stop and not (last and (verdict != RUNNING or self.step == self.limit)):
                return Status(self.run.stop.status), f"{self.run.stop.name} at step {self.step}"
            if last and verdict == CONVERGED:
                status, reason = Status.CONVERGED, "no step can lower the loss further"
                params, _, state = self.last
                if isinstance(stage.method, LevenbergMarquardt):
                    unseen = stage.method.unseen(params, state)
                    reason += f"; the residual does not depend on {unseen}" * bool(unseen)
            elif last and verdict == STALLED:
                status, reason = Status.STALLED, self.obstacle(stage)
        tolerance = self.run.tolerance
        if tolerance and self.total_loss(self.model) <= (tolerance / self.unit) ** 2:
            reason = f"the root of the loss is below the tolerance {tolerance:g}"
            return Status.CONVERGED, reason
        return status, reason

    def obstacle(self, stage: Stage) -> str:
        """Why a run stalled: where the residual ends, or what it no longer depends on."""
        params, static, state = self.last
        clause, ahead = stage.method.explain(params, state)
        reason = "no step lowers the loss, although its gradient is not zero"
        if ahead is not None:
            model = eqx.combine(ahead, static)
            try:
                for item, points in zip(self.problem.constraints, self.train_points, strict=True):
                    check_finite(item, model, points)
            except ProblemError as error:
                return f"{reason}: steps that would lower it end at a cliff. There, {error}"
        return clause or reason

    def stage_of(self, checkpoint: Checkpoint) -> int:
        """Where a checkpoint goes on, once it is known to be one of such a run."""
        checkpoint.check(_FACTS, {"loss": checkpoint.step})
        checkpoint.check({}, {"monitor": len(checkpoint.facts["monitor_steps"])})
        stage, verdict = checkpoint.facts["stage"], checkpoint.facts["verdict"]
        if not (0 <= stage < len(self.stages) and RUNNING <= verdict <= NONFINITE):
            raise StoreError(
                f"checkpoint-{checkpoint.step:09d}.npz is damaged: it is of stage {stage} with "
                f"verdict {verdict}."
            )
        return stage

    def run_stage(self, index: int, checkpoint: Checkpoint | None) -> Part:
        """Take the steps of one stage, or the rest of them, and return its last verdict."""
        stage = self.stages[index]
        mask = trainable_mask(self.model, stage.trainable or self.problem.trainable)
        params, static = eqx.partition(self.model, mask)
        if checkpoint is not None:
            self.restore(checkpoint)
            params, static = eqx.partition(self.model, mask)
        residual = self.residual(static)
        state = begin(stage.method, residual, params)
        dtype = jax.tree.leaves(params)[0].dtype
        least = jnp.asarray((self.run.tolerance / self.unit) ** 2, dtype)
        unseen = jnp.asarray(jnp.inf, dtype)
        best, begun, first, verdict = (params, unseen), self.step, self.step, RUNNING
        if checkpoint is not None:
            facts = checkpoint.facts
            begun, first, verdict = facts["begun"], facts["first"], facts["verdict"]
            state, best = self.run.restored((state, best), checkpoint, "method", older=True)
        started = time.perf_counter()
        nothing = Chunk(stage.method, residual, params, state, best, least, 0)
        # Large is what takes more than a twentieth: to ask the compiler is to compile twice.
        dense = self.dense[index]
        if dense and 20 * dense > (available_memory() or math.inf):
            compile_only: Any = advance  # equinox's type for it has no `lower`
            arguments = (*nothing[:-1], jnp.asarray(0))
            analysis = compile_only.lower(*arguments).compile().compiled.memory_analysis()
            refuse_step(analysis.temp_size_in_bytes, "by the compiler's account")
        yield nothing
        self.compile_seconds += time.perf_counter() - started

        def keep() -> None:
            # The trained part only: a frozen bound may well be infinite.
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
                return
            facts = {"stage": index, "begun": begun, "first": first, "verdict": verdict}
            self.keep((state, best), facts)

        end, pace = begun + stage.steps, 1
        try:
            while self.step < end and not self.run.stop:
                if verdict != RUNNING and not self.only_on_this_draw(verdict):
                    break
                if self.past_the_best():
                    break
                redraw = self.run.redraw
                if redraw and (verdict != RUNNING or self.step >= self.drawn_at + redraw):
                    residual = self.redraw_points(static)
                    # Losses on different draws do not compare.
                    best, first = (params, unseen), self.step
                if verdict != RUNNING:
                    state, verdict = begin(stage.method, residual, params), RUNNING
                stop = min(end, self.step + max(pace, 1), self.next_event())
                chunk = Chunk(stage.method, residual, params, state, best, least, stop - self.step)
                try:
                    found, elapsed, share = yield chunk
                except Raised:
                    if chunk.steps == 1:
                        raise
                    pace = 0  # once more, one by one, up to the step that raises
                    continue
                params, state, best, losses, taken, verdict = found
                taken, verdict = int(taken), int(verdict)
                self.run_seconds += share
                self.losses.append(np.asarray(losses)[:taken])
                self.step += taken
                self.model = eqx.combine(params, static)
                if taken:
                    self.train_loss = float(losses[taken - 1]) * self.squared
                    # At most a doubling, since the first steps of a chunk may be untypical.
                    pace = min(CHUNK, 2 * pace, max(1, int(_LOOK_EVERY * taken / (elapsed + 1e-9))))
                    if log_place(self.step) is not None:
                        yield from self.watch()
                self.show("training")
                if self.run.folder is not None and self.run.folder.due:
                    keep()
        except Raised:
            # The last parameters may be those that cannot be evaluated.
            seen = bool(jnp.isfinite(best[1]))
            self.model = eqx.combine(best[0] if seen else params, static)
            raise
        except (MemoryError, jax.errors.JaxRuntimeError):  # the caller looks at what it is
            keep()
            self.model = eqx.combine(self.better(best, params, static, first), static)
            raise
        keep()
        params, best = jax.tree.map(on_device, (params, best))
        self.last = params, static, state
        self.last_model = eqx.combine(params, static)
        self.model = eqx.combine(self.better(best, params, static, first), static)
        return RUNNING if self.only_on_this_draw(verdict) else verdict

    def keep(self, method: PyTree, facts: dict[str, Any]) -> None:
        """Save all that the rest of the run depends on."""
        folder = self.run.folder
        if folder is None:
            return
        snapshots = tuple(model for _, model in self.snapshots)
        tree = {"model": self.model, "method": method, "snapshots": snapshots}
        arrays = {}
        for name, part in tree.items():
            arrays |= tree_to_arrays(part, name)
        steps, monitor = zip(*self.watched, strict=True)
        constraints = self.problem.constraints
        arrays |= drawn_arrays(constraints, self.train_points, "draw")
        if self.chosen_points:
            arrays |= drawn_arrays(constraints, self.chosen_points, "chosen")
        arrays["loss"] = np.concatenate([np.zeros(0), *self.losses])
        arrays["monitor"] = np.asarray(monitor, float)
        facts = facts | {
            "monitor_steps": steps,
            "snapshot_steps": [step for step, _ in self.snapshots],
            "drawn_at": self.drawn_at,
            "redraws": self.redraws,
            "chosen_draw": self.chosen_draw,
            "compile_seconds": self.compile_seconds,
            "run_seconds": self.run_seconds,
            "points": self.points_digest,
            "statement": self.run.statement([self.watched[0][1]]),
        }
        folder.save(self.step, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set everything but the method's own state to what it was."""
        facts, arrays = checkpoint.facts, checkpoint.arrays
        if facts["points"] != self.points_digest:
            raise StoreError(
                f"{self.run.where}: the points drawn from the seed are not those of the run. "
                "The problem differs, or the version of NumPy draws others."
            )
        blank = self.model
        self.model = self.run.restored(blank, checkpoint, "model")
        if not self.run.allow_changed:
            first = monitor_loss(self.problem, blank, *self.seen())
            self.run.refuse_another(facts["statement"], [first])
        snapshots = self.run.restored(
            tuple(blank for _ in facts["snapshot_steps"]), checkpoint, "snapshots"
        )
        self.snapshots = list(zip(facts["snapshot_steps"], snapshots, strict=True))
        self.watched = list(zip(facts["monitor_steps"], arrays["monitor"].tolist(), strict=True))
        self.step, self.drawn_at = checkpoint.step, facts["drawn_at"]
        self.losses = [arrays["loss"]]
        self.train_loss = float(arrays["loss"][-1]) * self.squared if self.step else np.nan
        self.compile_seconds += facts["compile_seconds"]
        self.run_seconds = facts["run_seconds"]
        self.redraws = list(facts["redraws"])
        self.last_draw = len(self.redraws)
        first = self.train_points
        if self.run.early_stopping:
            checkpoint.check({"chosen_draw": int}, {})
            self.chosen_draw = facts["chosen_draw"]
            self.chosen_points = self.drawn(first, self.chosen_draw, arrays, "chosen")
        self.train_points = self.drawn(first, self.last_draw, arrays, "draw")

    def drawn(
        self, first: list[Draw], number: int, arrays: dict[str, np.ndarray], name: str
    ) -> list[Draw]:
        """The training points of a redraw, as they were."""
        self.train_points = list(first)
        if not number:
            return self.train_points
        self.draw_again(number)
        try:
            return drawn_again(self.problem.constraints, self.train_points, arrays, name)
        except ValueError as error:
            raise StoreError(f"{self.run.where} is damaged: {error}.") from None

    def only_on_this_draw(self, verdict: int) -> bool:
        """True for a method that converged on training points which are to be drawn again.

        Converged on fresh points, with no more than the step that found it, is converged.
        """
        return bool(self.run.redraw) and verdict == CONVERGED and self.step > self.drawn_at + 1

    def better(
        self, best: tuple[PyTree, Array], params: PyTree, static: PyTree, first: int
    ) -> PyTree:
        """The last parameters, or the best seen since step `first` if their loss is truly lower.

        Near a minimum losses differ by rounding only, while the parameters still converge.
        """
        last = self.total_loss(eqx.combine(params, static))
        best_params, best_loss = best
        slack = 1 + float(jnp.finfo(best_loss.dtype).eps) ** 0.5
        if last <= slack * float(best_loss):
            self.best_step = self.step
            return params
        seen = np.concatenate([[np.inf], *self.losses])[1 + first :]
        self.best_step = first + int(np.argmin([*np.nan_to_num(seen, nan=np.inf), np.inf]))
        return best_params

    def residual(self, static: PyTree) -> ResidualVector:
        constraints = self.problem.constraints
        return residual_vector(constraints, static, rows(constraints, self.train_points, self.unit))

    def redraw_points(self, static: PyTree) -> ResidualVector:
        self.redraws.append(self.step)
        self.drawn_at, self.last_draw = self.step, len(self.redraws)
        self.train_points = list(self.train_points)  # those of the lowest monitor loss are kept
        self.draw_again(self.last_draw)
        return self.residual(static)

    def draw_again(self, number: int) -> None:
        for i, item in enumerate(self.problem.constraints):
            if isinstance(item.sampler, Adaptive) and is_drawn_again(item):
                self.train_points[i] = draw_where_large(
                    item, self.model, key=self.key, redraw=number
                )
            elif is_drawn_again(item):
                self.train_points[i] = draw_training(item, key=self.key, redraw=number)

    def next_event(self) -> int:
        """The next step at which something other than stepping happens."""
        events = [next_log_spaced(self.step)]
        if self.run.redraw:
            events.append(self.drawn_at + self.run.redraw)
        return min(events)

    def watch(self) -> Part:
        """Take the monitor loss, and a snapshot at some of the steps that are log-spaced."""
        loss = yield Look(self.problem, self.model, *self.seen())
        self.watched.append((self.step, loss))
        lowest = self.run.early_stopping and self.chosen[0] == self.step
        if lowest:  # of those that are there to be chosen only this one is kept
            self.snapshots = [item for item in self.snapshots if is_shown(item[0])]
            self.chosen_points, self.chosen_draw = self.train_points, self.last_draw
        if lowest or is_shown(self.step):
            self.snapshots.append((self.step, self.model))

    @property
    def chosen(self) -> tuple[int, float]:
        """The step with the lowest monitor loss so far, and that."""
        return min(self.watched, key=lambda item: np.nan_to_num(item[1], nan=np.inf))

    def past_the_best(self) -> bool:
        """True if training longer is only fitting the training points better."""
        # By the step that was watched last: chunks end where the clock says, too.
        seen = self.watched[-1][0]
        return self.run.early_stopping and seen >= max(_PATIENCE * self.chosen[0], 100)

    def choose(self) -> None:
        """Return to the parameters with the lowest monitor loss, if the last are not better."""
        step, loss = self.chosen
        last = loss if step == self.step else monitor_loss(self.problem, self.model, *self.seen())
        # The last one may be NaN.
        if math.isfinite(loss) and not last <= loss:
            self.model = jax.tree.map(on_device, dict(self.snapshots)[step])
            self.best_step = step
            self.train_points, self.last_draw = self.chosen_points, self.chosen_draw
        self.snapshots = [item for item in self.snapshots if is_shown(item[0])]

    def losses_at(self, model: PyTree) -> dict[str, float]:
        """Losses by constraint, like those of the steps in squares of the common unit."""
        pairs = zip(self.problem.constraints, self.train_points, strict=True)
        return {item.name: loss_at(item, model, points, unit=self.unit) for item, points in pairs}

    def total_loss(self, model: PyTree) -> float:
        return sum(self.losses_at(model).values())

    def diagnose(self, stage: Stage) -> str:
        """Say how NaN came about: steps too long, or a constraint and a point where it began."""
        where = f"at step {self.step}"
        seen = np.concatenate([[np.inf], *self.losses])[1:] * self.squared
        losses = self.losses_at(self.last_model)
        parts = {name: self.squared * loss for name, loss in losses.items()}
        largest = max(parts, key=lambda name: np.nan_to_num(parts[name], nan=np.inf))
        # A loss on its way to infinity is no fault of the residual.
        if seen.size and seen[-1] > 1e3 * seen[0]:
            return (
                f"{where}: the loss grew from {seen[0]:.3g} to {seen[-1]:.3g}, most of it in "
                f"constraint {largest!r}. The steps are too long: lower the learning rate."
            )
        select = stage.trainable or self.problem.trainable
        pairs = list(zip(self.problem.constraints, self.train_points, strict=True))
        try:
            for item, points in pairs:
                check_finite(item, self.last_model, points)
            for item, points in pairs:
                problem = Problem(item, self.model, trainable=select)
                check_gradient(problem, item, self.last_model, points, thorough=True)
        except ProblemError as error:
            if self.step == 0:
                raise
            return f"{where}: {error}"
        return (
            f"{where}: the step itself was NaN or infinite, with a loss of {parts[largest]:.3g} in "
            f"constraint {largest!r}. A smaller learning rate may help."
        )

    def finish(self, status: Status, reason: str, started: float) -> Solution:
        points = zip(self.train_points, self.monitor_points, self.heldout_points, strict=True)
        streams = tuple(Streams(*each) for each in points)
        gap = gap_report(self.problem, self.model, streams)
        # The last entries belong to what is returned, which may not be what was reached last.
        for entries in (self.watched, self.snapshots):
            if entries[-1][0] == self.step:
                entries.pop()
        self.watched.append((self.step, monitor_loss(self.problem, self.model, *self.seen())))
        self.snapshots.append((self.step, self.model))
        monitor_steps, monitor = zip(*self.watched, strict=True)
        select = self.stages[-1].trainable or self.problem.trainable
        params = eqx.filter(self.model, trainable_mask(self.model, select))
        history = History(
            np.concatenate([*(loss * self.squared for loss in self.losses), [gap.loss]]),
            np.asarray(monitor_steps),
            np.asarray(monitor),
            tuple(self.snapshots),
            self.best_step,
            tuple(self.redraws),
            self.last_draw,
        )
        timings = Timings(self.compile_seconds, self.run_seconds, time.perf_counter() - started)
        return Solution(
            self.problem,
            self.model,
            gap,
            status,
            reason,
            self.step,
            sum(leaf.size for leaf in jax.tree.leaves(params)),
            history,
            timings,
            self.settings,
            streams,
        )

    def show(self, phase: str) -> None:
        monitor = self.watched[-1][1] if self.watched else np.nan
        self.run.tell(phase, self.step, self.limit, float(self.train_loss), monitor)


def _digest(streams: Sequence[Streams]) -> str:
    """What tells points from others: those that a run drew must be drawn again when it goes on.

    By sums to nine digits, since another version or machine may round the last ones otherwise.
    """
    draws = [(points.train, points.monitor, points.heldout) for points in streams]
    parts = []
    for leaf in jax.tree.leaves(draws):
        x = np.asarray(leaf, float).ravel()
        sums = np.abs(x) @ np.linspace(1, 2, x.size), np.abs(x + 1).sum()
        parts.append(f"{np.shape(leaf)} {sums[0]:.9e} {sums[1]:.9e}")
    return hashlib.sha256("; ".join(parts).encode()).hexdigest()
