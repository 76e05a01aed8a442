"""Rows of the catalogue of faults that are met less often; see test_faults.py."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import BODY, HEADER, MODEL, TINY, finding, note, on_circle, refused, run, stated

import constrainednn as cx

SMALL = {"heldout": 32, "monitor": 16}
CIRCLE = stated(on_circle)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


# A. The problem file


@pytest.mark.slow
def test_a5_file_that_solves_while_it_is_loaded(write):
    """It runs as any Python file does; the solve it is loaded for comes after."""
    path = write(HEADER + BODY + "\nkept = cx.solve(problem(), steps=0, heldout=32, monitor=16)\n")
    assert run("check", path).exit_code == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default:Levenberg-Marquardt in float32")
def test_a8_file_that_switches_double_precision_off(write):
    path = write("import jax\njax.config.update('jax_enable_x64', False)\n" + HEADER + BODY)
    try:
        result = run("solve", path, "--steps", 1, *TINY[:4])
    finally:
        jax.config.update("jax_enable_x64", True)
    assert result.exit_code == 0, result.output
    note(result.stderr.partition("warning: ")[2])
    assert "Levenberg-Marquardt in float32 stops near" in result.stderr
    assert "float32 on cpu" in result.output


def test_a11_data_by_relative_path_names_the_line(write, tmp_path, monkeypatch):
    path = write("import numpy as np\nrows = np.loadtxt('data.csv')\n" + HEADER + BODY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = refused("check", path)
    assert "line 2" in said and "np.loadtxt('data.csv')" in said
    assert "mine.py raises FileNotFoundError: data.csv not found" in said
    assert f"are looked for in {tmp_path / 'elsewhere'}; for a file beside mine.py" in said


def test_a8_environment_that_is_changed_too_late(write, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    said = refused("solve", write("import os\nos.environ['XLA_FLAGS'] = '--x'\n" + HEADER + BODY))
    assert "mine.py changes XLA_FLAGS, which is read before problem files are" in said


class Bad(cx.domains.AbstractSampler):
    cube: object

    def fill(self, domain, n, *, key):
        return self.cube, np.full(n, 1 / n)


@pytest.mark.parametrize(
    ("cube", "words"),
    [
        (np.zeros((7, 2)), r"cube points of shape \(8, 2\).* got \(7, 2\)"),
        (np.zeros((8, 3)), r"cube points of shape \(8, 2\).* got \(8, 3\)"),
        (np.full((8, 2), np.nan), r"returned cube points outside \[0, 1\] or NaN"),
        (None, r"cube points of Bad.* must hold real numbers"),
    ],
    ids=["count", "width", "nan", "none"],
)
def test_a15_sampler_that_breaks_its_contract(cube, words):
    with pytest.raises(cx.errors.ProblemError, match=rf"constraint 'on_circle'.*{words}"):
        cx.solve(stated(on_circle, sampler=Bad(cube)), steps=1, **SMALL)


def test_a17_traced_value_kept_in_a_global():
    kept = []

    def leaks(u, x):
        kept.append(u(x))
        return jnp.linalg.norm(kept[0]) - 1.0

    with pytest.raises(
        cx.errors.ProblemError, match=r"constraint 'leaks'.*kept outside of the function"
    ):
        cx.solve(stated(leaks), steps=1, **SMALL)


@pytest.mark.slow
def test_a18_residual_that_prints(capsys):
    """It prints while it is compiled, a few times, and not at every step."""

    def prints(u, x):
        print("hello")  # noqa: T201
        return jnp.linalg.norm(u(x)) - 1.0

    cx.solve(stated(prints), cx.Optax(optax.sgd(1e-3)), steps=200, **SMALL)
    assert 1 <= capsys.readouterr().out.count("hello") < 50


# B. Residuals


def test_b12_overflow_in_single_precision_only():
    def steep(u, x):
        return jnp.exp(100.0 + u(x)[0]) * 1e-40

    assert finding(steep).error == ""
    with jax.enable_x64(False):
        error = finding(steep).error
    assert "the residual is NaN or infinite at all training points" in error
    assert "In float64 it may be finite: jax.config.update('jax_enable_x64', True)" in error


def test_b15_residual_that_maps_over_points_itself():
    def mapped(u, x):
        return jax.vmap(u)(x) - 1.0

    error = finding(mapped).error
    assert "constraint 'mapped': shapes do not fit" in error
    assert (
        "A point has shape (2,) and the function sees one point at a time, never a batch" in error
    )


def test_b17_number_for_a_model_that_takes_vectors():
    def at_number(u, t):
        return u(t) - 1.0

    error = finding(at_number, over=cx.Interval(0, 1), model=cx.MLP(1, 1)).error
    assert "shapes do not fit" in error and "A point has shape ()" in error


def test_b22_random_numbers_without_a_key():
    rng = np.random.default_rng(0)

    def own(u, x):
        return u(x)[0] + rng.normal()

    def everybodys(u, x):
        return u(x)[0] + np.random.rand()  # noqa: NPY002

    for residual in (own, everybodys):
        error = finding(residual).error
        assert "the residual draws random numbers while it is compiled" in error
        with pytest.raises(cx.errors.ProblemError, match="would keep them for ever"):
            cx.solve(stated(residual), steps=1, **SMALL)


@pytest.mark.slow
def test_b23_constraints_of_very_different_size():
    def large(u, x):
        return 1e9 * (u(x)[0] - 1.0)

    def tiny(u, x):
        return u(x)[1] - 0.5

    both = [cx.Constraint(item, over=cx.Normal(2), points=8) for item in (large, tiny)]
    with pytest.warns(cx.errors.ProblemWarning, match=r"'large' has a residual of .*'tiny' one"):
        cx.solve(cx.Problem(both, MODEL), steps=1, **SMALL)


@pytest.mark.slow
def test_b26_function_that_series_cannot_go_through():
    """Layers without a rule for series are differentiated one derivative after another."""
    model = eqx.nn.MLP("scalar", "scalar", 4, 1, jax.nn.softplus, key=jax.random.key(0))
    series = cx.taylor(model, jnp.asarray(0.3), order=3)
    nested = model
    for order, value in enumerate(series):
        np.testing.assert_allclose(value, nested(jnp.asarray(0.3)), rtol=1e-12, err_msg=str(order))
        nested = jax.grad(nested)


def test_b27_residual_for_many_points_at_once():
    def columns(u, X):
        return X[:, 0] - X[:, 1]

    error = finding(columns).error
    assert "the function sees one point at a time, never a batch" in error


# C. Settings


@pytest.mark.slow
def test_c8_setting_that_differs_from_the_file_wins_and_is_recorded(write, tmp_path):
    import json

    out = tmp_path / "out"
    result = run("solve", write(HEADER + BODY), *TINY, "--set", "width=6", "--out", out)
    assert result.exit_code == 0
    assert json.loads((out / "run.json").read_text())["source"]["settings"] == {"width": 6}
    assert "32 parameters" in result.output.replace("\n", " ")  # 2 * 6 + 6 + 6 * 2 + 2
    note(f"`run.json` records {{'width': 6}}, and {6 * 5 + 2} parameters are trained")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CON;'ü b", "-rf\n\u202eabc"])
def test_c10_odd_names_of_folders(write, tmp_path, name):
    """Made under that very name and nowhere else; control characters are not printed."""
    root = tmp_path / "root"
    root.mkdir()
    result = run("solve", write(HEADER + BODY), *TINY, "--out", root / name)
    assert result.exit_code == 0, result.output
    assert [item.name for item in root.iterdir()] == [name]
    assert (root / name / "report.json").exists()
    assert "\u202e" not in result.output


def test_c17_requests_that_exclude_each_other():
    line = cx.ivp(lambda t, y, args: -y, 1.0, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"its own Gauss-Newton steps.*leave out method="):
        cx.solve(line, cx.LevenbergMarquardt())
    two = [cx.Stage(cx.LevenbergMarquardt(), steps=1)]
    with pytest.raises(ValueError, match=r"Stages have their own steps: leave out steps="):
        cx.solve(CIRCLE, two, steps=3)


# D. Training


@pytest.mark.slow
def test_d2_jacobian_without_full_rank():
    """Two parameters that only act together: a step of least norm, in scaled columns, solves."""

    def total(u, x):
        return u.weight[0, 0] + 2 * u.weight[0, 1] - 6.0

    class Pair(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return self.weight @ x

    problem = stated(total, model=Pair(jnp.zeros((1, 2))))
    solution = cx.solve(problem, **SMALL)
    assert solution.status == "converged"
    np.testing.assert_allclose(solution.model.weight[0] @ np.asarray([1.0, 2.0]), 6.0, rtol=1e-15)


@pytest.mark.slow
def test_d3_no_step_that_lowers_the_loss():
    """The run ends as `stalled` after a bounded number of steps."""

    def wrong(u, x):  # its derivative has the wrong sign
        y = u(x)
        return 2 * jax.lax.stop_gradient(y) - y - 1.0

    solution = cx.solve(stated(wrong), **SMALL)
    assert solution.status == "stalled" and solution.steps < 100
    assert np.isfinite(solution.gap.train)


@pytest.mark.slow
def test_d6_tolerance_below_single_precision():
    with jax.enable_x64(False), pytest.warns(UserWarning, match="below the rounding of float32"):
        solution = cx.solve(CIRCLE, tolerance=1e-12, steps=30, **SMALL)
    # It is the root of the loss that is compared with the tolerance.
    assert solution.status != "converged" or solution.gap.train <= 1e-12**2


@pytest.mark.slow
def test_d10_schedule_that_ended_before_the_resume(tmp_path):
    """The schedule goes on counting where it was: at its last rate."""
    method = cx.Optax(optax.adam(optax.linear_schedule(1e-2, 1e-4, 10)))
    whole = cx.solve(CIRCLE, method, steps=20, **SMALL)
    cx.solve(CIRCLE, method, steps=12, **SMALL, out=tmp_path / "a")
    rest = cx.resume(tmp_path / "a", CIRCLE, method, steps=20)
    np.testing.assert_array_equal(whole.history.loss, rest.history.loss)


@pytest.mark.parametrize("given", [3, "adam", optax.adam, None])
@pytest.mark.usefixtures("as_released")
def test_d11_what_is_no_optax_transformation(given):
    with pytest.raises(TypeError, match=r"Optax takes an optax transformation such as optax.adam"):
        cx.Optax(given)


class Climbing(cx.methods.AbstractMethod):
    """Goes up, and never says that it failed."""

    def init(self, residual, params):
        return None

    def step(self, residual, params, state):
        fn = lambda p: jnp.sum(residual(p) ** 2)  # noqa: E731
        loss, slope = jax.value_and_grad(fn)(params)
        up = jax.tree.map(lambda p, g: p + 1e-2 * g, params, slope)
        return up, state, cx.methods.StepInfo(loss, jnp.asarray(0))


def test_d12_loss_that_rises_returns_the_best():
    """The parameters of the lowest loss are returned, and the history says which step that was."""
    solution = cx.solve(CIRCLE, Climbing(), steps=300, **SMALL)
    assert solution.history.best_step == 0 and solution.steps == 300
    assert solution.gap.train == pytest.approx(solution.history.loss[0])
    assert solution.history.loss[299] > 2 * solution.history.loss[0]


def test_d15_second_run_of_the_same_shapes_compiles_no_step_anew(caplog):
    """Redraws, other seeds and other numbers of steps use what is compiled."""
    import logging

    method = cx.Optax(optax.adam(1e-3))
    cx.solve(CIRCLE, method, steps=5, redraw=2, **SMALL)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        cx.solve(CIRCLE, method, steps=9, seed=1, redraw=3, **SMALL)
    assert not [record for record in caplog.records if "Compiling _advance" in record.getMessage()]


# E. The gap


def test_e5_another_region_is_named_extrapolation():
    solution = cx.solve(CIRCLE, steps=1, **SMALL)
    found = solution.evaluate(over=cx.Box([5.0, 5.0], [6.0, 6.0]), heldout=32)
    note(found.note)
    assert "extrapolation" in found.note
    assert solution.gap["on_circle"].note == ""


@pytest.mark.slow
def test_e8_sobol_that_is_no_power_of_two_long():
    """It is drawn all the same, without a word."""
    solution = cx.solve(stated(on_circle, points=10, sampler=cx.domains.Sobol()), steps=1, **SMALL)
    assert solution.gap["on_circle"].points == 10


# K. The environment


def child(code_or_words, **environment):
    removed = [name for name, value in environment.items() if value is None]
    kept = {key: value for key, value in os.environ.items() if key not in removed}
    kept |= {key: value for key, value in environment.items() if value is not None}
    return subprocess.run(code_or_words, capture_output=True, text=True, env=kept, timeout=200)


SCRIPT = Path(sys.executable).with_name("constrainednn")
QUICK = ("linear_regression", "--steps", "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable", ["JAX_DISABLE_JIT", "JAX_DEBUG_NANS", "JAX_CHECK_TRACER_LEAKS"]
)
def test_k4_jax_with_its_checks_on(variable):
    """Slower, and the same."""
    done = child([SCRIPT, "solve", *QUICK], **{variable: "1"})
    assert done.returncode == 0, done.stderr
    assert "held-out RMS" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_k6_no_home(tmp_path, home):
    """Nothing of ours is written there; figures are drawn all the same."""
    done = child([SCRIPT, "solve", *QUICK, "--out", tmp_path / "a"], HOME=home, MPLCONFIGDIR=None)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "overview.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-W", "error"), ("-O",), ("-I",)])
def test_k10_python_with_options(options):
    """Warnings are errors, asserts are gone, the environment is ignored: the same."""
    code = "import sys; from constrainednn.cli import main; "
    code += f"sys.argv[1:] = ['check', {QUICK[0]!r}]; main()"
    done = child([sys.executable, *options, "-c", code])
    assert done.returncode == 0, done.stderr
    refusing = "import constrainednn as cx; cx.Interval(1, 1)"
    done = child([sys.executable, *options, "-c", refusing])
    assert "ValueError: Interval needs finite low < high" in done.stderr


# L. Python and notebooks


@pytest.mark.usefixtures("as_released")
def test_l4_inside_of_transformations():
    def loss(weight):
        model = eqx.tree_at(lambda u: u.layers[0].bias, ready, weight * jnp.ones(4))
        return cx.solve(stated(on_circle, model=model), steps=1, **SMALL).gap.train

    ready = MODEL(key=jax.random.key(0))

    for transformed in (jax.jit(loss), jax.grad(loss), lambda w: jax.vmap(loss)(jnp.ones(2) * w)):
        with pytest.raises(TypeError, match="solve runs Python between its steps and"):
            transformed(1.0)
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.vmap(lambda seed: cx.solve(CIRCLE, seed=seed, steps=1).gap.train)(jnp.arange(2))


def test_l5_markup_in_names():
    """Shown as text in notebooks."""
    name = "<script>alert(1)</script>"
    solution = cx.solve(stated(on_circle, name=name), steps=0, **SMALL)
    html = solution.gap._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_l6_solution_of_a_long_run_on_display():
    """A summary, whatever the length of the history."""
    import dataclasses

    solution = cx.solve(CIRCLE, steps=0, **SMALL)
    history = dataclasses.replace(solution.history, loss=np.ones(10**6))
    assert len(repr(dataclasses.replace(solution, history=history))) < 5000


def test_l8_copies_equality_and_trees():
    """Copies are equal in value; a solution equals only itself, and is a leaf of a tree."""
    solution = cx.solve(CIRCLE, steps=0, **SMALL)
    x = jnp.asarray([0.3, -1.2])
    for again in (copy.copy(solution), copy.deepcopy(solution)):
        np.testing.assert_array_equal(again(x), solution(x))
        assert again != solution
    assert solution == solution
    assert jax.tree.leaves(solution) == [solution]
    assert len({solution, solution}) == 1


@pytest.mark.filterwarnings("ignore:Levenberg-Marquardt in float32")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
def test_l10_two_dtypes_in_one_process():
    model = MODEL(key=jax.random.key(0))
    cx.solve(stated(on_circle, model=model), steps=0, **SMALL)
    with (
        jax.enable_x64(False),
        pytest.raises(cx.errors.ProblemError, match=r"\.weight is float64, but points are"),
    ):
        cx.solve(stated(on_circle, model=model), steps=0, **SMALL)
