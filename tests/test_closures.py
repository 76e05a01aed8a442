"""Functions made anew: one program where only numbers differ, and right numbers in any case."""

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import traceback
import types
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from marks import slow

import constrainednn as cx
from constrainednn._common import memory
from constrainednn._common.batched import in_blocks
from constrainednn._common.compilation.closures import lift_numbers

# Changed by the test that reads them, as by a user's script.
RATE, TABLE = 1.0, {"rate": 1.0}
SMALL = {"heldout": 64, "monitor": 16}
ROUNDING = 1e-12  # to which windows and elements are solved
X = np.linspace(0.1, 1.0, 7)

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if "backend_compile" in event else None
)


def compilations(call, *args):
    """How many programs are compiled, or loaded, by a call, and what it returns."""
    before = len(COMPILED)
    found = call(*args)
    return len(COMPILED) - before, found


def evaluated(fn):
    """Values at X, by the evaluation that every number of a report is from."""
    return in_blocks(fn, X)


def line(k, shift):
    """Least squares with the solution sum(shift) + k x."""

    def slope(u, x):
        return cx.derivative(u)(x) - k

    def start(u, x):
        return u(x) - jnp.sum(shift)

    over = cx.Interval(0, 1)
    constraints = [
        cx.Constraint(slope, over=over, points=8),
        cx.Constraint(start, over=cx.Points([0.0])),
    ]
    return cx.Problem(constraints, cx.Linear("scalar", "scalar"))


def marched(k):
    return cx.solve(cx.ivp(lambda t, y, args: -k * y, 1.0, (0.0, 2.0)), **SMALL)


def hanging(k):
    bend = lambda x, y: jnp.stack([y[1], jnp.asarray(k)])  # noqa: E731
    ends = lambda left, right: jnp.stack([left[0], right[0] - k])  # noqa: E731
    return cx.solve(cx.bvp(bend, ends, (0.0, 1.0), guess=[0.0, 0.0]), **SMALL)


def fitted(k):
    t = np.linspace(0.0, 2.0, 9)
    data = cx.Data((t, np.exp(-(1.5 + k) * t)), holdout=0.0)
    field = lambda t, y, unknown: -(unknown + k) * y  # noqa: E731
    return cx.solve(cx.ivp(field, 1.0, (0.0, 2.0), args=cx.Unknown(1.0), data=data), **SMALL)


KINDS = {  # how to solve, an error, and its bound
    "constraint": (
        lambda k: cx.solve(line(k, jnp.full(2, k)), steps=20, **SMALL),
        lambda u, k: float(u(0.5)) - 2.5 * k,
        ROUNDING,
    ),
    "ivp": (marched, lambda u, k: float(u(2.0)) - np.exp(-2 * k), ROUNDING),
    "bvp": (hanging, lambda u, k: float(u(0.5)[0]) - 3 * k / 8, ROUNDING),
    "fit": (fitted, lambda u, k: float(u.estimates()["args"].value) - 1.5, 1e-8),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["constraint", "ivp", slow("bvp"), slow("fit")])
def test_functions_that_differ_in_numbers_share_all_programs(kind):
    solve, error, bound = KINDS[kind]
    for number, k in enumerate((0.5, 0.7, 0.85)):
        count, solution = compilations(solve, k)
        assert abs(error(solution, k)) < bound
        assert number == 0 or count == 0


@pytest.mark.slow
def test_numbers_are_those_of_a_function_of_its_own(monkeypatch):
    """Up to rounding: what the compiler computes of constants beforehand is computed later."""
    stated = functools.partial(line, 0.3, np.array([0.2, 0.4]))
    shared = cx.solve(stated(), steps=1, **SMALL)
    monkeypatch.setattr("constrainednn._common.compilation.closures._lift_leaf", lambda leaf: leaf)
    apart = cx.solve(stated(), steps=1, **SMALL)
    assert np.allclose(shared(X), apart(X), rtol=1e-9)
    assert np.allclose(shared.history.loss[:1], apart.history.loss[:1], rtol=ROUNDING)


def powered(x, *, k):
    return k * jnp.exp(-k * x)


