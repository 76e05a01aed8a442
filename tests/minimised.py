"""A least-squares problem taken to its end by a method, in one compiled loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import constrainednn as cx
from constrainednn.methods.base import RUNNING


@eqx.filter_jit
def minimised(method, fn, start, most):
    """Parameters, state, verdict and the number of steps, at most `most`."""
    residual = cx.methods.FunctionResidual(fn)

    def step(carry):
        params, state, _, count = carry
        params, state, info = method.step(residual, params, state)
        return params, state, info.verdict, count + 1

    state = jax.tree.map(jnp.asarray, method.init(residual, start))
    begun = (start, state, jnp.asarray(RUNNING), jnp.asarray(0))
    return lax.while_loop(lambda carry: (carry[2] == RUNNING) & (carry[3] < most), step, begun)
