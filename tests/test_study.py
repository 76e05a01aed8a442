"""Studies: pairs, rows that outlive a kill, and rows of runs that failed."""

import errno
import json
import math
import re
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import run

import constrainednn as cx
from constrainednn._solve.training.side_by_side import Unlike, _stacked
from constrainednn._storage.lock import locked
from constrainednn.studies import folder
from constrainednn.studies.folder import read_rows
from constrainednn.studies.tables.law import fit_law
from constrainednn.studies.tables.rows import quantiles_of

SMALL = {"heldout": 32, "monitor": 8, "steps": 5}


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def circle(points=6, width=3):
    over = cx.Normal(2)
    return cx.Problem(cx.Constraint(on_circle, over=over, points=points), cx.MLP(2, 2, width=width))


def numbers(study):
    """All of a table that does not depend on the clock."""
    return [{**row, "seconds": None} for row in study.table()]


@pytest.mark.slow
def test_one_row_for_each_combination_and_seed():
    axes = {"steps": [3, 5], "method": ["lm", "gd"]}
    study = cx.study(circle, vary=axes, seeds=2, heldout=32, monitor=8)
    rows = study.table()
    assert [(r["steps"], r["method"], r["seed"]) for r in rows] == [
        (n, m, s) for n in (3, 5) for m in ("lm", "gd") for s in (0, 1)
    ]
    assert study.axes == ("steps", "method") and study.complete
    one = cx.solve(circle(points=6), seed=1, **SMALL)
    assert rows[5]["train_loss"] == one.gap.train
    assert rows[5]["heldout_loss"] == one.gap.heldout.value
    assert rows[5]["gap"] == one.gap.difference.value
    assert (rows[5]["width"], rows[5]["points"], rows[5]["heldout"]) == (3, 6, 32)


@pytest.mark.slow
def test_runs_of_one_seed_start_alike_under_every_method():
    """The same parameters and points: without a step all numbers are equal."""
    study = cx.study(circle, vary={"method": ["lm", "adam"]}, seeds=3, **{**SMALL, "steps": 0})
    first, second = ([r for r in study.table() if r["method"] == m] for m in ("lm", "adam"))
    for name in ("train_loss", "heldout_loss"):
        assert [r[name] for r in first] == [r[name] for r in second]
        assert len({r[name] for r in first}) == 3  # and another seed has others


@pytest.mark.slow
def test_g8_finished_rows_are_not_run_again_and_axes_may_change(tmp_path):
    out, done = tmp_path / "study", []

    def stop(now):
        done.append(now.done)
        if now.done == 3:
            raise KeyboardInterrupt

    axes = {"points": [4, 6], "steps": [3, 5]}
    common = {"method": "gd", "engine": "loop", "heldout": 32, "monitor": 8}
    settings = {"vary": axes, "seeds": 2, **common}
    whole = cx.study(circle, **settings)
    with pytest.raises(KeyboardInterrupt):
        cx.study(circle, out=out, progress=stop, **settings)
    assert len((out / "runs.jsonl").read_text().splitlines()) == 3
    done.clear()
    again = cx.study(circle, out=out, progress=lambda now: done.append(now.done), **settings)
    assert done == [4, 5, 6, 7, 8]  # five of eight were left
    assert numbers(again) == numbers(whole)
    assert again.before == 3 and "3 of 8 runs were there before" in repr(again)
    # In another order, with fewer values, with the default in place of an axis: nothing to do.
    ran = []
    common |= {"out": out, "progress": ran.append, "steps": 5}
    fewer = cx.study(circle, vary={"points": [6, 4]}, seeds=[1, 0], **common)
    assert not ran and [r["points"] for r in fewer.table()] == [6, 6, 4, 4]
    more = cx.study(circle, vary={"points": [4, 5]}, seeds=2, **common)
    assert len(ran) == 2 and len(more.rows) == 4


@pytest.mark.slow
def test_g14_line_that_was_cut_short_is_done_again(tmp_path):
    out = tmp_path / "study"
    whole = cx.study(circle, vary={"points": [4, 6]}, seeds=2, out=out, **SMALL)
    file = out / "runs.jsonl"
    content = file.read_bytes()
    for cut in (len(content) - 1, len(content) - 40):
        file.write_bytes(content[:cut])
        with (
            pytest.warns(cx.errors.RunWarning, match="1 lines are cut short")
            if cut < len(content) - 1
            else contextless()
        ):
            again = cx.study(circle, vary={"points": [4, 6]}, seeds=2, out=out, **SMALL)
        assert numbers(again) == numbers(whole)
    with pytest.warns(cx.errors.RunWarning, match="cut short"):
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