SHARED = {
    "default": lambda k: lambda x, k=k: k * jnp.exp(-k * x),
    "default by name": lambda k: lambda x, *, k=k: k * jnp.exp(-k * x),
    "partial": lambda k: functools.partial(powered, k=k),
    "partial of a closure": lambda k: functools.partial(lambda s, x: s * jnp.exp(-k * x), k),
    "parts": lambda k: (lambda parts: lambda x: parts["k"][0] * jnp.exp(-sum(parts["k"]) * x))(
        {"k": (k, jnp.asarray(0.0))}
    ),
    "array": lambda k: (lambda a: lambda x: a[1] * jnp.exp(-jnp.sum(a) * x))(np.array([0, k])),
    "number of NumPy": lambda k: (lambda k: lambda x: k * jnp.exp(-k * x))(np.float64(k)),
    "function": lambda k: (lambda rate: lambda x: rate(1.0) * jnp.exp(-rate(x)))(lambda x: k * x),
    "gradient": lambda k: jax.grad(lambda x: -jnp.exp(-k * x)),
    "loop": lambda k: lambda x: k * lax.fori_loop(0, 4, lambda i, y: y * jnp.exp(-k / 4 * x), 1.0),
    "branches": lambda k: lambda x: k * jnp.where(k > 0.6, jnp.exp(-k * x), jnp.exp(-k * x)),
}


@pytest.mark.parametrize("how", SHARED)
def test_wherever_a_number_is_held(how):
    for number, k in enumerate((0.5, 0.7)):
        count, found = compilations(evaluated, SHARED[how](k))
        assert np.allclose(found, k * np.exp(-k * X), rtol=ROUNDING)
        assert number == 0 or count == 0


FACTORS = {"1": 1.0, "2": 3.0, "True": 4.0, "False": 5.0, "'plus'": 6.0, "None": 7.0, "(1, 2)": 8.0}


@pytest.mark.slow
def test_whole_numbers_flags_and_strings_are_constants():
    def make(kind, k):
        return lambda x: k * FACTORS[repr(kind)] * x

    for kind in (1, 2, True, False, "plus", None, (1, 2)):
        for number, k in enumerate((0.5, 0.6)):
            count, found = compilations(evaluated, make(kind, k))
            assert np.allclose(found, k * FACTORS[repr(kind)] * X, rtol=ROUNDING)
            assert (count > 0) == (number == 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: lambda x: k * x if k > 0.55 else 2 * k * x,
        lambda k: lambda x: np.float64(k) * x * (1 + (float(k) < 0.55)),
        lambda k: lambda x: k * x * (2 if isinstance(k, float) and k < 0.55 else 1),
        lambda k: lambda x: k * x * (2 if not hasattr(k, "aval") and k < 0.55 else 1),
    ],
)
def test_where_a_number_decides_in_python_nothing_is_shared(make):
    for k in (0.5, 0.6, 0.52, 0.7):
        count, found = compilations(evaluated, make(k))
        assert np.allclose(found, X * (k if k > 0.55 else 2 * k), rtol=ROUNDING)
        assert count > 0


def test_numbers_in_what_python_calls_stay():
    def make(k):
        shape = jax.ShapeDtypeStruct((), X.dtype)
        call = functools.partial(jax.pure_callback, vmap_method="sequential")
        return lambda x: k * call(lambda y: np.asarray(k * y), shape, x)

    for k in (0.5, 0.6):
        assert np.allclose(in_blocks(make(k), X), k**2 * X, rtol=ROUNDING)


@pytest.mark.slow
def test_learning_rates_are_numbers_too():
    """What optax makes of a rate holds it as a closure does."""
    problem = line(0.3, np.asarray(0.2))
    for number, rate in enumerate((1e-3, 1e-2, 3e-2)):
        solve = lambda rate=rate: cx.solve(problem, cx.Optax(optax.adam(rate)), steps=9, **SMALL)  # noqa: E731
        count, solution = compilations(solve)
        assert number == 0 or count == 0
        # The first steps of Adam are as long as the rate.
        start = problem.build_model(key=jax.random.key(0))
        moved = jnp.abs(solution.history.snapshots[1][1].weight - start.weight)
        assert np.allclose(moved, rate, rtol=1e-4)


def test_powers_keep_their_exponents():
    """The slope of a power at zero depends on whether the exponent is known."""
    for p in (0.5, 2.0, 1.0):
        slope = jax.grad(lambda x, p=p: x**p)
        count, found = compilations(in_blocks, slope, np.array([0.0, 4.0]))
        assert np.allclose(found, [np.inf if p < 1 else float(p == 1), p * 4.0 ** (p - 1)])
        assert count > 0


def test_a_number_takes_the_precision_of_what_it_meets():
    found = in_blocks((lambda k: lambda x: x.astype(jnp.float32) * k)(0.3), X)
    assert found.dtype == np.float32
    assert np.array_equal(found, X.astype(np.float32) * np.float32(0.3))


