"""Hostile values: every public constructor takes them, or says in a sentence of ours why not."""

import decimal
import fractions
import math
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marks import slow
from typer.testing import CliRunner

import constrainednn as cx
from constrainednn.cli.entry import app
from constrainednn.domains.samplers.draws import draw

OURS = (cx.errors.UsageError, cx.errors.StoreError, cx.errors.LoadError)


class Mute:
    """An object that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no repr")


# Functions that raise, whatever they are given; where one is called, that is no fault of ours.
FAILING = [len, int, lambda: None, lambda *given: "text", cx.MLP(2, 2), cx.domains.Sobol]
FIXED = [
    *(None, True, False, ..., object(), Mute()),
    *(0, -1, 1, 2, 3, 7, 10**6, 10**12, -(10**12), 10**400, 10**5000),
    *(0.0, 0.5, 1.5, -1.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf),
    *(1j, complex(math.nan, 1), fractions.Fraction(1, 2), decimal.Decimal("sNaN")),
    *("", " ", "text", "scalar", "1", "nan", "圆", "\x00", "\x1b[31mred", "\ud800", "\u202e"),
    *("x" * 10**7, b"bytes", "name\nerror: two lines"),
    *([], (), {}, set(), [None], [1, "a", None], [[1, 2], [3]], (1.0, "a"), [0.0, 1.0]),
    *((0.0, math.nan), (0.0, 10**400), ([1], [2]), (1.0, None), [1.0] * 10**5, [[[1.0]]]),
    *({1: 2.0, "a": 3.0}, {"a": [1.0]}, {"a": {1: 2.0, "a": 3.0}}, [{1: 2.0, "a": 3.0}], range(3)),
    *(*FAILING, lambda *given: None, lambda *given: given),
    *(cx.domains.Sobol(), cx.Interval(0, 1), cx.Normal(2), cx.Points([0.0]), cx.Circle()),
    *(cx.models.Frozen(None), eqx.nn.Identity(), optax.sgd(0.1), cx.LevenbergMarquardt()),
    *(np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(3), np.eye(2), np.zeros((2, 3, 4))),
    *(np.asarray(1), np.asarray(2.5), np.asarray([1]), np.asarray([[2.0]]), np.asarray(None)),
    *(np.asarray([math.nan, 1.0]), np.asarray([1j, 2]), np.asarray(["a", "b"]), np.ones(2, bool)),
    *(np.asarray([None, 1.0]), np.asarray([{}, []], object), np.asarray([10**400, 1], object)),
    *(np.asarray(["2000-01-01"], "M8[s]"), np.zeros(2, [("a", float)]), np.float16([1.0, 2.0])),
    *(np.float32("nan"), np.int64(3), np.uint8(200), np.bool_(True), np.complex128(1j)),
    *(np.str_("text"), np.datetime64("2000-01-01"), np.longdouble("1e4000")),
    *(jnp.ones(2), jnp.asarray(2), jnp.asarray(1j), jnp.asarray(True), jax.random.key(0)),
    # Views that take no memory; every copy of one would take terabytes.
    *(
        np.broadcast_to(0.0, 10**12),
        np.broadcast_to(1, (10**6, 10**6)),
        np.broadcast_to("a", 10**12),
    ),
]

SHAPES = st.sampled_from([(), (1,), (2,), (0,), (3, 2), (2, 0)])
DTYPES = st.sampled_from([np.float64, np.float32, np.int8, np.complex128, np.bool_, "U3", object])
POOL = st.one_of(
    st.sampled_from(FIXED),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.text(),
    st.tuples(st.floats(), st.floats()),
    st.lists(st.one_of(st.none(), st.floats(), st.text(max_size=3)), max_size=3),
    DTYPES.flatmap(
        lambda dtype: arrays.arrays(
            dtype, SHAPES, elements=st.none() if dtype is object else None, fill=st.nothing()
        )
    ),
)


def zero(u, x):
    return x


class Given(cx.domains.AbstractSampler):
    """A sampler of a user's, who forgot what one returns."""

    filled: Callable[[], Any]

    def fill(self, domain, n, *, key):
        return self.filled()


KEY = jax.random.key(0)
MODEL = cx.MLP(2, 2, width=4)
CONSTRAINT = cx.Constraint(zero, over=cx.Normal(2), points=4)
PROBLEM = cx.Problem(CONSTRAINT, model=MODEL)
CORNERS = {"low": [0.0, 0.0], "high": [1.0, 1.0]}
SIZES = {"in_size": 2, "out_size": 2}
SPHERE = {"dim": 2, "radius": 1.0}

