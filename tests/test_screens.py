"""What stands on a screen of 80 columns, and what studies and figures say of their runs."""

import functools
import json
import math
import re
import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from faults import run

import constrainednn as cx
from constrainednn._common import memory
from constrainednn._common.tables import table_lines, wrapped
from constrainednn._figures.style import some_points
from constrainednn._gap.tables import COLUMNS, notes, point, table_rows
from constrainednn._storage.show import show
from constrainednn.runs.display import displayed, of_run
from constrainednn.studies.tables import curves, figures
from constrainednn.studies.tables.law import fit_law
from constrainednn.studies.tables.rows import endings, ends_shown


@pytest.mark.slow
def test_show_of_a_finished_march_says_no_more_than_that_it_is(tmp_path):
    """Steps are Newton steps in the report, in the checkpoint, and in the history."""
    out = tmp_path / "run"
    assert run("solve", "lotka_volterra", "--heldout", 64, "--out", out).exit_code == 0
    text = show(out)
    assert "result      converged" in text
    assert "stopped" not in text and "nan" not in text and "continue" not in text
    steps = json.loads((out / "report.json").read_text())["steps"]
    assert f"checkpoint  checkpoint-{steps:09d}.npz, step {steps}\n" in text
    assert f"last seen   step {steps}: monitor residual" in text
    last = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    assert last["step"] == steps and "train" not in last


def test_lines_wrap_at_words_in_their_column_and_commands_stay_whole():
    line = "settings    " + ", ".join(f"name{k} value{k}" for k in range(12))
    lines = wrapped(line, 40).splitlines()
    assert max(map(len, lines)) <= 40 and all(part[:12] == " " * 12 for part in lines[1:])
    assert " ".join(part.strip() for part in lines).split() == line.split()
    command = "continue    constrainednn resume " + "a" * 60
    assert wrapped(command, 40) == command and wrapped(line, None) == line
    assert wrapped("x" * 90, 40) == "x" * 90  # a path is not broken


def test_problems_and_show_fit_into_80_columns(tmp_path, monkeypatch):
    monkeypatch.setattr("constrainednn.cli.terminal.terminal_width", lambda: 80)
    listed = run("problems").output
    assert max(map(len, listed.splitlines())) <= 80
    words = {"unit_circle", "Predators", "convection"} & set(listed.split())
    assert "convection" in words


@pytest.mark.slow
def test_python_prints_what_the_command_line_prints():
    from constrainednn.results.summary import summary

    arguments = {"heldout": 64, "monitor": 16, "steps": 3}
    problem = cx.load_problem("unit_circle")
    text = repr(cx.solve(problem, **arguments))
    flags = [part for key, value in arguments.items() for part in (f"--{key}", value)]
    printed = run("solve", "unit_circle", *flags).output
    seconds = re.compile(r"import|[\d.]+ s,?")
    same = [seconds.sub("", part).split() for part in (text, printed)]
    assert same[0] == same[1]
    solution = cx.solve(problem, **arguments)
    assert max(map(len, summary(solution, solution.verdict, 80).splitlines())) <= 80


