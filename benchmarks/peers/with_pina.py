"""Run PINA: tanh networks, hard conditions in the model, Adam, then L-BFGS (SwitchOptimizer).

    python with_pina.py [SEED] [NAME ...]

Adam takes a quarter of the budget. Points are drawn by Latin hypercube sampling once; R3 refinement
was left out, since L-BFGS needs fixed points. Errors are computed by a callback.
"""

import importlib.metadata
import logging
import warnings

import numpy as np
import torch
from common import Clock, Problem, asked, conditions, residual, save
from lightning.pytorch.callbacks import Callback
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad
from pina.optim import TorchOptimizer
from pina.problem import SpatialProblem
from pina.solver import PhysicsInformedSingleModelSolver

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_default_dtype(torch.float64)
COORDINATES = ["z0", "z1"]
VALUES = ["u0", "u1"]


class Within(torch.nn.Module):
    """A network with the initial and boundary values."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.problem = problem
        self.low, self.high = torch.tensor(problem.low), torch.tensor(problem.high)
        self.inner = FeedForward(
            input_dimensions=len(problem.low),
            output_dimensions=problem.outputs,
            layers=list(problem.layers),
            func=torch.nn.Tanh,
        )

    def forward(self, z):
        """Labelled points to labelled values."""
        plain = z.as_subclass(torch.Tensor)
        y = self.inner(2 * (plain - self.low) / (self.high - self.low) - 1)
        columns, outputs = plain.split(1, dim=1), y.split(1, dim=1)
        u = torch.cat(conditions(self.problem.name, torch, columns, outputs), dim=1)
        return LabelTensor(u, VALUES[: self.problem.outputs])


def stated(problem: Problem) -> SpatialProblem:
    """The problem, with its points."""
    names = COORDINATES[: len(problem.low)]

    def equation(z, u):
        def derivative(k, i, order):
            found, label = u, VALUES[k]
            for _ in range(order):
                found = grad(found, z, components=[label], d=[names[i]])
                label = found.labels[0]
            return found.as_subclass(torch.Tensor)

        columns = z.as_subclass(torch.Tensor).split(1, dim=1)
        values = u.as_subclass(torch.Tensor).split(1, dim=1)
        rows = residual(problem.name, torch, columns, values, derivative)
        return LabelTensor(torch.cat(rows, dim=1), VALUES[: len(rows)])

    ends = zip(names, zip(problem.low, problem.high, strict=True), strict=True)
    box = CartesianDomain({name: list(pair) for name, pair in ends})

    class Statement(SpatialProblem):
        output_variables = VALUES[: problem.outputs]
        spatial_domain = box
        domains = {"D": box}  # noqa: RUF012
        conditions = {"D": Condition(domain="D", equation=Equation(equation))}  # noqa: RUF012

    statement = Statement()
    statement.discretise_domain(problem.points, "lh", domains="D")
    return statement


class Watch(Callback):
    """Looks at the error when it is due, switches the optimizer and ends the run at their times."""

    def __init__(self, clock: Clock, predict):
        super().__init__()
        self.clock, self.predict, self.is_second = clock, predict, False

    def on_train_epoch_end(self, trainer, solver):
        """After an epoch."""
        self.clock.look(self.predict)
        if self.clock.is_over():
            trainer.should_stop = True
        if not self.is_second and self.clock.seconds() >= self.clock.problem.seconds / 4:
            self.is_second = True
            # As SwitchOptimizer does, at a time instead of an epoch.
            optimizer = TorchOptimizer(
                torch.optim.LBFGS,
                history_size=100,
                line_search_fn="strong_wolfe",
                tolerance_grad=0,
                tolerance_change=0,
            )
            optimizer.hook(solver._pina_models[0].parameters())
            solver._pina_optimizers = [optimizer]
            trainer.strategy.optimizers = [optimizer.instance]


def solve(problem: Problem, seed: int) -> None:
    """Train until the budget is spent."""
    clock = Clock(problem)
    torch.manual_seed(seed)
    model = Within(problem)
    solver = PhysicsInformedSingleModelSolver(
        stated(problem), model, optimizer=TorchOptimizer(torch.optim.Adam, lr=1e-3)
    )

    def predict(z):
        with torch.no_grad():
            points = LabelTensor(torch.tensor(z), COORDINATES[: len(problem.low)])
            return np.array(model(points).as_subclass(torch.Tensor))

    trainer = Trainer(
        solver,
        max_epochs=10**6,
        accelerator="cpu",
        callbacks=[Watch(clock, predict)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.train()
    clock.add(clock.seconds(), predict)
    version = importlib.metadata.version("pina-mathlab")
    save(clock, "pina", version, "Adam, L-BFGS", seed=seed, neural=True)


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve(problem, seed)
