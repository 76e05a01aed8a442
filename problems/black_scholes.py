"""The price of a European call by Black and Scholes, in the time that is left.

V_t = sigma^2 s^2 V_ss / 2 + r s V_s - r V for prices s of the share up to 300, from the payoff
max(s - 100, 0), whose kink is the end of an element.

Source: Black and Scholes, J. Political Economy 81 (1973) 637.
"""

import jax.numpy as jnp
from jax.scipy.stats import norm

import constrainednn as cx

STRIKE, RATE, SIGMA = 100.0, 0.05, 0.2


def black_scholes(V, p):  # p = (time left, s)
    s = p[1]
    drift = RATE * s * cx.partial(V, 1)(p) - RATE * V(p)
    return cx.partial(V, 0)(p) - SIGMA**2 * s**2 * cx.partial(V, 1, order=2)(p) / 2 - drift


def worthless(V, p):
    return V(p)


def certain(V, p):
    return V(p) - solution(p)


def payoff(s):
    return jnp.maximum(s - STRIKE, 0.0)


def solution(p):
    t, s = jnp.maximum(p[0], 1e-300), jnp.maximum(p[1], 1e-300)
    spread = SIGMA * jnp.sqrt(t)
    d = (jnp.log(s / STRIKE) + (RATE + SIGMA**2 / 2) * t) / spread
    return s * norm.cdf(d) - STRIKE * jnp.exp(-RATE * t) * norm.cdf(d - spread)


def problem():
    return cx.pde(
        black_scholes,
        over=cx.Interval(0.0, 300.0),
        time=(0.0, 1.0),
        start=payoff,
        boundary={"left": worthless, "right": certain},
        mesh=[0.0, 50.0, 100.0, 150.0, 200.0, 300.0],
        reference=solution,
    )