# What is called, with arguments that are right; each of them is replaced by hostile values.
CALLS = {
    "Interval": (cx.Interval, {"low": 0.0, "high": 1.0}),
    "Box": (cx.Box, CORNERS),
    "BoxBoundary": (cx.domains.BoxBoundary, CORNERS),
    "Normal": (cx.Normal, {"dim": 2}),
    "Sphere": (cx.domains.Sphere, SPHERE),
    "Ball": (cx.domains.Ball, SPHERE),
    "Product": (lambda factor: cx.domains.Product(cx.Normal(2), factor), {"factor": cx.Normal(2)}),
    "times": (lambda factor: cx.Interval(0, 1) * factor, {"factor": cx.Normal(2)}),
    "Mapped": (cx.domains.Mapped, {"base": cx.Normal(2), "fn": jnp.sin}),
    "map": (lambda fn: cx.Normal(2).map(fn), {"fn": jnp.sin}),
    "fn of map": (
        lambda fn: draw(cx.Normal(2).map(lambda x: fn), 2, cx.domains.Independent(), key=KEY),
        {"fn": 1.0},
    ),
    "sampler": (
        lambda cube, weights: draw(cx.Normal(2), 2, Given(lambda: (cube, weights)), key=KEY),
        {"cube": np.full((2, 2), 0.5), "weights": np.full(2, 0.5)},
    ),
    "Points": (cx.Points, {"points": np.ones((3, 2))}),
    "Points of pairs": (lambda points: cx.Points((points, np.ones(2))), {"points": np.ones(2)}),
    "Data": (cx.Data, {"rows": (np.ones(5), np.ones(5)), "holdout": 0.2}),
    "Linear": (cx.Linear, {**SIZES, "bias": True}),
    "MLP": (
        cx.MLP,
        {**SIZES, "width": 4, "depth": 1, "activation": jnp.tanh, "over": cx.Normal(2)},
    ),
    "MLP by default": (cx.MLP, SIZES),
    "RandomFeatures": (
        cx.RandomFeatures,
        {"over": cx.Interval(0, 1), "out_size": 1, "width": 4, "activation": jnp.tanh},
    ),
    "FeatureNetwork": (
        cx.models.FeatureNetwork,
        {
            "inner": cx.models.Frozen((jnp.ones((2, 1)), jnp.ones(2))),
            "head_weight": jnp.ones((1, 2)),
            "head_bias": jnp.ones(1),
            "activation": jnp.tanh,
            "scalar": False,
        },
    ),
    "PeriodicInput": (cx.models.PeriodicInput, {"period": 1.0, "harmonics": 1}),
    "PeriodicInput of d": (lambda period: cx.models.PeriodicInput((1.0, period)), {"period": 1.0}),
    "with_input": (cx.models.with_input, {"model": MODEL, "fn": jnp.sin}),
    "with_output": (cx.with_output, {"model": MODEL, "fn": zero}),
    "Frozen": (cx.models.Frozen, {"value": 1.0}),
    "Circle": (cx.Circle, {"radius": 1.0}),
    "RotationGroup": (cx.targets.RotationGroup, {"n": 2}),
    "Constraint": (
        cx.Constraint,
        {
            "residual": zero,
            "over": cx.Normal(2),
            "points": 4,
            "sampler": cx.domains.Sobol(),
            "weight": 1.0,
            "name": "zero",
            "target": cx.Circle(),
        },
    ),
    "Problem": (
        cx.Problem,
        {
            "constraints": CONSTRAINT,
            "model": MODEL,
            "trainable": lambda u: u.layers,
            "reference": jnp.sin,
            "scheme": None,
        },
    ),
    "Problem of several": (
        lambda constraints: cx.Problem([CONSTRAINT, constraints], MODEL),
        {"constraints": cx.Constraint(zero, over=cx.Normal(2), name="other")},
    ),
    "Stage": (
        cx.Stage,
        {"method": cx.LevenbergMarquardt(), "steps": 1, "trainable": lambda u: u.layers},
    ),
    "Optax": (cx.Optax, {"tx": optax.sgd(0.1)}),
    "LevenbergMarquardt": (cx.LevenbergMarquardt, {"damping": 1e-3}),
    "ivp": (
        cx.ivp,
        {
            "vector_field": lambda t, y, args: y,
            "y0": 1.0,
            "span": (0.0, 1.0),
            "args": None,
            "order": 1,
            "width": 4,
            "reference": jnp.exp,
        },
    ),
    "ivp of order two": (
        lambda y0: cx.ivp(lambda t, y, args: y[0], y0, (0.0, 1.0), order=2, width=4),
        {"y0": (1.0, 0.0)},
    ),
    "ivp from data": (
        lambda args, data: cx.ivp(lambda t, y, a: -y, 1.0, (0.0, 1.0), args=args, data=data),
        {"args": cx.Unknown(1.0), "data": cx.Data((np.ones(3), np.ones(3)), holdout=0.0)},
    ),
    "ivp with a mass matrix": (
        lambda mass, invariants: cx.ivp(
            lambda t, y, args: -y, jnp.ones(2), (0.0, 1.0), mass=mass, invariants=invariants
        ),
        {"mass": [1.0, 2.0], "invariants": lambda t, y, args: y},
    ),
    "ivp with delays": (
        lambda delays, history: cx.ivp(
            lambda t, y, args, *before: -y, 1.0, (0.0, 1.0), delays=delays, history=history
        ),
        {"delays": 0.5, "history": jnp.ones_like},
    ),
    "Unknown": (cx.Unknown, {"start": 1.0, "low": 0.0, "high": 2.0}),
    "integral": (cx.integral, {"integrand": jnp.sin, "low": 0.0, "high": 1.0, "nodes": 4}),
    "bvp from data": (
        lambda p, data: cx.bvp(
            lambda x, y, p: y, lambda a, b, p: a, (0.0, 1.0), [1.0, 1.0], p=p, data=data
        ),
        {"p": cx.Unknown(1.0), "data": cx.Data((np.ones(3), np.ones((3, 2))), holdout=0.0)},
    ),
    "bvp": (
        cx.bvp,
        {
            "fun": lambda x, y: y,
            "bc": lambda left, right: left,
            "span": (0.0, 1.0),
            "guess": [0.0, 1.0],
            "S": np.eye(2),
            "width": 4,
            "reference": jnp.exp,
        },
    ),
    "bvp with parameters": (
        lambda p: cx.bvp(
            lambda x, y, p: y,
            lambda left, right, p: jnp.append(left, p),
            (0.0, 1.0),
            [0.0, 1.0],
            p=p,
            width=4,
        ),
        {"p": [1.0]},
    ),
    "taylor": (cx.taylor, {"u": jnp.sin, "t": 0.5, "order": 2}),
    "derivative": (cx.derivative, {"u": jnp.sin, "order": 2}),
    "derivative at": (lambda x: cx.derivative(jnp.sin)(x), {"x": 0.5}),
    "partial": (cx.partial, {"u": jnp.sin, "i": 1}),
    "partial at": (lambda x: cx.partial(jnp.sin, 0)(x), {"x": np.ones(2)}),
    "jacobian": (cx.jacobian, {"u": jnp.sin}),
    "jacobian at": (lambda x: cx.jacobian(lambda x: x)(x), {"x": np.ones(2)}),
    "laplacian": (cx.laplacian, {"u": jnp.sin}),
    "laplacian at": (lambda x: cx.laplacian(jnp.sin)(x), {"x": np.ones(2)}),
    "divergence": (cx.operators.divergence, {"u": jnp.sin}),
    "divergence at": (lambda x: cx.operators.divergence(jnp.sin)(x), {"x": np.ones(2)}),
    "check": (cx.check, {"problem": PROBLEM, "seed": 0}),
    "solve": (
        cx.solve,
        {
            "problem": PROBLEM,
            "method": cx.LevenbergMarquardt(),
            "steps": 1,
            "seed": 0,
            "tolerance": 0.0,
            "heldout": 4,
            "monitor": 4,
            "redraw": 1,
            "progress": print,
            "time_limit": 10.0,
            "sinks": (),
            "out": None,
        },
    ),
}
# Every shape that is taken is compiled.
MANY_PROGRAMS = (
    *("fn of map", "ivp with delays", "ivp with a mass matrix", "integral", "taylor", "Product"),
    *(f"{name} at" for name in ("laplacian", "jacobian", "divergence", "partial", "derivative")),
)
CASES = [(name, argument) for name, (_, good) in CALLS.items() for argument in good]
# Functions that are called at once.
CALLED = {"progress", "vector_field", "fun", "bc", "guess", "u", "history", "integrand"}
# A name under which an argument appears in the message, where that is not its own.
OTHERWISE = {"factor": "Product", "fn": "map", "t": "point", "x": "point"}


