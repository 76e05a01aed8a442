"""Studies in several processes, and what their deaths cost: nothing, and nothing counts twice."""

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest

import constrainednn as cx
from constrainednn.studies.folder import read_rows
from constrainednn.studies.workers import TooLong, Workers

FILE = """
import jax.numpy as jnp
import constrainednn as cx

def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0

def problem(points=4, width=3):
    over = cx.Constraint(on_circle, over=cx.Normal(2), points=points)
    return cx.Problem(over, cx.MLP(2, 2, width=width))
"""
AXES = {"points": [4, 5], "method": ["gd", "adam"]}
SMALL = {"heldout": 32, "monitor": 8, "steps": 5, "seeds": 3}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "circle.py"
    path.write_text(FILE)
    return path


def numbers(study):
    return [{**row, "seconds": None} for row in study.table()]


@pytest.mark.slow
def test_g17_any_number_of_workers_gives_the_same_rows(file, tmp_path):
    one = cx.study(file, vary=AXES, workers=1, engine="loop", **SMALL)
    two = cx.study(file, vary=AXES, workers=2, engine="loop", out=tmp_path / "s", **SMALL)
    assert numbers(one) == numbers(two) and two.complete
    assert len(read_rows(tmp_path / "s")) == 12
    again = cx.study(file, vary=AXES, workers=2, out=tmp_path / "s", **SMALL)
    assert numbers(again) == numbers(two)


class Here:
    """An executor of the user's: runs at once, and loses some tasks."""

    def __init__(self, lose=(), error=BrokenExecutor):
        self.calls, self.lose, self.error = 0, lose, error

    def submit(self, fn, /, *args):
        future = Future()
        self.calls += 1
        if self.calls in self.lose:
            future.set_exception(self.error("killed"))
        else:
            future.set_result(fn(*args))
        return future


@pytest.mark.slow
def test_g1_task_whose_worker_ends_is_done_again(file):
    calm = cx.study(file, vary=AXES, engine="loop", **SMALL)
    rough = Here(lose=(1, 2, 7))
    found = cx.study(file, vary=AXES, engine="loop", executor=rough, **SMALL)
    assert numbers(found) == numbers(calm)
    assert rough.calls == 12 + 3


@pytest.mark.slow
def test_g2_run_that_ends_every_worker_is_named_and_tried_again_later(file, tmp_path):
    out = tmp_path / "s"
    settings = {"engine": "loop", "out": out, **SMALL}
    # The first task is given out three times; the others come after all have been given out.
    found = cx.study(file, executor=Here(lose=(1, 4, 5)), **settings)
    lost = [row for row in found.rows if row["status"] == "lost"]
    assert [row["seed"] for row in lost] == [0] and "3 worker processes ended" in lost[0]["reason"]
    assert found.table()[0]["heldout_loss"] == float("inf")
    assert len(read_rows(out)) == 2  # so it is tried again
    assert {row["status"] for row in cx.study(file, **settings).rows} == {"max_steps"}


def test_worker_with_another_package_or_file_is_refused(file, monkeypatch):
    class Older(Here):
        def submit(self, fn, /, origin, task):
            return super().submit(fn, {**origin, "version": "0.0.1"}, task)

    with pytest.raises(
        cx.errors.StoreError, match=r"a worker has constrainednn .* study is of 0\.0\.1"
    ):
        cx.study(file, executor=Older(), **SMALL)

    class Elsewhere(Here):
        def submit(self, fn, /, origin, task):
            return super().submit(fn, {**origin, "digest": "a" * 64}, task)

    with pytest.raises(cx.errors.StoreError, match="is another file for a worker"):
        cx.study(file, executor=Elsewhere(), **SMALL)


def test_g12_what_cannot_be_told_to_another_process(file):
    with pytest.raises(TypeError, match="cannot be told to another process"):
        cx.study(file, executor=Here(), method=cx.LevenbergMarquardt(), **SMALL)


@pytest.mark.slow
def test_g3_worker_that_hangs_is_killed_and_the_others_go_on(file, tmp_path):
    words = r"did not answer for 0\.5 s and was killed"
    with Workers(1, patience=0.5) as workers, pytest.raises(TooLong, match=words):
        workers.submit(time.sleep, 600).result(timeout=60)

    class Hangs(Here):
        def submit(self, fn, /, origin, task):
            future = super().submit(fn, origin, task)
            if task["places"] == {0: 0}:
                future = Future()
                future.set_exception(TooLong("its worker did not answer for 61 s and was killed"))
            return future

    found = cx.study(file, executor=Hangs(), time_limit=60.0, out=tmp_path / "s", **SMALL)
    assert [row["status"] for row in found.rows] == ["lost", "max_steps", "max_steps"]
    assert "did not answer" in found.rows[0]["reason"]
    limited = cx.study(file, time_limit=1e-9, **SMALL)
    assert {row["status"] for row in limited.rows} == {"time_limit"}


