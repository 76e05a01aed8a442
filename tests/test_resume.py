"""Going on is the same as never having stopped, bit for bit; anything else is refused by name."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import run
from marks import slow

import constrainednn as cx
from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._ode.schemes import boundary_values
from constrainednn._pieces import march
from constrainednn._solve.training import diagnosis, steps, trainer
from constrainednn._storage import run_folder
from constrainednn._storage.archive import seal
from constrainednn._storage.run_folder import RunFolder, checkpoints
from constrainednn.cli import solve, values
from constrainednn.results import saving

SMALL = {"seed": 3, "heldout": 32, "monitor": 16}


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def circle(points=8, width=4):
    return cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=points), cx.MLP(2, 2, width=width)
    )


CIRCLE = circle()
NOTHING = {
    "guarantee": cx.results.Guarantee(0, None, None, None, None, ()),
    "holds": cx.results.Holds("not known"),
}
ADAM = cx.Optax(optax.adam(1e-2))
NOISY = cx.Optax(optax.noisy_sgd(1e-3, key=jax.random.key(4)))
TWO = [
    cx.Stage(ADAM, steps=6),
    cx.Stage(cx.LevenbergMarquardt(), steps=6, trainable=lambda u: u.layers[-1]),
]
METHODS = {
    "lm": (None, {"steps": 9}),
    "lm, drawn again": (None, {"steps": 9, "redraw": 2}),
    "adam": (ADAM, {"steps": 40}),
    "adam, drawn again": (ADAM, {"steps": 40, "redraw": 7}),
    "lbfgs": (cx.Optax(optax.lbfgs()), {"steps": 12}),
    "noise with a key of its own": (NOISY, {"steps": 20}),
    "two stages": (TWO, {}),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A look after every step or few, and figures that cost nothing."""
    monkeypatch.setattr(trainer, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(march, "_FIRST_TRIES", 2)
    monkeypatch.setattr(march, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(saving, "_png", lambda draw: (b"", ""))


def after(looks, action=lambda: signal.raise_signal(signal.SIGINT)):
    """A progress display that ends the run at a look at the clock."""
    seen = itertools.count(1)

    def progress(now):
        if now.phase in ("training", "solving, %") and next(seen) == looks:
            action()

    return progress


def numbers(solution):
    """The gap without what is void once the held-out points were looked at."""
    parts = [dataclasses.replace(item, **NOTHING) for item in solution.gap.constraints]
    return dataclasses.replace(solution.gap, constraints=tuple(parts))


def equal(first, second):
    """Every leaf, every number of the history and of the report."""

    def same(a, b):
        a, b = tree_to_arrays(a), tree_to_arrays(b)
        assert a.keys() == b.keys()
        for name in a:
            assert (a[name].dtype, a[name].tobytes()) == (b[name].dtype, b[name].tobytes()), name

    same(first.model, second.model)
    h, k = first.history, second.history
    for name in ("loss", "monitor", "monitor_steps"):
        assert getattr(h, name).tobytes() == getattr(k, name).tobytes(), name
    assert (h.best_step, h.redraws) == (k.best_step, k.redraws)
    for (step, model), (other, again) in zip(h.snapshots, k.snapshots, strict=True):
        assert step == other
        same(model, again)
    for one, two in zip(first.streams, second.streams, strict=True):
        np.testing.assert_array_equal(one.train.points, two.train.points)
    assert (first.status, first.reason, first.steps) == (second.status, second.reason, second.steps)
    assert repr(numbers(first)) == repr(numbers(second))
    if first.settings.looked == second.settings.looked:
        assert repr(first.gap) == repr(second.gap)
    if h.pieces is not None:
        for name in ("edges", "monitor", "steps", "rejected"):
            np.testing.assert_array_equal(getattr(h.pieces, name), getattr(k.pieces, name))


@pytest.mark.parametrize("bits", [64, slow(32)])
@pytest.mark.parametrize(
    "name", [name if name == "adam, drawn again" else slow(name) for name in METHODS]
)
def test_resume_matrix(tmp_path, name, bits):
    """Methods, dtypes and places where the run is interrupted; also more than once."""
    method, settings = METHODS[name]
    settings = SMALL | settings
    with jax.enable_x64(bits == 64), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Levenberg-Marquardt in float32")
        whole = cx.solve(CIRCLE, method, **settings)
        for looks in (1, 3, 7):
            out = tmp_path / str(looks)
            part = cx.solve(CIRCLE, method, **settings, out=out, progress=after(looks))
            assert (part.status, part.steps < whole.steps) == ("interrupted", True)
            if looks == 3:
                cx.resume(out, CIRCLE, method, progress=after(2))
            reached = RunFolder(out).newest().step
            steps = []
            rest = cx.resume(
                out, CIRCLE, method, progress=lambda now, steps=steps: steps.append(now.step)
            )
            # From the checkpoint, and not from the beginning.
            assert [step for step in steps if step][0] >= reached > 0  # noqa: RUF015
            equal(whole, rest)
            for file in checkpoints(out)[:1]:
                assert int(file.stem[-9:]) == whole.steps


def test_loaded_is_what_was_resumed(tmp_path):
    cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=tmp_path / "a", progress=after(3))
    solution = cx.resume(tmp_path / "a", CIRCLE, ADAM)
    loaded = cx.load_solution(tmp_path / "a", CIRCLE)
    assert repr(loaded.gap) == repr(solution.gap)
    np.testing.assert_array_equal(loaded.history.loss, solution.history.loss)


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, ADAM], ids=["lm", "adam"])
def test_more_steps_are_the_longer_run(tmp_path, method):
    whole = cx.solve(CIRCLE, method, steps=11, **SMALL)
    cx.solve(CIRCLE, method, steps=4, **SMALL, out=tmp_path / "a")
    more = cx.resume(tmp_path / "a", CIRCLE, method, steps=11)
    equal(whole, more)
    assert more.settings.steps == 11
    again = cx.resume(tmp_path / "a", CIRCLE, method, steps=11)  # nothing left to do
    equal(whole, again)
    with pytest.raises(ValueError, match="steps=5 is less than the 11 steps that"):
        cx.resume(tmp_path / "a", CIRCLE, method, steps=5)