def test_help_lists_whole_sentences():
    import subprocess

    command = [sys.executable, "-m", "constrainednn", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_a_table_that_is_too_wide_is_stacked():
    table = [["points", "width", "runs", "train"], ["6", "300", "3", "0.1 [0.05, 0.2]"]]
    assert table_lines(table, 2, None) == table_lines(table, 2, 80)
    assert table_lines(table, 2, 30) == [
        "points 6, width 300",
        "  runs   3",
        "  train  0.1 [0.05, 0.2]",
    ]


def fit(u, x):
    return u(x) - jnp.sin(3 * x)


def stated(points=6, width=3):
    return cx.Problem(
        cx.Constraint(fit, over=cx.Interval(0, 1), points=points),
        cx.MLP("scalar", "scalar", width=width),
    )


@pytest.fixture(scope="module")
def stopped():
    axes = {"points": [6, 8], "width": [3, 4], "steps": [2, 3]}
    return cx.study(stated, vary=axes, seeds=2, heldout=16, monitor=8, engine="loop", method="gd")


@pytest.mark.slow
def test_a_study_says_what_ended_its_runs(stopped):
    assert repr(stopped).count("2, 2 max_steps") == 8
    assert "max_steps, time_limit, stalled, interrupted: the run ended before" in repr(stopped)
    assert max(map(len, stopped.shown(80).splitlines()[:-2])) <= 80
    row = {"given": {}, "seed": 0, "engine": "loop", "status": "converged"}
    assert endings([row, row]) == ""
    assert endings([row, row | {"status": "time_limit"}]) == "1 time_limit"
    assert endings([row | {"covered": False, "status": "stalled"}]) == "1 failed"


@pytest.mark.slow
def test_bands_are_labelled_as_what_is_drawn(stopped):
    assert ends_shown(9) == "smallest to largest" and ends_shown(10) == "10 to 90 %"
    for draw in (
        lambda: curves.against("points", stopped.rows, stopped.axes),
        lambda: curves.time(stopped.rows, stopped.axes),
    ):
        labels = [axes.get_ylabel() for axes in draw()[0].axes]
        assert labels[0].endswith("median, smallest to largest")
    with warnings.catch_warnings():  # an empty legend would be one
        warnings.simplefilter("error")
        curves.distance(stopped.rows, stopped.axes)  # 16 held-out points have no classes
    legend = curves.against("points", stopped.rows, stopped.axes)[0].axes[0].get_legend()
    assert legend is not None
    said = [text.get_text() for text in legend.get_texts()]
    assert "some runs ended before convergence" in said


@pytest.mark.slow
def test_a_map_pools_no_other_axis(stopped):
    figure, numbers = figures._map("points", "width", stopped.rows, stopped.axes)
    assert list(numbers["heldout"]) == ["steps 2", "steps 3"]
    for steps in (2, 3):
        for j, width in enumerate((3, 4)):
            for i, points in enumerate((6, 8)):
                losses = [
                    row["heldout_loss"]
                    for row in stopped.table()
                    if (row["points"], row["width"], row["steps"]) == (points, width, steps)
                ]
                assert numbers["heldout"][f"steps {steps}"][j, i] == np.median(losses)
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["steps 2", "steps 3"]
    assert figure.axes[2].get_ylabel() == "median held-out loss"


@pytest.mark.slow
def test_every_figure_of_a_study_says_what_was_run(stopped):
    for figure in stopped.plot().values():
        assert figure.get_suptitle().startswith("stated, 2 seeds, method gd, heldout 16, monitor 8")
    time = stopped.plot()["time"].axes[0]
    assert time.get_xscale() == "linear" and time.get_xlabel() == "step"  # three steps at most
    assert all(tick == round(tick) for tick in time.get_xticks())


def test_a_law_whose_exponent_may_be_zero_is_no_trend():
    rng = np.random.default_rng(0)
    n = np.repeat([10.0, 20.0, 40.0, 80.0], 5)
    flat = fit_law(n, np.exp(0.3 * rng.standard_normal(20)))
    assert flat.exponent.low < 0 < flat.exponent.high
    assert not flat.has_trend and repr(flat).startswith("no trend: exponent")
    steep = fit_law(n, n**-2.0 * np.exp(0.1 * rng.standard_normal(20)))
    assert steep.has_trend and math.isclose(steep.exponent.value, 2.0, abs_tol=0.2)


def test_a_part_of_a_grid_is_drawn_all_over_it():
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, 30)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    some = some_points(x, 400)
    # A quarter of the points in each quadrant, with four standard errors.
    quadrants = np.histogram2d(*some.T, bins=2)[0]
    assert len(some) == 400 and np.all(np.abs(quadrants - 100) < 4 * math.sqrt(400 * 3 / 16))
    np.testing.assert_array_equal(some_points(x, 1000), x)


def test_places_are_told_apart_whatever_their_offset():
    """Years 1900 to 1920 with rows a year apart; three digits would be the same year for all."""
    assert [point(1900 + k, 1.0) for k in (0.0, 12.4)] == ["1900", "1912.4"]
    assert point(np.array([1912.35, 0.123456]), 0.5) == "(1912.3, 0.123)"
    assert point(np.array([1912.35]), 1e-3) == "(1912.35)" and point(1.389) == "1.39"
    assert point((np.array(1912.35), np.array(3e-7)), 0.0) == "(1.91e+03, 3e-07)"


def test_a_history_fits_on_one_screen():
    loss = np.geomspace(1.0, 1e-6, 100_001)
    steps = np.unique(np.geomspace(1, 100_000, 51).astype(int))
    history = cx.results.History(loss, steps, 2 * loss[steps], (), 100_000)
    lines = repr(history).splitlines()
    assert len(lines) == 14 and max(map(len, lines)) <= 80
    assert lines[-2].split() == ["100000", "1e-06", "2e-06"]
    assert lines[1].split() == ["1", "1", "2"]


