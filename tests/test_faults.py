"""Bad input and faults: one test for each row of the catalogue, named by its row.

Rows are those of the fault catalogue: A the problem file, B residuals, C settings and command
line, D optimisation, E the gap. Exit codes: 2 the user's input, 3 the environment, 1 a failed
solve.
"""

import ast
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import (
    BODY,
    HEADER,
    MODEL,
    TINY,
    finding,
    on_circle,
    refused,
    run,
    small,
    stated,
)

import constrainednn as cx
from constrainednn import _checks, _gap, methods
from constrainednn._common.arguments import as_count
from constrainednn._common.random_keys import stream
from constrainednn._gap import tables
from constrainednn._gap.streams import draw_streams, refuse_overlap
from constrainednn._solve import problem_files, training
from constrainednn._storage.folders import check_folder
from constrainednn.cli import solve
from constrainednn.domains.samplers.draws import draw


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


# A. The problem file


def test_a1_no_such_file_names_the_near_ones(write):
    path = write(HEADER + BODY, "circle.py")
    assert "Did you mean circle.py?" in refused("check", path.with_name("circel.py"))
    assert "is a folder; name a .py file in it" in refused("check", path.parent)
    assert "does not end in .py" in refused("check", write("", "notes.txt"))
    assert "Did you mean unit_circle" in refused("check", "unit_circel")


def test_a2_syntax_error(write):
    said = refused("solve", write("x = 1\nproblem = (1,, 2)\n"))
    assert "error: mine.py:2:14: invalid syntax" in said
    assert "problem = (1,, 2)\n" in said
    assert said.splitlines()[2].strip() == "^"
    assert "?" not in refused("check", write("if True:\n\tx = (1,, 2)\n"))


def test_a2_syntax_error_in_a_file_that_is_imported(write):
    write("def f(:\n", "broken_helper.py")
    assert "broken_helper.py:1:" in refused("check", write("import broken_helper\n"))


def test_a3_missing_package(write):
    said = refused("check", write(HEADER + "import not_there_at_all\n"))
    assert "imports 'not_there_at_all', which is not installed here" in said
    assert "line 3" in said and "import not_there_at_all" in said


def test_a4_no_problem_or_two(write):
    said = refused("check", write("helper = 3\ndef data(): pass\n"))
    assert "mine.py defines no Problem" in said and "data" in said
    two = "problem = None\nfirst = {p}\nsecond = {p}\n".format(
        p="cx.Problem(cx.Constraint(r, over=cx.Normal(2), points=8), model=cx.MLP(2, 2, width=4))"
    )
    path = write(HEADER + "def r(u, x): return u(x)\n" + two)
    said = refused("check", path)
    assert "Found: first, second" in said and "use mine.py:first" in said
    assert run("check", f"{path}:second").exit_code == 0
    assert "Did you mean second? Known: second, first" in refused("check", f"{path}:secnd")


def test_a4_a_function_that_returns_something_else(write):
    said = refused("check", write("def problem():\n    return 3\n"))
    assert "problem() returns int; it must return a cx.Problem" in said


def test_a6_exit_while_loading_is_no_success(write):
    assert "calls sys.exit(0)" in refused("solve", write("import sys\nsys.exit(0)\n"))


def test_a7_a_file_may_be_called_jax(write):
    path = write(HEADER + BODY, "jax.py")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("check", path)
    assert result.exit_code == 0
    assert "jax.py has the name of a module that is installed" in result.stderr
    assert sys.modules["jax"] is jax


def test_a12_names_and_encodings(tmp_path):
    folder = tmp_path / "with space 数"
    folder.mkdir()
    path = folder / "圆.py"
    text = (HEADER + BODY).replace("\n", "\r\n").encode("utf-8-sig")
    path.write_bytes(text)
    result = run("check", path)
    assert result.exit_code == 0, result.output
    assert os.listdir(folder) == ["圆.py"]  # no bytecode beside it
    path.write_bytes(b"name = '\xe9'\n")
    assert "圆.py:1:" in refused("check", path)


RAISES = """
class Mine(Exception):
    pass

def helper(x):
    raise {error}

def residual(u, x):
    return helper(u(x))

problem = cx.Problem(
    cx.Constraint(residual, over=cx.Normal(2), points=8), model=cx.MLP(2, 2, width=4)
)
"""


@pytest.mark.parametrize("error", ["Mine('my own words')", "ValueError('my own words')"])
def test_a13_own_exception_keeps_type_and_message(write, error):
    path = write(HEADER + RAISES.format(error=error))
    said = refused("solve", path)
    assert f"mine.py raises {error.split('(')[0]}: my own words" in said
    frames = [line for line in said.splitlines() if line.lstrip().startswith("File ")]
    assert len(frames) == 2
    assert all(str(path) in frame for frame in frames)


def test_a13_check_shows_it_and_goes_on(write):
    more = "problem = cx.Problem([*problem.constraints, cx.Constraint(lambda u, x: u(x) - 1.0,\n"
    more += "    over=cx.Normal(2), points=8, name='calm')], model=problem.model)\n"
    path = write(HEADER + RAISES.format(error="Mine('my own words')") + more)
    result = run("check", path)
    assert result.exit_code == 2
    first, second = result.stdout.splitlines()
    assert first == "FAIL constraint 'residual' raises Mine: my own words"
    assert second.startswith("ok   calm:")
    frames = [line for line in result.stderr.splitlines() if line.lstrip().startswith("File ")]
    assert len(frames) == 2 and all(str(path) in frame for frame in frames)


