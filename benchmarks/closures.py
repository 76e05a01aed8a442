"""Measure that solves with functions made anew do not compile a process to death; print JSON.

    python benchmarks/closures.py [count]

`count` combinations (2,000) in one process, each with functions of its own, made inside as one
writes them: by turns a network on a residual, `ivp` and `bvp` with lambdas, and, every fourth, a
network on a residual that differs in structure, by a whole number. For each kind: new memory maps
and CPU seconds of a run. For all: most memory maps at once, of the 65,530 that Linux allows by
default, and resident megabytes on the way. Without a cache of compiled programs on disk.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SMALL = {"heldout": 256, "monitor": 64}


def maps() -> int:
    """Memory maps of this process."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def megabytes() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def network(rate: float, whole: int = 1):
    import constrainednn as cx

    def decay(u, x):
        return cx.derivative(u)(x) + whole * rate * u(x)

    def start(u, x):
        return u(x) - rate

    over = cx.Interval(0, 1)
    constraints = [
        cx.Constraint(decay, over=over, points=20),
        cx.Constraint(start, over=cx.Points([0.0])),
    ]
    return cx.Problem(constraints, cx.MLP("scalar", "scalar", width=4)), {"steps": 20}


def initial(rate: float):
    import constrainednn as cx

    return cx.ivp(lambda t, y, args: -rate * y, 1.0, (0.0, 2.0)), {}


def boundary(rate: float):
    import jax.numpy as jnp

    import constrainednn as cx

    def ends(left, right):
        return jnp.stack([left[0], right[0] - rate])

    field = lambda x, y: jnp.stack([y[1], -rate * y[0]])  # noqa: E731
    return cx.bvp(field, ends, (0.0, 1.0), guess=[0.0, 0.0]), {}


def measured(count: int) -> dict:
    """Solve so many combinations; see the top."""
    import constrainednn as cx

    kinds = {
        "network": lambda i: network(0.5 + i / count),
        "ivp": lambda i: initial(0.5 + i / count),
        "bvp": lambda i: boundary(0.5 + i / count),
        "network of another structure": lambda i: network(0.5, i + 2),
    }
    new: dict[str, list[int]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    most, releases, memory = 0, 0, []
    for i in range(count):
        name = list(kinds)[i % len(kinds)]
        before, began = maps(), time.process_time()
        problem, settings = kinds[name](i)
        cx.solve(problem, **settings, **SMALL)
        seconds[name].append(time.process_time() - began)
        now = maps()
        # Programs may be let go of at the start of a run: the whole of what it has is new then.
        releases += now < before
        new[name].append(now - before if now >= before else 0)
        most = max(most, now)
        if i % max(1, count // 20) == 0 or i == count - 1:
            memory.append((i, now, round(megabytes())))
    return {
        "combinations": count,
        "kinds": {
            name: {
                "runs": len(new[name]),
                "first": {"maps": new[name][0], "seconds": round(seconds[name][0], 2)},
                "others": {
                    "maps, mean": round(statistics.mean(new[name][1:]), 1),
                    "maps, median": statistics.median(new[name][1:]),
                    "above 10": sum(maps > 10 for maps in new[name][1:]),
                    "seconds, median": round(statistics.median(seconds[name][1:]), 3),
                },
            }
            for name in kinds
        },
        "most maps": most,
        "releases": releases,
        "run, maps, megabytes": memory,
    }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]) if len(sys.argv) > 1 else 2000), indent=2))
