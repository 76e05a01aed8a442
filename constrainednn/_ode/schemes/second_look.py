"""March, scan, and march again from where something was missed, until nothing is found."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from constrainednn._ode.schemes.field import Field
from constrainednn._ode.schemes.scan import Unresolved, scan
from constrainednn._pieces.march import March
from constrainednn._problem.scheme import Resumable

# A switch that depends on the state is located better in each round, fully after two or three.
_ROUNDS = 12


class Resolved(NamedTuple):
    """A march that was scanned, and what of it could not be resolved.

    Attributes:
        march: The march.
        spacing: Largest distance between two points of the scan; NaN without one.
        found: Times at which windows were made to end because of what the scan found.
        left: A stretch that could not be resolved; None if nothing is left.
    """

    march: March
    spacing: float
    found: tuple[float, ...]
    left: Unresolved | None


def resolve(
    field: Field,
    march: Callable[[Sequence[float], Resumable | None], March],
    stops: Sequence[float],
    *,
    share: float,
    resumed: Resumable | None = None,
) -> Resolved:
    """March through `stops`, with further stops where a scan finds something between them.

    Args:
        field: The vector field.
        march: Marches through stops, from the start or from a state to resume from.
        stops: Start, breaks and end, in order.
        share: Fraction of the usual number of points of a scan.
        resumed: The state of an earlier run to resume from.
    """
    marched, since, spacing = march(stops, resumed), 0, 0.0
    found: set[float] = set()
    compiling, running = marched.compile, marched.run
    for rounds in range(_ROUNDS + 1):
        if marched.ending == "stopped" or len(marched.kept.ends) <= since:  # no new windows
            done = marched._replace(compile=compiling, run=running)
            return Resolved(done, spacing or math.nan, _in_order(found, stops), None)
        scanned = scan(field, marched, since=since, share=share)
        compiling, running = compiling + scanned.compile, running + scanned.run
        spacing = max(spacing, scanned.spacing)
        done = marched._replace(compile=compiling, run=running)
        if not scanned.found or rounds == _ROUNDS or marched.ending == "steps":
            left = scanned.found[0] if scanned.found else None
            return Resolved(done, spacing, _in_order(found, stops), left)
        since = min(stretch.window for stretch in scanned.found)
        found.update(time for stretch in scanned.found for time in _ends_in(stretch, marched.edges))
        marched = march(
            (stops[0], *_in_order(found, stops, stops[1:-1]), stops[-1]), done.before(since)
        )
        compiling, running = compiling + marched.compile, marched.run
    raise AssertionError


def _ends_in(stretch: Unresolved, edges: np.ndarray) -> list[float]:
    """Where windows must end to resolve a stretch: at its ends, or in its middle."""
    start, end = edges[stretch.window : stretch.window + 2]
    near = _near(edges)
    inner = [t for t in (stretch.low, stretch.high) if min(abs(t - start), abs(end - t)) > near]
    return inner or [(stretch.low + stretch.high) / 2]


def _in_order(
    found: set[float], stops: Sequence[float], given: Sequence[float] = ()
) -> tuple[float, ...]:
    """Found and given times in order of solution; those that differ by rounding are merged."""
    kept: list[float] = []
    for time in sorted({*found, *given}, reverse=stops[-1] < stops[0]):
        if time in given or not kept or abs(time - kept[-1]) > _near(stops):
            if time in given and kept and abs(time - kept[-1]) <= _near(stops):
                kept.pop()
            kept.append(time)
    return tuple(kept)


def _near(times: Sequence[float] | np.ndarray) -> float:
    """Times closer together than this leave no room for a window."""
    return 100 * float(jnp.finfo(jnp.result_type(float)).eps) * max(abs(times[0]), abs(times[-1]))


def not_finite_from(field: Field, marched: March, end: float) -> float | None:
    """The first time after the end of a march at which the field is NaN or infinite."""
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
