"""A reaction at four temperatures: its rate and activation energy from all of them in one fit.

A substance decays as c' = -k c^2, with the rate of Arrhenius, k = rate exp(-energy / R (1 / T -
1 / 320 K)), energy in J/mol. One temperature tells one rate constant, and nothing about the
energy. The hotter the shorter it is watched; each start is measured as badly as the rest, so that
it is an unknown of its own. `observations` uniform times in each with normal noise of standard
deviation `noise`, drawn from `draw`. With `judged_at`, one of the temperatures, nothing is fitted
to that experiment: it judges what the others tell.

Source: Arrhenius, Z. Phys. Chem. 4 (1889) 226; the rate at a middle temperature in place of the
one at infinity as in Himmelblau, Process Analysis by Statistical Methods, Wiley (1970).
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

TRUTH = {"rate": 0.5, "energy": 6.0e4}
GAS = 8.314462618
# Kelvin, start, seconds.
RUNS = ((300.0, 1.0, 12.0), (310.0, 0.8, 8.0), (320.0, 1.2, 5.0), (335.0, 1.0, 3.0))


def decay(t, c, args):
    change = 1.0 / args["kelvin"] - 1.0 / 320.0
    return -args["rate"] * jnp.exp(-args["energy"] / GAS * change) * c**2


def concentration(t, kelvin, start):
    """The closed form with the true constants."""
    k = TRUTH["rate"] * np.exp(-TRUTH["energy"] / GAS * (1.0 / kelvin - 1.0 / 320.0))
    return start / (1.0 + start * k * t)


def problem(observations=20, noise=0.01, draw=0, judged_at=0.0):
    if judged_at and judged_at not in [kelvin for kelvin, *_ in RUNS]:
        raise ValueError(
            f"judged_at must be a temperature of {RUNS}, or 0 for none, got {judged_at:g}."
        )
    rng = np.random.default_rng(draw)
    experiments = []
    for kelvin, start, seconds in RUNS:
        t = np.linspace(0.0, seconds, observations)
        seen = concentration(t, kelvin, start) + noise * rng.normal(size=observations)
        judges = kelvin == judged_at
        experiments.append(
            cx.Experiment(
                name=f"{kelvin:g} K",
                args={"kelvin": kelvin},
                # What judges has a start that is known.
                y0=start if judges else cx.Unknown(seen[0], low=0.0),
                span=(0.0, seconds),
                data=cx.Data((t, seen)),
                heldout=judges,
            )
        )
    return cx.ivp(
        decay,
        args={"rate": cx.Unknown(1.0, low=0.0), "energy": cx.Unknown(3.0e4, low=0.0)},
        experiments=experiments,
    )
