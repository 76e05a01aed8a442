"""Lotka-Volterra: prey x' = a x - b x y and predators y' = d x y - c y, which go round and round.

`birth`, `catch`, `death` and `gain` are a, b, c and d; `prey` and `predators` the populations at
time 0, `end` the last time. `invariant` stays what it was at the start: how far it drifts is a
measure of the error that needs no reference.

Source: Hairer, Lubich and Wanner, Geometric Numerical Integration, section I.1.1.
"""

import jax.numpy as jnp

import constrainednn as cx


def populations(t, y, args):
    birth, catch, death, gain = args
    prey, predators = y
    met = prey * predators
    return jnp.stack([birth * prey - catch * met, gain * met - death * predators])


def invariant(y, birth=1.5, catch=1.0, death=3.0, gain=1.0):
    """Constant in time along every solution."""
    prey, predators = y[..., 0], y[..., 1]
    return gain * prey - death * jnp.log(prey) + catch * predators - birth * jnp.log(predators)


def problem(prey=2.5, predators=1.25, birth=1.5, catch=1.0, death=3.0, gain=1.0, end=6.0):
    y0 = jnp.array([prey, predators])
    return cx.ivp(populations, y0, (0.0, end), args=(birth, catch, death, gain))
