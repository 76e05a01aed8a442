"""March, look again, and march again from where something was missed, until nothing is found."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from constrainednn._ode.schemes.field import Field
from constrainednn._ode.schemes.scan import Found, scan
from constrainednn._pieces.march import March
from constrainednn._problem.scheme import Resumable

# A switch that depends on the state is placed better each time, and is in place after two or three.
_ROUNDS = 12


class Resolved(NamedTuple):
    """A march after which nothing is left to be found, or the reason why something is.

    Attributes:
        march: The march.
        spacing: Largest distance between two places of the scan; NaN without one.
        found: Times that windows were made to end at, since something was found there.
        left: What was found and could not be resolved; None if nothing is left.
    """

    march: March
    spacing: float
    found: tuple[float, ...]
    left: Found | None


def resolve(
    field: Field,
    march: Callable[[Sequence[float], Resumable | None], March],
    stops: Sequence[float],
    *,
    share: float,
    resumed: Resumable | None = None,
) -> Resolved:
    """March through `stops`, and through what is found between them.

    Args:
        field: The vector field.
        march: Goes through stops, from the start or from what it was given to go on from.
        stops: Start, breaks and end, in order.
        share: Share of the usual number of places of a scan.
        resumed: The state of an earlier run to resume from.
    """
    marched, since, spacing = march(stops, resumed), 0, 0.0
    found: set[float] = set()
    compiling, running = marched.compile, marched.run
    for rounds in range(_ROUNDS + 1):
        if marched.ending == "stopped" or len(marched.kept.ends) <= since:  # nothing new to see
            done = marched._replace(compile=compiling, run=running)
            return Resolved(done, spacing or math.nan, _in_order(found, stops), None)
        seen = scan(field, marched, since=since, share=share)
        compiling, running = compiling + seen.compile, running + seen.run
        spacing = max(spacing, seen.spacing)
        done = marched._replace(compile=compiling, run=running)
        if not seen.found or rounds == _ROUNDS or marched.ending == "steps":
            left = seen.found[0] if seen.found else None
            return Resolved(done, spacing, _in_order(found, stops), left)
        since = min(place.window for place in seen.found)
        found.update(time for place in seen.found for time in _ends_in(place, marched.edges))
        marched = march(
            (stops[0], *_in_order(found, stops, stops[1:-1]), stops[-1]), done.before(since)
        )
        compiling, running = compiling + marched.compile, marched.run
    raise AssertionError


def _ends_in(place: Found, edges: np.ndarray) -> list[float]:
    """Where windows shall end for a place to be resolved: at its ends, or in its middle."""
    start, end = edges[place.window : place.window + 2]
    near = _near(edges)
    inner = [t for t in (place.low, place.high) if min(abs(t - start), abs(end - t)) > near]
    return inner or [(place.low + place.high) / 2]


def _in_order(
    found: set[float], stops: Sequence[float], given: Sequence[float] = ()
) -> tuple[float, ...]:
    """Found times and given ones as a march meets them; what is nearer than rounding is one."""
    kept: list[float] = []
    for time in sorted({*found, *given}, reverse=stops[-1] < stops[0]):
        if time in given or not kept or abs(time - kept[-1]) > _near(stops):
            if time in given and kept and abs(time - kept[-1]) <= _near(stops):
                kept.pop()
            kept.append(time)
    return tuple(kept)


def _near(times: Sequence[float] | np.ndarray) -> float:
    """Times nearer to each other than this leave no room for a window."""
    return 100 * float(jnp.finfo(float).eps) * max(abs(times[0]), abs(times[-1]))


def not_finite_from(field: Field, marched: March, end: float) -> float | None:
    """The first time, from where a march got to on, at which the field is NaN or infinite."""
    t, (y, _) = float(marched.edges[-1]), marched.state
    y = jnp.asarray(y)
    farthest = 1e-6 * abs(end - marched.start)
    nearest = np.spacing(max(abs(t), farthest))
    after = np.append(0.0, np.minimum(np.geomspace(nearest, farthest, 24), abs(end - t)))
    times = t + math.copysign(1.0, end - t) * after
    slope = jnp.zeros_like(y).at[:-1].set(y[1:]).at[-1].set(field.slope(jnp.asarray(t), y))
    along = y[None] + jnp.nan_to_num(slope)[None] * jnp.asarray(times - t, y.dtype)[:, None, None]
    f = jax.vmap(field)(jnp.asarray(times, y.dtype), along)
    bad = np.flatnonzero(~np.isfinite(f).all(axis=1))
    return float(times[bad[0]]) if bad.size else None
