"""Run DeepXDE (PyTorch): tanh networks, hard conditions by output transforms, Adam, then L-BFGS.

    python with_deepxde.py [SEED] [NAME ...]

Adam takes a quarter of the budget, as in DeepXDE's examples; L-BFGS has the options of
`set_LBFGS_options` and tolerances of zero. Errors are computed by a callback.
"""

import os

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import torch
from common import Clock, Problem, asked, conditions, residual, save

dde.config.set_default_float("float64")
# PyTorch imports much of itself with the first optimizer; imports do not count.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
# After so many steps of L-BFGS callbacks are called.
CHUNK = 20


class Watch(dde.callbacks.Callback):
    """Looks at the error when it is due, and ends a phase of the training at its time."""

    def __init__(self, clock: Clock, until: float):
        super().__init__()
        self.clock, self.until = clock, until

    def on_batch_end(self):
        """After a step of Adam or some of L-BFGS."""
        self.clock.look(self.model.predict)
        self.model.stop_training = self.clock.seconds() >= self.until


def stated(problem: Problem, seed: int) -> dde.Model:
    """The data and the network."""
    dde.config.set_random_seed(seed)
    name, d = problem.name, len(problem.low)

    def pde(z, u):
        def derivative(k, i, order):
            if order == 1:
                return dde.grad.jacobian(u, z, i=k, j=i)
            return dde.grad.hessian(u, z, component=k, i=i, j=i)

        columns = [z[:, i : i + 1] for i in range(d)]
        values = [u[:, k : k + 1] for k in range(problem.outputs)]
        return residual(name, torch, columns, values, derivative)

    geometry = dde.geometry.Interval(problem.low[0], problem.high[0])
    if d == 2:
        geometry = dde.geometry.Rectangle(problem.low, problem.high)
    data = dde.data.PDE(geometry, pde, [], num_domain=problem.points)
    net = dde.nn.FNN([d, *problem.layers, problem.outputs], "tanh", "Glorot normal")
    low, high = torch.tensor(problem.low), torch.tensor(problem.high)
    net.apply_feature_transform(lambda z: 2 * (z - low) / (high - low) - 1)

    def within(z, y):
        columns = [z[:, i : i + 1] for i in range(d)]
        values = [y[:, k : k + 1] for k in range(problem.outputs)]
        return torch.cat(conditions(name, torch, columns, values), dim=1)

    net.apply_output_transform(within)
    return dde.Model(data, net)


def solve(problem: Problem, seed: int) -> None:
    """Train until the budget is spent or L-BFGS stops."""
    clock = Clock(problem)
    model = stated(problem, seed)
    model.compile("adam", lr=1e-3)
    quiet = {"display_every": 10**9, "verbose": 0}
    model.train(10**6, callbacks=[Watch(clock, problem.seconds / 4)], **quiet)
    dde.optimizers.set_LBFGS_options(maxcor=100, ftol=0, gtol=0, maxiter=10**6)
    dde.optimizers.config.LBFGS_options.update(iter_per_step=CHUNK, fun_per_step=2 * CHUNK)
    model.compile("L-BFGS")
    model.stop_training = False
    model.train(callbacks=[Watch(clock, problem.seconds)], **quiet)
    clock.add(clock.seconds(), model.predict)
    save(clock, "deepxde", dde.__version__, "Adam, L-BFGS", seed=seed, neural=True)


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve(problem, seed)