@pytest.mark.slow
def test_new_limit_of_steps_is_remembered(tmp_path):
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=6, **SMALL, out=out)
    cx.resume(out, CIRCLE, ADAM, steps=40, progress=after(4))
    rest = cx.resume(out, CIRCLE, ADAM)
    equal(cx.solve(CIRCLE, ADAM, steps=40, **SMALL), rest)
    assert rest.settings.steps == 40


@pytest.mark.slow
def test_another_equation_or_residual_is_refused(tmp_path):
    out = tmp_path / "a"
    with jax.numpy_rank_promotion("allow"):
        cx.solve(IVP, **SMALL, out=out, progress=after(4))
        others = [
            cx.ivp(lambda t, y, args: -y, jnp.array([2.0, 0.0]), (0.0, 12.0)),
            cx.ivp(van_der_pol, jnp.array([2.5, 0.0]), (0.0, 12.0)),
            cx.ivp(van_der_pol, jnp.array([2.0, 0.0]), (0.0, 13.0)),
        ]
        for other in others:
            with pytest.raises(cx.errors.StoreError, match="another problem"):
                cx.resume(out, other, allow_changed_problem=True)

    def on_circle(u, x):
        return jnp.linalg.norm(u(x)) - 7.0

    other = cx.Problem(cx.Constraint(on_circle, over=cx.Normal(2), points=8), CIRCLE.model)
    cx.solve(CIRCLE, ADAM, steps=9, **SMALL, out=tmp_path / "b", progress=after(3))
    with pytest.raises(cx.errors.StoreError, match="another problem"):
        cx.resume(tmp_path / "b", other, ADAM)


@pytest.mark.slow
def test_frozen_bounds_may_be_infinite(tmp_path):
    model = (CIRCLE.model(key=jax.random.key(0)), cx.models.Frozen(jnp.asarray([jnp.inf])))

    def clipped(u, x):
        return jnp.minimum(jnp.linalg.norm(u[0](x)), u[1].value[0]) - 1.0

    problem = cx.Problem(cx.Constraint(clipped, over=cx.Normal(2), points=8), model)
    cx.solve(problem, ADAM, steps=9, **SMALL, out=tmp_path / "a", progress=after(3))
    assert checkpoints(tmp_path / "a")