def test_a13_own_exception_in_python():
    class MineError(Exception):
        pass

    def residual(u, x):
        raise MineError("my own words")

    for call in (cx.check, small):
        with pytest.raises(MineError) as raised:
            call(stated(residual))
        assert raised.value.args == ("my own words",)


def test_a13_exception_of_the_problem_function(write):
    said = refused("check", write("def problem():\n    return {}['gone']\n"))
    assert "problem() raises KeyError: 'gone'" in said and "line 2, in problem" in said


def test_a14_wrong_number_of_arguments(write):
    with pytest.raises(TypeError, match=r"constraint 'r'.*residual\(u, x\), but it takes \(u\)"):

        def r(u):
            return u

        stated(r)
    call = "cx.Constraint(lambda u: u, over=cx.Normal(2), name='short')"
    said = refused("check", write(HEADER + f"def problem():\n    return {call}\n"))
    assert "constraint 'short'" in said and "takes (u)" in said


class HeldOutTwin(cx.domains.AbstractSampler):
    """Ignores its key and draws what held-out draws, for seed 0."""

    def fill(self, domain, n, *, key):
        key = stream(jax.random.key(0), "heldout/on_circle")
        return cx.domains.Independent().fill(domain, n, key=key)


def test_a16_sampler_that_ignores_its_seed():
    problem = stated(on_circle, sampler=HeldOutTwin(), points=32)
    with pytest.raises(ValueError, match=r"constraint 'on_circle'.*no honest gap.*ignore its key"):
        small(problem, heldout=32)


def test_a16_is_found_by_check():
    points = 1024  # as many as check draws
    assert "no honest gap" in finding(on_circle, sampler=HeldOutTwin(), points=points).error


def test_points_that_cannot_be_drawn_name_their_constraint():
    class TooMany(cx.domains.AbstractSampler):
        def fill(self, domain, n, *, key):
            return np.zeros((n + 1, 2)), np.full(n, 1 / n)

    cases = {
        "NaN or infinity": {"over": cx.Normal(2).map(jnp.log)},
        "GaussQuadrature has no rule": {
            "over": cx.domains.Sphere(2),
            "sampler": cx.GaussQuadrature(),
        },
        "is no power 2": {"sampler": cx.domains.Grid(), "points": 10},
        "must return cube points of shape": {"sampler": TooMany()},
    }
    for words, settings in cases.items():
        error = finding(on_circle, **settings).error
        assert error.startswith("constraint 'on_circle': ") and words in error
        with pytest.raises(cx.errors.ProblemError, match=words):
            small(stated(on_circle, **settings))


# B. Residuals, shapes, dtypes


def test_b1_two_shapes_that_broadcast():
    error = finding(lambda u, x: u(x) - jnp.ones((2, 1)), name="table").error
    assert "constraint 'table'" in error and "(2,) (2, 1)" in error
    assert "one point at a time" in error and "test_faults.py" in error


def test_b1_data_of_two_shapes():
    rows = np.ones((8, 3)), np.ones((8, 3, 1))
    problem = cx.Problem(
        cx.Constraint(lambda u, p: u(p[0]) - p[1], over=cx.Data(rows), name="fit"),
        model=cx.MLP(3, 3, width=4),
    )
    (found,) = cx.check(problem)
    assert "constraint 'fit'" in found.error and "(3,) (3, 1)" in found.error


def test_b2_numpy_on_a_traced_array():
    error = finding(lambda u, x: np.sin(u(x)), name="r").error
    assert "NumPy function" in error and "jax.numpy" in error and "test_faults.py:" in error


def test_b3_python_if_on_a_traced_array():
    error = finding(lambda u, x: u(x) if x[0] > 0 else -u(x), name="r").error
    assert "jax.numpy.where" in error and "test_faults.py:" in error
    error = finding(lambda u, x: u(x) * [1.0, 2.0][jnp.argmax(u(x))], name="r").error
    assert "index jax arrays instead of lists" in error and "test_faults.py:" in error


def test_b19_whole_numbers_among_points_are_real_ones():
    def slope(u, t):
        return jax.grad(u)(t) + 1.0

    line = cx.Linear("scalar", "scalar")
    assert finding(slope, over=cx.Points([0, 1]), points=None, model=line).error == ""


def test_b19_whole_numbers_that_a_cast_would_change():
    with pytest.raises(ValueError, match=r"holds whole numbers above 2\*\*53"):
        cx.Points([[0], [2**53 + 1]])
    with jax.enable_x64(False), pytest.raises(ValueError, match="change when they become int32"):
        cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0), args=np.asarray([2**40]))


@pytest.mark.slow
def test_b20_leaf_of_another_dtype_is_named():
    single = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, dtype=jnp.float32, key=jax.random.key(0))
    for call in (cx.check, small):
        with pytest.raises(cx.errors.ProblemError, match=r"leaf \.layers\[0\]\.weight is float32"):
            call(stated(on_circle, model=single))
    stage = cx.Stage(cx.Optax(optax.sgd(0.1)), steps=1, trainable=lambda u: u.layers[1])
    with pytest.raises(cx.errors.ProblemError, match=r"leaf \.layers\[1\]\.weight is float32"):
        cx.solve(stated(on_circle, model=single), [stage])


def test_b20_residual_of_another_dtype_is_said():
    found = finding(lambda u, x: u(x).astype(jnp.float32), name="cast")
    (doubt,) = found.warnings
    assert "the residual returns float32 numbers, points are float64" in doubt


