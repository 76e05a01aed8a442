"""Studies: pairs, rows that outlive a kill, and rows of runs that failed."""

import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import run

import constrainednn as cx
from constrainednn._lock import locked
from constrainednn._study import read_rows

SMALL = {"heldout": 32, "monitor": 8, "steps": 5}


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def circle(points=6, width=3):
    over = cx.Normal(2)
    return cx.Problem(cx.Constraint(on_circle, over=over, points=points), cx.MLP(2, 2, width=width))


def numbers(study):
    """All of a table that does not depend on the clock."""
    return [{**row, "seconds": None} for row in study.table()]


def test_one_row_for_each_combination_and_seed():
    study = cx.study(circle, vary={"points": [4, 6], "method": ["lm", "gd"]}, seeds=2, **SMALL)
    rows = study.table()
    assert [(r["points"], r["method"], r["seed"]) for r in rows] == [
        (p, m, s) for p in (4, 6) for m in ("lm", "gd") for s in (0, 1)
    ]
    assert study.axes == ("points", "method") and study.complete
    one = cx.solve(circle(points=6), seed=1, **SMALL)
    assert rows[5]["train_loss"] == one.gap.train
    assert rows[5]["heldout_loss"] == one.gap.heldout.value
    assert rows[5]["gap"] == one.gap.difference.value
    assert (rows[5]["width"], rows[5]["steps"], rows[5]["heldout"]) == (3, 5, 32)


def test_runs_of_one_seed_start_alike_under_every_method():
    """The same parameters and points: without a step all numbers are equal."""
    study = cx.study(circle, vary={"method": ["lm", "adam"]}, seeds=3, **{**SMALL, "steps": 0})
    first, second = ([r for r in study.table() if r["method"] == m] for m in ("lm", "adam"))
    for name in ("train_loss", "heldout_loss"):
        assert [r[name] for r in first] == [r[name] for r in second]
        assert len({r[name] for r in first}) == 3  # and another seed has others