def van_der_pol(t, y, args):
    return jnp.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])


IVP = cx.ivp(van_der_pol, jnp.array([2.0, 0.0]), (0.0, 12.0))


def layer(x, y):
    return jnp.stack([y[1], y[0] * 1e4])


def ends(left, right):
    return jnp.stack([left[0] - 1.0, right[0] - 1.0])


BVP = cx.bvp(layer, ends, (0.0, 1.0), lambda x: jnp.stack([1.0 + 0 * x, 0 * x]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "places"),
    [pytest.param(IVP, (1, 4, 9), id="ivp"), slow(BVP, (1, 2), id="bvp")],
)
def test_windows_and_elements_go_on(tmp_path, monkeypatch, problem, places):
    monkeypatch.setattr(boundary_values, "_LOOK_EVERY", 1)
    with jax.numpy_rank_promotion("allow"):  # the march promotes ranks inside
        whole = cx.solve(problem, **SMALL)
        for looks in places:
            out = tmp_path / str(looks)
            part = cx.solve(problem, **SMALL, out=out, progress=after(looks))
            assert part.status == "interrupted"
            rest = cx.resume(out, problem)
            equal(whole, rest)


def test_killed_before_the_first_checkpoint_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "due", False)  # however slow the machine is

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=tmp_path / "a", progress=after(3, kill))
    assert not checkpoints(tmp_path / "a")
    equal(cx.solve(CIRCLE, ADAM, steps=20, **SMALL), cx.resume(tmp_path / "a", CIRCLE, ADAM))


def test_f10_resume_falls_back_to_the_checkpoint_before(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "due", True)
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=out, progress=after(9))
    newest, before = checkpoints(out)
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(
        cx.errors.RunWarning, match=f"set aside.*{newest.name}.damaged; the one before"
    ):
        rest = cx.resume(out, CIRCLE, ADAM)
    equal(cx.solve(CIRCLE, ADAM, steps=20, **SMALL), rest)
    assert before.exists() or len(checkpoints(out)) == 2


@pytest.mark.slow
def test_f13_d9_another_problem_or_method_is_refused_by_its_difference(tmp_path):
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=out, progress=after(3))
    faster = cx.Optax(optax.adam(1e-1))
    cases = [
        (circle(points=9), ADAM, "the points drawn from the seed are not those of the run"),
        (circle(width=5), ADAM, r"leaf model\.layers\[0\]\.weight is float64\[4, 2\] in the file"),
        (CIRCLE, None, r"method was 'Optax\(.*and is 'LevenbergMarquardt\(.*Give method="),
        (CIRCLE, faster, r"step_size=-0.01\)\)' and is .*step_size=-0.1\)"),
    ]
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for problem, method, words in cases:
        with pytest.raises(cx.errors.StoreError, match=words):
            cx.resume(out, problem, method)
    with (
        jax.enable_x64(False),
        pytest.raises(cx.errors.StoreError, match="dtype was 'float64' and is"),
    ):
        cx.resume(out, circle(), ADAM)
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    cx.resume(out, CIRCLE, faster, allow_changed_problem=True)


def test_other_versions_or_threads_are_said(tmp_path, monkeypatch):
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=6, **SMALL, out=out, progress=after(2))
    record = json.loads((out / "run.json").read_text())
    record["settings"]["threads"] += 62
    (out / "run.json").write_bytes(seal(record))
    with pytest.warns(cx.errors.RunWarning, match="threads was .* the last digits may differ"):
        cx.resume(out, CIRCLE, ADAM)