@pytest.mark.slow
def test_what_changes_in_a_closure_after_a_solve_is_seen():
    rate, rates, array = 0.5, {"k": 0.5}, np.array([0.5])
    fields = (
        lambda t, y, args: -rate * y,
        lambda t, y, args: -rates["k"] * y,
        lambda t, y, args: -array[0] * y,
    )
    problems = [cx.ivp(field, 1.0, (0.0, 2.0)) for field in fields]
    for k in (0.5, 0.8):
        rate = rates["k"] = array[0] = k
        for problem in problems:
            assert abs(float(cx.solve(problem, **SMALL)(2.0)) - np.exp(-2 * k)) < ROUNDING


def rate_of_all():
    return RATE


@pytest.mark.slow
def test_what_changes_outside_of_a_closure_is_seen(monkeypatch):
    """In globals, also those of functions that are called, in modules, and in objects."""
    module, here = types.ModuleType("settings_of_a_user"), sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "settings_of_a_user", module)
    monkeypatch.setattr(here, "settings", module, raising=False)
    thing = types.SimpleNamespace()

    def imported():
        from settings_of_a_user import rate

        return rate

    makers = [
        lambda scale: lambda x: scale * RATE * x,
        lambda scale: lambda x: scale * rate_of_all() * x,
        lambda scale: lambda x: scale * TABLE["rate"] * x,
        lambda scale: lambda x: scale * settings.rate * x,  # noqa: F821
        lambda scale: lambda x: scale * module.rate * x,
        lambda scale: lambda x: scale * imported() * x,
        lambda scale: lambda x: scale * thing.rate * x,
        lambda scale: lambda x: scale * eval("RATE") * x,  # noqa: S307
    ]
    for k in (0.5, 0.8):
        monkeypatch.setattr(here, "RATE", k)
        TABLE["rate"] = module.rate = thing.rate = k
        for make in makers:
            assert np.allclose(evaluated(make(1.0)), k * X, rtol=ROUNDING)


def test_what_a_function_does_besides_is_done():
    """It fills a list, and counts, in the very objects that it holds."""
    seen, count = [], 0

    def counting(x):
        nonlocal count
        count += 1
        return 0.5 * x

    def filling(x):
        seen.append(x.shape)
        return 0.5 * x

    evaluated(counting), evaluated(filling)
    assert count and seen


def test_errors_show_the_function_of_the_user():
    """Its file, line and name; and what works elsewhere goes on to be shared."""

    def make(k):
        def broken(u, x):
            if x.dtype == jnp.float32:
                raise RuntimeError("half a point")
            return k * u(x)

        return broken

    model = cx.MLP("scalar", "scalar", width=2)(key=jax.random.key(0))
    with pytest.raises(RuntimeError, match="half a point") as caught:
        in_blocks(eqx.Partial(make(0.5), model), X.astype(np.float32))
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (Path(last.filename), last.name) == (Path(__file__), "broken")
    assert "half a point" in str(last.line)
    evaluated(eqx.Partial(make(0.5), model))
    assert compilations(evaluated, eqx.Partial(make(0.6), model))[0] == 0


@pytest.mark.slow
def test_a_study_of_a_number_compiles_one_combination():
    study = functools.partial(cx.study, lambda k=0.5: line(k, np.asarray(k)), steps=5, seeds=1)
    study(vary={"k": [0.45]}, **SMALL)
    count, found = compilations(lambda: study(vary={"k": [0.5, 0.6, 0.7]}, **SMALL))
    assert count == 0 and len(found.rows) == 3


@pytest.mark.slow
def test_runs_side_by_side_have_their_own_numbers():
    """As single runs have them, whether numbers are arguments or decide in Python."""

    def problem(k=0.5, branch=False):
        def residual(u, x):
            return u(x) - (k if not branch or k > 0.6 else -k)

        over = cx.Interval(0, 1)
        return cx.Problem(
            cx.Constraint(residual, over=over, points=8), cx.MLP("scalar", "scalar", width=3)
        )

    settings = {"method": cx.Optax(optax.adam(1e-2)), "steps": 20, "seeds": 2, **SMALL}
    vary = {"k": [0.5, 0.7], "branch": [False, True]}
    beside, alone = (
        cx.study(problem, vary=vary, engine=engine, **settings).table()
        for engine in ("vmap", "loop")
    )
    for one, other in zip(beside, alone, strict=True):
        assert np.isclose(one["heldout_loss"], other["heldout_loss"], rtol=1e-9)
    # For one of the two numbers the branch matters.
    assert len({f"{row['heldout_loss']:.9e}" for row in alone}) == 6


