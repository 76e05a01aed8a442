"""Public names, listed once: `__init__.py` exports them lazily from here."""

from ._checks.check import Finding, ProblemError, check
from ._common.errors import LoadError, ProblemWarning, RunWarning, StoreError
from ._gap.report import ConstraintGap, Distance, FiniteLoss, GapReport, Worst
from ._gap.statistics import Estimate
from ._gap.streams import Streams
from ._ode.bvp import bvp
from ._ode.ivp import ivp
from ._problem.constraint import Constraint
from ._problem.experiments import Experiment, Experiments
from ._problem.problem import Problem
from ._problem.scheme import AbstractScheme, PieceHistory
from ._problem.unknowns import Unknown
from ._solve.problem_functions import load_problem
from ._solve.resume import resume
from ._solve.runs.listeners import Progress, Sink
from ._solve.runs.tensorboard import TensorBoard
from ._solve.solve import solve
from ._studies.ensembles.calibration import Calibration
from ._studies.ensembles.cross_validation import CrossValidation, cross_validate
from ._studies.ensembles.ensemble import Ensemble, ensemble
from ._studies.study import study
from ._studies.tables.law import Law
from ._studies.tables.paired import Paired
from ._studies.tables.table import Study, load_study
from ._studies.tasks import StudyProgress
from .domains.base import AbstractDomain, Mapped, Product
from .domains.boxes import Box, BoxBoundary, Interval
from .domains.finite import Data, Points
from .domains.samplers.adaptive import Adaptive
from .domains.samplers.base import AbstractSampler, Draw
from .domains.samplers.grids import GaussQuadrature, Grid
from .domains.samplers.random import Independent, LatinHypercube, Sobol
from .domains.spheres import Ball, Normal, Sphere
from .methods.base import AbstractMethod, AbstractResidual, FunctionResidual, StepInfo
from .methods.first_order import Optax
from .methods.levenberg_marquardt import LevenbergMarquardt
from .methods.stages import Stage
from .models.networks import MLP, Linear
from .models.pieces import Pieces
from .models.random_features import FeatureNetwork, RandomFeatures
from .models.recipes import AbstractRecipe, Frozen
from .models.transforms import PeriodicInput, with_input, with_output
from .operators.derivatives import derivative, divergence, jacobian, laplacian, partial, taylor
from .operators.residual_terms import at_least, at_most, gradient_enhanced, integral
from .results.comparison.comparison import Comparison
from .results.error_estimate import ErrorEstimate
from .results.estimates.estimates import Estimates
from .results.history import History, Settings, Status, Timings
from .results.loading import load_solution
from .results.solution import Solution, SolveFailed
from .results.verdict import Verdict
from .targets.image import Image
from .targets.sets import AbstractTarget, Circle, RotationGroup

__version__: str

__all__ = [
    "MLP",
    "AbstractDomain",
    "AbstractMethod",
    "AbstractRecipe",
    "AbstractResidual",
    "AbstractSampler",
    "AbstractScheme",
    "AbstractTarget",
    "Adaptive",
    "Ball",
    "Box",
    "BoxBoundary",
    "Calibration",
    "Circle",
    "Comparison",
    "Constraint",
    "ConstraintGap",
    "CrossValidation",
    "Data",
    "Distance",
    "Draw",
    "Ensemble",
    "ErrorEstimate",
    "Estimate",
    "Estimates",
    "Experiment",
    "Experiments",
    "FeatureNetwork",
    "Finding",
    "FiniteLoss",
    "Frozen",
    "FunctionResidual",
    "GapReport",
    "GaussQuadrature",
    "Grid",
    "History",
    "Image",
    "Independent",
    "Interval",
    "LatinHypercube",
    "Law",
    "LevenbergMarquardt",
    "Linear",
    "LoadError",
    "Mapped",
    "Normal",
    "Optax",
    "Paired",
    "PeriodicInput",
    "PieceHistory",
    "Pieces",
    "Points",
    "Problem",
    "ProblemError",
    "ProblemWarning",
    "Product",
    "Progress",
    "RandomFeatures",
    "RotationGroup",
    "RunWarning",
    "Settings",
    "Sink",
    "Sobol",
    "Solution",
    "SolveFailed",
    "Sphere",
    "Stage",
    "Status",
    "StepInfo",
    "StoreError",
    "Streams",
    "Study",
    "StudyProgress",
    "TensorBoard",
    "Timings",
    "Unknown",
    "Verdict",
    "Worst",
    "at_least",
    "at_most",
    "bvp",
    "check",
    "cross_validate",
    "derivative",
    "divergence",
    "ensemble",
    "gradient_enhanced",
    "integral",
    "ivp",
    "jacobian",
    "laplacian",
    "load_problem",
    "load_solution",
    "load_study",
    "partial",
    "resume",
    "solve",
    "study",
    "taylor",
    "with_input",
    "with_output",
]
