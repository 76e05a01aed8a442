"""The command line as a user meets it: commands, settings, output, files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from marks import slow
from typer.testing import CliRunner

import constrainednn as cx
from constrainednn._common.paths import gallery
from constrainednn._common.tables import table_lines, wrapped
from constrainednn._gap import tables
from constrainednn.cli.entry import app

SETTINGS = """
import jax.numpy as jnp
import optax
import constrainednn as cx

def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0

methods = {
    "slow": cx.Optax(optax.sgd(1e-4)),
    "two": [cx.Stage(cx.Optax(optax.sgd(rate)), steps=n) for rate, n in ((1e-2, 2), (1e-3, 1))],
}

def problem(width=4, points=8, weight=1.0, deep=False, tag="a", extra=None, sizes=(1, 2)):
    print("settings", [width, points, weight, deep, tag, extra])
    return cx.Problem(
        cx.Constraint(on_circle, over=cx.Normal(2), points=points, weight=weight),
        model=cx.MLP(2, 2, width=width, depth=2 if deep else 1),
    )
"""
QUICK = ("--heldout", "32", "--monitor", "16")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SETTINGS)
    return path


def test_settings_are_typed_by_their_default(file):
    text = good(
        "check", file, "--set", "width=5", "--set", "points=9", "--set", "weight=2",
        "--set", "deep=yes", "--set", "tag=7", "--set", "extra=1",
    )  # fmt: skip
    assert "settings [5, 9, 2.0, True, '7', '1']" in text
    for setting, words in {
        "deep=maybe": "write true or false",
        "width=5.0": "expected a whole number, like the default 4",
        "weight=two": "expected a number, like the default 1.0",
        "sizes=3": "is no number or text; change it in the file",
        "width": "--set takes KEY=VALUE, got 'width'",
        "wdth=3": "Did you mean width? Known: width, points,",
    }.items():
        result = run("check", file, "--set", setting)
        assert result.exit_code == 2
        assert words in result.stderr


@pytest.mark.parametrize("name", ["seed", "method", "steps", "out", "workers", "vary"])
def test_keywords_named_like_arguments_are_refused(tmp_path, name):
    path = tmp_path / "mine.py"
    path.write_text(SETTINGS.replace("tag=", f"{name}=").replace("tag,", f"{name},"))
    result = run("check", path)
    assert result.exit_code == 2
    assert f"has a keyword '{name}', which is an argument of solve or study" in result.stderr
    with pytest.raises(cx.errors.LoadError, match=f"keyword '{name}'"):
        cx.load_problem(path)


@pytest.mark.parametrize(
    ("method", "options", "steps"),
    [
        ("lm", ("--steps", 2), 2),
        slow("gd", ("--steps", 3), 3),
        slow("adam", ("--steps", 0), 0),
        slow("lbfgs", ("--steps", 1), 1),
        slow("slow", ("--steps", 2), 2),
        slow("two", (), 3),
    ],
)
def test_methods_by_name(file, method, options, steps):
    text = good("solve", file, "--method", method, *options, *QUICK)
    assert f": {steps} steps, " in text
    assert f"the limit of {steps} steps is reached" in text


def test_stages_take_no_steps(file):
    result = run("solve", file, "--method", "two", "--steps", 5)
    assert result.exit_code == 2
    assert "Stages have their own steps" in result.stderr


def test_solve_prints_what_was_measured_and_writes_it(file, tmp_path):
    out = tmp_path / "new" / "out"
    result = run(
        "solve", file, "--steps", 3, "--seed", 5, "--tolerance", "1e-9", *QUICK, "--out", out
    )
    text = result.stdout
    assert result.exit_code == 1  # three steps are far from the tolerance
    first = text.splitlines()[1]  # after what the file prints
    assert first.startswith("not solved: root of the loss on fresh points")
    assert (out / "checkpoint-000000003.npz").exists()  # and on a slow machine one before
    names = {item.name for item in out.iterdir() if not item.name.startswith("checkpoint-")}
    assert sorted(names) == [
        "history.jsonl", "history.npz", "model.npz", "moments.png",
        "overview.png", "report.json", "run.json",
        "values.npz",
    ]  # fmt: skip
    report = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert first == "{word}: {reason}".format(**report["verdict"])
    settings = report["settings"]
    assert (settings["seed"], settings["tolerance"], settings["steps"]) == (5, 1e-9, 3)
    (gap,) = report["gap"]["constraints"]
    line = next(line for line in text.splitlines() if line.strip().startswith("on_circle "))
    for value in (gap["train_rms"], gap["heldout_rms"]["value"], gap["difference"]["value"]):
        assert f"{value:.3g}" in line
    assert "trained on 8 points, independent draws; judged on 32 independent points" in text
    assert f"{report['parameters']} parameters" in text and "import " in text
    more = f"continue with: constrainednn resume {out} --steps N"
    assert text.endswith(f"saved in {out}\n{more}\n")
    loaded = cx.load_solution(out, cx.load_problem(file))
    assert loaded.gap["on_circle"].heldout.value == gap["heldout"]["value"]
    # The same call in Python gives the same numbers.
    again = cx.solve(cx.load_problem(file), steps=3, seed=5, tolerance=1e-9, heldout=32, monitor=16)
    assert again.gap.train == report["gap"]["train"]


def test_check_of_a_good_and_a_bad_problem(file, tmp_path):
    text = good("check", file)
    assert "ok   on_circle: residual of shape (), finite with a finite gradient" in text
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import jax.numpy as jnp\nimport constrainednn as cx\n"
        "def fine(u, x): return u(x)[0] - 1.0\n"
        "def broken(u, x): return jnp.log(-1.0 - u(x)[0] ** 2)\n"
        "def worse(u, x): return None\n"
        "problem = cx.Problem([cx.Constraint(r, over=cx.Normal(2), points=8)\n"
        "    for r in (fine, broken, worse)], model=cx.MLP(2, 2, width=4))\n"
    )
    result = run("check", bad)
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok   fine:")
    assert lines[1].startswith("FAIL constraint 'broken': the residual is NaN")
    assert lines[2].startswith("FAIL constraint 'worse': the residual returns None")


@pytest.mark.slow
def test_record_says_which_method_with_which_numbers(file, tmp_path):
    good("solve", file, "--method", "adam", "--steps", 1, *QUICK, "--out", tmp_path / "adam")
    said = json.loads((tmp_path / "adam" / "report.json").read_text())["settings"]["method"]
    assert said.startswith("adam: Optax(scale_by_adam(b1=0.9") and "step_size=-0.001" in said
    text = good("solve", file, "--method", "two", *QUICK)
    for stage in ("step_size=-0.01)) for 2 steps", "then Optax", "step_size=-0.001)) for 1 steps"):
        assert stage in text
    head = cx.Stage(cx.LevenbergMarquardt(), steps=1, trainable=lambda u: u.layers[-1])
    solution = cx.solve(cx.load_problem(file), [head], heldout=32, monitor=16)
    assert solution.settings.method == (
        "LevenbergMarquardt() on .layers[1].weight, .layers[1].bias"
    )


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, slow("2")])
def test_blas_takes_one_thread_unless_told_otherwise(file, given):
    file.write_text("import os\nprint('threads', os.environ['OPENBLAS_NUM_THREADS'])\n" + SETTINGS)
    settings = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    settings |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    script = Path(sys.executable).with_name("constrainednn")
    # A setting that does not exist: the file is loaded and nothing is computed.
    done = subprocess.run(
        [script, "check", file, "--set", "none=1"], env=settings, capture_output=True, text=True
    )
    assert done.stdout == f"threads {given or 1}\n"


def test_problems_lists_the_gallery():
    lines = good("problems").splitlines()
    assert [line.split()[0] for line in lines] == list(gallery())
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.slow
def test_new_copies_a_problem_that_solves_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = good("new", "mine.py", "--from", "linear_regression")
    assert "try: constrainednn solve mine.py" in text
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert "converged" in good("solve", tmp_path / "mine.py", *QUICK)
    assert list(other.iterdir()) == []
    before = (tmp_path / "mine.py").read_bytes()
    result = run("new", tmp_path / "mine.py", "--from", "rotation")
    assert result.exit_code == 2 and "exists. Nothing is overwritten" in result.stderr
    assert (tmp_path / "mine.py").read_bytes() == before
    assert run("new", tmp_path / "mine", "--from", "rotation").exit_code == 2


def test_version_and_help():
    assert good("--version").strip() == cx.__version__
    for command in ("solve", "resume", "show", "check", "problems", "new"):
        assert command in good("--help")


@pytest.mark.parametrize("width", [*map(slow, (40, 80, 160))])
def test_table_is_whole_at_any_width(width):
    def first(u, x):
        return u(x) - 1.0

    problem = cx.Problem(
        [
            cx.Constraint(first, over=cx.Interval(0, 1), points=8, name="[red] of the first"),
            cx.Constraint(first, over=cx.Points(np.zeros(1)), name="second"),
        ],
        model=cx.MLP("scalar", "scalar", width=4),
    )
    report = cx.solve(problem, steps=0, heldout=32, monitor=16).gap
    lines = table_lines([tables.COLUMNS, *tables.table_rows(report)], 1, width)
    text = wrapped("\n".join(lines), width)
    assert all(len(line) <= width for line in text.splitlines())
    text = "".join(text.split())  # a long cell wraps at a space
    for cell in tables.row(report.constraints[0]):
        assert "".join(cell.split()) in text
    assert tables.number(report.finite[0].rms) in text