def test_f14_f15_run_of_a_newer_version(tmp_path):
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=2, **SMALL, out=out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_bytes(seal({**record, "format": 99}))
    with pytest.raises(
        cx.errors.StoreError, match=r"run\.json was written in format 99; this version"
    ):
        cx.resume(out, CIRCLE, ADAM)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("arguments"),
        lambda record: record["arguments"].update(extra=1),
        lambda record: record.update(method=3),
        lambda record: record.update(settings=None),
        lambda record: record["arguments"].update(seed="x"),
        lambda record: record["arguments"].update(steps=-1),
        lambda record: record["arguments"].update(heldout=10**12),
    ],
)
def test_damaged_record_is_refused(tmp_path, damage):
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=1, **SMALL, out=out)
    record = json.loads((out / "run.json").read_text())
    damage(record)
    (out / "run.json").write_bytes(seal(record))
    with pytest.raises(
        (cx.errors.StoreError, ValueError, TypeError),
        match=r"run.json is damaged|seed|steps|heldout",
    ):
        cx.resume(out, CIRCLE, ADAM)


@pytest.mark.parametrize(
    "damage",
    [
        {"stage": 7},
        {"stage": "x"},
        {"begun": None},
        {"verdict": []},
        {"snapshot_steps": 3},
        {"redraws": None},
    ],
)
def test_checkpoint_with_facts_that_cannot_be_is_refused(tmp_path, damage):
    """A well-formed file from somebody else: its checksum is right, what it says is not."""
    out = tmp_path / "a"
    cx.solve(CIRCLE, ADAM, steps=4, **SMALL, out=out, progress=after(2))
    folder = RunFolder(out)
    found = folder.newest()
    folder.save(found.step, found.arrays, {**found.facts, **damage})
    with pytest.raises(cx.errors.StoreError, match=r"checkpoint-0+\d\.npz is damaged"):
        cx.resume(out, CIRCLE, ADAM)


# From problem files


FILE = """
import jax.numpy as jnp
import optax
import constrainednn as cx
from beside import radius

def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - radius

def problem(width=4):
    return cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=8), model=cx.MLP(2, 2, width=width)
    )

methods = {"slow": cx.Optax(optax.sgd(1e-3))}
"""
OPTIONS = ("--heldout", "32", "--monitor", "16")


@pytest.fixture
def file(tmp_path, monkeypatch):
    import sys

    path = tmp_path / "files" / "mine.py"
    path.parent.mkdir()
    (path.parent / "beside.py").write_text("radius = 1.0\n")
    path.write_text(FILE)
    yield path
    sys.modules.pop("beside", None)
    sys.path[:] = [item for item in sys.path if item != str(path.parent)]


def started(file, out, *options):
    result = run(
        "solve", file, "--method", "slow", "--set", "width=5", *OPTIONS, *options, "--out", out
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_resume_at_the_command_line_is_the_longer_run(file, tmp_path):
    started(file, tmp_path / "whole", "--steps", 9)
    text = started(file, tmp_path / "run", "--steps", 3)
    assert text.endswith(f"continue with: constrainednn resume {tmp_path / 'run'} --steps N\n")
    result = run("resume", tmp_path / "run", "--steps", 9)
    assert result.exit_code == 0, result.output
    for name in ("model.npz", "history.npz"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "run"))
        assert first == second
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["settings"]["method"].startswith("slow: Optax(")
    assert len(report["settings"]["problem"]) == 64
    python = cx.resume(tmp_path / "run", steps=10)
    assert python.steps == 10


def test_a9_a10_changed_file_is_refused_unless_allowed(file, tmp_path):
    out = tmp_path / "run"
    started(file, out, "--steps", 3)
    for changed in (file, file.with_name("beside.py")):
        before = changed.read_text()
        changed.write_text(before + "\n# changed\n")
        result = run("resume", out, "--steps", 5)
        assert result.exit_code == 2
        assert (
            f"{changed.name} has changed since the run was started: its SHA-256 was"
            in result.stderr
        )
        assert "--allow-changed-problem" in result.stderr
        changed.write_text(before)
    file.write_text(FILE + "\n# changed\n")
    assert run("resume", out, "--steps", 5, "--allow-changed-problem").exit_code == 0
    file.write_text(FILE.replace("points=8", "points=9"))
    result = run("resume", out, "--steps", 6, "--allow-changed-problem")
    assert result.exit_code == 2
    assert "the points drawn from the seed are not those of the run" in result.stderr