@pytest.mark.slow
def test_g13_more_workers_than_cores_is_warned_of(file):
    done = cx.study(file, out=(out := file.parent / "s"), **SMALL)
    with pytest.warns(cx.errors.RunWarning, match="1000 workers on .* cores wait for each other"):
        again = cx.study(file, workers=1000, out=out, **SMALL)
    assert numbers(again) == numbers(done)  # nothing was left to start a worker for


def test_g6_g11_workers_end_with_who_started_them():
    """A worker is a new interpreter, never a fork, and ends when its pipe is closed."""
    with Workers(1) as workers:
        here = workers.submit(os.getpid).result(timeout=60)
        (process,) = workers._started
        assert here == process.pid != os.getpid()
        process.stdin.close()  # as the system does when the coordinator is killed
        assert process.wait(timeout=10) == 0


@pytest.mark.slow
def test_workers_answer_with_errors_and_end_with_us():
    with Workers(1) as workers:
        future = workers.submit(cx.load_study, "/nowhere/at/all")
        with pytest.raises(cx.errors.StoreError, match="holds no study"):
            future.result(timeout=60)
        (process,) = workers._started
        process.kill()
        process.wait()
        with pytest.raises(cx.errors.StoreError, match="holds no study"):
            workers.submit(cx.load_study, "/nowhere/at/all").result(timeout=60)
    assert all(process.poll() is not None for process in workers._started)


SCRIPT = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
import constrainednn as cx
settings = {"heldout": 32, "monitor": 8, "steps": 5, "seeds": 3}
axes = {"points": [4, 5], "method": ["gd", "adam"]}
found = cx.study(sys.argv[1], vary=axes, workers=2, engine="loop", out=sys.argv[2], **settings)
assert found.complete
"""


def children(pid):
    """Worker processes of a process: its threads start them."""
    found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(word) for text in found for word in text.split()]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="children are found in /proc")
@pytest.mark.parametrize("whom", ["worker", "coordinator", "both"])
def test_g1_g6_kill_at_a_random_moment_changes_no_row(file, tmp_path, whom):
    """2 moments each, or as many as CONSTRAINEDNN_KILLS says."""
    calm = cx.study(file, vary=AXES, workers=2, engine="loop", **SMALL)
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_X64": "1",
    }
    moments = random.Random(whom)
    landed = 0
    kills = int(os.environ.get("CONSTRAINEDNN_KILLS", "2"))
    for number in range(kills):
        out = tmp_path / f"{whom}{number}"
        command = [sys.executable, "-c", SCRIPT, str(file), str(out)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        # From the first worker on: how long it takes to come is a matter of the machine.
        while process.poll() is None and not children(process.pid):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 6.0))
        pids = []
        if whom != "coordinator" and process.poll() is None:
            pids += children(process.pid)[:1]
        if whom != "worker" and process.poll() is None:
            pids.append(process.pid)
        for pid in pids:
            landed += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                landed -= 1
        code = process.wait(timeout=300)
        if whom == "worker":
            assert code == 0, (number, code)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cx.errors.RunWarning)  # of its lock, or a torn line
            again = cx.study(file, vary=AXES, workers=2, engine="loop", out=out, **SMALL)
        assert numbers(again) == numbers(calm), number
        lines = (out / "runs.jsonl").read_text().splitlines()
        whole = [line for line in lines if line.endswith("}")]
        assert len(whole) == 12 == len(read_rows(out)), number  # nothing twice
    assert landed >= kills / 2, landed


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_dask_cluster_that_loses_a_worker(file, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra constrainednn[dask]")
    calm = cx.study(file, vary=AXES, workers=1, engine="loop", **SMALL)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", "NPROC": "1"}
    bin = os.path.dirname(sys.executable)
    scheduler = subprocess.Popen(
        [f"{bin}/dask", "scheduler", "--port", "8791", "--no-dashboard", "--host", "127.0.0.1"],
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    address = "tcp://127.0.0.1:8791"
    start = [f"{bin}/dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    workers = [
        subprocess.Popen(start, stderr=subprocess.DEVNULL, env=environment, cwd=tmp_path)
        for _ in range(2)
    ]
    killed = []

    def kill_one(now):
        if not killed:
            killed.append(now.done)
            workers[0].kill()

    try:
        with distributed.Client(address, timeout="60s") as client:
            client.wait_for_workers(2, timeout=60)
            found = cx.study(
                file,
                vary=AXES,
                engine="loop",
                executor=client.get_executor(),
                progress=kill_one,
                out=tmp_path / "s",
                **SMALL,
            )
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert killed and found.complete
    assert numbers(found) == numbers(calm)
    assert len((tmp_path / "s" / "runs.jsonl").read_text().splitlines()) == 12