@pytest.mark.slow
def test_rms_of_check_is_weighted_as_in_the_report():
    settings = {"over": cx.Interval(0, 3), "sampler": cx.GaussQuadrature()}
    problem = stated(
        lambda u, t: u(t) - t, name="r", model=cx.Linear("scalar", "scalar"), **settings
    )
    (found,) = cx.check(problem)
    solution = small(problem, steps=0)
    train = solution.gap["r"].train_rms
    np.testing.assert_allclose(found.rms, train, rtol=1e-14)
    r = jax.vmap(lambda t: solution(t) - t)(solution.streams[0].train.points)
    assert abs(float(jnp.sqrt(jnp.mean(r**2))) - train) > 1e-3 * train  # the shares matter
    titles = [axes.get_title() for axes in solution.plot_moments().axes]
    assert any(f"RMS {train:.3g}" in title for title in titles)


def returning(value):
    """What is said of a residual that returns `value` of an array."""
    with jax.numpy_dtype_promotion("standard"):
        error = finding(lambda u, x: value(u(x)), name="r").error
    assert error.startswith("constraint 'r': the residual returns")
    return error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda r: None, "None. Is the return statement missing"),
        (lambda r: [r, r], "a list"),
        (lambda r: {"a": r}, "a dict"),
        (lambda r: "text", "a str"),
    ],
)
def test_b4_no_array(value, words):
    assert words in returning(value)


def test_b5_no_entries():
    assert "no entries: an array of shape (0,)" in returning(lambda r: r[:0])


def test_b6_whole_numbers_and_flags():
    assert "int64 numbers, whose gradient is zero" in returning(lambda r: r.astype(int))
    assert "bool numbers" in returning(lambda r: r > 0)


def test_b7_complex_numbers():
    assert "complex numbers. Stack real and imaginary" in returning(lambda r: r + 1j)


def test_b9_does_not_depend_on_the_model():
    error = finding(lambda u, x: jnp.sum(x) - 3.0, name="fixed").error
    assert "'fixed' does not depend on the trained parameters" in error
    with pytest.raises(cx.errors.ProblemError, match="'fixed' does not depend"):
        small(stated(lambda u, x: jnp.sum(x) - 3.0, name="fixed"))


def test_b9_holds_before_training():
    solution = small(stated(lambda u, x: 0.0 * jnp.sum(u(x)), name="void"))
    assert (solution.status, solution.steps) == ("converged", 0)
    assert solution.reason == "the constraints hold before training"


def test_b10_nan_everywhere():
    residual = lambda u, x: jnp.log(-jnp.sum(u(x) ** 2) - 1.0)  # noqa: E731
    with pytest.raises(
        cx.errors.ProblemError, match=r"'r'.*NaN.*at all training points.*point 0: \["
    ):
        small(stated(residual, name="r"))


def test_b11_nan_at_a_few_points():
    points = jnp.asarray([-1.0, 2.0, 3.0, -4.0])
    problem = cx.Problem(
        cx.Constraint(lambda u, x: jnp.log(x) * u(x), over=cx.Points(points), name="r"),
        model=cx.MLP("scalar", "scalar", width=4),
    )
    (found,) = cx.check(problem)
    assert "at 2 of 4 training points, first at point 0: -1.0; point 3: -4.0" in found.error


def root(u, x):
    return jnp.sqrt(jnp.sum((u(x) - jax.lax.stop_gradient(u(x))) ** 2)) + jnp.sum(u(x)) - 3.0


def test_b13_nan_gradient_of_a_finite_residual():
    error = finding(root).error
    assert "'root': the residual is finite but its gradient is NaN" in error
    assert "jnp.where(s > 0, s, 1.0)" in error  # the recipe
    with pytest.raises(cx.errors.ProblemError, match=r"'root'.*gradient is NaN"):
        small(stated(root))


def second_order(u, x):
    return jnp.sum(jax.hessian(lambda x: u(x)[0])(x)) + u(x)[0] - 1.0


@pytest.mark.slow
def test_b14_relu_with_second_derivatives():
    relu = cx.MLP(2, 2, width=4, activation=jax.nn.relu)
    (warning,) = finding(second_order, model=relu).warnings
    assert "'second_order'" in warning and "piecewise linear" in warning and "tanh" in warning
    assert finding(second_order).warnings == ()  # tanh
    with pytest.warns(cx.errors.ProblemWarning, match="second derivatives"):
        small(stated(second_order, model=relu), steps=0)


@pytest.mark.slow
def test_b18_float64_numbers_without_x64():
    table = np.linspace(0.0, 1.0, 2)

    def misfit(u, x):
        return u(x) - jnp.asarray(table, x.dtype)

    with jax.enable_x64(False):
        (warning,) = finding(misfit).warnings
    assert "'misfit'" in warning and "table" in warning and "jax_enable_x64" in warning
    assert finding(misfit).warnings == ()


def test_b24_constant_map_is_told_from_a_solution():
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    constant = eqx.tree_at(
        lambda u: (u.weight, u.bias), model, (jnp.zeros((2, 2)), jnp.asarray([1.0, 0.0]))
    )
    solution = small(stated(on_circle, model=constant, target=cx.Circle()))
    assert solution.gap.loss == 0.0
    assert solution.gap["on_circle"].image.collapsed is True
    assert any("collapsed" in line for line in tables.notes(solution.gap))


def test_b16_model_whose_output_does_not_fit():
    def residual(u, x):
        return jnp.dot(u(x), jnp.ones(3))

    error = finding(residual).error
    assert "'residual': shapes do not fit" in error
    assert "in_size=2, out_size=2" in error and "(2,) and (3,)" in error
    error = finding(on_circle, model=cx.MLP(3, 2, width=4)).error
    assert "A point has shape (2,)" in error and "in_size=3" in error


# C. Settings and command line


