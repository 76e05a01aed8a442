"""Set JAX up before anything uses it, check shapes at run time, and solve gallery problems once."""

import contextlib
import gc
import importlib.util
import os
import platform
import signal
import zlib
from importlib.metadata import version
from pathlib import Path

# One thread a process: workers of pytest-xdist share the cores, and no number may depend on how
# many there are. Read once, when the libraries load.
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "1"  # the thread pool of XLA on the CPU
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("MPLBACKEND", "agg")


def _machine() -> str:
    """The processor's name and features: what is compiled here may not run on another one."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    lines = {line for line in text.splitlines() if line.startswith(("model name", "flags"))}
    return f"{platform.machine()}-{zlib.crc32(' '.join(sorted(lines)).encode()):08x}"


# More than half of the time of these tests is compilation. What one process compiled, others load,
# and later sessions: JAX names a program by what it computes, so it is never out of date.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    _cache /= f"constrainednn-tests/jaxlib-{version('jaxlib')}-{_machine()}"
    with contextlib.suppress(OSError):  # a home that cannot be written to
        _cache.mkdir(parents=True, exist_ok=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from faults_table import (  # noqa: F401  (hooks of pytest)
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_runtest_call,
    pytest_sessionfinish,
)

jax.config.update("jax_enable_x64", True)
# Tests call thousands of operations outside of the package's own programs, each once: optimised by
# XLA they would take a third of all time. The package's programs say themselves how much they want.
# Read by the first program, and not by processes of the tests. A flag that jaxlib does not know
# ends the process, so the newest versions are tried without.
if version("jaxlib").startswith("0.10.") and "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    )
    jax.jit(lambda x: x)(0.0)
    del os.environ["XLA_FLAGS"]
# A test fails where an array is given an axis without being asked. (Strict dtype promotion would
# be the same for widening, but optax's own Adam does not run under it.)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Before the package is first imported, so that every annotation in it is checked when called: a
# seventh of the time of all tests, so only where it is asked for, as `.ci/run` does.
# The tower: an int may stand where a float is annotated, as for any type checker (PEP 484).
if os.environ.get("CONSTRAINEDNN_CHECK_TYPES"):
    _CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    jaxtyping.install_import_hook("constrainednn", _CHECKER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker files as a whole, since tests of a file share what is compiled.

    Whoever is done first takes from the others what they have left.
    """
    if config.getvalue("dist") == "load":  # nothing else was asked for
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def solved():
    """Solve gallery problems, each combination of arguments once a session.

    `solved("unit_circle", settings={"points": 400}, seed=3)` gives the `Solution`. A method given
    as text is looked up in the `methods` of the problem file.
    """
    from constrainednn._solve.problem_files import load_module, resolve
    from constrainednn._solve.problem_functions import build
    from constrainednn._solve.solve import solve

    known = {}

    def once(name, *, settings=None, method=None, **arguments):
        settings = settings or {}
        index = repr((name, sorted(settings.items()), method, sorted(arguments.items())))
        if index not in known:
            path, attribute = resolve(name)
            module = load_module(path)
            chosen = module.methods[method] if isinstance(method, str) else method
            problem = build(module, path, attribute, settings)
            known[index] = solve(problem, chosen, **arguments)
        return known[index]

    return once


def falls(t, y, args):
    return -y


def grows(x, y):
    return jnp.stack([y[1], y[0]])


def from_one_to_zero(left, right):
    return jnp.stack([left[0] - 1, right[0]])


@pytest.fixture(scope="session")
def initial():
    """Solve u' = -u, u(0) = 1 on [0, 3], for tests that need any initial value problem."""
    import constrainednn as cx

    with jax.numpy_rank_promotion("allow"):  # the march promotes ranks inside
        return cx.solve(cx.ivp(falls, 1.0, (0.0, 3.0)), heldout=256, monitor=16)


@pytest.fixture(scope="session")
def boundary():
    """Solve u'' = u, u(0) = 1, u(1) = 0 as a system: u(x) = sinh(1 - x) / sinh(1)."""
    import constrainednn as cx

    with jax.numpy_rank_promotion("allow"):
        problem = cx.bvp(grows, from_one_to_zero, (0.0, 1.0), [0.0, 0.0])
        return cx.solve(problem, heldout=256, monitor=16)


@pytest.fixture
def as_released():
    """Switch the run-time check of annotations off: the package answers to a wrong type itself.

    Users do not have the check, so what it refuses must be refused by the package as well.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def signals_are_heard():
    """Hear SIGINT and SIGTERM as in a terminal, also where these tests run as a background job.

    Scripts start those with SIGINT ignored, and so would start the processes of the tests.
    """
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Forget compiled programs long before a worker has as many memory maps as Linux allows.

    At that limit, 65,530, XLA ends the process without an exception; at a quarter of it `solve`
    forgets them, perhaps between two solves of which a test says that they share one.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 8_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def soak():
    """The benchmark that kills runs and attacks the loaders."""
    path = Path(__file__).parents[1] / "benchmarks" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
