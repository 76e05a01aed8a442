"""Measure operators against nested differentiation; print JSON and a table.

    python benchmarks/operators.py

A tanh network of three hidden layers of 64, at 4,096 points in float64: the Laplacian in 2, 10 and
100 dimensions as `cx.laplacian` and as the trace of `jax.hessian`; the second and fourth derivative
by one coordinate as `cx.partial(u, 0, order=n)` and as `jax.grad` nested. Medians of nine calls
after a warm-up, one after the other by turns, in milliseconds; compilation apart, in seconds. The
largest relative difference of the two results is beside them.
"""

import json
import os
import statistics
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import jax.numpy as jnp

import constrainednn as cx

POINTS, CALLS = 4096, 9


def network(dim):
    box = cx.Box([0.0] * dim, [1.0] * dim)
    recipe = cx.MLP(dim, "scalar", width=64, depth=3, over=box)
    return recipe(key=jax.random.key(0)), jax.random.uniform(jax.random.key(1), (POINTS, dim))


def nested(u, order):
    if order == 0:
        return u
    slope = jax.grad(nested(u, order - 1))
    return lambda x: slope(x)[0]


def trace(u):
    return lambda x: jnp.trace(jax.hessian(u)(x))


def timed(fn, x):
    began = time.perf_counter()
    jax.block_until_ready(fn(x))
    return time.perf_counter() - began


def measure(name, ours, theirs, x):
    pair = [jax.jit(jax.vmap(fn)) for fn in (ours, theirs)]
    compiled = [timed(fn, x) for fn in pair]
    a, b = (fn(x) for fn in pair)
    seconds = [[timed(fn, x) for fn in pair] for _ in range(CALLS)]
    median = [1e3 * statistics.median(column) for column in zip(*seconds, strict=True)]
    return {
        "row": name,
        "ours_ms": median[0],
        "nested_ms": median[1],
        "compile_s": compiled,
        "difference": float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))),
    }


def main():
    rows = []
    for dim in (2, 10, 100):
        u, x = network(dim)
        rows.append(measure(f"Laplacian in {dim}", cx.laplacian(u), trace(u), x))
    u, x = network(2)
    for order in (2, 4):
        ours = cx.partial(u, 0, order=order)
        rows.append(measure(f"derivative of order {order}", ours, nested(u, order), x))
    print(json.dumps({"jax": jax.__version__, "rows": rows}))
    print("| operator | ours, ms | nested, ms | ratio | compiling, s | difference |")
    print("|---|---|---|---|---|---|")
    for r in rows:
        first, second = r["compile_s"]
        print(
            f"| {r['row']} | {r['ours_ms']:.1f} | {r['nested_ms']:.1f} | "
            f"{r['nested_ms'] / r['ours_ms']:.1f} | {first:.1f}; {second:.1f} | "
            f"{r['difference']:.0e} |"
        )


if __name__ == "__main__":
    main()