def test_finished_rows_are_not_run_again_and_axes_may_change(tmp_path):
    out, done = tmp_path / "study", []

    def stop(now):
        done.append(now.done)
        if now.done == 3:
            raise KeyboardInterrupt

    axes = {"points": [4, 6], "width": [2, 3]}
    whole = cx.study(circle, vary=axes, seeds=2, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        cx.study(circle, vary=axes, seeds=2, out=out, progress=stop, **SMALL)
    assert len((out / "runs.jsonl").read_text().splitlines()) == 3
    done.clear()
    again = cx.study(
        circle, vary=axes, seeds=2, out=out, progress=lambda now: done.append(now.done), **SMALL
    )
    assert done == [4, 5, 6, 7, 8]  # five of eight were left
    assert numbers(again) == numbers(whole)
    # In another order, with fewer values, with the default in place of an axis: nothing to do.
    ran = []
    fewer = cx.study(
        circle, vary={"points": [6, 4]}, seeds=[1, 0], out=out, progress=ran.append, **SMALL
    )
    assert not ran and [r["points"] for r in fewer.table()] == [6, 6, 4, 4]
    more = cx.study(circle, vary={"points": [4, 5]}, seeds=2, out=out, progress=ran.append, **SMALL)
    assert len(ran) == 2 and len(more.rows) == 4


def test_line_that_was_cut_short_is_done_again(tmp_path):
    out = tmp_path / "study"
    whole = cx.study(circle, vary={"points": [4, 6]}, seeds=2, out=out, **SMALL)
    file = out / "runs.jsonl"
    content = file.read_bytes()
    for cut in (len(content) - 1, len(content) - 40):
        file.write_bytes(content[:cut])
        with (
            pytest.warns(cx.RunWarning, match="1 lines are cut short")
            if cut < len(content) - 1
            else contextless()
        ):
            again = cx.study(circle, vary={"points": [4, 6]}, seeds=2, out=out, **SMALL)
        assert numbers(again) == numbers(whole)
    with pytest.warns(cx.RunWarning, match="cut short"):
        assert len(read_rows(out)) == 4
    file.write_bytes(content + content)  # merged with itself: each run counts once
    assert numbers(cx.study(circle, vary={"points": [4, 6]}, seeds=2, out=out, **SMALL)) == numbers(
        whole
    )


class contextless:  # noqa: N801
    """No warning is expected."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_diverged_run_is_a_row_that_counts_as_infinite():
    wild = {"tame": cx.Optax(optax.sgd(1e-3)), "wild": cx.Optax(optax.sgd(1e200))}
    study = cx.study(circle, vary={"method": wild}, seeds=2, **{**SMALL, "steps": 50})
    rows = study.table()
    assert len(rows) == 4
    failed = [r for r in rows if r["status"] == "nonfinite"]
    assert [r["method"] for r in failed] == ["wild", "wild"]
    assert all(r["heldout_loss"] == math.inf == r["gap"] for r in failed)
    assert "2 runs, 2 failed" in repr(study) and "inf [inf, inf]" in repr(study)
    assert "mean" not in repr(study)


def test_setting_that_cannot_be_is_a_row_with_its_reason():
    study = cx.study(circle, vary={"width": [3, 0]}, seeds=1, **SMALL)
    good, bad = study.rows
    assert good["status"] == "max_steps" and bad["status"] == "error"
    assert "width of MLP must be at least 1" in bad["reason"]
    with pytest.raises(ValueError, match=r"the first 3 runs all fail with: .*width of MLP"):
        cx.study(circle, vary={"width": [0]}, seeds=5, **SMALL)


def test_interrupted_solve_ends_the_study_with_what_is_finished(tmp_path):
    import signal

    count = [0]

    def interrupting(u, x):
        return jnp.linalg.norm(u(x)) - 1.0

    def problem(points=6):
        count[0] += 1
        if count[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return cx.Problem(cx.Constraint(interrupting, over=cx.Normal(2), points=points), MODEL)

    with pytest.raises(KeyboardInterrupt):
        cx.study(problem, seeds=3, out=tmp_path / "a", **SMALL)
    assert len(read_rows(tmp_path / "a")) == 1


MODEL = cx.MLP(2, 2, width=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vary": {"pionts": [1]}}, "study cannot vary 'pionts'. Did you mean points"),
        ({"vary": {"points": []}}, "axis 'points' is empty"),
        ({"vary": {"points": [4, 4]}}, "axis 'points' has a value twice"),
        ({"vary": {"points": 4}}, "axis 'points' must be a sequence"),
        ({"vary": {"method": ["bfgs"]}}, "no method is named 'bfgs'"),
        ({"seeds": [1, 1]}, "seeds repeat"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seeds": "abc"}, "seeds must be a number of seeds or a sequence"),
        ({"vary": {"points": [4]}, "points": 5}, "points is varied and given for all runs"),
        ({"nonsense": 1}, "study cannot vary 'nonsense'"),
    ],
)
@pytest.mark.usefixtures("as_released")
def test_what_no_study_is(arguments, words):
    with pytest.raises((ValueError, TypeError, cx.LoadError), match=words):
        cx.study(circle, **{**SMALL, **arguments})


@pytest.mark.usefixtures("as_released")
def test_problem_that_cannot_be_studied():
    with pytest.raises(TypeError, match="give keyword 'points' of it a default"):
        cx.study(lambda points: circle(points))
    with pytest.raises(TypeError, match="its keyword 'steps' is an argument of solve"):
        cx.study(lambda steps=3: circle())
    with pytest.raises(TypeError, match="problem of study must be a function"):
        cx.study(3)
    bad = cx.study(lambda: 3, seeds=1)
    assert "must return a cx.Problem, got 3" in bad.rows[0]["reason"]
    ready = cx.study(circle(), vary={"steps": [1, 2]}, seeds=1, heldout=8, monitor=8)
    assert [r["taken"] for r in ready.table()] == [1, 2]


def test_folder_of_another_study_and_two_at_once(tmp_path):
    out = tmp_path / "a"
    cx.study(circle, seeds=1, out=out, **SMALL)

    def other(points=6):
        return circle(points)

    with pytest.raises(cx.StoreError, match="holds another study: its name was 'circle' and is"):
        cx.study(other, seeds=1, out=out, **SMALL)
    with locked(out), pytest.raises(cx.StoreError, match="in use by process"):
        cx.study(circle, seeds=2, out=out, **SMALL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(cx.StoreError, match="is not empty"):
        cx.study(circle, seeds=1, out=tmp_path / "full", **SMALL)
    record = json.loads((out / "study.json").read_text())
    assert record["dtype"] == "float64" and record["constrainednn"] == cx.__version__
    with jax.enable_x64(False), pytest.raises(cx.StoreError, match="its dtype was 'float64'"):
        cx.study(circle, seeds=1, out=out, **SMALL)


def test_csv_has_every_row_and_nothing_that_a_spreadsheet_runs(tmp_path):
    def problem(name="=1+1"):
        return circle()

    study = cx.study(problem, vary={"name": ["=1+1", "b"]}, seeds=1, **SMALL)
    study.to_csv(tmp_path / "a.csv")
    header, first, second = (tmp_path / "a.csv").read_text().splitlines()
    assert header.startswith("name,method,steps,") and "heldout_loss" in header
    assert first.startswith("'=1+1,") and second.startswith("b,")


def test_study_at_the_command_line(tmp_path):
    file, out = tmp_path / "mine.py", tmp_path / "study"
    file.write_text(
        "import jax.numpy as jnp\nimport constrainednn as cx\n"
        "def on_circle(u, x):\n    return jnp.linalg.norm(u(x)) - 1.0\n"
        "def problem(points=4, width=3):\n"
        "    over = cx.Constraint(on_circle, over=cx.Normal(2), points=points)\n"
        "    return cx.Problem(over, cx.MLP(2, 2, width=width))\n"
    )
    common = ("--seeds", 2, "--vary", "heldout=32", "--vary", "steps=3", "--out", out)
    result = run("study", file, "--vary", "points=4,5", "--vary", "method=lm,gd", *common)
    assert result.exit_code == 0, result.output
    assert "points 5; method gd; 2 runs; train" in result.output
    assert len(read_rows(out)) == 8
    failing = run("study", file, "--vary", "width=3,0", *common)
    assert failing.exit_code == 4 and "2 runs, 2 failed" in failing.output
    file.write_text(file.read_text() + "\n# edited\n")
    changed = run("study", file, *common)
    assert changed.exit_code == 2 and "holds another study: its problem was" in changed.stderr
    wrong = run("study", file, "--vary", "points=x")
    assert wrong.exit_code == 2 and "expected a whole number" in wrong.stderr
    assert run("study", file, "--vary", "points").exit_code == 2


@pytest.mark.slow
def test_study_reproduces_the_gap_of_linear_least_squares():
    """50 points, 25 Gaussian features, noise one: 120 seeds, within four standard errors."""
    n, p = 50, 25

    def measure(z):
        return z[:p], z[0] + z[p]  # beta is the first unit vector

    def misfit(u, point):
        x, y = point
        return u(x) - y

    model = eqx.nn.Linear(p, "scalar", use_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda u: u.weight, model, jnp.zeros((1, p)))
    over = cx.Normal(p + 1).map(measure)
    problem = cx.Problem(cx.Constraint(misfit, over=over, points=n), model)
    study = cx.study(problem, seeds=120, heldout=256, monitor=8)
    for name, value in (("train_loss", 1 - p / n), ("heldout_loss", 1 + p / (n - p - 1))):
        found = np.array([row[name] for row in study.table()])
        error = found.std(ddof=1) / math.sqrt(len(found))
        assert abs(found.mean() - value) < 4 * error
