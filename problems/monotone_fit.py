"""A curve through noisy data that must not fall: an inequality beside a fit.

`rows` observations of a saturating curve with noise of standard deviation `noise`, drawn from
`draw`. Without the constraint (`monotone=False`) the fit follows the noise down.

Source: Ramsay, Statistical Science 3 (1988) 425, on monotone regression.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx


def fit(u, row):
    x, y = row
    return u(x) - y


def rises(u, x):
    return cx.at_least(cx.derivative(u)(x), 0.0)


def problem(rows=40, noise=0.1, draw=0, width=24, monotone=True):
    generator = np.random.default_rng(draw)
    x = np.sort(generator.uniform(0.0, 4.0, rows))
    y = 1 - np.exp(-2 * x) + noise * generator.normal(size=rows)
    over = cx.Interval(0.0, 4.0)
    constraints = [cx.Constraint(fit, over=cx.Data((x, y)))]
    if monotone:
        constraints.append(
            cx.Constraint(rises, over=over, points=80, weight=100.0, sampler=cx.GaussQuadrature())
        )
    return cx.Problem(
        constraints,
        cx.RandomFeatures(over, "scalar", width=width),
        reference=lambda x: 1 - jnp.exp(-2 * x),
    )
