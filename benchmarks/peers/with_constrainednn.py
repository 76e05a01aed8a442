"""Run the package itself: pieces (polynomials, not neural) and tanh networks.

    python with_constrainednn.py [SEED] [NAME ...]

Pieces: whole calls of `cx.solve` with their reports, at rising accuracy; the second time for each,
so that `compiling` is what the first call took on top. Networks: whole calls, too, each from the
start to more steps than the one before, and compilation once. So a curve costs more than its last
point says. Networks for ordinary differential equations are trained in ten windows.
"""

import os
import time

os.environ["JAX_ENABLE_X64"] = "1"

import jax.numpy as jnp
import numpy as np
from common import NU, POPULATIONS, Clock, Problem, asked, save

import constrainednn as cx
from constrainednn.domains import Adaptive, Sobol

# Numbers of steps of the runs that make a curve.
STEPS = (10, 20, 40, 80, 160, 320, 640, 1280, 2560)
TOLERANCES = {"oscillator": 1e-12, "lotka_volterra": 1e-12, "poisson": 1e-10}


def swing(t, y, args):
    return -y[0]


def predation(t, y, args):
    prey, predators = y
    met = prey * predators
    return jnp.stack([1.5 * prey - met, met - 3.0 * predators])


def poisson(u, z):
    source = 2 * jnp.pi**2 * jnp.sin(jnp.pi * z[0]) * jnp.sin(jnp.pi * z[1])
    return cx.laplacian(u)(z) + source


def heat(u, z):
    return cx.partial(u, 0)(z) - cx.partial(u, 1, order=2)(z) / 4


def wave(u, z):
    return cx.partial(u, 0, order=2)(z) - 4 * cx.partial(u, 1, order=2)(z)


def burgers(u, z):
    return cx.partial(u, 0)(z) + u(z) * cx.partial(u, 1)(z) - NU * cx.partial(u, 1, order=2)(z)


def start(name, x):
    sine = jnp.sin(jnp.pi * x)
    return {"heat": sine, "wave": sine + jnp.sin(4 * jnp.pi * x) / 2, "burgers": -sine}[name]


# What the network's output is multiplied by, so that it cannot change initial and boundary values.
EDGE = {
    "poisson": lambda z: 16 * z[0] * (1 - z[0]) * z[1] * (1 - z[1]),
    "heat": lambda z: 4 * z[0] * z[1] * (1 - z[1]),
    "wave": lambda z: 4 * z[0] ** 2 * z[1] * (1 - z[1]),
    "burgers": lambda z: z[0] * (1 - z[1] ** 2),
}
RESIDUALS = {"poisson": poisson, "heat": heat, "wave": wave, "burgers": burgers}


def pieces(problem: Problem):
    """The statement for elements or windows."""
    name = problem.name
    if name == "oscillator":
        return cx.ivp(swing, (1.0, 0.0), (0.0, 10.0), order=2)
    if name == "lotka_volterra":
        return cx.ivp(predation, jnp.array(POPULATIONS), (0.0, 6.0))
    if name == "poisson":
        box = cx.Box(problem.low, problem.high)
        return cx.pde(poisson, over=box, boundary=lambda u, z: u(z))

    def begin(x):
        value = start(name, x)
        return (value, jnp.zeros_like(x)) if name == "wave" else value

    return cx.pde(
        RESIDUALS[name],
        over=cx.Interval(problem.low[1], problem.high[1]),
        time=(0.0, 1.0),
        start=begin,
        boundary=lambda u, z: u(z),
    )


def network(problem: Problem):
    """The statement for a network, with its initial and boundary values built in."""
    name = problem.name
    model = cx.MLP("scalar", "scalar" if name == "oscillator" else 2, width=40)
    if name == "oscillator":
        return cx.ivp(swing, (1.0, 0.0), (0.0, 10.0), order=2, model=model, windows=10)
    if name == "lotka_volterra":
        return cx.ivp(predation, jnp.array(POPULATIONS), (0.0, 6.0), model=model, windows=10)
    width, depth = {"poisson": (64, 1), "heat": (40, 1), "wave": (30, 2), "burgers": (20, 3)}[name]

    def inside(z, y):
        return (0.0 if name == "poisson" else start(name, z[1])) + EDGE[name](z) * y

    rows = cx.Constraint(
        RESIDUALS[name],
        over=cx.Box(problem.low, problem.high),
        points={"poisson": 900, "heat": 900, "wave": 2500, "burgers": 3000}[name],
        sampler=Adaptive(0.7) if name == "burgers" else Sobol(),
    )
    return cx.Problem(rows, cx.with_output(cx.MLP(2, "scalar", width=width, depth=depth), inside))


def called(stated, **settings):
    """CPU seconds of a call of `solve`, and its solution."""
    began = time.process_time()
    solution = cx.solve(stated, **settings)
    return time.process_time() - began, solution


def values(solution, problem: Problem):
    def predict(z):
        u = solution(jnp.asarray(z[:, 0] if len(problem.low) == 1 else z))
        return np.asarray(u[0] if isinstance(u, tuple) else u)

    return predict


def solve_pieces(problem: Problem, seed: int) -> None:
    clock, stated = Clock(problem), pieces(problem)
    tolerances = (1e-4, 1e-7, TOLERANCES.get(problem.name, 1e-11))
    cold, _ = called(stated, tolerance=tolerances[-1], seed=seed)
    for tolerance in reversed(tolerances):
        if clock.compiling:
            called(stated, tolerance=tolerance, seed=seed)
        seconds, solution = called(stated, tolerance=tolerance, seed=seed)
        clock.compiling = clock.compiling or cold - seconds
        clock.add(clock.compiling + seconds, values(solution, problem))
    clock.points.reverse()
    save(
        clock,
        "constrainednn",
        cx.__version__,
        "windows and elements of Legendre polynomials",
        label="constrainednn, pieces",
        seed=seed,
        neural=False,
        verdict=str(solution.verdict),
    )


def solve_network(problem: Problem, seed: int) -> None:
    clock, stated = Clock(problem), network(problem)
    redraw = 10 if problem.name == "burgers" else None
    cold, _ = called(stated, steps=2, seed=seed, redraw=redraw)
    warm, _ = called(stated, steps=2, seed=seed, redraw=redraw)
    clock.compiling, seconds = cold - warm, 0.0
    for steps in STEPS:
        if 1.8 * seconds > problem.seconds:
            break
        seconds, solution = called(stated, steps=steps, seed=seed, redraw=redraw)
        clock.add(clock.compiling + seconds, values(solution, problem))
        errors = [error for _, error in clock.points]
        if solution.steps < steps or (len(errors) > 2 and min(errors[-2:]) > errors[-3] / 2):
            break
    gap = solution.gap.constraints[0]
    save(
        clock,
        "constrainednn",
        cx.__version__,
        "Levenberg-Marquardt",
        seed=seed,
        neural=True,
        label="constrainednn, network",
        steps=solution.steps,
        parameters=solution.parameters,
        train=gap.train_rms,
        held_out=gap.heldout_rms.value,
    )


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve_pieces(problem, seed)
        solve_network(problem, seed)