@pytest.mark.slow
def test_g16_diverged_run_is_a_row_that_counts_as_infinite():
    wild = {"tame": cx.Optax(optax.sgd(1e-3)), "wild": cx.Optax(optax.sgd(1e200))}
    study = cx.study(circle, vary={"method": wild}, seeds=2, **{**SMALL, "steps": 50})
    rows = study.table()
    assert len(rows) == 4
    failed = [r for r in rows if r["status"] == "nonfinite"]
    assert [r["method"] for r in failed] == ["wild", "wild"]
    assert all(r["heldout_loss"] == math.inf == r["gap"] for r in failed)
    assert "2, 2 failed" in repr(study) and "inf [inf, inf]" in repr(study)
    assert "mean" not in repr(study)


@pytest.mark.slow
def test_g4_g5_setting_that_cannot_be_is_a_row_with_its_reason():
    study = cx.study(circle, vary={"width": [3, 0]}, seeds=1, **SMALL)
    good, bad = study.rows
    assert "1 failed: width of MLP must be at least 1" in repr(study)
    assert good["status"] == "max_steps" and bad["status"] == "error"
    assert "width of MLP must be at least 1" in bad["reason"]
    assert study.compare("width", of="taken")[0].others == 1  # it has no number of steps
    with pytest.raises(ValueError, match=r"the first 5 runs all fail with: .*width of MLP"):
        cx.study(circle, vary={"width": [0]}, seeds=5, **SMALL)
    late = cx.study(circle, vary={"width": [0, 3]}, seeds=4, **SMALL)  # the others are tried
    assert [row["status"] for row in late.rows] == ["error"] * 4 + ["max_steps"] * 4


@pytest.mark.slow
def test_g9_rows_of_another_problem_or_method_in_python_are_refused(tmp_path):
    """What is stated in Python has no file to compare: its first loss and its method are."""
    out = tmp_path / "a"

    def named(scale, rate):
        def problem(points=6):
            def residual(u, x):
                return scale * on_circle(u, x)

            over = cx.Constraint(residual, over=cx.Normal(2), points=points)
            return cx.Problem(over, cx.MLP(2, 2, width=3))

        slow = {"slow": cx.Optax(optax.sgd(rate))}
        return cx.study(problem, vary={"method": slow}, seeds=1, out=out, **SMALL)

    first = named(1.0, 0.1)
    assert numbers(named(1.0, 0.1)) == numbers(first)
    with pytest.raises(
        cx.errors.StoreError, match=r"another study: under seed 0 the first monitor loss"
    ):
        named(2.0, 0.1)
    with pytest.raises(cx.errors.StoreError, match=r"another study: its method was Optax"):
        named(1.0, 0.2)


@pytest.mark.slow
def test_settings_that_are_objects_have_the_same_label_in_every_process():
    found = cx.study(
        lambda activation=jnp.tanh: circle(), seeds=1, method=cx.Optax(optax.sgd(0.1)), **SMALL
    )
    assert (
        "0x" not in repr(found.rows[0]["given"]) and "tanh" in found.rows[0]["given"]["activation"]
    )