def test_a_study_forgets_programs_before_the_limit_of_maps(monkeypatch, tmp_path):
    """Measured: 210 maps a combination whose residual is new, and all are given back."""
    cleared = []
    monkeypatch.setattr(memory.jax, "clear_caches", lambda: cleared.append(True))
    (tmp_path / "limit").write_text("20\n")
    monkeypatch.setattr(memory, "_MAP_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(memory, "_MAPS", tmp_path / "maps")
    for count, expected in ((5, 0), (6, 1)):
        (tmp_path / "maps").write_text("map\n" * count)
        memory.keep_below_map_limit()
        assert len(cleared) == expected
    monkeypatch.setattr(memory, "_MAP_LIMIT", tmp_path / "none")  # as on other systems
    memory.keep_below_map_limit()
    assert len(cleared) == 1


@pytest.mark.slow
def test_solve_in_a_loop_forgets_programs_before_the_limit_of_maps(monkeypatch, tmp_path):
    cleared = []
    monkeypatch.setattr(memory.jax, "clear_caches", lambda: cleared.append(True))
    for name, text in (("_MAP_LIMIT", "10\n"), ("_MAPS", "map\n" * 6)):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    problem = cx.Problem(
        cx.Constraint(lambda u, x: u - x, over=cx.Points([1.0, 2.0]), name="r"), jnp.zeros(())
    )
    for _ in range(16):
        cx.solve(problem, steps=1)
    assert len(cleared) == 2


def off_by(u, x):
    return u(x) - x


NAMED = "<b>&off</b>"


@pytest.fixture(scope="module")
def named():
    constraint = cx.Constraint(off_by, over=cx.Interval(0, 1), points=4, name=NAMED)
    return cx.solve(
        cx.Problem(constraint, cx.MLP("scalar", "scalar", width=4)), steps=2, heldout=32, monitor=8
    )


def test_gap_prints_as_the_table_of_the_command_line(named):
    lines = str(named.gap).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == list(COLUMNS)
    assert re.split(r"\s{2,}", lines[1]) == list(table_rows(named.gap)[0])
    assert lines[3:] == notes(named.gap)
    assert str(named.gap[NAMED]) == str(named.gap)  # it is the only one


def test_notebooks_show_tables_in_which_names_are_text(named):
    problem = named.problem._repr_html_()
    assert "<td>Interval(low=0.0, high=1.0)</td><td>4</td><td>Independent()</td>" in problem
    assert "0x" not in problem
    for shown in (problem, named._repr_html_(), named.gap[NAMED]._repr_html_()):
        assert NAMED not in shown and "<td>&lt;b&gt;&amp;off&lt;/b&gt;</td>" in shown
    assert named._repr_html_().startswith(f"<p><b>{named.verdict.word}</b>")
    found = cx.study(named.problem, seeds=2, steps=1, heldout=32)._repr_html_()
    assert found.count("<tr>") == 2 and "losses: median over seeds [smallest to largest]" in found


@pytest.mark.slow
def test_errors_are_tables_of_components(solved):
    found = solved("lotka_volterra").error_estimate()
    shown = found._repr_html_()
    assert f"<td>1</td><td>{found.relative_size[1]:.1e}</td>" in shown and repr(found) in shown


def test_comparisons_and_estimates_are_tables():
    found = cx.results.Comparison(
        ours=0.5,
        compiling=2.0,
        seconds=0.25,
        solver="DOP853 at 1e-12",
        evaluations=900,
        field="in NumPy",
        difference=3e-12,
        status="it ended",
        reached=6.0,
        fitted=False,
    )
    shown = found._repr_html_()
    assert "<td>DOP853 at 1e-12</td><td>0.25</td>" in shown and "3.0e-12 up to 6" in shown
    value = cx.results.Estimate(2.0, 1.9, 2.1, 50, 0.05)
    nothing = np.ones((1, 1))
    estimates = cx.results.Estimates({"<rate>": value}, nothing, 0.1, 49, np.ones(1), ())
    shown = estimates._repr_html_()
    assert "<td>&lt;rate&gt;</td><td>2</td><td>[1.9, 2.1]</td><td>0.05</td>" in shown
    assert "converged" in shown and "noise 0.1" in shown


def test_bar_is_shown_where_somebody_watches_and_only_once(named, monkeypatch, capsys):
    solve = functools.partial(cx.solve, named.problem, steps=2, heldout=32, monitor=8)
    solve()
    assert capsys.readouterr().err == ""  # a file is no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # for rich, which looks for itself
    solve()
    shown = capsys.readouterr().err
    assert "measuring the gap" in shown and "monitor" in shown
    solve(progress=False)
    assert capsys.readouterr().err == ""
    cx.study(named.problem, seeds=2, steps=1, heldout=32, monitor=8, engine="loop")
    shown = capsys.readouterr().err
    assert "runs" in shown and "measuring" not in shown  # the study's own bar, and none of a run
    with displayed(True, of_run) as outer, displayed(True, of_run) as inner:
        assert outer is not None and inner is None


def test_notebook_has_a_bar_below_its_cell_that_is_empty_afterwards(named, monkeypatch):
    display = pytest.importorskip("IPython.display")
    seen = []
    handle = types.SimpleNamespace(update=lambda html: seen.append(html.data))
    monkeypatch.setattr(display, "display", lambda html, display_id: handle)
    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: kernel)
    cx.solve(named.problem, steps=2, heldout=32, monitor=8)
    assert seen[-1] == "" and seen[-2].startswith('<progress value="100" max="100">')


@pytest.mark.slow
def test_notebooks_show_all_figures_of_a_study(named):
    found = cx.study(named.problem, seeds=2, steps=1, heldout=32).plot()
    shown = found._repr_html_()
    assert list(found) == ["seeds", "time", "distance"]
    assert re.findall("<p>(.*?)</p>", shown) == list(found)
    assert shown.count('<img src="data:image/png;base64,iVBOR') == len(found)
