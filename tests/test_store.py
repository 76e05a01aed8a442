"""Saved is what was solved, to the last bit; anything else in a file is refused."""

import errno
import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._common.pytrees import tree_to_arrays
from constrainednn._storage import files
from constrainednn._storage.archive import seal
from constrainednn.results import saving
from constrainednn.results.saving import plain

FILES = [
    *("history.npz", "model.npz", "moments.png", "overview.png", "report.json", "values.npz"),
]


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def origin(u, x):
    return u(x)[0]


def stated(width=4, model=None):
    return cx.Problem(
        [
            cx.Constraint(on_circle, over=cx.Normal(2), points=8, target=cx.Circle()),
            cx.Constraint(origin, over=cx.Points(jnp.zeros((1, 2)))),
        ],
        model=cx.MLP(2, 2, width=width) if model is None else model,
    )


@pytest.fixture(scope="module")
def solution():
    return cx.solve(stated(), steps=4, seed=3, heldout=64, monitor=16)


@pytest.fixture(scope="module")
def folder(solution, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "deep" / "out"
    solution.save(path)
    return path


def same(first, second):
    """Equal names, types, shapes and bytes."""
    return first.keys() == second.keys() and all(
        (first[key].dtype, first[key].shape, first[key].tobytes())
        == (second[key].dtype, second[key].shape, second[key].tobytes())
        for key in first
    )


def test_loaded_numbers_are_equal_to_the_last_bit(solution, folder):
    loaded = cx.load_solution(folder, stated())
    report = json.loads((folder / "report.json").read_text())
    assert plain(saving.dataclasses.asdict(loaded.gap)) == report["gap"]
    assert plain(saving.dataclasses.asdict(solution.gap)) == report["gap"]
    for kind in ("loss", "monitor_steps", "monitor"):
        pair = (getattr(item.history, kind) for item in (loaded, solution))
        np.testing.assert_array_equal(*pair)
    saved, original = (tree_to_arrays(item.model) for item in (loaded, solution))
    assert same(saved, original)
    assert (loaded.status, loaded.reason) == (solution.status, solution.reason)
    assert (loaded.settings, loaded.timings) == (solution.settings, solution.timings)
    x = jnp.asarray([0.3, -1.2])
    np.testing.assert_array_equal(loaded(x), solution(x))


@pytest.mark.slow
def test_redrawn_points_are_those_of_the_last_draw(tmp_path):
    solution = cx.solve(stated(), steps=4, redraw=2, heldout=32, monitor=16)
    solution.save(tmp_path)
    loaded = cx.load_solution(tmp_path, stated())
    assert loaded.gap.train == solution.gap.train
    assert loaded.history.redraws == solution.history.redraws


def test_report_is_strict_json_and_files_are_readable_by_others(folder):
    assert sorted(os.listdir(folder)) == FILES

    def never(constant):
        raise AssertionError(constant)

    report = json.loads((folder / "report.json").read_text(), parse_constant=never)
    assert report["settings"]["dtype"] == "float64"
    assert plain({"a": float("nan"), "b": [np.float64("inf"), np.arange(2)]}) == {
        "a": None,
        "b": [None, [0, 1]],
    }
    mask = os.umask(0)
    os.umask(mask)
    assert (folder / "model.npz").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (folder / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_another_problem_is_refused_by_its_first_difference(folder):
    def other(**changes):
        settings = {"over": cx.Normal(2), "points": 8, "target": cx.Circle(), **changes}
        origin_ = cx.Constraint(origin, over=cx.Points(jnp.zeros((1, 2))))
        return cx.Problem([cx.Constraint(on_circle, **settings), origin_], cx.MLP(2, 2, width=4))

    cx.load_solution(folder, other())
    changes = {
        r"'on_circle' has points 8 in the file and 400 in the problem": {"points": 400},
        r"'on_circle' has measure 'Normal\(dim=2\)' in the file and 'Box": {
            "over": cx.Box([0, 0], [1, 1])
        },
        r"'on_circle' has weight 1.0 in the file and 2.0": {"weight": 2.0},
        r"'on_circle' has name 'on_circle' in the file and 'round'": {"name": "round"},
    }
    for words, change in changes.items():
        with pytest.raises(cx.errors.StoreError, match=words):
            cx.load_solution(folder, other(**change))
    first = cx.Problem(stated().constraints[:1], stated().model)
    with pytest.raises(
        cx.errors.StoreError, match="'origin' has name 'origin' in the file and None"
    ):
        cx.load_solution(folder, first)


def test_damaged_report_is_refused(folder, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    report = json.loads((folder / "report.json").read_text())
    settings, gap = report["settings"], report["gap"]
    damages = [
        {"settings": {key: value for key, value in settings.items() if key != "seed"}},
        {"settings": {**settings, "seed": "x"}},
        {"settings": {**settings, "heldout": -1}},
        {"settings": 3},
        {"status": "fine"},
        {"last_draw": 1.5},
        {"timings": {"compile": 1.0}},
        {"gap": {**gap, "constraints": None}},
    ]
    for damage in damages:
        (tmp_path / "report.json").write_bytes(seal({**report, **damage}))
        with pytest.raises(cx.errors.StoreError, match=r"report\.json is damaged"):
            cx.load_solution(tmp_path, stated())


@pytest.mark.slow
def test_figure_that_fails_costs_no_number(solution, tmp_path, monkeypatch):
    from constrainednn.results import saving

    def broken(shown):
        raise ZeroDivisionError("no such axis")

    monkeypatch.setattr(saving, "overview", broken)
    with pytest.warns(UserWarning, match=r"overview.png could not be drawn: Zero.*no such axis"):
        solution.save(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    assert (tmp_path / "out" / "overview.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rows_of_two_values_can_be_drawn(tmp_path):
    x = np.linspace(0, 1, 20)

    def fit(u, point):
        return u(point[0]) - point[1]

    rows = cx.Data((x, np.stack([x, x**2], axis=1)))
    problem = cx.Problem(cx.Constraint(fit, over=rows), cx.MLP("scalar", 2, width=4))
    cx.solve(problem, steps=1).save(tmp_path / "out")  # a failing figure would warn


def test_another_width_or_dtype_names_the_first_leaf(folder):
    first = r"leaf \.layers\[0\]\.weight is float64\[4, 2\].*float64\[5, 2\]"
    with pytest.raises(cx.errors.StoreError, match=first):
        cx.load_solution(folder, stated(width=5))
    single = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, dtype=jnp.float32, key=jax.random.key(0))
    with pytest.raises(cx.errors.StoreError, match=r"\.weight is float64.*and float32"):
        cx.load_solution(folder, stated(model=single))
    deeper = cx.MLP(2, 2, width=4, depth=2)
    with pytest.raises(cx.errors.StoreError, match=r"leaf \.layers\[1\]\.weight"):
        cx.load_solution(folder, stated(model=deeper))


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(cx.errors.StoreError, match=r"report\.json"):
        cx.load_solution(tmp_path, stated())
    for name in ("report.json", "history.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(cx.errors.StoreError, match=r"there is no file .*model\.npz"):
        cx.load_solution(tmp_path, stated())
    report = json.loads((folder / "report.json").read_text())
    (tmp_path / "report.json").write_bytes(seal({**report, "format": 99}))
    with pytest.raises(
        cx.errors.StoreError,
        match="written in format 99; this version of constrainednn reads format 2",
    ):
        cx.load_solution(tmp_path, stated())


@pytest.mark.parametrize("call", ["fsync", "replace", "close"])
@pytest.mark.parametrize("at", [0, 3])
def test_a_failing_write_leaves_nothing(solution, tmp_path, monkeypatch, call, at):
    """The disk fills at the first write, or when other files are complete."""
    real, count = getattr(files, f"_{call}"), []

    def full(*arguments, **options):
        count.append(1)
        if len(count) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(files, f"_{call}", full)
    with pytest.raises(cx.errors.StoreError, match="No space left on device"):
        solution.save(tmp_path / "new" / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_saving_twice_is_refused(solution, folder):
    before = {name: (folder / name).read_bytes() for name in FILES}
    with pytest.raises(cx.errors.StoreError, match=r"is not empty. Nothing is overwritten"):
        solution.save(folder)
    assert before == {name: (folder / name).read_bytes() for name in FILES}


def test_copy_refuses_to_overwrite(tmp_path):
    source, target = tmp_path / "a.py", tmp_path / "b.py"
    source.write_text("a")
    files.copy_file(source, target)
    source.write_text("b")
    with pytest.raises(cx.errors.StoreError, match=r"exists. Nothing is overwritten"):
        files.copy_file(source, target)
    assert target.read_text() == "a"
    with pytest.raises(cx.errors.StoreError, match="cannot write to"):
        files.copy_file(source, tmp_path / "no" / "folder.py")
