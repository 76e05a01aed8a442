"""A boundary layer: eps y'' = y' - 1, y(0) = y(1) = 0, with a layer of width eps at x = 1.

`eps` is the width. Nothing tells the solver where the layer is: the elements that are divided
show it. The solution is x - (exp((x - 1) / eps) - exp(-1 / eps)) / (1 - exp(-1 / eps)).

Source: the standard convection-diffusion problem, e.g. Roos, Stynes and Tobiska, Robust Numerical
Methods for Singularly Perturbed Differential Equations (2008), part I, eq. 1.2.
"""

import jax.numpy as jnp

import constrainednn as cx


def ends_at_zero(left, right):
    return jnp.stack([left[0], right[0]])


def problem(eps=1e-3):
    if not eps > 0:
        raise ValueError(f"eps must be above zero, got {eps}")

    def convection(x, y):
        return jnp.stack([y[1], (y[1] - 1) / eps])

    def solution(x):
        layer, far = jnp.exp((x - 1) / eps), jnp.exp(-1 / eps)
        return jnp.stack([x - (layer - far) / (1 - far), 1 - layer / (eps * (1 - far))])

    return cx.bvp(convection, ends_at_zero, (0.0, 1.0), [0.0, 0.0], reference=solution)
