"""Checks before training: one trial evaluation finds what would waste an hour.

`check` lists what it finds; `solve` runs the same trial and raises the first error.
"""

import dataclasses
import inspect
import random
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key, PyTree

from constrainednn._blocks import in_blocks
from constrainednn._domains import AbstractDomain, Data, Normal, Points
from constrainednn._errors import BadTypeError, ProblemError, ProblemWarning, UsageError
from constrainednn._experiments import apart
from constrainednn._gap import draw_streams, mean_square, residuals_at
from constrainednn._image import OTHER_USE, model_inputs
from constrainednn._keys import numpy_generator
from constrainednn._memory import equations_of
from constrainednn._models import MLP, trainable_mask
from constrainednn._paths import PACKAGE, in_gallery
from constrainednn._pieces import Pieces
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import Draw
from constrainednn._signatures import NEEDS_VALUE
from constrainednn._validate import as_seed, shown

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
# In lengths of the interval.
_FURTHER = 1e6
# Few of the units that are spread over standard normal inputs bend beyond this.
_REACH = 4.0
# Primitives that piecewise linear functions are made of.
_KINKS = frozenset(("max", "min", "abs", "select_n"))
_TRACERS = tuple(f"{Path(inspect.getfile(package)).parent}/" for package in (jax, eqx))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found for one constraint: `error` and `warnings` are empty if all is well.

    `rms` is the root mean square residual on the training points, weighted as in the gap report.
    """

    constraint: str
    shape: tuple[int, ...] | None
    rms: float | None
    error: str
    warnings: tuple[str, ...]


def check(problem: Problem, *, seed: int = 0) -> list[Finding]:
    """Evaluate every residual and its gradient before training.

    Looks at shapes, dtypes, finiteness of residuals and gradients on all training points, empty
    residuals, terms that do not depend on what is trained, and whether the reference fits.

    Args:
        problem: The problem.
        seed: Seed of the points and of the model, as in `solve`.

    Returns:
        One finding a constraint, in order. An exception of a residual's own is raised as it is.

    Raises:
        ProblemError: If what is trained cannot be trained, whatever the constraints are.
    """
    if not isinstance(problem, Problem):
        raise BadTypeError(f"problem of check must be a cx.Problem, got {shown(problem)}.")
    key = jax.random.key(as_seed(seed))
    model = problem.build_model(key=key)
    check_trained(model, problem.trainable)
    return [check_constraint(problem, item, model, key=key) for item in problem.constraints]


def check_constraint(
    problem: Problem, constraint: Constraint, model: PyTree, *, key: Key[jax.Array, ""]
) -> Finding:
    """Look at one constraint as `check` does."""
    shape, rms, error, notes = None, None, "", ()
    try:
        train = draw_streams(constraint, key=key, monitor=1024, heldout=1024).train
        shape = trial(constraint, model, train)
        r = check_finite(constraint, model, train)
        rms = float(np.sqrt(mean_square(r, train) / r.shape[1]))
        check_gradient(problem, constraint, model, train, thorough=True)
        check_reference(problem, constraint, model, train)
        notes = tuple(doubts(problem, constraint, model, train))
    except UsageError as problem_error:
        error = str(problem_error)
    return Finding(constraint.name, shape, rms, error, notes)


def check_before_solve(
    problem: Problem, model: PyTree, train: Sequence[Draw], *, at_rounding: Callable[[], bool]
) -> None:
    """Raise for the first constraint that cannot be solved; warn of doubtful ones."""
    sizes = {}
    for constraint, points in zip(problem.constraints, train, strict=True):
        trial(constraint, model, points)
        check_reference(problem, constraint, model, points)
        r = check_finite(constraint, model, points)
        sizes[constraint.name] = float(np.sqrt(constraint.weight * mean_square(r, points)))
    if doubt := _uneven(sizes):
        warnings.warn(doubt, ProblemWarning, stacklevel=4)
    for constraint, points in zip(problem.constraints, train, strict=True):
        for doubt in doubts(problem, constraint, model, points):
            warnings.warn(doubt, ProblemWarning, stacklevel=4)
    if not at_rounding():
        for constraint, points in zip(problem.constraints, train, strict=True):
            check_gradient(problem, constraint, model, points, thorough=False)


def check_pieces(problem: Problem, model: PyTree) -> list[float]:
    """Raise if a residual cannot be evaluated where a model made of pieces is known to be sound.

    Returns its size there, for each constraint on a domain.

    Only there: before training the model is a guess, and elsewhere the equation may not be defined
    for it.
    """
    sizes = []
    for constraint in problem.constraints:
        train = draw_streams(constraint, key=jax.random.key(0), monitor=1, heldout=1).train
        constraint, part = apart(constraint, model)
        if isinstance(constraint.over, Data):
            check_data(constraint, part)
        trial(constraint, part, train)
        check_reference(problem, constraint, part, train)
        if isinstance(constraint.over, AbstractDomain):
            assert problem.scheme is not None
            start = jax.tree.map(lambda leaf: leaf[:1], train)
            place = np.full(1, problem.scheme.known_at(part))
            r = check_finite(constraint, part, eqx.tree_at(lambda d: d.points, start, place))
            sizes.append(float(np.linalg.norm(r)))
    return sizes


def check_data(constraint: Constraint, model: PyTree) -> None:
    """Refuse rows where a model in pieces is not defined; warn of rows that are there twice.

    Raises:
        ProblemError: With the first five rows.
    """
    assert isinstance(constraint.over, Data)
    rows = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), constraint.over.rows)
    label = f"constraint {constraint.name!r}"
    trial(constraint, model, Draw(rows, np.zeros(0), None))
    bad = np.flatnonzero(_outside(constraint, model, rows))
    if bad.size:
        low, high = sorted(model.ends[[0, -1]].tolist())
        raise ProblemError(
            f"{label}: {bad.size} of {len(constraint.over)} rows lie outside of the interval "
            f"[{low:g}, {high:g}]: {_some_points(rows, bad)}. Extend span, or leave them out."
        )
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)], axis=1)
    copies = len(flat) - len(np.unique(flat, axis=0))
    if copies:
        warnings.warn(
            f"{label}: {copies} of {len(flat)} rows of its data are there twice, time and values: "
            "counted so, they make the intervals too short.",
            ProblemWarning,
            stacklevel=5,
        )


def _outside(constraint: Constraint, model: Pieces, rows: PyTree) -> np.ndarray:
    """True for rows that are NaN, and would not be if the pieces reached further.

    The model is a guess: what else a residual makes of its values says nothing of the data.
    Ordinary numbers between one and two take its place, of which most residuals make sense.
    """
    values = lambda like, low: jnp.linspace(low, low + 1, like.size).reshape(like.shape)  # noqa: E731
    usual = eqx.tree_at(
        lambda u: (u.states, u.head),
        model,
        (values(model.states, 1.0), 1e-3 * values(model.head, 0.0)),
    )
    ends = np.asarray(model.edges)[[0, model.count]]
    far = usual.edges.at[0].set(ends[0] - _FURTHER * (ends[1] - ends[0]))
    far = far.at[model.count].set(ends[1] + _FURTHER * (ends[1] - ends[0]))
    further = eqx.tree_at(lambda u: (u.edges, u.head), usual, (far, jnp.zeros_like(usual.head)))
    defined, known = (
        np.isfinite(residuals_at(constraint.residual, u, rows)).all(axis=1)
        for u in (usual, further)
    )
    return np.asarray(~defined & known)


def check_trained(model: PyTree, select: Callable[[Any], Any] | None) -> None:
    """Refuse a selection of nothing, and leaves of another dtype than points have.

    Raises:
        ProblemError: With the name of the leaf.
    """
    params = eqx.filter(model, trainable_mask(model, select))
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ProblemError("Nothing is trained: trainable= selects no floating-point array.")
    expected = jnp.result_type(float)
    for path, leaf in leaves:
        # An array of jax made before the switch keeps its dtype; others are cast when used.
        own = isinstance(leaf, jax.Array)
        if (leaf.dtype if own else jax.dtypes.canonicalize_dtype(leaf.dtype)) != expected:
            raise ProblemError(
                f"the model's leaf {jax.tree_util.keystr(path)} is {leaf.dtype}, but points are "
                f"{expected}. Cast it, leaf.astype({str(expected)!r}), or make the model after "
                "jax.config.update('jax_enable_x64', ...)."
            )


def check_reference(problem: Problem, constraint: Constraint, model: PyTree, train: Draw) -> None:
    """Refuse a reference whose value has another shape than the model's, before hours are spent.

    Raises:
        ProblemError: If one of them cannot be called on a point, or they differ.
    """
    if problem.reference is None or isinstance(constraint.over, Points):
        return
    x, value = model_inputs(train.points), lambda u, x: jax.tree.map(jnp.asarray, u(x))
    try:
        found = _traced("reference", value, model, x)
    except OTHER_USE:  # points of an edge, say, that are none of the model's
        return
    known = _traced("reference", value, problem.reference, x)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, value) for value in (found, known)]
    if shapes[0] != shapes[1]:
        raise ProblemError(
            f"reference: its value at a point has shape {shapes[1]}, the model's {shapes[0]}. "
            "It is called like the model, with one point."
        )


def trial(constraint: Constraint, model: PyTree, train: Draw) -> tuple[int, ...]:
    """Evaluate the residual's shape at one point, with rank promotion refused.

    Raises:
        ProblemError: If the result is no real array with entries, or shapes do not fit.
    """
    label = f"constraint {constraint.name!r}"

    def evaluate(u: PyTree, x: PyTree) -> jax.Array:
        r = constraint.residual(u, x)
        kind = _refusal(r)
        if kind:
            raise ProblemError(f"{label}: the residual returns {kind}")
        return jnp.asarray(r)

    before = _random_state(constraint.residual)
    with jax.numpy_rank_promotion("raise"):
        shape = tuple(_traced(label, evaluate, model, train.points).shape)
    if _random_state(constraint.residual) != before:
        raise ProblemError(
            f"{label}: the residual draws random numbers while it is compiled, and would keep them "
            "for ever. Make them a part of the point, as in over=cx.Interval(0, 1) * cx.Normal(1)."
        )
    return shape


def _random_state(residual: Callable) -> list[str]:
    """The states of the generators that a residual names and might draw from without a key."""
    if not inspect.isfunction(residual):
        return []
    used = inspect.getclosurevars(residual)
    states = []
    for item in {**used.globals, **used.nonlocals}.values():
        if item is random:
            states.append(repr(random.getstate()))
        elif item is np or item is np.random:
            states.append(repr([np.asarray(part).tolist() for part in np.random.get_state()]))  # noqa: NPY002
        elif isinstance(item, np.random.Generator):
            states.append(repr(item.bit_generator.state))
    return states


def _traced(label: str, fn: Callable[[Any, Any], PyTree], u: PyTree, points: PyTree) -> PyTree:
    """Shapes of `fn(u, x)` at one of the points; what jax says about it in our words."""
    canonical = jax.dtypes.canonicalize_dtype
    x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], canonical(leaf.dtype)), points
    )
    shapes = jax.tree.map(lambda leaf: leaf.shape, x)
    try:
        return eqx.filter_eval_shape(fn, u, x)
    except ProblemError:
        raise
    except jax.errors.TracerArrayConversionError as error:
        raise ProblemError(
            f"{label}: a NumPy function was called on a traced array{_where(error)}. "
            "Use jax.numpy there: import jax.numpy as jnp."
        ) from None
    except NEEDS_VALUE as error:
        raise ProblemError(
            f"{label}: Python needs the value of a traced array{_where(error)}. "
            "Use jax.numpy.where instead of if, index jax arrays instead of lists, and leave out "
            "float(), int() and .item()."
        ) from None
    except (ValueError, TypeError, IndexError) as error:
        if "rank_promotion" not in str(error) and not _raised_by_library(error):
            if isinstance(error, UsageError):
                raise ProblemError(f"{label}: {error}") from error
            raise  # the user's own exception keeps its type and message
        found = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ProblemError(
            f"{label}: shapes do not fit{_where(error)}. A point has shape {shapes} and the "
            "function sees one point at a time, never a batch; the model is "
            f"{_describe(u)}. {found}"
        ) from error


def check_finite(constraint: Constraint, model: PyTree, train: Draw) -> np.ndarray:
    """Evaluate on all training points and refuse NaN or infinity.

    Raises:
        ProblemError: With the count, indices and coordinates of the first five.
    """
    try:
        r = residuals_at(constraint.residual, model, train.points)
    except jax.errors.UnexpectedTracerError:
        raise ProblemError(
            f"constraint {constraint.name!r}: a traced value was kept outside of the function and "
            "used later. Return what you need; keep no array in globals or objects."
        ) from None
    bad = np.flatnonzero(~np.isfinite(r).all(axis=1))
    if bad.size:
        where = _some_points(train.points, bad)
        which = "all" if bad.size == len(r) else f"{bad.size} of {len(r)}"
        at = f"{which} training points, first at {where}" if len(r) > 1 else where
        hint = ""
        if r.dtype == np.float32:
            hint = " In float64 it may be finite: jax.config.update('jax_enable_x64', True)."
        raise ProblemError(
            f"constraint {constraint.name!r}: the residual is NaN or infinite at {at}. "
            "Check it for division by zero, logarithms and roots "
            f"there.{hint}"
        )
    return r


def check_gradient(
    problem: Problem, constraint: Constraint, model: PyTree, train: Draw, *, thorough: bool
) -> None:
    """Refuse a residual that does not depend on what is trained, or whose gradient is NaN.

    Args:
        problem: The problem, for what is trained.
        constraint: The constraint to look at.
        model: The ready model.
        train: Its training points.
        thorough: Differentiate in reverse mode, point by point, which also finds gradients that
            are NaN although the derivative along any direction is finite. Otherwise one
            directional derivative, which compiles faster.
    """
    params, static = eqx.partition(model, trainable_mask(model, problem.trainable))
    count = len(train)
    look = _gradients if thorough else _directional
    # Random, since a direction that is special (all ones, say) may be one that nothing depends on.
    direction = _random_like(params, key=jax.random.key(0))
    slopes = in_blocks(
        eqx.Partial(look, constraint.residual, params, static, direction), train.points
    ).reshape(count, -1)
    label = f"constraint {constraint.name!r}"
    bad = np.flatnonzero(~np.isfinite(slopes).all(axis=1))
    if bad.size:
        raise ProblemError(
            f"{label}: the residual is finite but its gradient is NaN or infinite at {bad.size} of "
            f"{count} training points, first at {_some_points(train.points, bad)}. "
            "Roots and norms at zero do that, and jnp.where does not hide it: make the argument "
            "safe first, e.g. jnp.sqrt(jnp.where(s > 0, s, 1.0)) inside jnp.where(s > 0, ..., 0.0)."
        )
    if not slopes.any():
        r = residuals_at(constraint.residual, model, train.points)
        if np.abs(r).max() > 100 * np.finfo(r.dtype).eps:
            raise ProblemError(
                f"{label} does not depend on the trained parameters: its derivative is zero at all "
                f"{count} training points, with an RMS residual of {np.sqrt(np.mean(r**2)):.3g}. "
                "Does it use its first argument, the model?"
            )


def doubts(problem: Problem, constraint: Constraint, model: PyTree, train: Draw) -> list[str]:
    """Sentences about what is probably not meant."""
    found = _out_of_reach(problem, constraint, train)
    label = f"constraint {constraint.name!r}"
    if jnp.result_type(float) == jnp.float32:
        given = getattr(constraint.over, "points", None), getattr(constraint.over, "rows", None)
        rounded = "points" if _holds_float64(given) else ""
        if inspect.isfunction(constraint.residual):
            used = inspect.getclosurevars(constraint.residual)
            rounded = rounded or ", ".join(
                name
                for name, value in {**used.globals, **used.nonlocals}.items()
                if _holds_float64(value)
            )
        if rounded:
            found.append(
                f"{label}: float64 numbers ({rounded}) are rounded to float32. Write "
                "jax.config.update('jax_enable_x64', True) before the first array."
            )
    returned = _traced(label, constraint.residual, model, train.points).dtype
    if returned != jnp.result_type(float):
        found.append(
            f"{label}: the residual returns {returned} numbers, points are {jnp.result_type(float)}"
            ": it cannot be solved beyond their rounding. Leave out the cast, astype or dtype=."
        )
    if _bends_without_curvature(constraint, model, train):
        found.append(
            f"{label}: the residual uses second derivatives, but the model is piecewise linear "
            "(relu?), so they are zero everywhere. Use a smooth activation such as jnp.tanh."
        )
    return found


def _out_of_reach(problem: Problem, constraint: Constraint, train: Draw) -> list[str]:
    """A sentence where a network bends far from where its points are."""
    recipe, inputs = problem.model, model_inputs(train.points)
    if not isinstance(recipe, MLP) or recipe.depth == 0 or not isinstance(inputs, np.ndarray):
        return []
    if not isinstance(recipe.over, Normal) or isinstance(constraint.over, Normal):
        return []
    reach = float(np.abs(inputs).max(initial=0.0))
    if inputs.dtype.kind != "f" or inputs.shape[1:] not in ((), (recipe.in_size,)):
        return []
    if not reach > _REACH:
        return []
    return [
        f"constraint {constraint.name!r}: points reach {reach:.3g}, but the units of cx.MLP are "
        "spread over standard normal inputs. Write over= with the domain of the points, such as "
        f"cx.MLP({recipe.in_size!r}, {recipe.out_size!r}, over={constraint.over!r:.60})."
    ]


def _uneven(sizes: dict[str, float]) -> str:
    """A sentence where one constraint hides another.

    What is at rounding beside it holds already.
    """
    top = max(sizes, key=lambda name: sizes[name])
    seen = {name: size for name, size in sizes.items() if size > 1e-13 * sizes[top]}
    low = min(seen, key=lambda name: sizes[name], default=top)
    if not sizes[top] > 1e8 * sizes[low]:
        return ""
    return (
        f"constraint {top!r} has a residual of {sizes[top]:.1e} before training, constraint "
        f"{low!r} one of {sizes[low]:.1e}, weights included: the first hides the second. Divide "
        "each residual by its unit, or set weight=."
    )


def _holds_float64(value: Any) -> bool:
    return any(getattr(leaf, "dtype", None) == np.float64 for leaf in jax.tree.leaves(value))


class _Curved(eqx.Module):
    """The model plus a parabola around a point: same value and slope there, other curvature."""

    model: PyTree
    centre: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.model(x) + 0.5 * jnp.sum((x - self.centre) ** 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _bends_without_curvature(constraint: Constraint, model: PyTree, train: Draw) -> bool:
    """True if the residual changes with the model's curvature and the model has none."""
    if isinstance(model, Pieces):
        return False  # polynomials, whatever the first guess is
    some = jax.tree.map(lambda leaf: leaf[:16], train.points)
    inputs = model_inputs(some)
    if not (callable(model) and isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f"):
        return False
    try:
        program = jax.make_jaxpr(model)(inputs[0]).jaxpr
        if _KINKS.isdisjoint(item.primitive.name for item in equations_of(program)):
            return False  # no kink, so no piecewise linear model; saves two compilations
        curvature = in_blocks(eqx.Partial(_curvature, model), inputs)
        if curvature.any():
            return False
        change = in_blocks(eqx.Partial(_change_with_curvature, constraint.residual, model), some)
    except OTHER_USE:
        return False
    return bool(np.abs(change).max() > 1e-3)


def _curvature(model: PyTree, x: jax.Array) -> jax.Array:
    direction = jnp.ones_like(x)
    slope = lambda x: jax.jvp(model, (x,), (direction,))[1]  # noqa: E731
    return jax.jvp(slope, (x,), (direction,))[1]


def _change_with_curvature(residual: Callable, model: PyTree, x: PyTree) -> jax.Array:
    curved = _Curved(model, model_inputs(x))
    return jnp.ravel(residual(curved, x) - residual(model, x))


def _gradients(residual: Callable, params: PyTree, static: PyTree, _: PyTree, x: PyTree) -> Any:
    def entries(params: PyTree) -> jax.Array:
        return jnp.ravel(residual(eqx.combine(params, static), x))

    rows = jax.tree.leaves(jax.jacrev(entries)(params))
    return sum(jnp.abs(leaf).reshape(leaf.shape[0], -1).sum(axis=1) for leaf in rows)


def _directional(
    residual: Callable, params: PyTree, static: PyTree, direction: PyTree, x: PyTree
) -> jax.Array:
    def entries(params: PyTree) -> jax.Array:
        return jnp.ravel(residual(eqx.combine(params, static), x))

    return jax.jvp(entries, (params,), (direction,))[1]


def _random_like(params: PyTree, *, key: Key[jax.Array, ""]) -> PyTree:
    generator = numpy_generator(key)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype), params
    )


