"""Tasks of a study: submitting them and collecting the results."""

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

# A study ends if its first runs, at least this many, all fail with the same reason.
_FAILURES = 3
# Attempts at a task whose worker process ends without an answer.
_TRIES = 3
_NO_ANSWER = (
    f"{_TRIES} worker processes ended while they ran this (killed, or out of memory?): run it "
    "alone to see why"
)


@runtime_checkable
class Executor(Protocol):
    """Runs tasks elsewhere: a `concurrent.futures.Executor`, or anything with its `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future:
        """Call `fn(*args)` in another process."""
        ...


def run_all(
    combinations: list[Combination],
    backend: "Here | Elsewhere",
    stop: Stop,
    folder: StudyFolder | None,
    progress: Callable[[StudyProgress], None] | None,
) -> None:
    """Submit all tasks and record their results: the only place that does."""
    ready = collections.deque((item, task) for item in combinations for task in item.tasks())
    running: dict[Future, tuple[Combination, Task, int]] = {}
    runs = sum(len(item.places) for item in combinations)
    stored = found = sum(len(item.rows) for item in combinations)
    began, reasons, tried = time.monotonic(), [], set()
    try:
        while (ready or running) and not stop:
            while ready and len(running) < backend.width:
                item, task = ready.popleft()
                running[backend.submit(task)] = item, task, 1
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                item, task, tries = running.pop(future)
                try:
                    done = backend.result(future)
                except TooLong as error:
                    done = _lost(task, str(error))
                if done is None and tries < _TRIES:
                    running[backend.submit(task)] = item, task, tries + 1
                    continue
                if done is None:
                    done = _lost(task, _NO_ANSWER)
                for seed, report in done.rows.items():
                    row = {"given": item.given, "seed": seed, "engine": done.engine}
                    row |= {"lanes": done.lanes, **report}
                    item.rows[seed] = row
                    if folder is not None and row["status"] != LOST:  # a lost run may be repeated
                        folder.append(row)
                    found += 1
                    if progress is not None:
                        each = (time.monotonic() - began) / (found - stored)
                        progress(StudyProgress(found, runs, each * (runs - found)))
                    reasons.append(row["reason"] if row["status"] in ("error", LOST) else None)
                    tried.add(id(item))
                alike = len(set(reasons)) == 1 and reasons[0] is not None
                enough = len(reasons) >= _FAILURES and len(tried) >= min(
                    _FAILURES, len(combinations)
                )
                if enough and stored == 0 and alike:
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
    """Submits tasks to other processes, all of them at once."""

    width = 1 << 20

    def __init__(self, executor: Executor, origin: Origin):
        self.executor, self.origin = executor, dataclasses.asdict(origin)

    def submit(self, task: Task) -> Future:
        try:
            return self.executor.submit(work_elsewhere, self.origin, dataclasses.asdict(task))
        except BrokenExecutor as error:
            raise StoreError(
                f"the executor accepts no more tasks: {error}. The rows so far are kept."
            ) from error

    def result(self, future: Future) -> Done | None:
        """The result of a task; None if its process ended without an answer.

        Raises:
            TooLong: If the process was killed because it took too long.
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
    """The result of a task without an answer: no rows if it has several runs, to try each alone."""
    if len(task.places) > 1:
        return Done({}, "loop", 0)
    rows = {seed: {"status": LOST, "reason": reason} for seed in task.places.values()}
    return Done(rows, "loop", 0)


def patience(limits: list[float | None]) -> float | None:
    """Seconds to wait for a worker: the longest run, and time to start and compile."""
    longest = [as_positive(limit, "time_limit") for limit in limits if limit is not None]
    return 2 * max(longest) + 60 if len(longest) == len(limits) else None
