"""What rows leave on fresh points: against a tolerance, and in words."""

import math

import numpy as np

from constrainednn._gap.report import ConstraintGap, GapReport
from constrainednn._gap.residuals import residuals_at
from constrainednn.domains.finite import Data
from constrainednn.results.facts import Facts
from constrainednn.results.verdict.verdict import Verdict

# A residual of this share of its terms on fresh points is no solution, whatever the tolerance.
_LARGE = 0.1
# A named tolerance may be violated at this share of the points of a finite set.
_VIOLATED = 0.01


def by_tolerance(gap: GapReport, tolerance: float) -> Verdict:
    """A statement that is trained: the root of the loss on fresh points, as in training."""
    conditions = sum(item.loss for item in gap.finite)
    against = f"tolerance {tolerance:.1e}"
    root = lambda loss: math.sqrt(max(loss, 0.0) + conditions)  # noqa: E731
    if gap.heldout is None:
        found = f"root of the loss {root(0.0):.1e}, {against}; no fresh points"
        return Verdict("solved" if root(0.0) <= tolerance else "not solved", found)
    value, low, high = (root(end) for end in (gap.heldout.value, gap.heldout.low, gap.heldout.high))
    found = f"root of the loss on fresh points {value:.1e} [{low:.1e}, {high:.1e}], {against}"
    if math.isnan(value) or low > tolerance:
        return Verdict("not solved", found)
    if gap.heldout.label not in ("", "at rounding"):
        return Verdict("cannot tell", f"interval {gap.heldout.label}; {found}")
    if not high <= tolerance:
        return Verdict("cannot tell", f"the interval reaches above the tolerance; {found}")
    for item in gap.constraints:
        if _is_large(item, gap):  # small numbers may be a matter of units
            share = f"{item.name}: the residual is {item.relative:.2g} of its terms"
            return Verdict("cannot tell", f"{share}; {found}")
    return Verdict("solved", found)


def violated(item: ConstraintGap) -> str:
    """How the tolerance that a constraint names is violated on fresh points; empty if it is not."""
    proved, allowed = item.guarantee, item.guarantee.tolerance
    held = proved.violated == 0 or (
        allowed is not None and proved.bound is not None and proved.bound <= allowed
    )
    if allowed is None or held:
        return ""
    return f"{item.name}: |r| > {allowed:g} at {proved.violated} of {proved.points} held-out points"


def violated_on_sets(facts: Facts) -> str:
    """The same of constraints on finite sets, all of whose points are trained on and judged."""
    # After the constraints there may be the points of an objective.
    for item, points in zip(facts.problem.constraints, facts.streams, strict=False):
        if item.tolerance is None or points.heldout is not None:
            continue
        r = residuals_at(item.residual, facts.model, points.train.points)
        above = int((~(np.linalg.norm(r, axis=1) <= item.tolerance)).sum())
        if above > _VIOLATED * len(r):
            return f"{item.name}: |r| > {item.tolerance:g} at {above} of its {len(r)} points"
    return ""


def measured(facts: Facts) -> str:
    """RMS residuals on fresh points, and their size relative to the terms of the residual."""
    # An equation that is solved in pieces is judged by its tolerance; what is left are data.
    judged = {
        item.name
        for item in facts.problem.constraints
        if not facts.problem.scheme.in_pieces or isinstance(item.over, Data)
    }
    rows = {item.name for item in facts.problem.constraints if isinstance(item.over, Data)}
    parts = []
    for item in facts.gap.constraints:
        if item.name in judged:
            text = f"{item.name}: held-out RMS {item.heldout_rms.value:.3g}"
            if not math.isnan(item.relative):
                text += f", {item.relative:.2g} of its terms"
            # Data have noise; a constraint on a domain should hold.
            if _is_large(item, facts.gap) and item.name not in rows:
                text += f" (no solution: {_advice(item)})"
            parts.append(text)
    whole = [item for item in facts.gap.finite if item.name in judged]
    return "; ".join(
        parts or [f"{item.name}: RMS {item.rms:.3g}, and no fresh points" for item in whole]
    )


def _advice(item: ConstraintGap) -> str:
    """What may help where the residual is large on fresh points."""
    if item.train_rms > _LARGE * item.terms:
        return "a wider or steeper model, or stages, may come closer"
    return "it holds where it was trained on; more points may help"


def _is_large(item: ConstraintGap, gap: GapReport) -> bool:
    """True if a residual is of the size of its terms and is a good part of the loss.

    A condition such as u = 0 has no terms but itself, so its ratio is one however well it holds.
    """
    assert gap.heldout is not None
    part = item.heldout.value >= 0.1 * gap.heldout.value
    return item.relative > _LARGE and part and not item.at_rounding
