"""The viscosity of Burgers' equation from places and times where its solution was measured.

u_t + u u_x = nu u_xx on (-1, 1) from -sin(pi x), with 50 rows of u, the true nu = 0.05, and noise
of a given standard deviation; the estimate starts at 0.2. The data are the solution by Cole and
Hopf, `burgers.py`, and so is the reference.

Source: the problem of Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378 (2019) 686, with a
smoother front.
"""

import jax
import numpy as np
from burgers import cole_hopf, start, wall

import constrainednn as cx

NU = 0.05


def burgers(u, p):  # p = (t, x)
    u_t, u_x = cx.partial(u, 0)(p), cx.partial(u, 1)(p)
    return u_t + u(p) * u_x - u.args["nu"] * cx.partial(u, 1, order=2)(p)


def measured(rows, noise, draw):
    rng = np.random.default_rng(draw)
    points = rng.uniform((0.0, -1.0), (1.0, 1.0), (rows, 2))
    values = np.asarray(jax.vmap(cole_hopf(NU))(points))
    return points, values + noise * rng.normal(size=rows)


def problem(rows=50, noise=0.0, draw=0):
    return cx.pde(
        burgers,
        over=cx.Interval(-1.0, 1.0),
        time=(0.0, 1.0),
        start=start,
        boundary=wall,
        args={"nu": cx.Unknown(0.2, low=0.0)},
        data=cx.Data(measured(rows, noise, draw)),
        reference=cole_hopf(NU),
    )