@pytest.mark.slow
def test_g7_signal_ends_the_study_with_what_is_finished(tmp_path):
    def stop(now):
        if now.done == 2:
            signal.raise_signal(signal.SIGINT)

    found = cx.study(circle, seeds=4, out=tmp_path / "a", progress=stop, **SMALL)
    assert not found.complete and len(found.rows) == 2 == len(read_rows(tmp_path / "a"))
    assert "interrupted by SIGINT: not all of the runs are done" in repr(found)
    with pytest.raises(KeyboardInterrupt):  # the handler that was there before is back
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_f6_disk_that_fills_keeps_the_rows_before(tmp_path, monkeypatch):
    def fill(now):
        if now.done == 2:
            monkeypatch.setattr(folder, "append_line", refused)

    def refused(path, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "a"
    with pytest.raises(cx.errors.StoreError, match=r"runs\.jsonl: No space left on device"):
        cx.study(circle, seeds=4, out=out, progress=fill, **SMALL)
    monkeypatch.undo()
    assert len(read_rows(out)) == 2
    again = cx.study(circle, seeds=4, out=out, **SMALL)
    assert numbers(again) == numbers(cx.study(circle, seeds=4, **SMALL))


LINEAR = {"adam": cx.Optax(optax.adam(0.05)), "gd": cx.Optax(optax.sgd(0.2))}


def line(points=6):
    def misfit(u, x):
        return u(x) - 2 * x[0] - 1

    return cx.Problem(
        cx.Constraint(misfit, over=cx.Normal(2), points=points), cx.Linear(2, "scalar")
    )


@pytest.mark.slow
def test_g18_seeds_together_give_what_each_gives_alone():
    """A linear problem to 1e-10 at its end; a network after few steps, then the same status."""
    axes = {"method": LINEAR}
    settings = {"seeds": [3, 9, 4, 7, 1], "heldout": 64, "monitor": 16}
    alone, beside = (
        cx.study(line, vary=axes, engine=engine, steps=400, **settings).table()
        for engine in ("loop", "vmap")
    )
    assert {row["engine"] for row in beside} == {"vmap"} and {r["engine"] for r in alone} == {
        "loop"
    }
    for one, other in zip(alone, beside, strict=True):
        assert one["status"] == other["status"]
        for name in ("train_loss", "monitor_loss", "heldout_loss"):
            assert math.sqrt(one[name]) == pytest.approx(math.sqrt(other[name]), abs=1e-10)
    assert alone[5]["heldout_loss"] < 1e-3 * alone[0]["heldout_loss"] + 1e-3  # and it trained
    for steps, close in ((5, 1e-10), (200, 0.1)):
        alone, beside = (
            cx.study(circle, method="adam", engine=engine, steps=steps, **settings).table()
            for engine in ("loop", "vmap")
        )
        for one, other in zip(alone, beside, strict=True):
            assert one["status"] == other["status"] and one["taken"] == other["taken"]
            assert one["heldout_loss"] == pytest.approx(other["heldout_loss"], rel=close)


@pytest.mark.slow
def test_d13_member_that_diverges_or_ends_leaves_the_others_alone():
    """Places in a batch do not touch each other: with fewer seeds each row is the same bits."""
    rates = {"wild": cx.Optax(optax.sgd(1.2))}
    settings = {"vary": {"method": rates}, "engine": "vmap", "tolerance": 1e-3, "steps": 300}
    settings |= {"heldout": 32, "monitor": 8}
    whole = cx.study(line, seeds=8, **settings)
    statuses = {row["status"] for row in whole.table()}
    assert len(statuses) > 1, statuses
    some = cx.study(line, seeds=5, **settings)
    assert numbers(some) == numbers(whole)[:5]


@pytest.mark.slow
def test_batch_that_was_left_half_done_is_finished_alike(tmp_path):
    settings = {"vary": {"method": ["adam"]}, "engine": "vmap", "seeds": 6, **SMALL}
    whole = cx.study(circle, out=tmp_path / "a", **settings)
    lines = (tmp_path / "a" / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a" / "runs.jsonl").write_text("".join(lines[:2] + lines[4:5]))
    again = cx.study(circle, out=tmp_path / "a", **{**settings, "engine": None})
    assert numbers(again) == numbers(whole)
    assert {row["engine"] for row in again.rows} == {"vmap"}


@pytest.mark.slow
def test_trial_decides_and_the_row_says_so():
    found = cx.study(circle, vary={"method": ["lm", "adam"]}, seeds=4, **SMALL)
    engines = {row["method"]: row["engine"] for row in found.table()}
    assert engines["lm"] == "loop"
    with pytest.raises(ValueError, match=r"is for cx\.Optax methods"):
        cx.study(circle, seeds=4, engine="vmap", **SMALL)


MODEL = cx.MLP(2, 2, width=3)


class Submits:
    def submit(self, fn, /, *args):
        raise AssertionError


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
        ({"engine": "pmap"}, "engine must be one of loop, vmap"),
        ({"engine": "vmap", "time_limit": 1.0}, "runs with time_limit or members go one by one"),
        ({"seeds": 10**6, "vary": {"points": [4, 5]}}, "is 2,000,000 runs, and one has at most"),
        ({"workers": 2}, "needs the problem as a file"),
        ({"workers": 2, "executor": Submits()}, "leave out one"),
    ],
)
@pytest.mark.usefixtures("as_released")
def test_c18_what_no_study_is(arguments, words):
    with pytest.raises((ValueError, TypeError, cx.errors.LoadError), match=words):
        cx.study(circle, **{**SMALL, **arguments})


