"""Windows that are trained one after another, each from the end of the one before."""

import copy
from collections.abc import Sequence

import jax
import numpy as np

from constrainednn._gap.streams import problem_streams
from constrainednn._ode.trained.scheme import TrainedWindows
from constrainednn._solve.training.steps import RunRequests
from constrainednn._solve.training.trainer import Training
from constrainednn.methods.stages import described
from constrainednn.runs.history import History, Status
from constrainednn.runs.outcome import Outcome

# A window that ends otherwise is the last.
_GOES_ON = (Status.CONVERGED, Status.MAX_STEPS, Status.STALLED, Status.EARLY_STOPPED)


class TrainingInWindows(Training):
    """The state of one run; `go` takes all windows, each as long as `Training` would."""

    def go(self) -> RunRequests:
        """Yield requests for steps and monitor losses, and return the outcome."""
        run, problem = self.run, self.run.problem
        scheme, key = problem.scheme, jax.random.key(run.seed)
        assert isinstance(scheme, TrainedWindows)
        model = problem.build_model(key=key)
        settings = run.begin(described(self.stages, model), self.limit)
        found: list[Outcome] = []
        for k in range(scheme.windows):
            part = copy.copy(run)
            part.problem = scheme.window(problem, model, k)
            part.folder = part.record = part.checkpoint = None
            training = Training(part, self.stages, checked=self.checked or k > 0)
            outcome = yield from training.go()
            model = scheme.joined(model, k, outcome.model)
            found.append(outcome)
            if outcome.status not in _GOES_ON:
                break
        status, reason = _ended(found, scheme.windows)
        return Outcome(
            model=model,
            status=status,
            reason=reason,
            steps=sum(item.steps for item in found),
            parameters=sum(item.parameters for item in found),
            history=_history(found),
            compile=sum(item.compile for item in found),
            run=sum(item.run for item in found),
            settings=settings,
            streams=problem_streams(problem, model, key=key, **run.counts),
        )


def _ended(found: Sequence[Outcome], windows: int) -> tuple[Status, str]:
    """How all windows ended: as the last where it ended the run, else as the first cut short."""
    last, count = found[-1], len(found)
    if last.status not in _GOES_ON:
        rest = "" if count == windows else f"; windows {count + 1} to {windows} are not trained"
        return last.status, f"window {count} of {windows}: {last.reason}{rest}"
    for k, item in enumerate(found):
        if item.status is not Status.CONVERGED:
            return item.status, f"window {k + 1} of {windows}: {item.reason}"
    return Status.CONVERGED, f"{found[-1].reason}, in each of {windows} windows"


def _history(found: Sequence[Outcome]) -> History:
    """The losses of all windows, one after another."""
    ends = np.cumsum([0, *(item.steps for item in found)])
    shifted = [item.history.monitor_steps + end for item, end in zip(found, ends, strict=False)]
    monitor = [item.history.monitor for item in found]
    # The last look of a window and the first of the next are at one step: the first stays.
    steps, first = np.unique(np.concatenate(shifted), return_index=True)
    return History(
        np.concatenate([item.history.loss for item in found]),
        steps,
        np.concatenate(monitor)[first],
        (),
        int(ends[-1]),
    )
