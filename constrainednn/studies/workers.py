"""Processes of this machine that work for another one.

Plain data go there and back as JSON, a line each, and the name of one function: no code. A worker
ends with the process that started it, and is started anew where it was killed. This module imports
no jax, since a worker must set its number of threads before.
"""

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import IO, Any

from constrainednn._common.paths import PACKAGE
from constrainednn.errors import StoreError

_ONE_THREAD = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TooLong(BrokenExecutor):
    """A worker did not answer in time, and was killed."""


class Workers:
    """A number of processes with one thread each, with the `submit` of `concurrent.futures`.

    Arguments and results must be plain data. A future whose process was killed raises
    `BrokenExecutor`; the next task gets a new process.

    Args:
        count: How many.
        patience: Seconds that one has for an answer, or None.
    """

    def __init__(self, count: int, patience: float | None = None):
        self._patience = patience
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._own = threading.local()
        self._started: list[subprocess.Popen] = []
        self._closed = False

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for process in self._started:
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._started:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was not read any more
                        pipe.close()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future:
        """Call a function of this package in a worker."""
        call = {"module": fn.__module__, "name": fn.__name__, "args": args}
        return self._threads.submit(self._call, json.dumps(call))

    def _call(self, line: str) -> Any:
        process = getattr(self._own, "process", None)
        if process is None or process.poll() is not None:
            process = self._own.process = _start()
            self._started.append(process)
            if self._closed:
                process.kill()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            # It answers each call with one line, so nothing of an earlier one waits in the buffer.
            if not wait([process.stdout.fileno()], self._patience):
                process.kill()
                process.wait()  # or the next call takes it for one that lives
                raise TooLong(f"its worker did not answer for {self._patience:g} s and was killed")
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:  # the pipe is closed, or the line cut short
            process.kill()
            raise BrokenExecutor(f"a worker ended with code {process.wait()}") from error
        if "error" in answer:
            kind, text = answer["error"]
            raise StoreError(text) if kind == "StoreError" else RuntimeError(f"{kind}: {text}")
        return answer["result"]


def _start() -> subprocess.Popen:
    environment = dict(os.environ)
    for name in _ONE_THREAD:
        environment[name] = "1"
    paths = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.Popen(
        [sys.executable, "-m", "constrainednn.studies.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,  # Ctrl-C is for the process that started them
    )


def serve(asked: IO[str], answers: IO[str]) -> None:
    """Answer calls until the other side is gone, then end at once, whatever is under way."""
    calls: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in asked:
            calls.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        call = json.loads(calls.get())
        try:
            fn = getattr(importlib.import_module(call["module"]), call["name"])
            answer = {"result": fn(*call["args"])}
        except Exception as error:  # noqa: BLE001  (whatever it is, the other side raises it)
            text = str(error)
            if not isinstance(error, StoreError):
                text += "\n" + "".join(traceback.format_tb(error.__traceback__))
            answer = {"error": [type(error).__name__, text]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # What a problem file prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("once")
    serve(sys.stdin, channel)
