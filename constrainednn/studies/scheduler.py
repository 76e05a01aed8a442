"""Tasks of a study, handed out and collected."""

import collections
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from typing import Any, Protocol, runtime_checkable

from constrainednn._common.arguments import as_positive
from constrainednn.errors import BadValueError, StoreError
from constrainednn.runs.signals import Stop
from constrainednn.studies.axes import Combination
from constrainednn.studies.folder import StudyFolder
from constrainednn.studies.stated import Stated, work_elsewhere
from constrainednn.studies.tables.rows import LOST
from constrainednn.studies.tasks import Done, Origin, StudyProgress, Task
from constrainednn.studies.workers import TooLong

# So many runs that fail alike, and nothing else before them, end a study.
_ALIKE = 3
# So often a task is given to a worker that ends without an answer.
_TRIES = 3
_ENDED = (
    f"{_TRIES} worker processes ended while they ran this (killed, or out of memory?): run it "
    "alone to see why"
)


@runtime_checkable
class Executor(Protocol):
    """What runs tasks elsewhere: a `concurrent.futures.Executor`, or whatever has its `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future:
        """Call `fn(*args)` in another process."""
        ...


def run_all(
    combinations: list[Combination],
    serve: "Here | Elsewhere",
    stop: Stop,
    folder: StudyFolder | None,
    progress: Callable[[StudyProgress], None] | None,
) -> None:
    """Hand out all tasks and write down what comes back: the one place that does."""
    ready = collections.deque((item, task) for item in combinations for task in item.tasks())
    running: dict[Future, tuple[Combination, Task, int]] = {}
    runs = sum(len(item.places) for item in combinations)
    before = found = sum(len(item.rows) for item in combinations)
    began, reasons, tried = time.monotonic(), [], set()
    try:
        while (ready or running) and not stop:
            while ready and len(running) < serve.width:
                item, task = ready.popleft()
                running[serve.submit(task)] = item, task, 1
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                item, task, tries = running.pop(future)
                try:
                    done = serve.result(future)
                except TooLong as error:
                    done = _lost(task, str(error))
                if done is None and tries < _TRIES:
                    running[serve.submit(task)] = item, task, tries + 1
                    continue
                if done is None:
                    done = _lost(task, _ENDED)
                for seed, report in done.rows.items():
                    row = {"given": item.given, "seed": seed, "engine": done.engine}
                    row |= {"lanes": done.lanes, **report}
                    item.rows[seed] = row
                    if folder is not None and row["status"] != LOST:  # that one may be tried again
                        folder.append(row)
                    found += 1
                    if progress is not None:
                        each = (time.monotonic() - began) / (found - before)
                        progress(StudyProgress(found, runs, each * (runs - found)))
                    reasons.append(row["reason"] if row["status"] in ("error", LOST) else None)
                    tried.add(id(item))
                alike = len(set(reasons)) == 1 and reasons[0] is not None
                enough = len(reasons) >= _ALIKE and len(tried) >= min(_ALIKE, len(combinations))
                if enough and before == 0 and alike:
                    raise BadValueError(
                        f"the first {len(reasons)} runs all fail with: {reasons[0]}"
                    )
                if done.interrupted:
                    return
                more = item.tasks() if not task.decided else task.one_by_one(set(item.rows))
                if not task.decided:
                    item.engine, item.lanes = done.engine, done.lanes
                ready.extendleft((item, left) for left in [*more][::-1])
    finally:
        for future in running:
            future.cancel()


class Here:
    """Runs tasks in this process, one after another."""

    width = 1

    def __init__(self, stated: Stated):
        self.stated = stated

    def submit(self, task: Task) -> Future:
        future: Future = Future()
        future.set_result(self.stated.work(task))
        return future

    def result(self, future: Future) -> Done:
        return future.result()


class Elsewhere:
    """Hands tasks to other processes, as many as there are."""

    width = 1 << 20

    def __init__(self, executor: Executor, origin: Origin):
        self.executor, self.origin = executor, dataclasses.asdict(origin)

    def submit(self, task: Task) -> Future:
        try:
            return self.executor.submit(work_elsewhere, self.origin, dataclasses.asdict(task))
        except BrokenExecutor as error:
            raise StoreError(
                f"the executor takes no more tasks: {error}. The rows before it are kept."
            ) from error

    def result(self, future: Future) -> Done | None:
        """What came of a task; None where its process ended without an answer.

        Raises:
            TooLong: If it was killed, since it did not answer.
        """
        try:
            done = future.result()
        except TooLong:
            raise
        except (BrokenExecutor, CancelledError):
            return None
        except Exception as error:
            if type(error).__module__.startswith("distributed"):
                return None
            raise
        if done["interrupted"]:  # a signal was for that process, not for the study
            return None
        rows = {int(seed): row for seed, row in done["rows"].items()}
        return Done(**{**done, "rows": rows})


def _lost(task: Task, reason: str) -> Done:
    """What comes of a task that no worker answered: of several runs, each is tried alone."""
    if len(task.places) > 1:
        return Done({}, "loop", 0)
    rows = {seed: {"status": LOST, "reason": reason} for seed in task.places.values()}
    return Done(rows, "loop", 0)


def patience(limits: list[float | None]) -> float | None:
    """Seconds that a worker has for an answer: the longest run, and time to start and compile."""
    longest = [as_positive(limit, "time_limit") for limit in limits if limit is not None]
    return 2 * max(longest) + 60 if len(longest) == len(limits) else None