def _refusal(r: Any) -> str:
    allowed = "Return one array of real numbers, zero where the condition holds."
    if r is None:
        return f"None. Is the return statement missing? {allowed}"
    if isinstance(r, (tuple, list, dict, str, bytes)):
        return f"a {type(r).__name__}. {allowed} Join parts with jnp.concatenate or jnp.stack."
    if not (hasattr(r, "dtype") and hasattr(r, "shape")) and not isinstance(r, (int, float)):
        return f"a {type(r).__name__}. {allowed}"
    dtype = jnp.result_type(r)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return "complex numbers. Stack real and imaginary part: jnp.stack([r.real, r.imag])."
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"{dtype} numbers, whose gradient is zero. {allowed}"
    if jnp.size(r) == 0:
        return f"no entries: an array of shape {jnp.shape(r)}, whose mean is NaN. {allowed}"
    return ""


def _some_points(points: PyTree, index: np.ndarray) -> str:
    first = index[:5]
    parts = []
    for i in first:
        x = jax.tree.map(lambda leaf: np.asarray(leaf[i]).round(6).tolist(), points)  # noqa: B023
        parts.append(f"point {i}: {x}")
    return "; ".join(parts)


def _describe(model: PyTree) -> str:
    sizes = {
        name: getattr(model, name)
        for name in ("in_size", "out_size", "in_features", "out_features")
        if hasattr(model, name)
    }
    text = ", ".join(f"{name}={value}" for name, value in sizes.items())
    return f"{type(model).__name__}({text})"


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are the user's own, neither ours nor a library's."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if in_gallery(frame.filename)  # like a user's files, although inside the package in a wheel
        or not frame.filename.startswith((f"{PACKAGE}/", *_LIBRARIES, "<"))
    ]


def _where(error: BaseException) -> str:
    frames = user_frames(error)
    return f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _raised_by_library(error: BaseException) -> bool:
    """True if the exception comes from inside jax or equinox, not from the user's own raise."""
    return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_TRACERS)