@pytest.mark.slow
def test_j2_record_chooses_no_callable_that_the_file_imports(file, tmp_path):
    """A problem that is a partial or comes from a module beside the file is the file's own."""
    file.write_text(
        FILE.replace("def problem(", "def make(")
        + "\nfrom functools import partial\nfrom os import system\n"
        + "problem = partial(make, width=6)\n"
    )
    out, mark = tmp_path / "run", tmp_path / "ran"
    counts = ("--heldout", "32", "--monitor", "16")
    assert (
        run("solve", file, "--method", "slow", *counts, "--steps", 1, "--out", out).exit_code == 0
    )
    assert run("resume", out, "--steps", 2).exit_code == 0
    record = json.loads((out / "run.json").read_text())
    record["source"] |= {"name": "system", "settings": {"command": f"touch {mark}"}}
    (out / "run.json").write_bytes(seal(record))
    assert "mine.py defines no 'system'" in run("resume", out).stderr
    assert not mark.exists()


def test_problem_file_that_is_gone_or_lies_in_the_run(file, tmp_path):
    out = tmp_path / "run"
    started(file, out, "--steps", 1)
    file.rename(file.with_name("other.py"))
    result = run("resume", out)
    assert result.exit_code == 2
    assert f"there is no problem file {file} any more. Put it back" in result.stderr
    mark = tmp_path / "ran"
    (out / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    record = json.loads((out / "run.json").read_text())
    for path in ("evil.py", "../run/evil.py"):
        record["source"] = {**record["source"], "path": path, "files": {}}
        (out / "run.json").write_bytes(seal(record))
        result = run("resume", out)
        assert result.exit_code == 2 and "lies in the run's own folder" in result.stderr
    record["source"] = {**record["source"], "path": "../files/other.py", "files": {"../x": ""}}
    (out / "run.json").write_bytes(seal(record))
    assert "is no file name" in run("resume", out).stderr
    assert not mark.exists()


@pytest.mark.slow
def test_p3_edited_record_or_report_is_refused(tmp_path):
    out = tmp_path / "a"
    cx.solve(CIRCLE, steps=1, **SMALL, out=out)
    for name in ("run.json", "report.json"):
        text = (out / name).read_text()
        (out / name).write_text(text.replace('"seed": 3', '"seed": 4'))
        with pytest.raises(
            cx.errors.StoreError, match=f"{name} is damaged: its checksum does not match"
        ):
            cx.resume(out, CIRCLE) if name == "run.json" else cx.load_solution(out, CIRCLE)
        (out / name).write_text(text)


def test_problem_stated_in_python_must_be_given(tmp_path):
    cx.solve(CIRCLE, steps=1, **SMALL, out=tmp_path / "a")
    with pytest.raises(
        cx.errors.StoreError, match=r"the problem was stated in Python. Give it: cx.resume"
    ):
        cx.resume(tmp_path / "a")


def test_c11_folder_of_another_run_is_refused_with_both_ways_on(file, tmp_path):
    out = tmp_path / "run"
    started(file, out, "--steps", 1)
    before = sorted((item.name, item.stat().st_mtime_ns) for item in out.iterdir())
    result = run("solve", file, *OPTIONS, "--out", out)
    assert result.exit_code == 2
    assert f"continue it with `constrainednn resume {out}`, or give a new folder" in result.stderr
    assert before == sorted((item.name, item.stat().st_mtime_ns) for item in out.iterdir())
    for nothing in (tmp_path / "nowhere", tmp_path):
        result = run("resume", nothing)
        assert result.exit_code == 2 and (
            "no folder" in result.stderr or "holds no run" in result.stderr
        )


# Show


def test_j2_j10_show_reads_files_alone_and_never_runs_the_problem(file, tmp_path):
    out, mark = tmp_path / "run", tmp_path / "ran"
    started(file, out, "--steps", 3)
    file.write_text(f"open({str(mark)!r}, 'w')\n")
    text = run("show", out).output
    for words in (
        "problem     ../files/mine.py:problem width=5",
        "method      slow: Optax(identity(), scale(step_size=-0.001))",
        "checkpoint  checkpoint-000000003.npz, step 3",
        "verdict     no tolerance to meet: on_circle: held-out RMS",
        "result      max_steps: the limit of 3 steps is reached",
        "gap         on_circle: train RMS",
        f"continue    constrainednn resume {out} --steps N",
    ):
        assert words in text, text
    record = json.loads((out / "run.json").read_text())
    for hostile in ("os.system", "__import__('os').mkdir('x')", "_target_", "\x1b[31mred"):
        record["method"] = record["settings"]["method"] = hostile
        (out / "run.json").write_bytes(seal(record))
        shown = run("show", out)
        assert shown.exit_code == 0 and "\x1b" not in shown.output
    assert "?[31mred" in shown.output  # J10
    assert not mark.exists()


def test_show_of_a_run_in_progress_and_of_one_that_was_killed(tmp_path, monkeypatch):
    out, texts = tmp_path / "a", []
    monkeypatch.setattr(RunFolder, "due", True)

    class Killed(BaseException):
        pass

    def look():
        texts.append(run("show", out).output)
        raise Killed

    with pytest.raises(Killed):
        cx.solve(CIRCLE, ADAM, steps=50, **SMALL, out=out, progress=after(4, look))
    assert f"running     process {os.getpid()} on" in texts[0]
    assert "continue" not in texts[0]
    text = run("show", out).output
    assert "problem     stated in Python" in text
    assert "last seen   step" in text
    assert "stopped     before it could save its results" in text
    next(iter(checkpoints(out))).write_bytes(b"")
    assert "fault       " in run("show", out).output


def test_show_loads_no_jax(file, tmp_path):
    import subprocess
    import sys

    started(file, tmp_path / "run", "--steps", 1)
    code = (
        "import sys; from pathlib import Path; from constrainednn._storage.show import show\n"
        "show(Path(sys.argv[1])); print([n for n in ('jax', 'equinox') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


# While it runs


@pytest.mark.slow
def test_d5_time_limit(file, tmp_path):
    method = cx.Optax(optax.sgd(1e-6))
    solution = cx.solve(CIRCLE, method, steps=10**9, **SMALL, time_limit=0.2)
    assert solution.status == "time_limit"
    assert solution.reason == f"the time limit of 0.2 s at step {solution.steps}"
    assert solve._exit_code(solution) == 0
    long = FILE.replace("optax.sgd(1e-3)", "optax.sgd(1e-6)")
    file.write_text(long)
    result = run(
        "solve",
        file,
        "--method",
        "slow",
        *OPTIONS,
        "--steps",
        10**8,
        "--time-limit",
        "1s",
        "--out",
        tmp_path / "a",
    )
    assert result.exit_code == 0, result.output
    assert result.output.endswith(f"continue with: constrainednn resume {tmp_path / 'a'}\n")
    assert checkpoints(tmp_path / "a")
    with jax.numpy_rank_promotion("allow"):
        part = cx.solve(IVP, **SMALL, time_limit=1e-9)
    assert part.status == "time_limit" and "the time limit of 1e-09 s" in part.reason


@pytest.mark.parametrize("text", ["0", "-1", "2d", "", "nan", "1e3", "h", "0h0m"])
def test_c4_time_limits_that_cannot_be(file, text):
    result = run("solve", file, "--time-limit", text)
    assert result.exit_code == 2
    assert "--time-limit" in result.stderr and "such as 90s, 30m, 2h or 1h30m" in result.stderr


def test_time_limits_as_they_are_read():
    read = {
        "90": 90,
        "90s": 90,
        "1.5s": 1.5,
        "30m": 1800,
        "2h": 7200,
        "1h30m": 5400,
        "1h2m3s": 3723,
    }
    assert {text: values.as_seconds(text) for text in read} == read


@pytest.mark.slow
def test_f23_state_that_is_not_finite_is_never_saved(tmp_path):
    def falls(u, x):
        return jnp.where(jnp.sum(u(x)) > 1.5, jnp.nan, jnp.sum(u(x)) - 2.0)

    problem = cx.Problem(cx.Constraint(falls, over=cx.Normal(2), points=8), cx.MLP(2, 1, width=4))
    with pytest.raises(cx.results.SolveFailed, match="constraint 'falls'") as caught:
        cx.solve(problem, cx.Optax(optax.sgd(0.05)), steps=500, **SMALL, out=tmp_path / "a")
    assert np.isfinite(caught.value.solution.gap.train)
    found = RunFolder(tmp_path / "a").newest()
    assert all(np.isfinite(a).all() for name, a in found.arrays.items() if name.startswith("model"))
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["status"] == "nonfinite" and report["gap"]["train"] is not None


def test_d8_memory_that_runs_out_in_a_step_keeps_what_there_is(tmp_path, monkeypatch):
    real, calls = steps.advance, itertools.count()

    def advance(*arguments):
        if next(calls) == 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(steps, "advance", advance)
    solution = cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=tmp_path / "a")
    assert solution.status == "out_of_memory"
    assert (
        "out of memory after step" in solution.reason and "Lower points or width" in solution.reason
    )
    assert solve._exit_code(solution) == 1
    assert (tmp_path / "a" / "report.json").exists()


def test_d7_dense_step_that_does_not_fit_is_refused_with_the_number(monkeypatch):
    from constrainednn._common import memory

    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    monkeypatch.setattr(diagnosis, "available_memory", lambda: 10**9)
    big = circle(points=10_000, width=400)
    words = (
        r"A step of Levenberg-Marquardt with 10000 residual entries and 2002 parameters needs "
        r"about 1.\d+ GB of memory, and 1 GB are available. Lower points= or the width, or take"
    )
    with pytest.raises(ValueError, match=words):
        cx.solve(big, **SMALL)


def test_b25_points_that_do_not_fit(monkeypatch):
    from constrainednn._common import memory

    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"'on_circle'.* 100000000 points needs about"):
        cx.solve(circle(points=10**8), ADAM, **SMALL)


