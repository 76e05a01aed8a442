"""A second look at the equation along a march: what its points missed is found and named.

A window is accepted by its residual at a few dozen points. A pulse, a switch or a jump between them
or beside the first and last leaves no trace there. So the finished march is looked at once more at
many places, the ends of windows from inside included, by one compiled evaluation of the residual.
Where that is far above what was allowed, the ends of the place are bisected for.

Symbols (others in `_windows.py` and `_pieces.py`)::

    symbol  shape      meaning
    B       int        blocks: parts of windows, each looked at in as many places
    s       (g, n)     scaled times of the places of a group of blocks
    ratio   (B, n)     largest residual of an equation there, relative to what was allowed
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float, Int

from constrainednn._field import Field
from constrainednn._legendre import integrated
from constrainednn._march import March
from constrainednn._pieces import start_polynomial

# Places of a block, and blocks in a step of the compiled loop.
_PLACES, _GROUP = 64, 16
# Places of a scan are as many as this number of scalar operations allows, within these limits: a
# few milliseconds, whatever the equation is. Counted and not timed, so that answers do not depend
# on how busy the machine is.
_OPERATIONS, _LEAST, _MOST = 2_000_000, 1024, 32_768
# A residual is found at a place where it exceeds what was allowed this many times. At the ends of
# windows a residual that nothing is wrong with exceeds its mean square by the root of its degree.
_FOUND = 20.0
# Places that are worked on at once.
_AT_ONCE = 256


class Found(NamedTuple):
    """A stretch of a window on which the residual is too large.

    Attributes:
        window: Number of the window.
        low: Where it begins, in the order of solution.
        high: Where it ends.
        whole: True where it fills its window.
        finite: False where the vector field is not finite somewhere on it.
    """

    window: int
    low: float
    high: float
    whole: bool
    finite: bool


class Scan(NamedTuple):
    """What a scan found.

    Attributes:
        found: Stretches, in the order of solution.
        spacing: Largest distance between two places that were looked at.
        compile: Seconds of compiling.
        run: Seconds of looking.
    """

    found: list[Found]
    spacing: float
    compile: float
    run: float


class _Blocks(NamedTuple):
    """Parts of windows: the window of each, and the scaled times of its ends."""

    window: Int[np.ndarray, " B"]
    low: Float[np.ndarray, " B"]
    high: Float[np.ndarray, " B"]


def scan(field: Field, marched: March, *, since: int = 0, share: float = 1.0) -> Scan:
    """Look at all windows of a march from a number on.

    Args:
        field: The vector field.
        marched: The march, of at least one window.
        since: Number of the first window.
        share: Share of the usual number of places.
    """
    began = time.perf_counter()
    looker = _Looker(field, marched)
    looker.look(_Blocks(*np.zeros((3, 0))))  # compiles
    compiling = time.perf_counter() - began
    lengths = np.abs(np.diff(marched.edges))[since:]
    places = share * min(max(_OPERATIONS / looker.operations, _LEAST), _MOST)
    # Proportional to the length, and at least one block a window.
    blocks = np.ceil(lengths / lengths.sum() * max(places / _PLACES, 1)).astype(int)
    window = np.repeat(np.arange(len(lengths)), blocks)
    first = np.arange(len(window)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    spread = _Blocks(window + since, *(2 * (first + k) / blocks[window] - 1 for k in (0, 1)))
    ratio, s = looker.look(spread), looker.places(spread)
    runs = []
    for number in np.unique(spread.window[(ratio > _FOUND).any(axis=1)]):
        mine = spread.window == number
        runs += _runs(int(number), s[mine].ravel(), ratio[mine].ravel())
    found = looker.located(runs[:_AT_ONCE])
    spacing = float(np.max(lengths / blocks) / (_PLACES - 1))
    return Scan(found, spacing, compiling, time.perf_counter() - began - compiling)


def _runs(number: int, s: np.ndarray, ratio: np.ndarray) -> list[tuple]:
    """Stretches of bad places of a window, each with the good places beside it."""
    bad = np.concatenate([[False], ratio > _FOUND, [False]])
    first, after = np.flatnonzero(bad[1:] & ~bad[:-1]), np.flatnonzero(bad[:-1] & ~bad[1:])
    runs = []
    for i, j in zip(first, after, strict=True):  # bad from place i to place j - 1
        left, right = s[max(i - 1, 0)], s[min(j, len(s) - 1)]
        runs.append((number, left, s[i], s[j - 1], right))
    return runs


class _Looker:
    """The residual along a march, at places that are asked for."""

    def __init__(self, field: Field, marched: March):
        self.field = field
        self.edges = marched.edges
        (y, _), (_, c) = marched.kept.starts, marched.kept.pieces
        count = len(c)
        capacity = max(16, 1 << (count - 1).bit_length())
        pad = lambda a: np.concatenate([a, np.repeat(a[-1:], capacity - count, axis=0)])  # noqa: E731
        arrays = self.edges[:-1], np.diff(self.edges) / 2, y, c, marched.kept.allowed
        self.windows = tuple(jnp.asarray(pad(np.asarray(a)), c.dtype) for a in arrays)

    @property
    def operations(self) -> float:
        """Scalar operations at one place."""
        return float(_operations(self.field, self.windows[2][0], self.windows[3][0]))

    def places(self, blocks: _Blocks) -> Float[np.ndarray, "B n"]:
        """Scaled times that are looked at."""
        return np.linspace(blocks.low, blocks.high, _PLACES, axis=1)

    def look(self, blocks: _Blocks) -> Float[np.ndarray, "B n"]:
        """The largest residual at each place, relative to what was allowed; infinite for NaN."""
        count = len(blocks.window)
        capacity = max(1024, 1 << (count - 1).bit_length())  # one program for scans and searches
        pad = lambda a: np.append(a, np.zeros(capacity - count, a.dtype))  # noqa: E731
        dtype = self.windows[0].dtype
        window = jnp.asarray(pad(blocks.window).astype(int))
        ends = (jnp.asarray(pad(end), dtype) for end in blocks[1:])
        groups = jnp.asarray(-(-count // _GROUP))
        return np.asarray(_ratios(self.field, self.windows, window, *ends, groups))[:count]

    def located(self, runs: list[tuple]) -> list[Found]:
        """Bisect for the ends of stretches, and leave out those that are too short to matter."""
        if not runs:
            return []
        number, good, bad = np.empty((3, 2 * len(runs)))
        for k, (window, left, first, last, right) in enumerate(runs):
            number[2 * k : 2 * k + 2] = window
            good[2 * k : 2 * k + 2], bad[2 * k : 2 * k + 2] = (left, right), (first, last)
        number = number.astype(int)
        sections = math.ceil(-math.log2(np.finfo(float).eps) / math.log2(_PLACES))
        for _ in range(sections):
            blocks = _Blocks(number, good, bad)
            ratio, s = self.look(blocks), self.places(blocks)
            at = np.argmax(ratio > _FOUND, axis=1)
            # Bad at once: this is the end of the window.
            take = lambda i, s=s: np.take_along_axis(s, i[:, None], axis=1)[:, 0]  # noqa: E731
            good, bad = take(np.maximum(at - 1, 0)), take(at)
        window = number[::2]
        # From good place to good place: all that is bad lies between.
        low, high = good[::2], good[1::2]
        ratio = self.look(_Blocks(window, low, high))
        # The change of the state over a stretch, relative to what was allowed.
        effect = (high - low) / 2 * ratio.max(axis=1)
        start, half = self.edges[window], np.diff(self.edges)[window] / 2
        found = []
        for k in np.flatnonzero(effect > 1):
            ends = (float(start[k] + half[k] * (s[k] + 1)) for s in (low, high))
            whole = bool(high[k] - low[k] > 1.9)
            found.append(Found(int(window[k]), *ends, whole, bool(np.isfinite(ratio[k]).all())))
        return found


@eqx.filter_jit
def _ratios(
    field: Field,
    windows: tuple[Array, ...],
    window: Int[Array, " B"],
    low: Float[Array, " B"],
    high: Float[Array, " B"],
    groups: Int[Array, ""],
) -> Float[Array, "B n"]:
    """Residuals relative to what was allowed, group after group of blocks."""
    start, half, y, c, allowed = windows
    order, (count, width, d) = y.shape[1], c.shape
    eps = jnp.finfo(c.dtype).eps
    # Legendre coefficients of the highest derivative, then of its integrals.
    levels = [jax.vmap(lambda c, j=j: integrated(c, j))(c) for j in range(order + 1)]
    terms = width + order
    pad = lambda a: jnp.pad(a, ((0, 0), (0, terms - a.shape[1]), (0, 0)))  # noqa: E731
    levels = jnp.stack([pad(level) for level in levels], axis=2)  # (windows, terms, order + 1, d)
    k = jnp.arange(terms, dtype=c.dtype)

    def group(i, found):
        cut = lambda a: lax.dynamic_slice_in_dim(a, i * _GROUP, _GROUP)  # noqa: E731
        index = cut(window)
        t0, h = start[index][:, None], half[index][:, None]
        share = jnp.linspace(0, 1, _PLACES, dtype=c.dtype)[None]
        s = cut(low)[:, None] * (1 - share) + cut(high)[:, None] * share
        # A little inside of the window: at its ends it is the other side that the field may see.
        inside = 1 - jnp.minimum(16 * eps * jnp.abs(t0 / h), 0.5) - eps
        s = jnp.clip(s, -inside, inside)
        weights = jnp.moveaxis(levels[index], 1, 0)[:, :, None]  # (terms, g, 1, order + 1, d)

        def recurrence(carry, term):
            before, now, total = carry
            k, w = term
            total = total + now[..., None, None] * w
            return (now, ((2 * k + 1) * s * now - k * before) / (k + 1), total), None

        zero = jnp.zeros((*s.shape, order + 1, d), c.dtype)
        first = jnp.zeros_like(s), jnp.ones_like(s), zero
        (_, _, total), _ = lax.scan(recurrence, first, (k, weights))
        dt = h * (s + 1)
        rows = [
            jax.vmap(lambda y, dt, j=j: start_polynomial(y, dt, j))(y[index], dt)
            + total[:, :, order - j] / h[..., None] ** j
            for j in range(order)
        ]
        f = jax.vmap(jax.vmap(field))(t0 + dt, jnp.stack(rows, axis=2))
        top = total[:, :, 0]
        factor = (h**order)[..., None]
        if field.mass is not None:
            top = top @ field.mass.T
            factor = jnp.where(field.algebraic, 1.0, factor)
        r = jnp.max(jnp.abs(top - factor * f) / allowed[index][:, None], axis=2)
        return lax.dynamic_update_slice_in_dim(
            found, jnp.where(jnp.isnan(r), jnp.inf, r), i * _GROUP, axis=0
        )

    return lax.fori_loop(0, groups, group, jnp.zeros((len(window), _PLACES), c.dtype))


@eqx.filter_jit
def _operations(field: Field, y: Float[Array, "p d"], c: Float[Array, "K d"]) -> Float[Array, ""]:
    """Scalar operations of the residual at one place, counted once for each structure."""
    program = jax.make_jaxpr(lambda t, y: field(t, y))(jnp.zeros((), y.dtype), y)
    own = 3 * (len(c) + len(y)) * (len(y) + 1) * y.shape[1]
    return jnp.asarray(float(own + _counted(program.jaxpr)))


def _counted(program: core.Jaxpr) -> int:
    """Operations of a program: entries of what each of its primitives gives, sums in full."""
    total = 0
    for equation in program.eqns:
        size = sum(math.prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
        inner = [
            part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
            for value in equation.params.values()
            for part in (value if isinstance(value, Sequence) else [value])
            if isinstance(part, (core.ClosedJaxpr, core.Jaxpr))
        ]
        times = equation.params.get("length", 1)
        if equation.primitive.name == "dot_general":
            ((left, _), _), first = equation.params["dimension_numbers"], equation.invars[0].aval
            size *= math.prod(first.shape[axis] for axis in left)
        total += (
            times * sum(map(_counted, inner))
            if inner
            else _COST.get(equation.primitive.name, 1) * size
        )
    return total


# Of the order of what these take beside a multiplication.
_COST = dict.fromkeys(
    ("exp", "log", "sin", "cos", "tan", "tanh", "pow", "rem", "div", "sqrt", "logistic", "erf"), 10
)