@pytest.mark.slow
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
    fixed = cx.Problem(circle().constraints, circle().build_model(key=jax.random.key(0)))
    with pytest.warns(cx.errors.ProblemWarning, match="every seed starts from the same parameters"):
        cx.study(fixed, seeds=2, **SMALL)
    assert [r["taken"] for r in ready.table()] == [1, 2]


def test_functions_that_a_recipe_makes_for_each_seed_have_its_numbers():
    """Seeds are not run together where what is no number differs: it may hold what does."""

    def recipe(key, kind):
        shift = float(jax.random.normal(key))
        inner = cx.MLP(2, 2, width=3)(key=key)
        fn = lambda x: x + shift if kind else x - shift  # noqa: E731
        return eqx.nn.Sequential([eqx.nn.Lambda(fn), inner])

    def models(*kinds):
        return {seed: (recipe(jax.random.key(seed), kind),) for seed, kind in enumerate(kinds)}

    with pytest.raises(Unlike):
        _stacked(models(True, False), 4)
    arrays, _ = _stacked(models(True, True), 4)
    shifts = [float(jax.random.normal(jax.random.key(seed))) for seed in (0, 1, 0, 0)]
    assert any(leaf is not None and np.array_equal(leaf, shifts) for leaf in arrays)
    assert {len(leaf) for leaf in arrays if leaf is not None} == {4}


@pytest.mark.slow
def test_ensembles_stand_beside_single_runs():
    """Judged on the same held-out points; the mean of several is no worse than they are in mean."""
    settings = {"method": "gd", "seeds": 2, **SMALL}
    found = cx.study(circle, vary={"members": [1, 3]}, **settings)
    alone, means = found.table()[:2], found.table()[2:]
    assert [row["parameters"] for row in means] == [3 * row["parameters"] for row in alone]
    mean = cx.ensemble(circle(), cx.Optax(optax.sgd(1e-3)), seeds=[1, 2000006, 2000007], **SMALL)
    again = cx.study(circle, members=3, seeds=[1], method=cx.Optax(optax.sgd(1e-3)), **SMALL)
    assert again.table()[0]["heldout_loss"] == mean.gap.heldout.value
    single = cx.solve(circle(), cx.Optax(optax.sgd(1e-3)), seed=1, **SMALL)
    assert mean.gap["on_circle"].heldout.n == single.gap["on_circle"].heldout.n
    assert np.array_equal(mean.streams[0].heldout.cube, single.streams[0].heldout.cube)
    assert again.table()[0]["monitor_loss"] > 0


@pytest.mark.slow
def test_ensembles_in_a_folder_are_not_run_again(tmp_path):
    settings = {"method": "gd", "seeds": 2, "members": 2, "out": tmp_path / "s", **SMALL}
    first = cx.study(circle, **settings)
    again = cx.study(circle, **settings)
    assert again.before == 2 and numbers(again) == numbers(first)


@pytest.mark.slow
def test_time_limit_of_none_changes_nothing():
    found = cx.study(circle, method="gd", engine="vmap", time_limit=None, seeds=4, **SMALL)
    assert {row["engine"] for row in found.rows} == {"vmap"}