def by_order(settings):
    def between(x):
        low, high = settings.values()
        return low + (high - low) * x

    return between


def sorted_in_place(array):
    def least(x):
        copy = array.copy()
        copy.sort()
        return copy[0] * x

    return least


def scaled_in_place(array):
    def first(x):
        parts = [array.copy()]
        for part in parts:
            part /= part.sum()
        return parts[0][0] * x

    return first


def guarded(k):
    def fn(x):
        try:
            factor = float(k)
        except Exception:  # noqa: BLE001  (as a user may write)
            factor = 1.0
        return factor * x

    return fn


@pytest.mark.parametrize(
    ("make", "held"),
    [
        (by_order, [{"low": 0.0, "high": 5.0}, {"low": 1.0, "high": 2.0}]),
        (
            lambda given: functools.partial(lambda x, **k: by_order(k)(x), **given),
            [{"z": 0.0, "a": 5.0}],
        ),
        (sorted_in_place, [np.array([3.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0])]),
        (sorted_in_place, [np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])]),
        (scaled_in_place, [np.array([1.0, 3.0]), np.array([3.0, 1.0])]),
        (guarded, [1.0, 2.0]),
    ],
)
def test_numbers_are_those_that_python_and_numpy_make(make, held):
    """Whatever the first function is, and also where the numbers of the first would agree."""
    for value in held:
        assert np.allclose(
            evaluated(make(value)), [float(make(value)(x)) for x in X], rtol=ROUNDING
        )


@pytest.mark.slow
def test_single_precision_does_not_change_what_python_computes():
    code = """
import numpy as np
from constrainednn._common.batched import in_blocks
x = np.ones(3, np.float32)
make = lambda a, b: lambda x: (a - b) * x
tiny = lambda h, m: lambda x: h**2 / m * 1e38 * x
for a in (1e8 + 1, 1e8 + 2):
    assert in_blocks(make(a, 1e8), x)[0] == a - 1e8
for h in (1e-34, 2e-34):
    assert np.isclose(in_blocks(tiny(h, 1e-30), x)[0], h**2 / 1e-30 * 1e38)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"JAX_ENABLE_X64": "0"}
    )


CALLS = 0


def test_a_function_that_counts_is_compiled_once():
    def counting(x):
        global CALLS
        CALLS += 1
        return 2.0 * x

    evaluated(counting)
    count, _ = compilations(evaluated, counting)
    assert count == 0


def test_a_file_of_a_user_with_the_name_of_a_standard_one_is_read(tmp_path, monkeypatch):
    (tmp_path / "wave.py").write_text("C = 1.0\ndef make(a):\n    return lambda x: a * C * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    wave = importlib.import_module("wave")
    for value in (1.0, 3.0):
        monkeypatch.setattr(wave, "C", value)
        assert np.allclose(evaluated(wave.make(1.0)), value * X)


def test_what_cannot_be_told_stays_as_it_is():
    held, later = types.SimpleNamespace(), [0.5] * 1000
    cases = [lambda x: held, lambda x: later, jnp.sin, jnp.linalg.norm, cx.MLP(1, 1)]
    for case in cases:
        assert lift_numbers([case])[0] is case or isinstance(case, cx.MLP)

    def calls_itself(x):
        return calls_itself(x)

    assert lift_numbers(calls_itself) is calls_itself


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no limit of maps")
def test_what_is_not_shared_is_let_go_of(monkeypatch, tmp_path):
    """The benchmark of endless studies, shorter, with the limit of maps near."""
    path = Path(__file__).parents[1] / "benchmarks" / "closures.py"
    spec = importlib.util.spec_from_file_location("closures", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.measured(8)
    for name in ("network", "ivp", "bvp"):
        assert found["kinds"][name]["others"]["above 10"] == 0
    other = found["kinds"]["network of another structure"]
    each = other["others"]["maps, median"]
    assert each > 100
    # Room for one more of another structure; one run of eight looks at the maps.
    most = benchmark.maps() + each
    (tmp_path / "limit").write_text(f"{4 * most:.0f}\n")
    monkeypatch.setattr(memory, "_MAP_LIMIT", tmp_path / "limit")
    later = benchmark.measured(24)
    assert later["releases"] > 0
    first = sum(kind["first"]["maps"] for kind in found["kinds"].values())
    assert later["most maps"] < most + first + 2 * each
