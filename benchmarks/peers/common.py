"""Six problems that every package solves, their solutions on a grid, and the clock. NumPy alone.

Points are rows: (t,) for the ordinary differential equations, (x, y) for Poisson's, (t, x) for the
others. Error: relative L2 over the grid, over all components together. References are closed
forms, but for Lotka and Volterra's equations (Taylor series of order 20) and Burgers' equation
(Cole and Hopf's formula, by Gauss and Hermite's rule); `python common.py` prints how far two
resolutions of these differ.

The clock counts CPU seconds of the process, all threads, from the statement of the problem on:
compilation counts, imports do not, and it stands still while errors are computed.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

NU = 0.01 / np.pi
POPULATIONS = (2.5, 1.25)
# CPU seconds between looks at the error grow by this factor.
SPACING = 1.35


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem: its name, box of points, values of the solution, budget and size of a network.

    Attributes:
        low, high: Corners of the box, one entry for each coordinate.
        shape: Points of the grid along each coordinate, both ends included.
        exact: From points of shape (n, d) to values of shape (n, outputs).
        layers: Widths of the hidden layers of the peers' networks.
        points: Their collocation points.
        seconds: CPU seconds after which a run ends, compilation apart.
    """

    name: str
    title: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]
    exact: Callable[[np.ndarray], np.ndarray]
    layers: tuple[int, ...]
    points: int
    seconds: float = 10
    outputs: int = 1

    def grid(self) -> np.ndarray:
        """All points of the grid, of shape (n, d)."""
        axes = [np.linspace(*ends) for ends in zip(self.low, self.high, self.shape, strict=True)]
        return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)


def predation(order: int = 20, steps: int = 300) -> Callable[[np.ndarray], np.ndarray]:
    """Populations, x' = 1.5 x - x y, y' = x y - 3 y on [0, 6], by Taylor series."""
    length, start, series = 6.0 / steps, np.array(POPULATIONS), []
    for _ in range(steps):
        a = np.zeros((order + 1, 2))
        a[0] = start
        for k in range(order):
            met = a[: k + 1, 0] @ a[k::-1, 1]
            a[k + 1] = np.array([1.5 * a[k, 0] - met, met - 3.0 * a[k, 1]]) / (k + 1)
        series.append(a)
        start = np.array([np.polyval(a[::-1, i], length) for i in (0, 1)])
    table = np.array(series)

    def exact(p):
        step = np.minimum((p[:, 0] / length).astype(int), steps - 1)
        since = p[:, 0] - step * length
        powers = since[:, None] ** np.arange(order + 1)
        return np.einsum("nk,nki->ni", powers, table[step])

    return exact


def cole_hopf(nodes: int = 200) -> Callable[[np.ndarray], np.ndarray]:
    """Burgers' equation from -sin(pi x): a quotient of integrals, in exponents of one sign."""
    z, w = np.polynomial.hermite.hermgauss(nodes)

    def exact(p):
        y = p[:, 1:] - 2 * np.sqrt(NU * p[:, :1]) * z
        exponent = -np.cos(np.pi * y) / (2 * np.pi * NU)
        weight = w * np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return ((weight * -np.sin(np.pi * y)).sum(1) / weight.sum(1))[:, None]

    return exact


def heat(p):
    return np.exp(-(np.pi**2) * p[:, :1] / 4) * np.sin(np.pi * p[:, 1:])


def wave(p):
    t, x = p[:, :1], p[:, 1:]
    low = np.sin(np.pi * x) * np.cos(2 * np.pi * t)
    return low + np.sin(4 * np.pi * x) * np.cos(8 * np.pi * t) / 2


def poisson(p):
    return np.sin(np.pi * p[:, :1]) * np.sin(np.pi * p[:, 1:])


UNIT = (0.0, 0.0), (1.0, 1.0)
TIMES = 101, 401
ALL = (
    Problem("oscillator", "oscillator, [0, 10]", (0.0,), (10.0,), (1001,), np.cos, (32, 32), 400),
    Problem(
        *("lotka_volterra", "Lotka-Volterra, [0, 6]", (0.0,), (6.0,), (1001,), predation()),
        *((32, 32), 400),
        outputs=2,
    ),
    Problem("poisson", "Poisson, unit square", *UNIT, (101, 101), poisson, (30, 30), 1600, 15),
    Problem("heat", "heat", *UNIT, TIMES, heat, (30, 30), 1600, 15),
    Problem("wave", "wave, two modes", *UNIT, TIMES, wave, (40, 40), 2500, 20),
    Problem(
        *("burgers", "Burgers, 0.01/π", (0.0, -1.0), (1.0, 1.0), TIMES, cole_hopf()),
        *((20, 20, 20), 3000, 30),
    ),
)
PROBLEMS = {problem.name: problem for problem in ALL}