class PassedError(Exception):
    """The settings are accepted, and what costs time is about to begin."""


@pytest.fixture
def nothing_runs(monkeypatch):
    """No solve goes further than its settings: to build the model is the first thing it does."""

    def build_model(self, *, key):
        raise PassedError

    monkeypatch.setattr(cx.Problem, "build_model", build_model)


def attack(name, argument, value):
    """Call with one hostile argument; anything but success and a sentence of ours fails."""
    call, good = CALLS[name]
    try:
        call(**{**good, argument: value})
    except PassedError:
        return
    except cx.errors.StoreError:
        assert argument == "out"
        return
    except (ValueError, TypeError) as error:
        said = str(error)
        if argument in CALLED and any(value is item for item in FAILING):
            return
        assert isinstance(error, OURS), f"{type(error).__name__} is not ours: {said[:2000]}"
        words = rf"\b({argument}|{OTHERWISE.get(argument, argument)})\b"
        assert re.search(words, said), f"names no {argument}: {said[:2000]}"
        assert len(said) < 1000, f"{len(said)} characters: {said[:2000]}"
        assert said.isprintable(), f"control characters in {said[:2000]!r}"


def quiet(test):
    """Few examples, always the same ones; the fixtures hold no state that an example changes."""
    return settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )(test)


