"""Repeated infusions: C' = R(t) / V - k C with a pump that runs a few minutes every six hours.

`volume` V in litres and `rate` k per hour are those of the patient, `minutes` how long the pump
runs, `end` the last time in hours. The pump's times are named as `breaks`: windows end there.

Source: Gibaldi and Perrier, Pharmacokinetics, 2nd edition, Dekker (1982): infusion into one
compartment, and superposition of doses.
"""

import jax.numpy as jnp
import numpy as np

import constrainednn as cx

DOSE, EVERY = 50.0, 6.0  # mg, hours


def problem(volume=20.0, rate=0.3, minutes=1.0, end=24.0):
    lasts = minutes / 60
    starts = np.arange(0.0, end, EVERY)

    def concentration(t, y, args):
        """Concentration in mg per litre."""
        V, k = args
        running = jnp.any((t >= starts) & (t < starts + lasts))
        return jnp.where(running, DOSE / lasts, 0.0) / V - k * y

    def superposed(t):
        after = jnp.maximum(t - starts, 0.0)
        on, off = jnp.minimum(after, lasts), jnp.maximum(after - lasts, 0.0)
        each = -jnp.expm1(-rate * on) * jnp.exp(-rate * off)
        return DOSE / lasts / (volume * rate) * jnp.sum(each)

    times = np.concatenate([starts, starts + lasts])
    return cx.ivp(
        concentration,
        0.0,
        (0.0, end),
        args=(volume, rate),
        breaks=times[times < end],
        reference=superposed,
    )
