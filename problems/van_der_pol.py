"""Van der Pol's oscillator: y'' = mu (1 - y^2) y' - y, stiff where mu is large.

`mu` is the damping: at 1 the oscillation is smooth, at 10 it creeps and jumps, at 1000 a jump takes
a millionth of the time between two. `end` is the last time; 0 stands for 2 mu, or 10 if that is
more. The state is (y, y') and starts at (2, 0).

`model` is what solves it: "legendre" for windows of polynomials, "features" or "mlp" for a model of
`width` units that is trained in so many `windows` on so many `points` each, 0 for twice its
parameters per component.

Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.1, eq. (1.5).
"""

import jax.numpy as jnp

import constrainednn as cx


def oscillator(t, y, mu):
    position, velocity = y
    return jnp.stack([velocity, mu * (1.0 - position**2) * velocity - position])


def problem(mu=1.0, end=0.0, model="legendre", width=40, windows=10, points=0):
    end = end or max(10.0, 2.0 * mu)
    models = {
        "legendre": None,
        "features": cx.RandomFeatures(cx.Interval(-1, 1), 2, width=width),
        "mlp": cx.MLP("scalar", 2, width=width),
    }
    if model not in models:
        raise ValueError(f"model must be legendre, features or mlp, got {model!r}")
    return cx.ivp(
        oscillator,
        jnp.array([2.0, 0.0]),
        (0.0, end),
        args=mu,
        model=models[model],
        windows=1 if model == "legendre" else windows,
        points=points or None,
    )
