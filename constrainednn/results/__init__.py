"""What a solve returns: the solution, its history, estimates, error estimate and comparison."""

from constrainednn._checks.check import Finding
from constrainednn._gap.holds.guarantee import Guarantee, ShareAbove
from constrainednn._gap.holds.kind import Holds
from constrainednn._gap.objectives.gap import ObjectiveGap
from constrainednn._gap.report import ConstraintGap, Distance, FiniteLoss, GapReport, Worst
from constrainednn._gap.statistics import Estimate
from constrainednn._gap.streams import Streams
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.scheme import PieceHistory
from constrainednn.results.comparison.comparison import Comparison
from constrainednn.results.error_estimate.error_estimate import ErrorEstimate
from constrainednn.results.error_estimate.plane_time import PlaneTimeErrorEstimate
from constrainednn.results.error_estimate.space import SpaceErrorEstimate
from constrainednn.results.error_estimate.space_time import SpaceTimeErrorEstimate
from constrainednn.results.estimates.from_rows import Estimates
from constrainednn.results.solution import Solution, SolveFailed
from constrainednn.results.verdict.verdict import Verdict
from constrainednn.runs.history import History, Settings, Status, Timings

__all__ = [
    "Comparison",
    "ConstraintGap",
    "Distance",
    "ErrorEstimate",
    "Estimate",
    "Estimates",
    "Experiments",
    "Finding",
    "FiniteLoss",
    "GapReport",
    "Guarantee",
    "History",
    "Holds",
    "ObjectiveGap",
    "PieceHistory",
    "PlaneTimeErrorEstimate",
    "Settings",
    "ShareAbove",
    "Solution",
    "SolveFailed",
    "SpaceErrorEstimate",
    "SpaceTimeErrorEstimate",
    "Status",
    "Streams",
    "Timings",
    "Verdict",
    "Worst",
]
