"""The quadratic and the non-convex programme of DC3: a network with a projection beside solvers.

    min 1/2 y^T Q y + p^T y   (non-convex: p^T sin y)   with   A y = x,   G y <= h

for every x at once, of 100 variables, 50 equations and 50 inequalities. Q is diagonal and uniform
in [0, 1], p uniform in [0, 1], A and G standard normal, x uniform in [-1, 1], and h is large enough
that A^+ x is feasible: h_i = sum_j |(G A^+)_ij|. Instances are split as 83 to 8 to 8.

The model is trained with the equations projected onto in closed form and the inequalities as a
penalty, then projected onto both. The distance of that projection knows nothing of Q and p. Models
are an affine map of x, which solutions of both programmes nearly are, and a network of DC3's size.
A larger penalty makes Adam slow: with 100 in place of 5 objectives are some per cent above.

Source: P. L. Donti, D. Rolnick and J. Z. Kolter, DC3, ICLR (2021), section 4.1 and appendix.
"""

import time
from typing import Any, NamedTuple

import numpy as np

SIZE, EQUATIONS, INEQUALITIES = 100, 50, 50
# Parts of the instances that are trained on and tested on.
TRAIN, TEST = 0.8334, 0.0833
WIDTH, DEPTH, PENALTY = 200, 2, 5.0
# First learning rates, which fall to zero by a cosine.
RATES = {"affine": 2e-2, "network": 2e-3}


class Programme(NamedTuple):
    """What an instance consists of, but for its x."""

    Q: np.ndarray
    p: np.ndarray
    A: np.ndarray
    G: np.ndarray
    h: np.ndarray
    convex: bool

    def cost(self, y: Any, sin: Any = np.sin) -> Any:
        """The objective of one y."""
        return 0.5 * y @ (self.Q * y) + self.p @ (y if self.convex else sin(y))

    def slope(self, y: np.ndarray) -> np.ndarray:
        """Its gradient."""
        return self.Q * y + (self.p if self.convex else self.p * np.cos(y))


def programme(convex: bool, seed: int = 0) -> Programme:
    """The numbers of the programme."""
    drawn = np.random.default_rng(seed)
    Q, p = drawn.uniform(size=SIZE), drawn.uniform(size=SIZE)
    A = drawn.normal(size=(EQUATIONS, SIZE))
    G = drawn.normal(size=(INEQUALITIES, SIZE))
    return Programme(Q, p, A, G, np.abs(G @ np.linalg.pinv(A)).sum(axis=1), convex)


def by_osqp(stated: Programme, xs: np.ndarray) -> np.ndarray:
    """The least costs of the quadratic programme, by OSQP to 1e-10 with polishing."""
    import osqp
    from scipy import sparse

    rows = sparse.csc_matrix(np.concatenate([stated.A, stated.G]))
    low = lambda x: np.concatenate([x, np.full(INEQUALITIES, -np.inf)])  # noqa: E731
    high = lambda x: np.concatenate([x, stated.h])  # noqa: E731
    solver, settings = osqp.OSQP(), {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 100_000}
    quadratic, first = sparse.diags(stated.Q, format="csc"), xs[0]
    solver.setup(
        quadratic,
        stated.p,
        rows,
        low(first),
        high(first),
        verbose=False,
        polishing=True,
        **settings,
    )
    costs = []
    for x in xs:
        solver.update(l=low(x), u=high(x))
        found = solver.solve()
        assert found.info.status == "solved", found.info.status
        costs.append(stated.cost(found.x))
    return np.array(costs)