def test_g9_g10_folder_of_another_study_and_two_at_once(tmp_path):
    out = tmp_path / "a"
    found = cx.study(circle, seeds=1, out=out, **SMALL)
    assert numbers(cx.load_study(out)) == numbers(found)

    def other(points=6):
        return circle(points)

    with pytest.raises(
        cx.errors.StoreError, match="holds another study: its name was circle and is"
    ):
        cx.study(other, seeds=1, out=out, **SMALL)
    with locked(out), pytest.raises(cx.errors.StoreError, match="in use by process"):
        cx.study(circle, seeds=2, out=out, **SMALL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(cx.errors.StoreError, match="is not empty"):
        cx.study(circle, seeds=1, out=tmp_path / "full", **SMALL)
    record = json.loads((out / "study.json").read_text())
    assert record["dtype"] == "float64" and record["constrainednn"] == cx.__version__
    with jax.enable_x64(False), pytest.raises(cx.errors.StoreError, match="its dtype was float64"):
        cx.study(circle, seeds=1, out=out, **SMALL)


def test_csv_has_every_row_and_nothing_that_a_spreadsheet_runs(tmp_path):
    def problem(name="=1+1"):
        return circle()

    study = cx.study(problem, vary={"name": ["=1+1", "b"]}, seeds=1, **SMALL)
    study.to_csv(tmp_path / "a.csv")
    header, first, second = (tmp_path / "a.csv").read_text().splitlines()
    assert header.startswith("name,method,steps,") and "heldout_loss" in header
    assert first.startswith("'=1+1,") and second.startswith("b,")


def made_up(values, axis="points", seeds=4):
    """A study whose held-out losses are given, by the values of one axis."""
    rows = []
    for at, losses in values.items():
        for seed, loss in enumerate(losses[:seeds]):
            failed = math.isinf(loss)
            gap = {"loss": 0.5, "train": 0.5, "heldout": {"value": loss}, "difference": {}}
            rows.append(
                {
                    "given": {axis: at},
                    "seed": seed,
                    "engine": "loop",
                    "status": "nonfinite" if failed else "max_steps",
                    "gap": gap,
                    "history": {"steps": [0], "train": [1.0], "monitor": [loss / 2]},
                }
            )
    return cx.studies.Study(tuple(rows), (axis,))


def test_pairs_are_of_one_seed_and_count_those_that_failed():
    study = made_up({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 4.0, 6.0, math.inf]}, "method")
    (pair,) = study.compare("method")
    assert (pair.first, pair.second, pair.pairs, pair.others) == ("a", "b", 3, 1)
    assert pair.difference.value == pytest.approx(2.0)
    # t quantile of 2 degrees of freedom: 4.3027; differences 1, 2, 3
    assert pair.difference.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert pair.ratio is not None and pair.ratio.value == pytest.approx(2.0)
    assert pair.ratio.high == pytest.approx(2.0)
    with pytest.raises(ValueError, match="did not vary 'points'"):
        study.compare("points")
    with pytest.raises(ValueError, match=r"'gaps' is not a number in the table\. Did you mean gap"):
        study.compare("method", of="gaps")


def test_choice_is_by_monitor_and_never_by_what_judges():
    study = made_up({4: [3.0, 4.0, 5.0], 8: [1.0, 2.0, math.inf], 16: [2.5, 2.5, 2.5]})
    assert {row["points"] for row in study.best().table()} == {8}
    for name in ("heldout_loss", "gap"):
        with pytest.raises(ValueError, match="held-out points judge the choice"):
            study.best(by=name)


@pytest.mark.slow
def test_law_is_found_where_there_is_one_and_doubted_where_not():
    rng = np.random.default_rng(5)
    n = np.repeat([50.0, 100.0, 200.0, 400.0, 800.0], 8)
    inside = 0
    for _ in range(60):
        law = fit_law(n, 3 * n**-0.8 * np.exp(0.2 * rng.normal(size=n.size)))
        inside += law.exponent.low <= 0.8 <= law.exponent.high
    # 95 % of 60, less four standard errors
    assert inside >= 51
    bent = fit_law(n, (0.1 + 40 / n) * np.exp(0.05 * rng.normal(size=n.size)))
    assert bent.c == pytest.approx(0.1, rel=0.2) and bent.exponent.low < 1 < bent.exponent.high
    wrong = fit_law(n, np.exp(np.sin(np.log(n) * 3) + 0.05 * rng.normal(size=n.size)))
    assert wrong.lack_of_fit < 1e-3 and "the law does not hold" in repr(wrong)
    failed = fit_law(np.append(n, 1600), np.append(3.0 / n, math.inf))
    assert "left out, since a run failed" in repr(
        fit_law(np.arange(1.0, 5), np.array([3, 2, 1, math.inf]))
    )
    # What runs of one seed have in common is no spread of the law.
    seeds = np.tile(np.arange(8), 5)
    common = 3 * n**-0.8 * np.exp(rng.normal(size=8)[seeds] + 0.05 * rng.normal(size=n.size))
    blocked, plain = fit_law(n, common, seeds), fit_law(n, common)
    widths = [law.exponent.high - law.exponent.low for law in (blocked, plain)]
    assert widths[0] < 0.2 * widths[1]
    assert blocked.exponent.low < 0.8 < blocked.exponent.high
    assert failed.left_out == (1600,) and failed.exponent.value == pytest.approx(1)
    with pytest.raises(ValueError, match="three numbers of points or more"):
        fit_law(n[:16], 1.0 / n[:16])


