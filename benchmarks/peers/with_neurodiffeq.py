"""Run neurodiffeq: its solvers, networks and hard conditions; Adam on noisy points, then L-BFGS.

    python with_neurodiffeq.py [SEED] [NAME ...]

The conditions are neurodiffeq's own; for the wave, whose velocity at the start it has none for,
one derived from its base class. Adam draws noisy points anew in every epoch (the default
generators) for a quarter of the budget, L-BFGS keeps to fixed ones. A network for each function.
"""

import importlib.metadata
import math

import neurodiffeq
import numpy as np
import torch
from common import POPULATIONS, Clock, Problem, asked, conditions, residual, save
from neurodiffeq.conditions import IBVP1D, IVP, BaseCondition, DirichletBVP2D
from neurodiffeq.generators import Generator1D, Generator2D, StaticGenerator
from neurodiffeq.networks import FCNN
from neurodiffeq.solvers import Solver1D, Solver2D

torch.set_default_dtype(torch.float64)
# PyTorch imports much of itself with the first optimizer; imports do not count.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])


class Within(BaseCondition):
    """A condition by the formula that the other packages have, too."""

    def parameterize(self, output_tensor, *coordinates):
        """The function with the values at the start and at the ends."""
        return conditions("wave", torch, coordinates, [output_tensor])[0]


class Scaled(torch.nn.Module):
    """A network of coordinates between -1 and 1."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.low, self.high = torch.tensor(problem.low), torch.tensor(problem.high)
        self.inner = FCNN(len(problem.low), 1, hidden_units=problem.layers)

    def forward(self, z):
        """Rows of points to values."""
        return self.inner(2 * (z - self.low) / (self.high - self.low) - 1)


def zero(z):
    return 0 * z


class Swapped(IBVP1D):
    """The same with time first."""

    def enforce(self, net, t, x):
        """Values and conditions at points (t, x)."""
        return super().enforce(lambda z: net(torch.flip(z, [1])), x, t)


def held(problem: Problem) -> list:
    """Conditions, one for each function."""
    if problem.name == "oscillator":
        return [IVP(0.0, 1.0, 0.0)]
    if problem.name == "lotka_volterra":
        return [IVP(0.0, value) for value in POPULATIONS]
    if problem.name == "poisson":
        return [DirichletBVP2D(0.0, zero, 1.0, zero, 0.0, zero, 1.0, zero)]
    if problem.name == "wave":
        return [Within()]
    sign = 1 if problem.name == "heat" else -1
    (_, low), (_, high) = problem.low, problem.high
    start = lambda x: sign * torch.sin(math.pi * x)  # noqa: E731
    return [Swapped(low, high, 0.0, start, x_min_val=zero, x_max_val=zero)]


def stated(problem: Problem, seed: int):
    """The solver."""
    torch.manual_seed(seed)
    count = problem.outputs

    def system(*values):
        u, z = values[:count], values[count:]
        d = lambda k, i, order: neurodiffeq.diff(u[k], z[i], order=order)  # noqa: E731
        return residual(problem.name, torch, z, u, d)

    shared = {
        "conditions": held(problem),
        "nets": [Scaled(problem) for _ in range(count)],
        "n_batches_valid": 0,
    }
    if len(problem.low) == 1:
        ends = problem.low[0], problem.high[0]
        points = Generator1D(problem.points, *ends, method="equally-spaced-noisy")
        shared |= {"train_generator": points, "valid_generator": points}
        return Solver1D(system, t_min=ends[0], t_max=ends[1], **shared), points
    side = math.isqrt(problem.points)
    points = Generator2D((side, side), problem.low, problem.high, method="equally-spaced-noisy")
    shared |= {"train_generator": points, "valid_generator": points}
    return Solver2D(system, xy_min=problem.low, xy_max=problem.high, **shared), points


def solve(problem: Problem, seed: int) -> None:
    """Train until the budget is spent."""
    clock = Clock(problem)
    solver, points = stated(problem, seed)

    def predict(z):
        u = solver.get_solution(copy=False, best=False)(*torch.tensor(z).T.unsqueeze(2))
        u = u if isinstance(u, (list, tuple)) else [u]
        return np.concatenate([v.detach().numpy() for v in u], axis=1)

    until = problem.seconds / 4

    def watch(solver):
        clock.look(predict)
        solver._stop_training = clock.seconds() >= until  # as StopCallback does

    solver.fit(10**6, callbacks=[watch], tqdm_file=None)
    until = problem.seconds
    solver.generator["train"].generator = StaticGenerator(points)
    solver.optimizer = torch.optim.LBFGS(
        [p for net in solver.nets for p in net.parameters()],
        history_size=100,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )
    solver.fit(10**6, callbacks=[watch], tqdm_file=None)
    clock.add(clock.seconds(), predict)
    version = importlib.metadata.version("neurodiffeq")
    save(clock, "neurodiffeq", version, "Adam, L-BFGS", seed=seed, neural=True)


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve(problem, seed)
