"""The disk fails or the process ends at every call that writes: what was saved before is there."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import constrainednn as cx
from constrainednn._storage import files, folders, lock, run_folder
from constrainednn._storage.files import append_line, write_atomically
from constrainednn._storage.lock import holder_of, locked
from constrainednn._storage.run_folder import RunFolder, checkpoints

CALLS = ("open", "write", "fsync", "replace", "close")
STEPS = 5


def state(step):
    return {"loss": np.arange(float(step)), "model": np.full(3, float(step))}


def script(path):
    """All that a run does to its folder, with small arrays."""
    folder = RunFolder(path)
    try:
        folder.begin({"arguments": {}, "method": "", "settings": {}, "source": None})
        for step in range(1, STEPS + 1):
            folder.log({"step": step})
            folder.save(step, state(step), {"stage": 0})
        folder.write([("model.npz", b"model"), ("report.json", b"{}")])
    finally:
        folder.close()
    return folder


def counted(monkeypatch, action):
    """Let `action(number, real, arguments)` stand for each writing call in turn."""
    number = [0]

    def replacement(real):
        def call(*arguments):
            number[0] += 1
            return action(number[0], real, arguments)

        return call

    for name in CALLS:
        monkeypatch.setattr(files, f"_{name}", replacement(getattr(files, f"_{name}")))
    return number


def check_checkpoint(path, least):
    """The newest checkpoint is whole and at least as new as `least`."""
    found = RunFolder(path).newest()
    assert (0 if found is None else found.step) >= least
    if found is not None:
        assert found.facts["stage"] == 0
        for name, array in state(found.step).items():
            np.testing.assert_array_equal(found.arrays[name], array)
    assert len(checkpoints(path)) <= 3


def number_of_calls(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        number = counted(patch, lambda _, real, arguments: real(*arguments))
        script(tmp_path / "counted")
        return number[0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_f6_f8_every_call_may_fail_once(tmp_path, monkeypatch, code):
    """A full disk that is full for one call, at each of them: the run goes on and says so."""
    calls = number_of_calls(tmp_path, monkeypatch)
    assert calls > 50
    for k in range(1, calls + 1):
        path = tmp_path / f"at{k}"

        def action(number, real, arguments, k=k):
            if number == k:
                if real.__name__ == "_close":
                    real(*arguments)
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            counted(patch, action)
            try:
                folder = script(path)
            except cx.errors.StoreError as error:  # at the start, where nothing is lost
                assert os.strerror(code) in str(error)
                assert not path.exists()
                continue
        (warning,) = said
        assert os.strerror(code) in str(warning.message)
        check_checkpoint(path, STEPS - 1)
        assert not [file for file in path.iterdir() if file.name.endswith(".tmp")]
        assert not (path / "lock").exists()
        # The very last call makes the last name sure: that it did is not known then.
        assert k == calls or not (folder.failure and (path / "report.json").exists())


def test_f7_full_from_some_call_on(tmp_path, monkeypatch):
    """The disk fills and stays full: the last checkpoint before that is there."""
    calls = number_of_calls(tmp_path, monkeypatch)
    for k in range(1, calls - 1, 3):
        path = tmp_path / f"from{k}"
        saved = [0]

        def action(number, real, arguments, k=k, saved=saved):
            if number >= k and real.__name__ != "_close":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            result = real(*arguments)
            if real.__name__ == "_replace" and "checkpoint" in arguments[1].name:
                saved[0] += 1
            return result

        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            counted(patch, action)
            try:
                folder = script(path)
            except cx.errors.StoreError:
                continue
        assert said
        assert folder.failure.startswith("the results could not be written: No space left")
        check_checkpoint(path, saved[0])


CHILD = """
import os, sys, warnings
sys.path[:0] = [{tests!r}, {package!r}]
import numpy as np
import constrainednn._storage.files as files
from constrainednn._storage.run_folder import RunFolder
assert "jax" not in sys.modules
warnings.simplefilter("error")
CALLS, STEPS = {calls!r}, {steps!r}
{functions}
def child(path, k, torn):
    count = [0]
    def replacement(real):
        def call(*arguments):
            count[0] += 1
            if count[0] == k:
                if torn and real.__name__ == "_write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os._exit(9)
            return real(*arguments)
        return call
    for name in CALLS:
        setattr(files, f"_{{name}}", replacement(getattr(files, f"_{{name}}")))
    try:
        script(path)
        os._exit(0)
    except BaseException:
        os._exit(1)

from pathlib import Path
k, done = 0, False
while not done:
    k += 1
    for torn in (False, True):
        path = Path({root!r}) / f"{{k}}{{torn}}"
        pid = os.fork()
        if not pid:
            child(path, k, torn)
        done = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert done in (0, 9), done
        done = done == 0
