"""Run FastLSQ: linear least squares, or Newton steps, with random Fourier features (not trained).

    python with_fastlsq.py [SEED] [NAME ...]

`solve_linear` and `solve_nonlinear` with 300, 600, 1000 and 1500 features, conditions as rows of
weight 100, as in its examples. The bandwidth is the best of three by the error itself, which is
kinder than life; the search is not counted. It is one for both coordinates, of points scaled to
the unit box. A curve joins runs of rising size, each from its start.
"""

import math
import time

import fastlsq
import torch
from common import NU, POPULATIONS, Clock, Problem, asked, save
from fastlsq.basis import Op

FEATURES = 300, 600, 1000, 1500
SCALES = 4.0, 7.0, 12.0
WEIGHT = 100.0


class Statement:
    """A problem as FastLSQ asks for it, for points of the unit box."""

    def __init__(self, problem: Problem):
        self.problem, self.name, self.dim = problem, problem.name, len(problem.low)
        self.n_outputs = problem.outputs
        self.low, self.high = torch.tensor(problem.low), torch.tensor(problem.high)
        self.size = self.high - self.low

    def exact(self, z):
        """The solution, which FastLSQ's report asks for."""
        return torch.tensor(self.problem.exact((self.low + self.size * z).numpy()))

    def source(self, z):
        """The right-hand side."""
        if self.name == "poisson":
            return 2 * math.pi**2 * torch.prod(torch.sin(math.pi * z), 1, keepdim=True)
        return torch.zeros(len(z), 1)

    def get_train_data(self, n_pde, n_bc):
        """Points of the equation, rows of conditions (points, values, order in time), source."""
        z, zeros = torch.rand(n_pde, self.dim), torch.zeros(n_bc, 1)
        if self.dim == 1:
            at = torch.zeros(1, 1)
            rows = [(at, torch.ones(1, 1), 0), (at, torch.zeros(1, 1), 1)]
            if self.name == "lotka_volterra":
                rows = [(at, torch.tensor([POPULATIONS]), 0)]
            return z, rows, self.source(z)
        s = torch.rand(n_bc, 1)
        edges = [torch.cat([s, zeros + end], 1) for end in (0, 1)]
        if self.name == "poisson":
            edges += [torch.cat([zeros + end, s], 1) for end in (0, 1)]
        start = torch.cat([zeros, s], 1)
        rows = [(edge, zeros, 0) for edge in edges]
        if self.name != "poisson":
            rows.append((start, self.exact(start), 0))
        if self.name == "wave":
            rows.append((start, zeros, 1))
        return z, rows, self.source(z)

    def _derivative(self, basis, z, i, order, cache):
        return Op.partial(dim=i, order=order, d=self.dim).apply(basis, z, cache=cache) / (
            self.size[i] ** order
        )

    def _linear(self, basis, z):
        """The part of the equation that is linear."""
        cache = basis.cache(z)
        d = lambda i, order: self._derivative(basis, z, i, order, cache)  # noqa: E731
        if self.name == "oscillator":
            return d(0, 2) + basis.evaluate(z, cache=cache)
        if self.name == "poisson":
            return -d(0, 2) - d(1, 2)
        if self.name == "heat":
            return d(0, 1) - d(1, 2) / 4
        if self.name == "wave":
            return d(0, 2) - 4 * d(1, 2)
        return d(0, 1) - NU * d(1, 2)

    def _conditions(self, basis, rows):
        for at, values, order in rows:
            H = basis.evaluate(at)
            if order:
                H = self._derivative(basis, at, 0, order, basis.cache(at))
            yield WEIGHT * H, WEIGHT * values

    def build(self, solver, z, rows, source):
        """The linear system."""
        held = list(self._conditions(solver.basis, rows))
        A = [self._linear(solver.basis, z), *(A for A, _ in held)]
        return torch.cat(A), torch.cat([source, *(b for _, b in held)])

    def build_linear_init(self, solver, z, rows, source):
        """Where Newton begins: the equation without its product, or populations that rest."""
        if self.name == "burgers":
            return self.build(solver, z, rows, source)
        slope = self._slope(solver.basis, z)
        ((condition, values),) = self._conditions(solver.basis, rows)
        A, B = torch.cat([slope, condition]), torch.cat([0 * slope, 0 * condition])
        zero = torch.zeros(len(slope), 1)
        b = [zero, values[:, :1], zero, values[:, 1:]]
        return torch.cat([torch.cat([A, B], 1), torch.cat([B, A], 1)]), torch.cat(b)

    def _slope(self, basis, z):
        return self._derivative(basis, z, 0, 1, basis.cache(z))

    def build_newton_step(self, solver, z, rows, source):
        """Jacobian and minus the residual."""
        basis, beta = solver.basis, solver.beta
        H = basis.evaluate(z)
        if self.name == "burgers":
            L, H_x = self._linear(basis, z), self._derivative(basis, z, 1, 1, basis.cache(z))
            u, u_x = H @ beta, H_x @ beta
            held = [(A, b - A @ beta) for A, b in self._conditions(basis, rows)]
            J = [L + u * H_x + u_x * H, *(A for A, _ in held)]
            return torch.cat(J), torch.cat([-(L @ beta + u * u_x), *(b for _, b in held)])
        slope, (x, y) = self._slope(basis, z), (H @ beta).split(1, dim=1)
        ((condition, values),) = self._conditions(basis, rows)
        zero, missing = torch.zeros_like(condition), values - condition @ beta
        J = torch.cat(
            [
                torch.cat([slope - (1.5 - y) * H, x * H], 1),
                torch.cat([-y * H, slope - (x - 3.0) * H], 1),
                torch.cat([condition, zero], 1),
                torch.cat([zero, condition], 1),
            ]
        )
        met = x * y
        first = slope @ beta[:, :1] - 1.5 * x + met
        second = slope @ beta[:, 1:] - met + 3.0 * y
        return J, -torch.cat([first, second, -missing[:, :1], -missing[:, 1:]])


def run(problem: Problem, features: int, scale: float, seed: int):
    """CPU seconds and the function that was found."""
    torch.manual_seed(seed)
    statement = Statement(problem)
    solver = fastlsq.solve_linear
    settings = {"n_blocks": 1, "hidden_size": features, "scale": scale, "verbose": False}
    if problem.name in ("lotka_volterra", "burgers"):
        solver = fastlsq.solve_nonlinear
        settings |= {"max_iter": 30, "return_history": False}
    began = time.process_time()
    found = solver(statement, return_metrics=False, **settings)
    seconds = time.process_time() - began

    def predict(z):
        scaled = (torch.tensor(z) - statement.low) / statement.size
        return found["u_fn"](scaled).numpy()

    return seconds, predict


def solve(problem: Problem, seed: int) -> None:
    """Search the bandwidth with few features, then run with more and more."""
    scales = {}
    for scale in SCALES:
        clock = Clock(problem)
        clock.add(0.0, run(problem, FEATURES[0], scale, seed)[1])
        scales[clock.points[0][1]] = scale
    scale = scales[min(scales)]
    clock, spent = Clock(problem), 0.0
    for features in FEATURES:
        if 3 * spent > problem.seconds:
            break
        spent, predict = run(problem, features, scale, seed)
        clock.add(spent, predict)
    save(
        *(clock, "fastlsq", fastlsq.__version__),
        f"least squares with random features, bandwidth {scale:g}",
        seed=seed,
        neural=False,
    )


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve(problem, seed)
