"""Checks before training: one trial evaluation finds what would waste an hour.

`check` lists what it finds; `solve` runs the same trial and raises the first error.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key, PyTree

from constrainednn._checks.doubts import FURTHER, doubts, uneven
from constrainednn._checks.finiteness import check_finite, check_gradient
from constrainednn._checks.stages import check_stages
from constrainednn._checks.trial_evaluation import refuse_several, some_points, traced, trial
from constrainednn._common.arguments import as_seed, check_takes
from constrainednn._common.messages import shown
from constrainednn._gap.residuals import mean_square, residuals_at
from constrainednn._gap.streams import draw_streams
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.experiments import apart
from constrainednn._problem.objective import Value
from constrainednn._problem.problem import Problem
from constrainednn._problem.scheme import AbstractPieceScheme
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.finite import Data, Points
from constrainednn.domains.samplers.base import Draw
from constrainednn.errors import BadTypeError, ProblemError, ProblemWarning, UsageError
from constrainednn.methods.base import AbstractMethod
from constrainednn.methods.stages import Stage, as_stages
from constrainednn.models.pieces import Pieces
from constrainednn.models.space import SpacePieces
from constrainednn.models.space_time import SpaceTimePieces
from constrainednn.targets.image import OTHER_USE, model_inputs


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


def check(
    problem: Problem,
    method: AbstractMethod | Stage | Sequence[Stage] | None = None,
    *,
    seed: int = 0,
) -> list[Finding]:
    """Evaluate every residual, the objective, and their gradients before training.

    Looks at shapes, dtypes, finiteness of residuals and gradients on all training points, empty
    residuals, terms that do not depend on what is trained, and whether the reference fits.

    Args:
        problem: The problem.
        method: A method or stages, as in `solve`, whose first steps are tried, too.
        seed: Seed of the points and of the model, as in `solve`.

    Returns:
        One finding a constraint, in order, and one for the objective. An exception of a residual's
        own is raised as it is.

    Raises:
        ProblemError: If what is trained cannot be trained, whatever the constraints are.
        TypeError, ValueError: If the learning rate of `method` cannot be right.
    """
    if not isinstance(problem, Problem):
        raise BadTypeError(f"problem of check must be a cx.Problem, got {shown(problem)}.")
    key = jax.random.key(as_seed(seed))
    model = problem.build_model(key=key)
    check_stages(as_stages(method, None, objective=problem.objective is not None), problem, model)
    return [check_constraint(problem, item, model, key=key) for item in problem.statements]


def check_constraint(
    problem: Problem, constraint: Constraint, model: PyTree, *, key: Key[jax.Array, ""]
) -> Finding:
    """Look at one constraint as `check` does."""
    shape, rms, error, notes = None, None, "", ()
    try:
        train = draw_streams(constraint, key=key, monitor=1024, heldout=1024).train
        shape = trial(constraint, model, train)
        refuse_several(constraint, shape)
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
    for constraint, points in zip(problem.statements, train, strict=True):
        refuse_several(constraint, trial(constraint, model, points))
        check_reference(problem, constraint, model, points)
        r = check_finite(constraint, model, points)
        if not isinstance(constraint.residual, Value):
            sizes[constraint.name] = float(np.sqrt(constraint.weight * mean_square(r, points)))
    if doubt := uneven(sizes):
        warnings.warn(doubt, ProblemWarning, stacklevel=4)
    for constraint, points in zip(problem.statements, train, strict=True):
        for doubt in doubts(problem, constraint, model, points):
            warnings.warn(doubt, ProblemWarning, stacklevel=4)
    if not at_rounding():
        for constraint, points in zip(problem.statements, train, strict=True):
            check_gradient(problem, constraint, model, points, thorough=False)


def check_pieces(problem: Problem, scheme: AbstractPieceScheme, model: PyTree) -> list[float]:
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
            start = jax.tree.map(lambda leaf: leaf[:1], train)
            place = scheme.defined_at(part, np.asarray(train.points)).astype(train.points.dtype)
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
        raise ProblemError(
            f"{label}: {bad.size} of {len(constraint.over)} rows lie outside of {model.extent}: "
            f"{some_points(rows, bad)}. Extend it, or leave them out."
        )
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)], axis=1)
    copies = len(flat) - len(np.unique(flat, axis=0))
    if copies:
        warnings.warn(
            f"{label}: {copies} of {len(flat)} rows of its data are there twice, point and values: "
            "counted so, they make the intervals too short.",
            ProblemWarning,
            stacklevel=5,
        )


def _outside(
    constraint: Constraint, model: Pieces | SpacePieces | SpaceTimePieces, rows: PyTree
) -> np.ndarray:
    """True for rows that are NaN, and would not be if the pieces reached further.

    The model is a guess: what else a residual makes of its values says nothing of the data.
    Ordinary numbers between one and two take its place, of which most residuals make sense.
    """
    defined, known = (
        np.isfinite(residuals_at(constraint.residual, model.ordinary(by), rows)).all(axis=1)
        for by in (0.0, FURTHER)
    )
    return np.asarray(~defined & known)


def check_reference(problem: Problem, constraint: Constraint, model: PyTree, train: Draw) -> None:
    """Refuse a reference whose value has another shape than the model's, before hours are spent.

    Raises:
        TypeError: If the reference does not take one point.
        ProblemError: If one of them fails at a point, or they differ.
    """
    if problem.reference is None or isinstance(constraint.over, Points):
        return
    x, value = model_inputs(train.points), lambda u, x: jax.tree.map(jnp.asarray, u(x))
    check_takes(problem.reference, (x,), "reference must take one point")
    try:
        found = traced("reference", value, model, x)
    except OTHER_USE:  # points of an edge, say, that are none of the model's
        return
    known = traced("reference", value, problem.reference, x)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, value) for value in (found, known)]
    if shapes[0] != shapes[1]:
        raise ProblemError(
            f"reference: its value at a point has shape {shapes[1]}, the model's {shapes[0]}. "
            "It is called like the model, with one point."
        )
