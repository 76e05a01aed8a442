"""A march of trained windows: resumed, told of, and ended early."""

import itertools
import json
import math
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn._solve.training import trainer
from constrainednn.results import saving

SPAN = (0.0, 3.0)
EDGES = np.linspace(*SPAN, 4)
FEW = {"heldout": 64, "monitor": 16}


def swing(t, y, args):
    return jnp.stack([y[1], -y[0]])


def ends_at_two(t, y, args):
    return -1.0 + 0 * jnp.sqrt(2.0 - t) * y


def march(field=swing, state=(1.0, 0.0), windows=3, span=SPAN, width=8, **settings):
    model = cx.MLP("scalar", len(state), width=width)
    return cx.ivp(field, jnp.array(state), span, model=model, windows=windows, **settings)


@pytest.fixture
def quick(monkeypatch):
    """A look after every step or few, and figures that cost nothing."""
    monkeypatch.setattr(trainer, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(saving, "_png", lambda draw: (b"", ""))


class Stopping:
    """A display that notes what it is told, and stops the run at a look."""

    def __init__(self, look=None, stop=None):
        self.look, self.seen, self.count = look, [], itertools.count(1)
        self.stop = self.cut if stop is None else stop

    def cut(self):
        raise KeyboardInterrupt

    def __call__(self, now):
        self.seen.append(now)
        if now.phase == "training" and next(self.count) == self.look:
            self.stop()


class Kept:
    def __init__(self):
        self.steps = []

    def log(self, step, values):
        self.steps.append(step)

    def close(self):
        pass


def is_same(one, other):
    np.testing.assert_array_equal(one(np.linspace(*SPAN, 31)), other(np.linspace(*SPAN, 31)))
    for name in ("loss", "monitor", "monitor_steps"):
        assert getattr(one.history, name).tobytes() == getattr(other.history, name).tobytes()
    for name in ("status", "reason", "steps", "parameters"):
        assert getattr(one, name) == getattr(other, name)
    assert one.history.best_step == other.history.best_step


@pytest.mark.slow
@pytest.mark.parametrize(("method", "look"), [(cx.LevenbergMarquardt(), 2), slow(None, 20)])
def test_a_march_that_was_stopped_goes_on_where_it_was(method, look, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("constrainednn._storage.run_folder._EVERY", 0.0)
    monkeypatch.setattr("constrainednn._storage.run_folder._SHARE", 1e9)
    whole = cx.solve(march(), method, steps=12, **FEW)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cx.solve(march(), method, steps=12, out=folder, progress=Stopping(look), **FEW)
    last = max(int(file.stem.split("-")[1]) for file in folder.glob("checkpoint-*"))
    display = Stopping()
    is_same(cx.resume(folder, march(), method, progress=display), whole)
    # Windows that were trained are not trained once more.
    told = [now.step for now in display.seen if now.phase == "training"]
    assert min(told) >= last


@pytest.mark.slow
def test_more_steps_are_for_the_last_window(quick, tmp_path):
    method, folder = cx.LevenbergMarquardt(), tmp_path / "run"
    found = cx.solve(march(), method, steps=12, out=folder, **FEW)
    further = cx.resume(folder, march(), method, steps=14)
    assert (found.steps, further.steps) == (36, 38)
    states = [solution.model.start.value[1] for solution in (further, found)]
    np.testing.assert_array_equal(*states)
    with pytest.raises(ValueError, match="steps=13 is less than the 14 steps"):
        cx.resume(folder, march(), method, steps=13)


@pytest.mark.slow
def test_another_first_window_is_refused(quick, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        cx.solve(march(), steps=12, out=folder, progress=Stopping(20), **FEW)
    with pytest.raises(cx.errors.StoreError, match="the run is of another problem"):
        cx.resume(folder, march(state=(1.0, 0.1)))


@pytest.mark.slow
def test_one_sequence_of_steps_with_the_window_named(quick, tmp_path):
    display, sink = Stopping(), Kept()
    found = cx.solve(
        march(),
        cx.LevenbergMarquardt(),
        steps=12,
        progress=display,
        sinks=[sink],
        out=tmp_path / "run",
        **FEW,
    )
    told = [now for now in display.seen if now.phase == "training"]
    assert [now.step for now in told] == sorted(now.step for now in told)
    assert told[-1].step == found.steps == 36 and {now.steps for now in told} == {36}
    for now in told:
        assert now.part == f"window {min(math.ceil(max(now.step, 1) / 12), 3)} of 3"
    assert sink.steps == [now.step for now in told]
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == sink.steps


@pytest.mark.slow
def test_all_that_was_trained_is_counted():
    found = cx.solve(march(), steps=12, **FEW)
    # One input, eight units, two values: 8 + 8 + 16 + 2, in each of three windows.
    assert found.parameters == 3 * 34
    alone = cx.solve(march(windows=1), steps=12, **FEW)
    assert alone.parameters == 34


@pytest.mark.slow
def test_the_best_step_is_that_of_the_last_window():
    found = cx.solve(march(), cx.LevenbergMarquardt(), steps=150, early_stopping=True, **FEW)
    ends = [item for item in found.history.monitor_steps]
    assert found.history.best_step > found.steps * 2 / 3 - 150
    assert found.history.best_step in ends
    alone = cx.solve(
        march(state=tuple(map(float, found(2.0))), span=(2.0, 3.0), windows=1),
        cx.LevenbergMarquardt(),
        steps=150,
        early_stopping=True,
        **FEW,
    )
    assert found.steps - found.history.best_step == alone.steps - alone.history.best_step


@pytest.mark.slow
def test_what_cannot_go_on_keeps_what_it_has():
    with pytest.raises(cx.results.SolveFailed) as caught:
        cx.solve(march(ends_at_two, state=(1.9,)), steps=12, **FEW)
    found = caught.value.solution
    assert found.status == "nonfinite" and found.verdict.word == "not solved"
    assert found.reason.startswith("window 3 of 3: cannot be started: constraint 'ends_at_two'")
    assert found.reason.endswith("; the solution ends at t = 2, window 3 is not trained")
    t = np.linspace(0, 2, 21)
    np.testing.assert_allclose(found(t)[:, 0], 1.9 - t, atol=1e-6)
    with pytest.raises(ValueError, match=r"known from 0 to 2, got 2\.5"):
        found(2.5)


@pytest.mark.slow
def test_an_interrupted_march_says_how_far_it_came(quick, tmp_path):
    stop = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731
    folder, problem = tmp_path / "run", march(windows=4, span=(3.0, 0.0))
    found = cx.solve(
        problem, cx.LevenbergMarquardt(), steps=12, out=folder, progress=Stopping(18, stop), **FEW
    )
    assert found.status == "interrupted" and 12 < found.steps < 24
    ends = "the solution ends at t = 1.5, windows 3 to 4 are not trained"
    assert found.reason.startswith("window 2 of 4: SIGINT at step") and ends in found.reason
    assert found.verdict.word == "not solved" and ends in found.verdict.reason
    # What is measured is the part that was trained.
    points = found.streams[0]
    assert points.heldout.points.min() > 1.5 and points.train.points.min() > 1.5
    assert len(points.train) * 2 == problem.constraints[0].points
    assert found.error_estimate().t.min() == 1.5
    again = cx.load_solution(folder, problem)
    assert again.gap == found.gap and again.verdict.reason == found.verdict.reason
