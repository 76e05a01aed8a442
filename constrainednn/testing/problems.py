"""The contract of problems."""

import itertools
from collections.abc import Collection

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from constrainednn._checks.check import check
from constrainednn._fitting.scheme import AbstractFittedScheme
from constrainednn._gap.residuals import residuals_at
from constrainednn._gap.streams import draw_streams, shared_points
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.problem import Problem
from constrainednn.domains.finite import Data
from constrainednn.models.recipes import trainable_mask
from constrainednn.testing.domains import POINTS
from constrainednn.testing.promises import promise, same


def check_problem(problem: Problem, *, noisy: Collection[str] = ()) -> None:
    """Check that a problem can be solved as stated and that its reference solves it.

    Args:
        problem: The problem.
        noisy: Names of constraints that the reference does not satisfy, because the data there
            carry noise, as in `Normal(2).map(...)` with a noisy y.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    promise(isinstance(problem, Problem), f"{problem!r} is a cx.Problem")
    names = [item.name for item in problem.constraints]
    promise(len(set(names)) == len(names), f"names of constraints are unique, got {names}")
    for name in noisy:
        promise(name in names, f"noisy={name!r} names a constraint, one of {names}")
    key = jax.random.key(0)
    model = problem.build_model(key=key)
    again = problem.build_model(key=key)
    promise(
        same(eqx.filter(model, eqx.is_array), eqx.filter(again, eqx.is_array)),
        "the same key builds the same model",
    )
    trained = eqx.filter(model, trainable_mask(model, problem.trainable))
    promise(bool(jax.tree.leaves(trained)), "something is trained")
    for finding in check(problem):
        promise(not finding.error, f"every residual can be trained. {finding.error}")
    for constraint in problem.constraints:
        _check_streams(constraint, key=key)
        # An equation that holds unknowns is one for their values, which a reference does not know.
        fitted = isinstance(problem.scheme, AbstractFittedScheme)
        known = not fitted or isinstance(constraint.over, Data)
        if problem.reference is not None and known and constraint.name not in noisy:
            _check_reference(problem, constraint, model, key=key)


def _check_streams(constraint: Constraint, *, key: Key[Array, ""]) -> None:
    points = draw_streams(constraint, key=key, monitor=POINTS, heldout=POINTS)
    train, monitor, held = points.train, points.monitor, points.heldout
    if monitor is None or held is None or train.cube is None:
        return
    streams = {"training": train, "monitor": monitor, "held-out": held}
    for (what, one), (which, other) in itertools.combinations(streams.items(), 2):
        assert one.cube is not None and other.cube is not None
        promise(
            shared_points(one.cube, other.cube) <= 1,
            f"constraint {constraint.name!r} shares no points between {what} and {which} points",
        )
    assert constraint.points is not None
    if constraint.sampler.random:
        more = eqx.tree_at(lambda item: item.points, constraint, 2 * constraint.points)
        again = draw_streams(more, key=key, monitor=POINTS, heldout=POINTS)
        promise(
            same((monitor, held), (again.monitor, again.heldout)),
            f"constraint {constraint.name!r} keeps its held-out points when it trains on more",
        )


def _check_reference(
    problem: Problem, constraint: Constraint, model: PyTree, *, key: Key[Array, ""]
) -> None:
    points = draw_streams(constraint, key=key, monitor=2, heldout=POINTS)
    some = points.train if points.heldout is None else points.heldout
    r = residuals_at(constraint.residual, problem.reference, some.points)
    untrained = residuals_at(constraint.residual, model, some.points)
    # About 1000 operations an entry, on numbers of the size that an untrained model gives.
    rounding = 1e3 * np.finfo(r.dtype).eps * max(1.0, float(np.abs(untrained).max()))
    promise(
        bool(np.all(np.abs(r) < rounding)),
        f"the reference satisfies constraint {constraint.name!r} to rounding ({rounding:.1e}), "
        f"got a residual of {np.abs(r).max():.3g}. If the data are noisy, name it in noisy=",
    )
