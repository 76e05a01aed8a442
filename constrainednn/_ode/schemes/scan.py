"""A scan of the residual along a finished march, to locate what the monitor points missed.

A window is accepted by its residual at a few dozen points. A pulse, a switch or a jump between
them, or outside the first and last, leaves no trace there. The finished march is therefore scanned
at many more points, the ends of windows from inside included, by one compiled evaluation of the
residual. Where it is far above what was allowed, the ends of the stretch are located by bisection.

Symbols (others in `windows.py` and `models/pieces.py`)::

    symbol  shape      meaning
    B       int        blocks: parts of windows, each sampled at the same number n of points
    s       (g, n)     scaled times of the points in a group of blocks
    ratio   (B, n)     largest residual of an equation there, relative to what was allowed
"""

import functools
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float, Int

from constrainednn._common.batched import Structure, put_together, take_apart
from constrainednn._common.compilation.closures import compiled, with_retrace
from constrainednn._ode.schemes.field import Field
from constrainednn._pieces.march import March
from constrainednn.models.legendre import integrated
from constrainednn.models.pieces import start_polynomial

# Points of a block, and blocks per step of the compiled loop.
_PLACES, _GROUP = 64, 16
# A scan has as many points as this number of scalar operations allows, within these limits: a few
# milliseconds, whatever the equation. Operations are counted and not timed, so that results do not
# depend on how busy the machine is.
_OPERATIONS, _FEWEST, _MOST = 2_000_000, 1024, 32_768
# A residual is too large where it exceeds what was allowed by this factor. At the ends of windows
# a sound residual exceeds its root mean square by the root of its degree.
_FOUND = 20.0
# Functions that take about ten times as long as a multiplication.
_FUNCTIONS = frozenset(
    ("exp", "log", "sin", "cos", "tan", "tanh", "pow", "rem", "div", "sqrt", "logistic", "erf")
)
_COSTLY = 10
# Stretches that are located in one scan.
_MOST_RUNS = 256


class Unresolved(NamedTuple):
    """A stretch of a window on which the residual is too large.

    Attributes:
        window: Number of the window.
        low: Where it begins, in the order of solution.
        high: Where it ends.
    """

    window: int
    low: float
    high: float


class Scan(NamedTuple):
    """What a scan found.

    Attributes:
        found: Stretches, in the order of solution.
        spacing: Largest distance between two points of the scan.
        compile: Seconds of compiling.
        run: Seconds of evaluating.
    """

    found: list[Unresolved]
    spacing: float
    compile: float
    run: float


class _Blocks(NamedTuple):
    """Parts of windows: the window of each, and the scaled times of its ends."""

    window: Int[np.ndarray, " B"]
    low: Float[np.ndarray, " B"]
    high: Float[np.ndarray, " B"]