@pytest.mark.slow
def test_figures_come_from_the_table_alone(tmp_path):
    axes = {"points": [4, 6], "method": ["gd", "adam"], "heldout": [16, 32]}
    found = cx.study(circle, vary=axes, seeds=2, out=tmp_path / "s", monitor=8, steps=5)
    read = cx.load_study(tmp_path / "s")
    assert numbers(read) == numbers(found) and set(read.axes) == set(found.axes)
    result = run("study", "--plot", tmp_path / "s")
    assert result.exit_code == 0, result.output
    names = {path.stem for path in (tmp_path / "s").glob("*.png")}
    assert names == {
        *("against-points", "against-heldout", "paired-method", "map-points-heldout"),
        *("seeds", "time", "distance"),
    }
    assert found.plot()["seeds"]._repr_png_()[:4] == b"\x89PNG"  # a notebook shows it
    written = json.loads((tmp_path / "s" / "figures.json").read_text())
    rows = [r for r in found.table() if (r["points"], r["method"], r["heldout"]) == (6, "gd", 16)]
    entry = written["against-points"]["groups"]["method gd, heldout 16"]
    assert entry["points"] == [4, 6]
    assert entry["heldout"][1][1] == np.median([row["heldout_loss"] for row in rows])
    assert run("study", "--plot", tmp_path / "none").exit_code == 2
    assert run("study", "--plot", tmp_path / "s", "--vary", "points=3").exit_code == 2


@pytest.mark.slow
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
    assert "points  method  runs            train" in result.output
    assert "5       gd      2, 2 max_steps  " in result.output
    assert len(read_rows(out)) == 8
    failing = run("study", file, "--vary", "width=3,0", *common)
    assert failing.exit_code == 4 and "0      2, 2 failed     inf [inf, inf]" in failing.output
    assert re.search("2 failed: .*width of MLP must be at least 1", failing.output)
    file.write_text(file.read_text() + "\n# edited\n")
    changed = run("study", file, *common)
    assert changed.exit_code == 2 and "holds another study: its problem was" in changed.stderr
    wrong = run("study", file, "--vary", "points=x")
    assert wrong.exit_code == 2 and "expected a whole number" in wrong.stderr
    assert run("study", file, "--vary", "points").exit_code == 2


@pytest.mark.slow
def test_study_reproduces_the_floor_of_linear_maps_onto_the_circle():
    """The best linear map leaves 1 - pi/4 of the loss on the plane, in mean and for every seed."""
    found = cx.study(
        "unit_circle", vary={"model": ["linear"]}, seeds=30, points=4000, monitor=8, steps=100
    )
    losses = np.array([row["heldout_loss"] for row in found.table()])
    floor = 1 - math.pi / 4
    error = losses.std(ddof=1) / math.sqrt(len(losses))
    # Four parameters from 4,000 points lift the expected loss by about 4/4000 of it.
    assert floor - 4 * error < losses.mean() < floor * 1.002 + 4 * error
    assert not any(row["collapsed"] for row in found.table())


@pytest.mark.slow
def test_study_reproduces_the_gap_of_linear_least_squares():
    """50 points, 25 Gaussian features, noise one: 60 seeds, within four standard errors."""
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
    with pytest.warns(cx.errors.ProblemWarning, match="the model is ready-made"):
        study = cx.study(problem, seeds=60, heldout=256, monitor=8)
    for name, value in (("train_loss", 1 - p / n), ("heldout_loss", 1 + p / (n - p - 1))):
        found = np.array([row[name] for row in study.table()])
        error = found.std(ddof=1) / math.sqrt(len(found))
        assert abs(found.mean() - value) < 4 * error


@pytest.mark.slow
def test_runs_that_end_early_are_no_better_for_it():
    """A march that stopped has its gap on what it covered; half of the runs failed is no median."""

    def grows(stop=2.0):
        return cx.ivp(lambda t, y, args: y**2, 1.0, (0.0, stop))

    study = cx.study(grows, vary={"stop": [0.5, 2.0]}, seeds=1, heldout=32)
    assert [row["failed"] for row in study.table()] == [False, True]
    assert study.table()[1]["heldout_loss"] == math.inf
    low, middle, high = quantiles_of(np.array([1.0, 2.0, math.inf, math.inf]))
    assert (low, middle, high) == (1.0, math.inf, math.inf)
    assert quantiles_of(np.array([1.0, 2.0, 4.0, 5.0])).tolist() == [1.0, 3.0, 5.0]
    with pytest.raises(ValueError, match="the gap may be negative"):
        made_up({4: [1.0], 8: [1.0]}).laws(of="gap")