def by_slsqp(stated: Programme, xs: np.ndarray) -> np.ndarray:
    """Least costs nearby, from A^+ x, by SLSQP of SciPy, where A y = x."""
    from scipy.optimize import minimize

    inverse = np.linalg.pinv(stated.A)
    null = np.linalg.svd(stated.A)[2][EQUATIONS:].T
    held, costs = stated.G @ null, []
    for x in xs:
        start = inverse @ x
        room = stated.h - stated.G @ start
        within = {
            "type": "ineq",
            "fun": lambda z, room=room: room - held @ z,
            "jac": lambda z: -held,
        }
        found = minimize(
            lambda z, start=start: stated.cost(start + null @ z),
            np.zeros(SIZE - EQUATIONS),
            jac=lambda z, start=start: null.T @ stated.slope(start + null @ z),
            method="SLSQP",
            constraints=[within],
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert found.success, found.message
        costs.append(found.fun)
    return np.array(costs)


def row(convex: bool, kind: str, instances: int = 10_000, steps: int = 1000, seed: int = 0) -> dict:
    """Train, project, and compare on the test instances; the kind is one of RATES."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    import constrainednn as cx
    from constrainednn._common.batched import in_blocks

    stated = programme(convex, seed)
    A, G, h = stated.A, stated.G, stated.h

    def balance(x, y):
        return A @ y - x

    def beyond(x, y):
        return G @ y - h

    def too_large(u, x):
        return cx.at_most(beyond(x, u(x)), 0.0)

    def cost(u, x):
        return stated.cost(u(x), jnp.sin)

    over = cx.Box([-1.0] * EQUATIONS, [1.0] * EQUATIONS)
    deep = cx.MLP(EQUATIONS, SIZE, width=WIDTH, depth=DEPTH)
    network = cx.Linear(EQUATIONS, SIZE) if kind == "affine" else deep
    points = round(TRAIN * instances)
    tests = max(1, round(TEST * instances))
    problem = cx.Problem(
        cx.Constraint(too_large, over=over, points=points, weight=PENALTY),
        model=cx.with_projection(network, equalities=balance),
        objective=cx.Objective(cost, over=over, points=points),
    )
    method = cx.Optax(optax.adam(optax.cosine_decay_schedule(RATES[kind], steps)))
    started, worked = time.perf_counter(), time.process_time()
    trained = cx.solve(problem, method, steps=steps, seed=seed, heldout=tests, monitor=1).model
    spent = {
        "train_wall": time.perf_counter() - started,
        "train_cpu": time.process_time() - worked,
    }

    # Drawn by a stream of their own, so that no training point is among them.
    xs = np.random.default_rng([seed, 1]).uniform(-1, 1, size=(tests, EQUATIONS))
    started = time.process_time()
    least = (by_osqp if convex else by_slsqp)(stated, xs)
    spent["reference_cpu"] = time.process_time() - started
    found: dict[str, Any] = {"instances": instances, "tests": tests, "steps": steps, **spent}
    untrained = network(key=jax.random.key(seed))
    for name, behind in ("trained", trained.model), ("untrained", untrained):
        model = cx.with_projection(behind, equalities=balance, inequalities=beyond)
        started = time.process_time()
        ys = in_blocks(eqx.Partial(_value, model), xs)
        found[name] = _judged(stated, xs, ys, least) | {"cpu": time.process_time() - started}
    return found


def _value(model: Any, x: Any) -> Any:
    return model(x)


def _judged(stated: Programme, xs: np.ndarray, ys: np.ndarray, least: np.ndarray) -> dict:
    """Violation, and how far costs are above the least ones."""
    costs = np.array([stated.cost(y) for y in ys])
    gaps = costs - least
    return {
        "equalities": float(np.abs(ys @ stated.A.T - xs).max()),
        "inequalities": float(np.maximum(ys @ stated.G.T - stated.h, 0).max()),
        "objective": float(costs.mean()),
        "least": float(least.mean()),
        "gap": float(gaps.mean() / abs(least.mean())),
        "worst": float(np.abs(gaps).max()),
        "geometric_mean": float(np.exp(np.log(np.maximum(np.abs(gaps), 1e-300)).mean())),
        "below": int((gaps < 0).sum()),
    }
