"""The conductivity of a rod as a function of place, from temperatures inside of it.

u_t = (k(x) u_x)_x + f on (0, 1) with u held at its ends, where k is the cubic through its values at
four places. These values are unknown; 200 temperatures are given, with noise of a given standard
deviation. The data are u = exp(-t) sin(pi x) + x^2 for k = 1 + x^2 / 2, which f is made for; they
are the reference, too.

Source: a manufactured solution; the question is that of Cannon, J. Math. Anal. Appl. 8 (1964) 188.
"""

import jax
import jax.numpy as jnp
import numpy as np

import constrainednn as cx

PLACES = np.array([0.0, 1.0, 2.0, 3.0]) / 3


def through(values, x):
    """The polynomial through values at PLACES."""
    others = [np.delete(PLACES, i) for i in range(len(PLACES))]
    basis = [jnp.prod((x - at) / (here - at)) for here, at in zip(PLACES, others, strict=True)]
    return values @ jnp.stack(basis)


def known(x):
    return 1 + x**2 / 2


def temperature(p):
    t, x = p[0], p[1]
    return jnp.exp(-t) * jnp.sin(jnp.pi * x) + x**2


def flux(u, k):
    """k(x) u_x, as a function of a point."""
    return lambda p: k(p[1]) * cx.partial(u, 1)(p)


def source(p):
    return cx.partial(temperature, 0)(p) - cx.partial(flux(temperature, known), 1)(p)


def heat(u, p):  # p = (t, x)
    k = lambda x: through(u.args["k"], x)  # noqa: E731
    return cx.partial(u, 0)(p) - cx.partial(flux(u, k), 1)(p) - source(p)


def problem(rows=200, noise=0.0, draw=0):
    rng = np.random.default_rng(draw)
    points = rng.uniform((0.0, 0.0), (1.0, 1.0), (rows, 2))
    values = np.asarray(jax.vmap(temperature)(points)) + noise * rng.normal(size=rows)
    return cx.pde(
        heat,
        over=cx.Interval(0.0, 1.0),
        time=(0.0, 1.0),
        start=lambda x: jnp.sin(jnp.pi * x) + x**2,
        boundary=lambda u, p: u(p) - temperature(p),
        args={"k": cx.Unknown(np.full(4, 0.5), low=0.0)},
        data=cx.Data((points, values)),
        reference=temperature,
    )
