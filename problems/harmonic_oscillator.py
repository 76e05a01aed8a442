"""Harmonic oscillator: y'' = -omega^2 y from (1, 0), with its closed form cos(omega t).

`form` says how it is stated: "first" as a system for (y, y'), "second" as it stands. `omega` is
the angular frequency, `end` the last time. The second form keeps y' as the derivative of y in
every window; the first approximates each by itself.

Source: any book on mechanics, e.g. Arnold, Mathematical Methods of Classical Mechanics, section 5.
"""

import jax.numpy as jnp

import constrainednn as cx


def first_order(t, y, omega):
    return jnp.stack([y[1], -(omega**2) * y[0]])


def second_order(t, y, omega):
    position, _ = y
    return -(omega**2) * position


def problem(form="first", omega=1.0, end=10.0):
    def position(t):
        return jnp.cos(omega * t)

    def position_and_velocity(t):
        return jnp.stack([jnp.cos(omega * t), -omega * jnp.sin(omega * t)])

    if form == "first":
        y0, reference = jnp.array([1.0, 0.0]), position_and_velocity
        return cx.ivp(first_order, y0, (0.0, end), args=omega, reference=reference)
    if form == "second":
        y0 = (1.0, 0.0)
        return cx.ivp(second_order, y0, (0.0, end), args=omega, order=2, reference=position)
    raise ValueError(f"form must be first or second, got {form!r}")