@pytest.mark.parametrize("points", [0, -1, True, 10**12])
def test_c1_number_of_points(points):
    with pytest.raises((ValueError, TypeError), match=r"constraint 'on_circle': points"):
        stated(on_circle, points=points)


@pytest.mark.parametrize("points", [2.5, "1e3"])
def test_c1_points_that_are_no_integer(points):
    with pytest.raises(TypeError):
        stated(on_circle, points=points)
    with pytest.raises(TypeError, match=r"points must be an integer.*without quotes"):
        as_count(points, "points")


def test_c1_on_the_command_line(write):
    path = write(HEADER + BODY)
    assert "heldout must be at least" in refused("solve", path, "--heldout", 0)
    assert "steps must be at least 0, got -1" in refused("solve", path, "--steps", -1)
    assert "expected a whole number, like the default 4" in refused(
        "solve", path, "--set", "width=2.5"
    )
    for option, value in (("--steps", "2.5"), ("--seed", "one"), ("--heldout", "1e3")):
        result = run("solve", path, option, value)
        assert result.exit_code == 2 and option in result.output


@pytest.mark.slow
def test_c1_points_that_nothing_could_draw(write):
    data = """
x = jnp.linspace(0, 1, 10)
def fit(u, point):
    return u(point[0]) - point[1]
rows = cx.Constraint(fit, over=cx.Data((x, x**2)))
domain = cx.Constraint(lambda u, t: u(t) - t, over=cx.Interval(0, 1), points=4, name="line")
model = cx.MLP("scalar", "scalar", width=4)
problem = cx.Problem(rows, model)
mixed = cx.Problem([rows, domain], model)
"""
    path = write(HEADER + data)
    for name in ("heldout", "monitor"):
        said = refused("solve", path, f"--{name}", 50)
        assert f"{name}=50 has nothing to draw" in said and "cx.Data(rows, holdout=0.2)" in said
    assert "redraw=5 has nothing to draw" in refused("solve", path, "--redraw", 5)
    problem = cx.load_problem(path)
    (gap,) = cx.solve(problem, steps=0).gap.constraints
    assert gap.heldout.n == 2
    counts = [item.heldout.n for item in small(cx.load_problem(f"{path}:mixed")).gap.constraints]
    assert counts == [2, 32]
    with pytest.raises(ValueError, match="heldout=50 has nothing to draw"):
        cx.solve(stated(on_circle, over=cx.Points(np.zeros((1, 2))), points=None), heldout=50)


def test_c2_width_and_depth(write):
    for name, value in (("width", 0), ("width", -1), ("depth", -1)):
        with pytest.raises(ValueError, match=f"{name} of MLP must be at least"):
            cx.MLP(2, 2, **{name: value})
    with pytest.raises(TypeError):
        cx.MLP(2, 2, width=2.5)
    said = refused("check", write(HEADER + BODY), "--set", "width=0")
    assert "width of MLP must be at least 1, got 0" in said
    u = cx.MLP(2, 2, depth=0)(key=jax.random.key(0))
    x, y = jnp.asarray([1.0, 2.0]), jnp.asarray([-3.0, 0.5])
    eps = jnp.finfo(x.dtype).eps
    np.testing.assert_allclose(u(x + y) + u(0 * x), u(x) + u(y), atol=8 * eps)  # affine


@pytest.mark.parametrize("rate", [0.0, -1e-3, math.nan, math.inf, "1e-3"])
def test_c3_learning_rate(rate):
    words = "without quotes" if isinstance(rate, str) else "learning rate must be"
    with pytest.raises((ValueError, TypeError), match=words):
        small(stated(on_circle), cx.Optax(optax.sgd(rate)))


def test_c3_methods_of_a_file_are_checked(write):
    methods = "import optax\nmethods = {'still': cx.Optax(optax.sgd(0.0))}\n"
    assert "learning rate must be" in refused("check", write(HEADER + methods + BODY))


def test_c5_unknown_names_list_the_known(write):
    path = write(HEADER + BODY)
    said = refused("solve", path, "--method", "adm")
    assert "no method is named 'adm'. Did you mean adam? Known: adam, lm, gd, lbfgs." in said
    assert "Did you mean width? Known: width." in refused("solve", path, "--set", "wdth=3")
    result = run("solve", path, "--sed", 3)
    assert result.exit_code == 2 and "--seed" in result.output
    assert "Did you mean unit_circle" in refused("new", path, "--from", "unit_circl")
    said = refused("check", write("import constrainednn as cx\ncx.Sobl()\n"))
    assert "Sobl" in said and "Did you mean domains.Sobol" in said
    with pytest.raises(AttributeError, match=r"no 'sobol'. Did you mean domains.Sobol"):
        cx.sobol  # noqa: B018
    with pytest.raises(TypeError):
        cx.MLP(2, 2, activation="tanh")
    with pytest.raises(TypeError):
        cx.RandomFeatures(cx.Interval(0, 1), "scalar", activation="tanh")


def test_c5_in_python_the_known_are_listed(as_released):
    with pytest.raises(
        TypeError, match=r"sampler must be.*Known: .*cx.domains.Sobol\(\).*cx.domains.Grid\(\)"
    ):
        stated(on_circle, sampler="sobol")
    with pytest.raises(TypeError, match=r"lm is cx.Levenb.*adam is cx.Optax\(optax.adam"):
        cx.solve(stated(on_circle), "adam")
    with pytest.raises(TypeError, match="activation of RandomFeatures must be a function"):
        cx.RandomFeatures(cx.Interval(0, 1), "scalar", activation="tanh")
    with pytest.raises(ValueError, match=r"trainable= .* MLP: 'MLP' object has no .*'nope'"):
        problem = stated(on_circle)
        cx.solve(cx.Problem(problem.constraints, problem.model, trainable=lambda u: u.nope))