def residual(name: str, xp, z: Sequence, u: Sequence, d: Callable) -> list:
    """The equations, for any array library.

    Args:
        name: Of the problem.
        xp: The library, such as `torch`.
        z: Coordinates.
        u: Components of the solution there.
        d: From (component, coordinate, order) to a derivative of u.
    """
    if name == "oscillator":
        return [d(0, 0, 2) + u[0]]
    if name == "lotka_volterra":
        met = u[0] * u[1]
        return [d(0, 0, 1) - 1.5 * u[0] + met, d(1, 0, 1) - met + 3.0 * u[1]]
    if name == "poisson":
        source = 2 * np.pi**2 * xp.sin(np.pi * z[0]) * xp.sin(np.pi * z[1])
        return [d(0, 0, 2) + d(0, 1, 2) + source]
    if name == "heat":
        return [d(0, 0, 1) - d(0, 1, 2) / 4]
    if name == "wave":
        return [d(0, 0, 2) - 4 * d(0, 1, 2)]
    return [d(0, 0, 1) + u[0] * d(0, 1, 1) - NU * d(0, 1, 2)]


def conditions(name: str, xp, z: Sequence, y: Sequence) -> list:
    """What turns a network's outputs y into functions with the initial and boundary values.

    Of the ordinary equations these are neurodiffeq's, in which 1 - exp(-t) stands for t.
    """
    if name == "oscillator":
        return [1 + (1 - xp.exp(-z[0])) ** 2 * y[0]]
    if name == "lotka_volterra":
        return [v + (1 - xp.exp(-z[0])) * n for v, n in zip(POPULATIONS, y, strict=True)]
    x, sine = z[1], xp.sin(np.pi * z[1])
    if name == "poisson":
        return [16 * z[0] * (1 - z[0]) * x * (1 - x) * y[0]]
    if name == "heat":
        return [sine + 4 * z[0] * x * (1 - x) * y[0]]
    if name == "wave":
        return [sine + xp.sin(4 * np.pi * x) / 2 + 4 * z[0] ** 2 * x * (1 - x) * y[0]]
    return [-sine + z[0] * (1 - x**2) * y[0]]


class Clock:
    """CPU seconds since it was made, and the errors seen meanwhile."""

    def __init__(self, problem: Problem):
        self.problem, self.points = problem, []
        self._grid = problem.grid()
        self._exact = problem.exact(self._grid)
        self.compiling, self._next, self._stood = 0.0, 0.3, 0.0
        self._began = time.process_time()

    def seconds(self) -> float:
        """CPU seconds so far."""
        return time.process_time() - self._began - self._stood

    def is_over(self) -> bool:
        """Whether the budget is spent, compilation apart."""
        return self.seconds() >= self.compiling + self.problem.seconds

    def compiled(self) -> None:
        """Say that what has passed so far was compilation."""
        self.compiling = self.seconds()
        self._next = self.compiling + 0.3

    def is_due(self) -> bool:
        """Whether it is time for another look; if so, the next will be some while later."""
        now = self.seconds()
        if now < self._next and not self.is_over():
            return False
        self._next = self.compiling + SPACING * (now - self.compiling)
        return True

    def add(self, seconds: float, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Take down the error of what had been found after `seconds`."""
        paused = time.process_time()
        found = np.asarray(predict(self._grid)).reshape(self._exact.shape)
        error = float(np.linalg.norm(found - self._exact) / np.linalg.norm(self._exact))
        self.points.append((seconds, error))
        print(f"{self.problem.name} {seconds:8.2f} s {error:.2e}", file=sys.stderr, flush=True)
        self._stood += time.process_time() - paused

    def look(self, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Take down the error if it is due."""
        if self.is_due():
            self.add(self.seconds(), predict)


def save(clock: Clock, package: str, version: str, method: str, **facts) -> None:
    """Write a run to the folder named by PEERS_OUT (here by default)."""
    label = facts.pop("label", package)
    run = {
        "problem": clock.problem.name,
        "package": package,
        "label": label,
        "version": version,
        "method": method,
        "compiling": clock.compiling,
        "points": clock.points,
        **facts,
    }
    folder = Path(os.environ.get("PEERS_OUT", "."))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{label.replace(' ', '_').replace(',', '')}-{clock.problem.name}-{run.get('seed', 0)}"
    (folder / f"{name}.json").write_text(json.dumps(run, indent=1) + "\n")


def asked() -> tuple[list[Problem], int]:
    """Problems and the seed of the command line: `script.py [SEED] [NAME ...]`."""
    names = sys.argv[1:]
    seed = int(names.pop(0)) if names and names[0].isdigit() else 0
    return [PROBLEMS[name] for name in names or PROBLEMS], seed


if __name__ == "__main__":
    for name, other in {"lotka_volterra": predation(16, 500), "burgers": cole_hopf(160)}.items():
        p, u = PROBLEMS[name].grid(), PROBLEMS[name].exact(PROBLEMS[name].grid())
        print(f"{name}: {np.linalg.norm(other(p) - u) / np.linalg.norm(u):.1e}")