@pytest.mark.slow
def test_d7_estimate_is_the_compiler_s_where_it_matters():
    """What is taken for certain is below the compiler's account, and within its double there."""
    from constrainednn.methods.levenberg_marquardt import least_numbers

    m, P = 400, 322
    account = []

    def residual(params):
        return jnp.sin(jnp.linspace(0, 1, m)[:, None] * params[None, :]).sum(axis=1)

    method, params = cx.LevenbergMarquardt(), jnp.ones(P)
    step = jax.jit(lambda p, s: method.step(cx.methods.FunctionResidual(residual), p, s))
    state = method.init(cx.methods.FunctionResidual(residual), params)
    analysis = step.lower(params, state).compile().memory_analysis()
    account = analysis.temp_size_in_bytes / 8
    assert least_numbers(m, P) / 2 < account < 3 * least_numbers(m, P)


@pytest.mark.slow
def test_steps_so_long_that_signals_wait_are_announced():
    wide = cx.Problem(
        cx.Constraint(lambda u, x: u(x) - x, over=cx.Interval(0, 1), name="line", points=9000),
        cx.MLP("scalar", "scalar", width=70, depth=2),
    )
    with pytest.warns(UserWarning, match="5181 parameters takes some 4e.12 operations"):
        cx.solve(wide, steps=0)