print(k)
"""


@pytest.mark.slow
def test_f1_f2_process_ends_at_every_call(tmp_path, monkeypatch):
    """Killed at each writing call in turn, between two bytes, too; without starting jax anew."""
    import inspect

    code = CHILD.format(
        tests=str(Path(__file__).parent),
        package=str(Path(cx.__file__).parents[1]),
        calls=CALLS,
        steps=STEPS,
        functions=textwrap.dedent(inspect.getsource(state) + "\n" + inspect.getsource(script)),
        root=str(tmp_path),
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
    for k in range(1, int(done.stdout)):
        for torn in (False, True):
            path = tmp_path / f"{k}{torn}"
            if not (path / "run.json").exists():  # before the run began
                continue
            files = checkpoints(path)
            check_checkpoint(path, max([int(file.stem[-9:]) for file in files], default=0))
            reopened = RunFolder(path)
            if (path / "lock").exists():
                with pytest.warns(
                    cx.errors.RunWarning, match="left locked by process .* which is gone"
                ):
                    reopened.reopen()
            else:
                reopened.reopen()
            reopened.log({"step": 99})
            reopened.close()
            assert not [file for file in path.iterdir() if file.name.endswith(".tmp")]
            last = (path / "history.jsonl").read_text().splitlines()[-1]
            assert json.loads(last) == {"step": 99}  # a torn line before it does not spoil it


def test_f21_what_is_flushed_before_what(tmp_path, monkeypatch):
    """The content reaches the disk before the name does, and then the name: any prefix is safe."""
    order = []

    def action(number, real, arguments):
        order.append(real.__name__)
        return real(*arguments)

    counted(monkeypatch, action)
    write_atomically(tmp_path / "a", b"content")
    assert order == ["_open", "_write", "_fsync", "_close", "_replace", "_fsync"]


def test_disk_that_loses_bytes_is_found_before_the_old_file_goes(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(files, "_write", lambda handle, content: len(content))
    with pytest.raises(OSError, match="reads back as something else"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_f10_f11_damaged_checkpoint_falls_back_and_says_so(tmp_path):
    path = tmp_path / "run"
    script(path)
    newest, before = checkpoints(path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(
        cx.errors.RunWarning, match=r"checkpoint-000000005.npz is damaged.*one before it"
    ):
        found = RunFolder(path).newest()
    assert found.step == 4
    assert newest.with_name("checkpoint-000000005.npz.damaged").exists()
    before.write_bytes(b"")
    with pytest.warns(cx.errors.RunWarning, match="it is cut"):
        assert RunFolder(path).newest() is None


def test_f17_f20_f24_order_is_by_steps_and_two_are_kept(tmp_path):
    path = tmp_path / "run"
    script(path)
    (path / "notes.txt").write_text("mine")
    assert [file.name for file in checkpoints(path)] == [
        "checkpoint-000000005.npz",
        "checkpoint-000000004.npz",
    ]
    for age, file in enumerate(checkpoints(path)):
        os.utime(file, (age, age))  # as after a clock that jumped
    assert RunFolder(path).newest().step == 5
    folder = RunFolder(path)
    folder.reopen()
    folder.save(10**9, state(3), {})
    folder.close()
    assert [int(file.stem.partition("-")[2]) for file in checkpoints(path)] == [10**9, 5]
    assert (path / "notes.txt").read_text() == "mine"  # never deletes what it did not write


def test_f22_slow_disk_stretches_the_interval(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.begin({})
    now = [1000.0]
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: now[0])

    def slow(*arguments):
        now[0] += 3.0

    monkeypatch.setattr(run_folder, "write_atomically", slow)
    folder.save(1, state(1), {})
    folder.close()
    spent = now[0]
    while not folder.due:
        now[0] += 1.0
    assert 3.0 / (3.0 + now[0] - spent) <= 0.05  # a twentieth of the time goes into saving


def test_f18_second_process_is_refused_and_named(tmp_path):
    path = tmp_path / "run"
    script(path)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from constrainednn._storage.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    try:
        holder.stdout.readline()
        words = rf"run is in use by process {holder.pid} on \S+ since \d{{4}}-"
        with pytest.raises(cx.errors.StoreError, match=words):
            RunFolder(path).reopen()
        assert holder_of(path)["pid"] == holder.pid
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert holder_of(path) == {}
    folder = RunFolder(path)
    with pytest.warns(
        cx.errors.RunWarning, match=f"left locked by process {holder.pid} .* is taken over"
    ):
        folder.reopen()
    assert holder_of(path)["pid"] == os.getpid()
    with pytest.raises(cx.errors.StoreError, match=f"in use by process {os.getpid()}"):
        RunFolder(path).reopen()  # nor twice in one process
    folder.close()
    assert not (path / "lock").exists()


def test_f19_without_locks_of_the_kernel_the_process_decides(tmp_path, monkeypatch):
    def without(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", without)
    with (
        locked(tmp_path),
        pytest.raises(cx.errors.StoreError, match="in use by process"),
        locked(tmp_path),
    ):
        pass
    gone = {"pid": 2**22 + 1, "host": os.uname().nodename, "started": "1", "since": "then"}
    (tmp_path / "lock").write_text(json.dumps(gone))
    with pytest.warns(cx.errors.RunWarning, match="is gone"), locked(tmp_path):
        pass
    (tmp_path / "lock").write_text(json.dumps({**gone, "host": "elsewhere"}))
    words = "in use by process 4194305 on elsewhere since then. If it is gone, remove .*lock"
    with pytest.raises(cx.errors.StoreError, match=words), locked(tmp_path):
        pass


def test_f19_of_many_that_take_over_at_once_one_has_the_lock(tmp_path, monkeypatch):
    def without(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", without)
    gone = {"pid": 2**22 + 1, "host": os.uname().nodename, "started": "1", "since": "then"}
    holders, most, held = [], [], []

    def contend(barrier):
        barrier.wait()
        try:
            with locked(tmp_path):
                holders.append(None)
                most.append(len(holders))
                time.sleep(0.01)
                holders.pop()
                held.append(True)
        except cx.errors.StoreError as error:
            assert "in use by" in str(error) or "being taken over" in str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cx.errors.RunWarning)
        for trial in range(60):
            if trial % 2:
                (tmp_path / "lock").write_text(json.dumps(gone))
            barrier = threading.Barrier(6)
            threads = [threading.Thread(target=contend, args=(barrier,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not list(tmp_path.iterdir())
    assert max(most) == 1 and len(held) >= 30


def test_a_run_that_came_and_went_while_the_lock_was_taken_is_not_overwritten(
    tmp_path, monkeypatch
):
    path = tmp_path / "run"

    def late(folder):
        monkeypatch.setattr(run_folder, "locked", locked)
        script(path)  # after the check of the folder, before the lock
        return locked(folder)

    monkeypatch.setattr(run_folder, "locked", late)
    with pytest.raises(cx.errors.StoreError, match="holds a run"):
        RunFolder(path).begin({"mine": True})
    assert run_folder.read_record(path)["method"] == ""


def test_f9_folder_that_vanishes_costs_warnings_only(tmp_path):
    import shutil

    path = tmp_path / "run"
    folder = RunFolder(path)
    folder.begin({})
    shutil.rmtree(path)
    with pytest.warns(cx.errors.RunWarning, match=r"step 1 could not be saved: No such file"):
        folder.save(1, state(1), {})
    folder.log({"step": 1})  # it was said once
    with pytest.warns(cx.errors.RunWarning, match="the results could not be written"):
        folder.write([("report.json", b"{}")])
    folder.close()
    assert not path.exists()


def test_folder_that_is_another_run_s_by_now_is_left_alone(tmp_path):
    import shutil

    path = tmp_path / "run"
    first, second = RunFolder(path), RunFolder(path)
    first.begin({})
    first.save(100, state(3), {})
    shutil.rmtree(path)
    second.begin({})
    second.save(3, state(3), {})
    with pytest.warns(cx.errors.RunWarning, match="the folder now belongs to another run"):
        first.save(200, state(3), {})
    first.close()
    assert [file.name for file in checkpoints(path)] == ["checkpoint-000000003.npz"]
    assert holder_of(path)["pid"] == os.getpid()  # and its lock is there
    second.close()


def test_newer_checkpoint_is_refused_and_not_set_aside(tmp_path, monkeypatch):
    from constrainednn._storage import archive

    folder = RunFolder(tmp_path / "run")
    folder.begin({})
    monkeypatch.setattr(archive, "FORMAT", 3)
    folder.save(1, state(1), {})
    monkeypatch.undo()
    with pytest.raises(cx.errors.StoreError, match="was written in format 3"):
        folder.newest()
    folder.close()
    assert checkpoints(tmp_path / "run")


def test_start_that_was_killed_leaves_a_folder_that_can_be_used(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "lock").write_text("")
    (path / ".run.json.1.constrainednn.tmp").write_text("{")
    script(path)
    assert RunFolder(path).newest().step == STEPS


def test_f25_private_where_everybody_may_write(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    script(shared / "run")
    assert (shared / "run").stat().st_mode & 0o777 == 0o700
    before = os.umask(0o027)
    try:
        script(tmp_path / "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "mine" / "run.json").stat().st_mode & 0o777 == 0o640


def test_j5_nothing_is_written_through_a_link(tmp_path):
    script(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("kept\n")
    history = tmp_path / "run" / "history.jsonl"
    history.unlink()
    history.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        append_line(history, "{}")
    report = tmp_path / "run" / "report.json"
    report.unlink()
    report.symlink_to(victim)
    write_atomically(report, b"new")
    assert victim.read_text() == "kept\n" and not report.is_symlink()


def test_j6_folder_that_another_user_prepared(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    (shared / "run").mkdir(parents=True)
    shared.chmod(0o1777)
    monkeypatch.setattr(folders.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(cx.errors.StoreError, match="run belongs to another user"):
        RunFolder(shared / "run").begin({})
