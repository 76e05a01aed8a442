"""Run jinns: tanh networks, hard conditions, SSBroyden with its zoom line search, one compiled run.

    python with_jinns.py [SEED] [NAME ...]

jinns advises its second-order optimizers as the default for networks of this size. Burgers'
equation has its points chosen anew by the residual (RAR-D). The clock is read inside of the
compiled loop, which keeps the parameters of that moment; errors are computed afterwards.
"""

import importlib.metadata
import itertools
import os
import warnings

os.environ["JAX_ENABLE_X64"] = "1"

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import jinns.validation
import numpy as np
from common import Clock, Problem, asked, conditions, residual, save
from jax.experimental import io_callback

warnings.filterwarnings("ignore")


def along(f, i, order=1):
    """Derivative by a coordinate, forward over forward."""
    if order == 0:
        return f
    inner = along(f, i, order - 1)
    return lambda z: jax.jvp(inner, (z,), (jnp.eye(len(z))[i],))[1]


def equation(name, f, z):
    """The residual at a point, for a function of shape (d,) -> (outputs,)."""
    d = lambda k, i, order: along(f, i, order)(z)[k]  # noqa: E731
    return jnp.stack(residual(name, jnp, z, f(z), d))


def within(name, z, y):
    """The network's output with the initial and boundary values."""
    return jnp.stack(conditions(name, jnp, z, jnp.atleast_1d(y)))


def stated(problem: Problem, key):
    """Network, loss, points and parameters."""
    low, high = jnp.array(problem.low), jnp.array(problem.high)
    sizes = (len(low), *problem.layers, problem.outputs)
    layers = []
    for inside, outside in itertools.pairwise(sizes):
        layers += [(eqx.nn.Linear, inside, outside), (jnp.tanh,)]
    kind = {1: "ODE", 2: "PDENonStatio"}[len(low)]
    kind = "PDEStatio" if problem.name == "poisson" else kind
    net_key, data_key = jax.random.split(key)
    u, weights = jinns.nn.PINN_MLP.create(
        key=net_key,
        eqx_list=tuple(layers[:-1]),
        eq_type=kind,
        input_transform=lambda z, _: 2 * (z - low) / (high - low) - 1,
        output_transform=lambda z, y, _: within(problem.name, z, y),
    )
    params = jinns.parameters.Params(nn_params=weights, eq_params={})

    class Equation(getattr(jinns.loss, kind)):
        def equation(self, z, u, params):
            return equation(problem.name, lambda z: u(z, params), jnp.atleast_1d(z))

    loss = getattr(jinns.loss, f"Loss{kind}")(
        u=u,
        dynamic_loss=Equation(),
        loss_weights=getattr(jinns.loss, f"LossWeights{kind}")(dyn_loss=1.0),
        params=params,
    )
    n = problem.points
    if kind == "ODE":
        data = jinns.data.DataGeneratorODE(
            key=data_key, nt=n, tmin=problem.low[0], tmax=problem.high[0], method="grid"
        )
    elif kind == "PDEStatio":
        data = jinns.data.CubicMeshPDEStatio(
            key=data_key, n=n, dim=2, min_pts=problem.low, max_pts=problem.high, method="sobol"
        )
    else:
        steered = jinns.data.RARParameters(
            update_every=200, novelty_proportion=0.5, method="D", k=1.0, c=1.0
        )
        data = jinns.data.CubicMeshPDENonStatio(
            key=data_key,
            n=n,
            ni=1,
            dim=1,
            tmin=problem.low[0],
            tmax=problem.high[0],
            min_pts=problem.low[1:],
            max_pts=problem.high[1:],
            method="uniform" if problem.name == "burgers" else "sobol",
            rar_parameters=steered if problem.name == "burgers" else None,
        )
    return u, loss, data, params


def callback_value_fn(params, batch, loss):
    return loss.evaluate(params, batch)[0]


def callback_grad_fn(params, batch, loss):
    return loss.ponderate_and_sum_gradient(loss.values_and_grads(params, batch)[1])


class Stopwatch(jinns.validation.AbstractValidationModule):
    """A validation that computes nothing: it notes the time and keeps the parameters."""

    note: callable = eqx.field(static=True)
    call_every: int = eqx.field(kw_only=True, static=True, default=2)

    def __call__(self, params):
        """What jinns asks for: itself, whether to stop, a criterion, whether it is the best."""
        over = io_callback(self.note, jax.ShapeDtypeStruct((), bool), params, ordered=True)
        return self, over, jnp.array(0.0), True


def solve(problem: Problem, seed: int) -> None:
    clock, seen = Clock(problem), []
    u, loss, data, params = stated(problem, jax.random.PRNGKey(seed))

    def note(params):
        if not seen:
            clock.compiled()
        if not seen or clock.is_due():
            seen.append((clock.seconds(), jax.tree.map(np.array, params)))
        return np.array(clock.is_over())

    name = jinns.solver.GetJinnsVariableName
    jinns.solve(
        n_iter=30_000,
        init_params=params,
        data=data,
        loss=loss,
        optimizer=jinns.optimizers.scale_by_SSBroyden_family(),
        extra_optax_args_and_kwargs={
            "value": name("train_loss_value"),
            "grad_pt": name("grads"),
            "value_fn": callback_value_fn,
            "grad_fn": callback_grad_fn,
            "batch": name("batch"),
            "loss": name("loss"),
        },
        validation=Stopwatch(note=note),
        key=jax.random.PRNGKey(seed + 1),
        verbose=False,
    )
    predict = jax.jit(lambda params, z: jax.vmap(lambda z: u(z, params))(z))
    for seconds, kept in seen:
        clock.add(seconds, lambda z, kept=kept: predict(kept, z))
    save(clock, "jinns", importlib.metadata.version("jinns"), "SSBroyden", seed=seed, neural=True)


if __name__ == "__main__":
    problems, seed = asked()
    for problem in problems:
        solve(problem, seed)