def test_k5_available_memory_honours_the_control_group(tmp_path, monkeypatch):
    from constrainednn._common import memory

    monkeypatch.setattr(memory, "_own_groups", lambda: iter([tmp_path]))
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 600000\ninactive_file 400000\n")
    assert memory.available_memory() == 2_400_000  # file pages make room
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() == pytest.approx(memory._of_machine(), rel=0.1)


# Sinks


class Listening:
    def __init__(self, fails=()):
        self.seen, self.closed, self.fails = [], 0, fails

    def log(self, step, values):
        self.seen.append((step, values))
        if "log" in self.fails:
            raise OSError("no network")

    def close(self):
        self.closed += 1
        if "close" in self.fails:
            raise OSError("no network")


@pytest.mark.usefixtures("as_released")
def test_p14_a_sink_that_raises_never_takes_the_run_down():
    good, bad = Listening(), Listening(fails=("log", "close"))
    with pytest.warns(
        UserWarning, match="the sink Listening failed 3 times and is told nothing more"
    ):
        solution = cx.solve(CIRCLE, ADAM, steps=20, **SMALL, sinks=[bad, good])
    assert solution.status == "max_steps"
    assert len(bad.seen) == 3 and bad.closed == 0
    assert good.closed == 1 and [step for step, _ in good.seen] == sorted({s for s, _ in good.seen})
    assert good.seen[-1][0] == 20 and set(good.seen[-1][1]) == {"train", "monitor"}
    with pytest.raises(TypeError, match=r"sinks holds .*a sink has log\(step, values\) and close"):
        cx.solve(CIRCLE, ADAM, steps=1, sinks=[print])