@pytest.mark.parametrize(
    ("name", "argument"), [slow(*case) if case[0] in MANY_PROGRAMS else case for case in CASES]
)
def test_hostile_values_are_taken_or_refused_by_name(name, argument, as_released, nothing_runs):
    for value in FIXED:
        attack(name, argument, value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_drawn_values_are_taken_or_refused_by_name(name, argument, as_released, nothing_runs):
    @quiet
    @given(POOL)
    def drawn(value):
        attack(name, argument, value)

    drawn()


OPTIONS = ("--steps", "--seed", "--tolerance", "--heldout", "--monitor", "--redraw", "--method")
WORDS = [
    *("", " ", "0", "-1", "1", "1.5", "1e3", "nan", "inf", "-inf", "1e999", "9" * 400, "9" * 5000),
    *("None", "True", "圆", "\x00", "\x07", "\x1b[31mred", "\ud800", "\u202e", "two\nerror: lines"),
    *("-\x07", "--\x07nope", "error: fake", "x" * 10**5, "a/b", "..", ".", "/", "~", "--", "-x"),
    *("--nope", "[red]a[/red]"),
    *("{braces}", "%s", "%(a)s", "nope.py", "nope.py:problem", "nope.py:a:b", ":", ".py", "/x.py"),
    *("adam", "lm", "width", "width=", "width=4", "=4", "width=4=4", "wdth=4", "=", "width=nan"),
    *("width=1e400", "width=9" + "9" * 5000, "width=\x1b[31m", "\x1b[31m=4", "width=٣"),
]
TEXT = st.one_of(st.sampled_from(WORDS), st.text(), st.text().map("width={}".format))

PROBLEM_FILE = """
import constrainednn as cx

def residual(u, x):
    return u(x)

def problem(width=4):
    model = cx.MLP(2, 2, width=width)
    return cx.Problem(cx.Constraint(residual, over=cx.Normal(2), points=8), model=model)
"""


@pytest.fixture
def refusing(monkeypatch):
    """What is accepted ends as a problem that cannot be solved, before anything is compiled."""

    def build_model(self, *, key):
        raise cx.errors.ProblemError("accepted")

    monkeypatch.setattr(cx.Problem, "build_model", build_model)


def refuse(*arguments):
    """Run the command line and expect one sentence, with nothing in it that moves a cursor."""
    result = CliRunner().invoke(app, list(arguments))
    shown = f"{arguments!r:.200}: {result.output[-2000:]!r}"
    assert isinstance(result.exception, SystemExit), f"{shown} {result.exception!r:.500}"
    assert result.exit_code == 2, shown
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(errors) == 1, shown
    assert "Traceback" not in result.output, shown
    unprintable = [c for c in result.output if not (c.isprintable() or c in "\n\t")]
    assert not unprintable, shown
    return errors[0]


def form_of(option, path):
    """How a hostile text is given at the command line."""
    forms = {
        "FILE": lambda text: ["solve", text],
        "FILE.py": lambda text: ["solve", f"{text}.py"],
        "check": lambda text: ["check", str(path), "--seed", text],
    }
    return forms.get(option, lambda text: ["solve", str(path), option, text])


@pytest.mark.parametrize(
    "option",
    [
        "--tolerance",
        "FILE",
        *map(slow, (*sorted({*OPTIONS} - {"--tolerance"}), "--set", "FILE.py", "check")),
    ],
)
def test_hostile_text_on_the_command_line(option, tmp_path, refusing):
    path = tmp_path / "mine.py"
    path.write_text(PROBLEM_FILE)
    form = form_of(option, path)
    for text in WORDS:
        refuse(*form(text))


@pytest.mark.slow
@pytest.mark.parametrize("option", [*OPTIONS, "--set", "FILE", "FILE.py", "check"])
def test_drawn_text_on_the_command_line(option, tmp_path, refusing):
    path = tmp_path / "mine.py"
    path.write_text(PROBLEM_FILE)
    form = form_of(option, path)

    @quiet
    @given(TEXT)
    def drawn(text):
        refuse(*form(text))

    drawn()