@pytest.mark.parametrize("damping", ["1e-3", math.inf, True, 0.0, math.nan])
def test_c3_damping(damping, as_released):
    with pytest.raises((ValueError, TypeError), match="damping of LevenbergMarquardt must be"):
        cx.LevenbergMarquardt(damping)


@pytest.mark.slow
def test_c3_rates_that_start_at_zero_or_wait():
    late = optax.join_schedules([optax.constant_schedule(0.0), optax.constant_schedule(0.1)], [5])
    waiting = [
        optax.sgd(late),
        optax.chain(optax.adam(1e-2), optax.apply_every(5)),
        optax.MultiSteps(optax.adam(1e-2), 10),
    ]
    for tx in waiting:
        solution = small(stated(on_circle), cx.Optax(tx), steps=20)
        assert solution.gap.loss < solution.history.loss[0]


def test_c9_seed(write):
    path = write(HEADER + BODY)
    assert "seed must be at least 0, got -1" in refused("solve", path, "--seed", -1)
    assert "seed must be at most 4294967295, got" in refused("check", path, "--seed", 2**40)
    assert "steps must be at most 1000000000, got" in refused("solve", path, "--steps", 10**10)


def test_c12_out_that_cannot_be_written(write, tmp_path):
    path = write(HEADER + BODY)
    full = tmp_path / "full"
    full.mkdir()
    (full / "kept").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    cases = {
        path: "is a file; results need a folder",
        path / "below": "cannot write to",
        full: "is not empty. Nothing is overwritten",
        Path("/proc/nowhere"): "cannot write to /proc/nowhere",
        tmp_path / ("n" * 300): "cannot write to",
    }
    for out, words in cases.items():
        assert words in refused("solve", path, "--out", out)
    assert sorted(tmp_path.rglob("*")) == before