def test_tensorboard_files_read_back(file, tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    from tensorboardX.proto import event_pb2

    out = tmp_path / "run"
    started(file, out, "--steps", 3, "--tensorboard")
    found = {}
    for path in (out / "tensorboard").iterdir():
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
            content = content[16 + length :]
    losses = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    assert found["loss/train", 3] == pytest.approx(losses["train"], rel=1e-6)
    assert found["loss/monitor", 3] == pytest.approx(losses["monitor"], rel=1e-6)
    result = run("solve", file, "--tensorboard")
    assert result.exit_code == 2 and "give --out DIR, too" in result.stderr


def test_k3_missing_extra_is_one_line(file, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = run("solve", file, "--tensorboard", "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert result.stderr == (
        "error: TensorBoard needs tensorboardX: pip install 'constrainednn[tensorboard]'.\n"
    )
    assert not (tmp_path / "run").exists()


# Signals


def test_l3_handlers_of_the_user_are_called_in_the_end_and_restored():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        ours = signal.getsignal(signal.SIGTERM)
        action = lambda: (signal.raise_signal(signal.SIGTERM), heard.append("run"))  # noqa: E731
        solution = cx.solve(CIRCLE, ADAM, steps=10**6, **SMALL, progress=after(2, action))
        assert solution.status == "interrupted"
        assert heard == ["run", signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_f4_second_signal_while_the_gap_is_measured_ends_at_once_where_all_is_saved(tmp_path):
    def progress(seen):
        if seen.phase == "measuring the gap":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        cx.solve(CIRCLE, ADAM, steps=5, **SMALL, out=tmp_path / "a", progress=progress)
    assert not (tmp_path / "a" / "lock").exists()
    equal(cx.solve(CIRCLE, ADAM, steps=5, **SMALL), cx.resume(tmp_path / "a", CIRCLE, ADAM))


def test_l9_interrupt_between_checkpoint_and_clean_up(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "due", True)
    real, calls = run_folder.checkpoints, itertools.count()

    def interrupted(path):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(run_folder, "checkpoints", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cx.solve(CIRCLE, ADAM, steps=20, **SMALL, out=tmp_path / "a")
    monkeypatch.setattr(run_folder, "checkpoints", real)
    equal(cx.solve(CIRCLE, ADAM, steps=20, **SMALL), cx.resume(tmp_path / "a", CIRCLE, ADAM))


def test_results_that_do_not_belong_together_are_refused(tmp_path):
    """A run that was killed while it replaced its results."""
    first, second = tmp_path / "a", tmp_path / "b"
    cx.solve(CIRCLE, ADAM, steps=2, **SMALL, out=first)
    cx.solve(CIRCLE, ADAM, steps=4, **SMALL, out=second)
    shutil.copy(second / "model.npz", first / "model.npz")
    with pytest.raises(
        cx.errors.StoreError, match=r"model.npz does not belong to report.json.*resume"
    ):
        cx.load_solution(first, CIRCLE)
    cx.resume(first, CIRCLE, ADAM)
    cx.load_solution(first, CIRCLE)


def test_j7_settings_record_what_decides_a_run_and_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-1")
    monkeypatch.setenv("JAX_SECRET", "canary-2")
    solution = cx.solve(CIRCLE, ADAM, steps=1, **SMALL, out=tmp_path / "a")
    settings = solution.settings
    assert settings.environment["NPROC"] == "1" and settings.environment["JAX_ENABLE_X64"] == "1"
    assert settings.threads >= 1 and settings.versions["jax"] == jax.__version__
    text = "".join(file.read_text("latin-1") for file in (tmp_path / "a").iterdir())
    assert "canary" not in text and os.path.expanduser("~/") not in text
