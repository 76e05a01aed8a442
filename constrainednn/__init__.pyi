"""Public names, listed once: `__init__.py` exports them lazily from here."""

from ._bvp import bvp
from ._calculus import (
    at_least,
    at_most,
    derivative,
    divergence,
    gradient_enhanced,
    integral,
    jacobian,
    laplacian,
    partial,
    taylor,
)
from ._check import Finding, ProblemError, check
from ._compare import Comparison
from ._domains import (
    AbstractDomain,
    Ball,
    Box,
    BoxBoundary,
    Data,
    Interval,
    Mapped,
    Normal,
    Points,
    Product,
    Sphere,
)
from ._ensemble import Calibration, CrossValidation, Ensemble, cross_validate, ensemble
from ._error_estimate import ErrorEstimate
from ._errors import LoadError, ProblemWarning, RunWarning, StoreError
from ._estimates import Estimates
from ._experiments import Experiment, Experiments
from ._gap import ConstraintGap, Distance, FiniteLoss, GapReport, Streams, Worst
from ._image import Image
from ._ivp import ivp
from ._law import Law
from ._load import load_problem
from ._methods._abstract import AbstractMethod, AbstractResidual, FunctionResidual, StepInfo
from ._methods._levenberg_marquardt import LevenbergMarquardt
from ._methods._optax import Optax
from ._models import (
    MLP,
    AbstractRecipe,
    FeatureNetwork,
    Frozen,
    Linear,
    PeriodicInput,
    RandomFeatures,
    with_input,
    with_output,
)
from ._pieces import Pieces
from ._problem import Constraint, Problem
from ._resume import resume
from ._samplers import (
    AbstractSampler,
    Adaptive,
    Draw,
    GaussQuadrature,
    Grid,
    Independent,
    LatinHypercube,
    Sobol,
)
from ._scheme import AbstractScheme, PieceHistory
from ._sinks import TensorBoard
from ._solution import History, Settings, Solution, SolveFailed, Status, Timings
from ._solve import solve
from ._stages import Stage
from ._statistics import Estimate
from ._store import load_solution
from ._study import StudyProgress, study
from ._study_table import Paired, Study, load_study
from ._targets import AbstractTarget, Circle, RotationGroup
from ._unknowns import Unknown
from ._verdict import Verdict
from ._watching import Progress, Sink

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
