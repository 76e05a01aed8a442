"""Legendre features against tanh features in the windows of a march, printed as a table.

    python benchmarks/features.py

The same march, least squares and step control; only the frozen features differ. tanh features are
spread as in `RandomFeatures`: centres on a grid slightly wider than the window, slopes uniform in
+-width/4, integrals in closed form (log cosh). Lotka-Volterra on [0, 6]; errors against the
reference of `references.py`; seconds are medians of five after a first run.
"""

import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from references import reference, relative_error

from constrainednn._ode.schemes.field import Field
from constrainednn._ode.schemes.windows import Evolution
from constrainednn._pieces.march import march
from constrainednn.models.legendre import gauss
from constrainednn.models.pieces import Features


def lotka_volterra(t, y, args):
    return jnp.stack([1.5 * y[0] - y[0] * y[1], -3 * y[1] + y[0] * y[1]])


def tanh_tables(places, width, seed=0):
    """Features and their integrals from -1 at given places."""
    generator = np.random.default_rng(seed)
    centres = np.linspace(-1.1, 1.1, width)
    slopes = generator.uniform(-width / 4, width / 4, width)
    log_cosh = lambda z: np.logaddexp(z, -z) - np.log(2)  # noqa: E731
    z, start = slopes * (places[:, None] - centres), slopes * (-1 - centres)
    return np.tanh(z), (log_cosh(z) - log_cosh(start)) / slopes


def features(kind, places, width):
    """Legendre features, or their tables exchanged for those of tanh."""
    legendre = Features(places, width, 1)
    if kind == "legendre":
        return legendre
    tables = tuple(jnp.asarray(table) for table in tanh_tables(places, width))
    return eqx.tree_at(lambda f: f.integrals, legendre, tables)


def measure(kind, width, tolerance):
    """Windows, error at the sample points and seconds of one march."""
    nodes, weights = gauss(2 * width)
    monitor = np.random.default_rng(1).uniform(-1, 1, 32)
    at = lambda places: features(kind, places, width)  # noqa: E731
    field = Field(lotka_volterra, None, lambda y: y, 1)
    evolution = Evolution(field, at(nodes), jnp.asarray(weights), at(monitor), at(np.ones(1)))
    y = jnp.asarray([[2.5, 1.25]])

    def run():
        # The limit on attempts ends what does not get anywhere.
        return march(
            evolution, (y, jnp.abs(y)), (0.0, 6.0), tolerance=tolerance, steps=20_000,
            watch=lambda *_: False,
        )  # fmt: skip

    found = run()
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    edges, ref = found.history.edges, reference("lotka_volterra")
    states, heads = found.kept.pieces
    index = np.clip(np.searchsorted(edges, ref.t, side="right") - 1, 0, len(heads) - 1)
    half = np.diff(edges)[index] / 2
    s = (ref.t - edges[index]) / half - 1
    table = np.asarray(features(kind, s, width).integrals[1])
    values = states[index, 0] + np.einsum("nk,nkd->nd", table, heads[index])
    reached = found.ending == "end"
    error = relative_error(values, ref) if reached else np.nan
    return len(heads), found.history.rejected, error, statistics.median(taken), found.ending


if __name__ == "__main__":
    print("| features | width | tolerance | windows | rejected | error | seconds | ending |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, width, tolerance in (
        ("legendre", 16, 1e-12),
        ("tanh", 16, 1e-12),
        ("tanh", 32, 1e-12),
        ("tanh", 48, 1e-12),
        ("legendre", 16, 1e-6),
        ("tanh", 16, 1e-6),
        ("tanh", 32, 1e-6),
    ):
        windows, rejected, error, seconds, ending = measure(kind, width, tolerance)
        print(
            f"| {kind} | {width} | {tolerance:.0e} | {windows} | {rejected} | {error:.1e} | "
            f"{seconds:.4f} | {ending} |",
            flush=True,
        )