def scan(field: Field, marched: March, *, since: int = 0, share: float = 1.0) -> Scan:
    """Scan the windows of a march, or those from a given one on.

    Args:
        field: The vector field.
        marched: The march, of at least one window.
        since: Index of the first window.
        share: Fraction of the usual number of points.
    """
    began = time.perf_counter()
    sampler, compiling = _ResidualSampler(field, marched), 0.0
    before = _operations.cache_info().misses
    operations = sampler.operations
    if _operations.cache_info().misses > before:  # not counted yet, so not compiled either
        sampler.ratios(_Blocks(*np.zeros((3, 0))))
        compiling = time.perf_counter() - began
    lengths = np.abs(np.diff(marched.edges))[since:]
    places = share * min(max(_OPERATIONS / operations, _FEWEST), _MOST)
    # Proportional to the length, and at least one block a window.
    blocks = np.ceil(lengths / lengths.sum() * max(places / _PLACES, 1)).astype(int)
    window = np.repeat(np.arange(len(lengths)), blocks)
    first = np.arange(len(window)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    low, high = (2 * (first + k) / blocks[window] - 1 for k in (0, 1))
    spread = _Blocks(window + since, low, high)
    ratio, s = sampler.ratios(spread), sampler.places(spread)
    runs = []
    for number in np.unique(spread.window[(ratio > _FOUND).any(axis=1)]):
        mine = spread.window == number
        runs += _runs(int(number), s[mine].ravel(), ratio[mine].ravel())
    found = sampler.located(runs[:_MOST_RUNS])
    spacing = float(np.max(lengths / blocks) / (_PLACES - 1))
    return Scan(found, spacing, compiling, time.perf_counter() - began - compiling)


def _runs(number: int, s: np.ndarray, ratio: np.ndarray) -> list[tuple]:
    """Stretches of bad points in a window, each with the good points next to it."""
    bad = np.concatenate([[False], ratio > _FOUND, [False]])
    first, after = np.flatnonzero(bad[1:] & ~bad[:-1]), np.flatnonzero(bad[:-1] & ~bad[1:])
    runs = []
    for i, j in zip(first, after, strict=True):  # bad from point i to point j - 1
        left, right = s[max(i - 1, 0)], s[min(j, len(s) - 1)]
        runs.append((number, left, s[i], s[j - 1], right))
    return runs


class _ResidualSampler:
    """The residual along a march, at any points."""

    def __init__(self, field: Field, marched: March):
        self.field = field
        self.edges = marched.edges
        (y, _), (_, c) = marched.kept.starts, marched.kept.pieces
        count = len(c)
        capacity = max(16, 1 << (count - 1).bit_length())
        pad = lambda a: np.concatenate([a, np.repeat(a[-1:], capacity - count, axis=0)])  # noqa: E731
        arrays = self.edges[:-1], np.diff(self.edges) / 2, y, c, marched.kept.allowed
        # In NumPy: nine transfers of small arrays would take as long as the evaluation.
        self.windows = tuple(pad(np.asarray(a)).astype(c.dtype) for a in arrays)

    @property
    @with_retrace
    def operations(self) -> float:
        """Scalar operations of the residual at one point."""
        arrays, statement = take_apart(self.field)
        shapes = tuple(None if a is None else (np.shape(a), jnp.result_type(a)) for a in arrays)
        (*_, p, d), (capacity, width, _) = self.windows[2].shape, self.windows[3].shape
        dtype = self.windows[2].dtype
        own = 3 * (width + p) * (p + 1) * d
        return own + _operations(statement, shapes, (p, d), dtype, capacity)

    def places(self, blocks: _Blocks) -> Float[np.ndarray, "B n"]:
        """Scaled times of the points of blocks."""
        return np.linspace(blocks.low, blocks.high, _PLACES, axis=1)

    def ratios(self, blocks: _Blocks) -> Float[np.ndarray, "B n"]:
        """The largest residual at each point, relative to what was allowed; infinite for NaN."""
        count = len(blocks.window)
        capacity = max(1024, 1 << (count - 1).bit_length())  # one program for scans and searches
        pad = lambda a: np.append(a, np.zeros(capacity - count, a.dtype))  # noqa: E731
        dtype = self.windows[0].dtype
        window = pad(blocks.window).astype(int)
        low, high = (pad(ends).astype(dtype) for ends in (blocks.low, blocks.high))
        groups = np.asarray(-(-count // _GROUP))
        return np.asarray(_ratios(self.field, self.windows, window, low, high, groups))[:count]

    def located(self, runs: list[tuple]) -> list[Unresolved]:
        """Locate the ends of stretches by bisection, and drop those too short to matter."""
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
            ratio, s = self.ratios(blocks), self.places(blocks)
            at = np.argmax(ratio > _FOUND, axis=1)
            # If the first point is bad, the stretch begins at the end of the window.
            take = lambda i, s=s: np.take_along_axis(s, i[:, None], axis=1)[:, 0]  # noqa: E731
            good, bad = take(np.maximum(at - 1, 0)), take(at)
        window = number[::2]
        # From good point to good point: everything bad lies between.
        low, high = good[::2], good[1::2]
        ratio = self.ratios(_Blocks(window, low, high))
        # The change of the state over a stretch, relative to what was allowed.
        effect = (high - low) / 2 * ratio.max(axis=1)
        start, half = self.edges[window], np.diff(self.edges)[window] / 2
        # A stretch shorter than the resolution of time is fully located.
        length = np.abs(half) * (high - low)
        matters = (effect > 1) & (length > 100 * np.finfo(float).eps * np.abs(start))
        found = []
        for k in np.flatnonzero(matters):
            begin, end = (float(start[k] + half[k] * (s[k] + 1)) for s in (low, high))
            found.append(Unresolved(int(window[k]), begin, end))
        return found


@compiled
def _ratios(
    field: Field,
    windows: tuple[np.ndarray | Array, ...],
    window: Int[np.ndarray | Array, " B"],
    low: Float[np.ndarray | Array, " B"],
    high: Float[np.ndarray | Array, " B"],
    groups: Int[np.ndarray | Array, ""],
) -> Float[Array, "B n"]:
    """Residuals relative to what was allowed, one group of blocks after the other."""
    start, half, y, c, allowed = windows
    order, (_, width, d) = y.shape[1], c.shape
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
        # Slightly inside the window: exactly at an end the field may be on the other side.
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
            factor = jnp.where(~jnp.any(field.mass != 0, axis=1), 1.0, factor)
        r = jnp.max(jnp.abs(top - factor * f) / allowed[index][:, None], axis=2)
        return lax.dynamic_update_slice_in_dim(
            found, jnp.where(jnp.isnan(r), jnp.inf, r), i * _GROUP, axis=0
        )

    return lax.fori_loop(0, groups, group, jnp.zeros((len(window), _PLACES), c.dtype))


@functools.lru_cache(maxsize=64)
def _operations(
    statement: Structure, shapes: tuple, state: tuple[int, int], dtype: jnp.dtype, capacity: int
) -> int:
    """Scalar operations of a field at one point, counted once for each program of a scan."""
    del capacity  # part of the cache key: another capacity is another program
    arrays = [None if shape is None else jax.ShapeDtypeStruct(*shape) for shape in shapes]
    y = jax.ShapeDtypeStruct(state, dtype)
    at = lambda arrays, t, y: put_together(arrays, statement)(t, y)  # noqa: E731
    return _counted(jax.make_jaxpr(at)(arrays, jax.ShapeDtypeStruct((), dtype), y).jaxpr)


def _counted(program: core.Jaxpr) -> int:
    """Operations of a program: entries of each result, times the length of inner products."""
    total = 0
    for equation in program.eqns:
        size = sum(int(np.prod(getattr(v.aval, "shape", ()))) for v in equation.outvars)
        inner = [
            part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
            for value in equation.params.values()
            for part in (value if isinstance(value, Sequence) else [value])
            if isinstance(part, (core.ClosedJaxpr, core.Jaxpr))
        ]
        name = equation.primitive.name
        if name == "dot_general":
            ((summed, _), _) = equation.params["dimension_numbers"]
            shape = getattr(equation.invars[0].aval, "shape", ())
            size *= int(np.prod([shape[axis] for axis in summed]))
        if inner:
            total += int(equation.params.get("length", 1)) * sum(map(_counted, inner))
        else:
            total += size * (_COSTLY if name in _FUNCTIONS else 1)
    return total
