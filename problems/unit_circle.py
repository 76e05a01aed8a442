"""Map the plane onto the unit circle, from the constraint |u(x)| = 1 alone.

`model` selects the network:

- smooth: tanh, one hidden layer; Levenberg-Marquardt brings the train residual to rounding.
- linear: no bias; the best held-out loss is 1 - pi/4 = 0.2146, at a multiple of a rotation.
- relu: one hidden layer of width 1024 and unit normal weights, the classic lesson; solve it with
  `--method gd`, plain gradient descent for 10,000 steps.

With `spread` a second condition asks that u(x) turns around the circle at a constant speed along
x0, once in 4.5 standard deviations, so that all of the circle is covered.

A map that satisfies the constraint on the whole plane has degree 0 on every circle, so a map that
winds around must fail somewhere: the worst-point search finds the hole.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import constrainednn as cx


def on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def turns(u, x):
    y = u(x)
    return cx.partial(u, 0)(x) - 1.4 * jnp.stack([-y[1], y[0]])


def unit_normal_relu(*, key):
    """One hidden layer of 1,024 relu units, all weights unit normal, biases zero."""
    first, second = jax.random.split(key)
    net = eqx.nn.MLP(2, 2, 1024, 1, jax.nn.relu, key=key)
    weights = jax.random.normal(first, (1024, 2)), jax.random.normal(second, (2, 1024))
    return eqx.tree_at(
        lambda u: [u.layers[0].weight, u.layers[0].bias, u.layers[1].weight, u.layers[1].bias],
        net,
        [weights[0], jnp.zeros(1024), weights[1], jnp.zeros(2)],
    )


models = {
    "smooth": cx.MLP(2, 2, width=64),
    "linear": cx.Linear(2, 2, bias=False),
    "relu": unit_normal_relu,
}

methods = {"gd": cx.Stage(cx.Optax(optax.sgd(1e-3)), steps=10_000)}


def problem(model="smooth", points=100, spread=False):
    if model not in models:
        raise ValueError(f"model must be one of {', '.join(models)}, got {model!r}")
    over = cx.Normal(2)
    rows = [cx.Constraint(on_circle, over=over, points=points, target=cx.Circle())]
    if spread:
        rows.append(cx.Constraint(turns, over=over, points=points))
    return cx.Problem(rows, model=models[model])
