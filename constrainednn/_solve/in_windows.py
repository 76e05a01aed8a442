"""Windows that are trained one after another, each from the end of the one before."""

import jax

from constrainednn._gap.residuals import monitor_loss
from constrainednn._gap.streams import problem_streams
from constrainednn._ode.trained.scheme import TrainedWindows
from constrainednn._solve.march_of_windows import MarchOfWindows
from constrainednn._solve.training.diagnosis import out_of_memory, raised_at
from constrainednn._solve.training.steps import Raised, RunRequests, is_out_of_memory
from constrainednn._solve.training.trainer import Training
from constrainednn._solve.training.training_points import TrainingPoints
from constrainednn._storage.run_folder import Checkpoint
from constrainednn.errors import ProblemError
from constrainednn.methods.stages import described
from constrainednn.runs.history import Status
from constrainednn.runs.outcome import Outcome
from constrainednn.runs.run import Place, Run


class TrainingInWindows(Training):
    """The state of one run; `go` takes all windows, each as long as `Training` would."""

    def go(self) -> RunRequests:
        """Yield requests for steps and monitor losses, and return the outcome."""
        run, problem = self.run, self.run.problem
        scheme = problem.scheme
        assert isinstance(scheme, TrainedWindows)
        model = problem.build_model(key=self.key)
        settings = run.begin(described(self.stages, model), self.limit)
        march, checkpoint = MarchOfWindows(scheme, model), run.checkpoint
        if checkpoint is not None:
            march.restore(run, checkpoint)
            self._refuse_another(march, checkpoint)
            checkpoint = march.own_part(checkpoint)
        while march.goes_on:
            part = self._part(march, checkpoint)
            training = Training(part, self.stages, checked=self.checked or march.count > 0)
            try:
                outcome = yield from training.go()
            except (ProblemError, Raised, MemoryError, jax.errors.JaxRuntimeError) as error:
                if not march.count:  # nothing is lost yet
                    raise
                march.failed(*_failure(error))
            else:
                march.take(outcome)
            checkpoint = None
        status, reason = march.ending()
        model = march.result
        return Outcome(
            model=model,
            status=status,
            reason=reason,
            steps=march.steps,
            parameters=sum(item.parameters for item in march.found),
            history=march.history(),
            compile=sum(item.compile for item in march.found),
            run=sum(item.run for item in march.found),
            settings=settings,
            streams=problem_streams(problem, model, key=self.key, **run.counts),
        )

    def _part(self, march: MarchOfWindows, checkpoint: Checkpoint | None) -> Run:
        """The run of the next window."""
        name, (arrays, facts) = march.name(march.count), march.contents()
        place = Place(name, march.steps, march.scheme.windows * self.limit, arrays, facts)
        problem = march.scheme.window(self.run.problem, march.model, march.count)
        return self.run.part(problem, place, checkpoint)

    def _refuse_another(self, march: MarchOfWindows, checkpoint: Checkpoint) -> None:
        """Refuse a problem whose first window is not that of the checkpoint."""
        run = self.run
        if run.allow_changed or not march.count:  # the first window looks for itself
            return
        blank = run.problem.build_model(key=self.key)
        first = march.scheme.window(run.problem, blank, 0)
        points = TrainingPoints(first.statements, self.key, run.counts)
        size = monitor_loss(first, first.model, points.train, points.monitor)
        run.refuse_another(run.statement([march.found[0].monitor[0]]), [size])


def _failure(error: Exception) -> tuple[Status, str]:
    """How a window ends that raises before its first step."""
    if is_out_of_memory(error):
        return Status.OUT_OF_MEMORY, out_of_memory(error, 0)
    if isinstance(error, ProblemError):
        return Status.NONFINITE, str(error)
    return Status.NONFINITE, raised_at(error.error if isinstance(error, Raised) else error, 0)