def test_c12_refused_problem_leaves_nothing_behind(write, tmp_path):
    path = write(HEADER + BODY.replace("- 1.0", "/ 0.0 * 0.0"))
    assert "NaN or infinite at all training points" in refused(
        "solve", path, "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()
    check_folder(tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()


def without_reader(*arguments):
    """Run the command line with a standard output that nobody reads any more."""
    script = Path(sys.executable).with_name("constrainednn")
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [script, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_c13_broken_pipe(write, tmp_path):
    assert without_reader("problems") == (1, "")
    out = tmp_path / "out"
    assert without_reader("solve", write(HEADER + BODY), *TINY, "--out", out) == (1, "")
    assert json.loads((out / "report.json").read_text())["status"] == "max_steps"
    # What a file prints waits in a buffer, which is flushed when nobody expects it.
    code, said = without_reader("check", write("print('hello')\n"))
    assert code == 2 and len(said.splitlines()) == 1 and "defines no Problem" in said


@pytest.mark.slow
def test_c14_no_terminal_and_a_plain_one(tmp_path):
    script = Path(sys.executable).with_name("constrainednn")
    plain = {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "COLUMNS": "0",
        "PATH": os.environ["PATH"],
        "JAX_PLATFORMS": "cpu",
    }
    name = os.fsencode("圆.py")
    done = subprocess.run(
        [script, b"new", name, b"--from", b"linear_regression"],
        env=plain,
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
    # XLA itself cannot take a file name that the locale cannot spell.
    (tmp_path / os.fsdecode(name)).rename(tmp_path / "circle.py")
    done = subprocess.run(
        [script, b"solve", b"circle.py", *(item.encode() for item in TINY), b"--out", b"out"],
        env=plain,
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "train RMS" in text and "\x1b" not in text
    assert done.stderr == b""


LIGHT = """
import sys
from typer.testing import CliRunner
from constrainednn.cli.entry import app
for arguments in (["--help"], ["--version"], ["solve", "--help"], ["problems"], ["check", "--help"],
                  ["new", sys.argv[1], "--from", "rotation"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and result.output, result
    heavy = {"jax", "numpy", "scipy", "matplotlib", "equinox", "optax"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def test_c15_help_does_not_import_jax(tmp_path):
    subprocess.run([sys.executable, "-c", LIGHT, tmp_path / "new.py"], check=True)


@pytest.mark.slow
def test_c16_environment(write, monkeypatch):
    path = write(HEADER + BODY)
    monkeypatch.setenv("JAX_ENABLE_X64", "maybe")
    assert "JAX_ENABLE_X64='maybe': write 1 or 0" in refused("check", path, code=3)
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    assert "XLA_FLAGS='--xla_no_such_flag=1'" in refused("check", path, code=3)
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")

    def absent():
        raise RuntimeError("Unable to initialize backend 'cuda'\nand more")

    monkeypatch.setattr(jax, "devices", absent)
    said = refused("check", path, code=3)
    assert "JAX_PLATFORMS='cuda': Unable to initialize" in said and "and more" not in said


def test_empty_domains():
    with pytest.raises(ValueError, match=r"low < high, got low=1 and high=1.*Points"):
        cx.Interval(1, 1)
    with pytest.raises(ValueError, match="low < high in every coordinate"):
        cx.Box([0, 1], [1, 1])
    with pytest.raises(ValueError, match="Points is empty"):
        cx.Points(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="Each that is asked for needs at least one"):
        cx.Data((np.zeros(1), np.zeros(1)))


# D. Optimisation


@pytest.mark.slow
def test_d1_divergence_keeps_the_best():
    def first(u, x):
        return jnp.sum(u(x)) - 3.0

    def second(u, x):
        return 1e-3 * (u(x)[0] - 1.0)

    over = {"over": cx.Normal(2), "points": 8}
    problem = cx.Problem([cx.Constraint(second, **over), cx.Constraint(first, **over)], model=MODEL)
    with pytest.raises(cx.results.SolveFailed, match=r"at step .*constraint 'first'") as failed:
        small(problem, cx.Optax(optax.sgd(1e3)), steps=2000)
    solution = failed.value.solution
    assert solution.status == "nonfinite" and solution.steps < 2000
    assert np.isfinite(solution.gap.loss)
    finite = solution.history.loss[np.isfinite(solution.history.loss)]
    # The same parameters in two compiled functions: rounding in a mean over 8 points.
    assert solution.gap.loss == pytest.approx(finite.min(), rel=1e-12)


@pytest.mark.slow
def test_d1_divergence_is_not_blamed_on_the_residual(tmp_path):
    relu = cx.MLP(2, 2, width=8, activation=jax.nn.relu)
    problem = stated(on_circle, model=relu, points=20, target=cx.Circle())
    with pytest.raises(
        cx.results.SolveFailed, match=r"the loss grew from 0\.\d+ to .*e\+289"
    ) as failed:
        small(problem, cx.Optax(optax.sgd(100.0)), steps=300)
    assert "Roots" not in str(failed.value) and "learning rate" in str(failed.value)
    failed.value.solution.save(tmp_path / "out")  # figures of such a run can be drawn


def late_nan(u, x):
    """Not a number at a place that few draws hold."""
    return (u(x) - 1.0) * jnp.where(x > 0.995, jnp.nan, 1.0)


@pytest.mark.slow
def test_d1_redraws_do_not_cost_the_training():
    line = cx.Linear("scalar", "scalar")
    problem = stated(late_nan, name="r", over=cx.Interval(0, 1), points=20, model=line)
    settings = {"steps": 200, "redraw": 50, "seed": 2}  # found by trying: the fourth draw
    with pytest.raises(
        cx.results.SolveFailed,
        match=r"at step 150: constraint 'r': the residual is NaN "
        r"or infinite at 1 of 20 training points",
    ) as failed:
        small(problem, cx.Optax(optax.sgd(0.1)), **settings)
    solution = failed.value.solution
    before = small(problem, cx.Optax(optax.sgd(0.1)), **{**settings, "steps": 150})
    np.testing.assert_array_equal(solution.model.weight, before.model.weight)
    assert "before training" not in str(failed.value)
    assert solution.history.best_step == 150


@pytest.mark.slow
def test_d4_tolerance_met_by_the_last_step():
    free = small(stated(on_circle), steps=100, tolerance=1e-3)
    limited = small(stated(on_circle), steps=free.steps, tolerance=1e-3)
    assert free.gap.loss <= 1e-6
    assert (limited.status, limited.reason) == (free.status, free.reason)
    assert limited.status == "converged" and "below the tolerance" in limited.reason


@pytest.mark.slow
def test_d_redraws_go_on_where_one_draw_is_solved():
    problem = stated(on_circle, points=20, model=cx.MLP(2, 2, width=16))
    solution = small(problem, steps=60, redraw=50)
    redraws = solution.history.redraws
    assert (solution.status, solution.steps) == ("max_steps", 60)
    assert len(redraws) > 1 and redraws[0] < 50  # each draw is solved before its 50 steps
    last = draw_streams(
        problem.constraints[0], key=jax.random.key(0), monitor=1, heldout=1, redraw=len(redraws)
    )
    np.testing.assert_array_equal(solution.streams[0].train.points, last.train.points)
    assert f"train = last of {len(redraws) + 1} draws, used for {60 - redraws[-1]} steps" in repr(
        solution
    )
    # An exact solution holds on fresh points too: that is converged.
    exact = stated(lambda u, x: u(x) - x, name="r", model=cx.Linear(2, 2))
    solution = small(exact, steps=60, redraw=50)
    assert solution.status == "converged" and solution.steps < 20


def test_d_redraw_of_nothing_random_is_refused():
    for settings in (
        {"sampler": cx.GaussQuadrature(), "points": 9},
        {"over": cx.Points(np.ones((3, 2))), "points": None},
    ):
        with pytest.raises(ValueError, match="redraw=5 has nothing to draw"):
            cx.solve(stated(on_circle, **settings), redraw=5)


@pytest.mark.slow
def test_d1_exit_code(write, tmp_path):
    wild = "import optax\nmethods = {'wild': cx.Stage(cx.Optax(optax.sgd(1e3)), steps=2000)}\n"
    body = BODY.replace("jnp.linalg.norm(u(x))", "jnp.sum(u(x))")
    path, out = write(HEADER + wild + body), tmp_path / "out"
    result = run("solve", path, "--method", "wild", "--heldout", 32, "--monitor", 16, "--out", out)
    assert result.exit_code == 1, result.output
    assert "error: at step" in result.stderr and "warning" not in result.stderr
    assert "nonfinite" in result.stdout
    assert json.loads((out / "report.json").read_text())["status"] == "nonfinite"


@pytest.mark.slow
def test_d4_step_limit_is_no_failure(write):
    result = run("solve", write(HEADER + BODY), *TINY)
    assert result.exit_code == 0, result.output
    assert "max_steps: the limit of 2 steps is reached" in result.stdout
    assert "held-out RMS" in result.stdout


# E. The gap


def test_e1_streams_of_one_seed_share_no_points():
    constraint = cx.Constraint(
        on_circle, over=cx.Normal(2), points=32, sampler=cx.domains.Independent()
    )
    streams = draw_streams(constraint, key=jax.random.key(3), monitor=32, heldout=32)
    draws = [streams.train, streams.monitor, streams.heldout]
    seen = [{row.tobytes() for row in draw.cube} for draw in draws]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_e1_the_same_points_are_refused():
    constraint = cx.Constraint(on_circle, over=cx.Normal(2), points=32, sampler=cx.domains.Sobol())
    twice = [draw(constraint.over, 32, cx.domains.Sobol(), key=jax.random.key(0)) for _ in range(2)]
    with pytest.raises(ValueError, match="'on_circle': 32 held-out points are training points"):
        refuse_overlap(constraint, *twice)


class PlainSobol(cx.domains.AbstractSampler):
    """Unscrambled, so that few points are a part of many."""

    def fill(self, domain, n, *, key):
        from scipy.stats import qmc

        cube = qmc.Sobol(domain.unit_dim, scramble=False).random(n)
        return np.clip(cube, 1e-9, 1 - 1e-9), np.full(n, 1 / n)


def test_e2_unscrambled_sobol():
    constraint = cx.Constraint(on_circle, over=cx.Normal(2), points=32, sampler=PlainSobol())
    key = jax.random.key(0)
    few, many = (draw(constraint.over, n, PlainSobol(), key=key) for n in (32, 64))
    with pytest.raises(ValueError, match="32 held-out points are training points"):
        refuse_overlap(constraint, few, many)
    streams = draw_streams(constraint, key=key, monitor=16, heldout=64)
    refuse_overlap(constraint, streams.train, streams.heldout)  # held-out is drawn independently


@pytest.mark.slow
def test_e3_held_out_sizes():
    with pytest.raises(ValueError, match="heldout must be at least 1, got 0"):
        small(stated(on_circle), heldout=0)
    gap = small(stated(on_circle), heldout=1).gap["on_circle"]
    assert np.isfinite(gap.difference.value) and math.isnan(gap.difference.low)
    assert gap.heldout.label == "one point: no interval"


@pytest.mark.slow
def test_e4_nan_on_held_out_only():
    def residual(u, x):
        return jnp.where(x > 0.9, jnp.nan, 1.0) * (u(x) - 1.0)

    class Low(cx.domains.AbstractSampler):
        def fill(self, domain, n, *, key):
            return np.linspace(0.1, 0.8, n)[:, None], np.full(n, 1 / n)

    problem = stated(
        residual, over=cx.Interval(0, 1), sampler=Low(), model=cx.MLP("scalar", "scalar", width=4)
    )
    gap = small(problem).gap["residual"]
    assert np.isfinite(gap.train) and math.isnan(gap.difference.value)
    assert "not available: residual not finite at" in gap.heldout.label
    assert tables.row(gap)[3] == "-"


def test_e6_both_at_rounding():
    exact = cx.with_output(MODEL, lambda x, y: y / jnp.linalg.norm(y))
    solution = small(stated(on_circle, model=exact))
    assert solution.steps == 0
    cells = dict(zip(tables.COLUMNS, tables.row(solution.gap["on_circle"]), strict=True))
    assert cells["gap (loss)"] == cells["ratio"] == "at rounding"
    assert "nan" not in repr(solution).lower()


def test_e7_nothing_that_steers_sees_held_out_points():
    """By the syntax tree: held-out points are put away at once and handed out at the end only."""

    def reads(node):
        for item in ast.walk(node):
            if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load):
                yield item.attr
            elif isinstance(item, ast.Constant) and isinstance(item.value, str):
                yield item.value
            elif isinstance(item, ast.Name):
                yield item.id

    def functions(package):
        return {
            (path.stem, node.name): node
            for path in Path(package.__file__).parent.glob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
        }

    judging = {"heldout", "_heldout", "Streams", "gap_report", "evaluate_over", "gap", "measured"}
    judging |= {"streams"}
    allowed = {
        ("training_points", "__init__"): {"heldout", "streams"},
        ("training_points", "_digest"): {"heldout", "Streams", "streams"},
        ("training_points", "streams"): {"_heldout", "Streams", "streams"},
        ("trainer", "outcome"): {"streams"},
        ("side_by_side", "together"): {"measured"},
        ("side_by_side", "resume"): {"measured"},
    }
    for name, node in functions(training).items():
        used = judging & set(reads(node))
        assert used <= allowed.get(name, set()), (name, used)
    for name, node in functions(_checks).items():
        assert not judging & set(reads(node)), name
    steering = functions(_gap)
    for name in ("holds_already", "monitor_loss"):
        assert not judging & set(reads(steering["residuals", name])), name
    for path in Path(methods.__file__).parent.glob("*.py"):
        assert "heldout" not in path.read_text() and "held-out" not in path.read_text(), path.name
    shown = set(cx.runs.Progress.__dataclass_fields__)
    assert shown == {"phase", "step", "steps", "train", "monitor", "part"}


@pytest.mark.slow
def test_e7_other_held_out_points_change_no_step():
    method = cx.Optax(optax.adam(1e-2))
    few, many = (small(stated(on_circle), method, steps=5, heldout=n) for n in (32, 64))
    np.testing.assert_array_equal(few.history.loss, many.history.loss)
    np.testing.assert_array_equal(few.history.monitor, many.history.monitor)


@pytest.mark.slow
def test_e9_negative_gap_is_shown():
    def residual(u, x):
        return u(x) * x - 3.0 * x**8

    class Far(cx.domains.AbstractSampler):
        def fill(self, domain, n, *, key):
            return np.linspace(0.9, 0.99, n)[:, None], np.full(n, 1 / n)

    problem = stated(
        residual, over=cx.Interval(0, 1), sampler=Far(), model=cx.MLP("scalar", "scalar", width=4)
    )
    gap = small(problem, steps=0).gap["residual"]
    assert gap.difference.value < 0
    assert tables.row(gap)[3].startswith("-")


# Ctrl-C and signals


def interrupting(number):
    """A progress display that sends this process a signal once training runs."""
    sent = []

    def progress(seen):
        if seen.phase == "training" and not sent:
            sent.append(seen.step)
            signal.raise_signal(number)

    return progress


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_l1_signal_ends_with_the_best_and_restores_handlers(number):
    before = [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]
    solution = small(
        stated(on_circle), cx.Optax(optax.adam(1e-3)), steps=10**6, progress=interrupting(number)
    )
    assert solution.status == "interrupted"
    assert solution.reason.startswith(signal.Signals(number).name)
    assert 0 < solution.steps < 10**6
    assert solve._exit_code(solution) == 128 + number
    assert before == [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]


def test_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)

    def progress(seen):
        if seen.phase == "training":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small(stated(on_circle), cx.Optax(optax.adam(1e-3)), steps=10**6, progress=progress)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 3])
def test_interrupt_while_the_gap_is_measured_waits_for_it(presses):
    def progress(seen):
        if seen.phase == "measuring the gap":
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    solution = small(stated(on_circle), steps=3, progress=progress)
    assert solution.status == "interrupted"
    assert solution.reason.startswith("SIGINT while the gap was measured; before that max_steps")
    assert np.isfinite(solution.gap.heldout.value)
    with jax.numpy_rank_promotion("allow"):  # the march promotes ranks inside
        line = cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0))
        assert small(line, None, steps=None, progress=progress).status == "interrupted"


def test_l2_solve_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(small(stated(on_circle), steps=1)))
    thread.start()
    thread.join()
    assert found[0].steps == 1


LONG = """
import optax
methods = {"long": cx.Stage(cx.Optax(optax.sgd(1e-6)), steps=1_000_000_000)}
"""


def interrupted_run(path, numbers, *options):
    """Start a long run on a pseudo-terminal and send signals once its bar says "training"."""
    master, slave = os.openpty()
    script = Path(sys.executable).with_name("constrainednn")
    process = subprocess.Popen(
        [script, "solve", path, "--method", "long", "--heldout", "32", "--monitor", "16", *options],
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    try:
        while b"training" not in shown:
            shown += os.read(master, 4096)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.2)
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal
            while piece := os.read(master, 4096):
                shown += piece
        out = process.stdout.read()
        return process.wait(60), out, shown.decode()
    finally:
        process.kill()
        process.stdout.close()
        os.close(master)


@pytest.mark.slow
def test_ctrl_c_reports_and_says_that_nothing_was_saved(write):
    code, out, shown = interrupted_run(write(HEADER + LONG + BODY), [signal.SIGINT])
    assert code == 130
    assert "on_circle" in out and "interrupted: SIGINT at step" in out
    assert "nothing was saved: give --out DIR" in shown
    assert "monitor" in shown  # the bar


@pytest.mark.slow
def test_sigterm_saves_with_out(write, tmp_path):
    out = tmp_path / "out"
    code, text, _ = interrupted_run(write(HEADER + LONG + BODY), [signal.SIGTERM], "--out", out)
    assert code == 143
    assert f"saved in {out}" in text.replace("\n", "")
    assert json.loads((out / "report.json").read_text())["status"] == "interrupted"


def test_load_problem_raises_the_same_in_python(write):
    with pytest.raises(cx.errors.LoadError, match=r"no setting 'wdth'. Did you mean width"):
        cx.load_problem(write(HEADER + BODY), wdth=3)
    assert isinstance(cx.load_problem(write(HEADER + BODY), width=3), cx.Problem)
    assert problem_files.resolve("unit_circle")[1] == "problem"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_f4_a_signal_that_is_ignored_stays_ignored(number):
    """As shells start background jobs of scripts, and `nohup`: by the convention of POSIX."""
    signal.signal(number, signal.SIG_IGN)
    solution = small(stated(on_circle), cx.Optax(optax.adam(1e-3)), progress=interrupting(number))
    assert solution.status == "max_steps"
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.slow
def test_f4_a_background_job_of_a_script_is_ended_by_sigterm_alone(write, tmp_path):
    out = tmp_path / "out"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a process started here inherits
    deaf = write(HEADER + LONG + BODY)
    code, text, _ = interrupted_run(deaf, [signal.SIGINT, signal.SIGTERM], "--out", out)
    assert code == 143 and "interrupted: SIGTERM at step" in text.replace("\n", " ")


def test_mistakes_are_usage_errors_and_own_exceptions_stay(tmp_path, as_released):
    """Also where both are raised in one call: by the class, not by where the file lies."""
    with pytest.raises(cx.errors.BadValueError, match="Interval needs finite low") as caught:
        cx.Interval(1, 1)
    assert isinstance(caught.value, cx.errors.UsageError) and isinstance(caught.value, ValueError)
    with pytest.raises(cx.errors.BadTypeError, match="residual must be a function"):
        cx.Constraint(1.0, over=cx.Interval(0, 1))

    def own(u, x):
        raise ValueError("negative depth")

    with pytest.raises(ValueError, match=r"^negative depth") as caught:
        small(stated(own))
    assert not isinstance(caught.value, cx.errors.UsageError)
    with pytest.raises(cx.errors.UnreadableError, match="File name too long"):
        cx.load_solution(tmp_path / ("n" * 300), stated(on_circle))
