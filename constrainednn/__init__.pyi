"""Public names, listed once: `__init__.py` exports them lazily from here."""

from . import domains, errors, methods, models, operators, results, runs, studies, targets, testing
from ._checks.check import check
from ._ode.bvp import bvp
from ._ode.ivp import ivp
from ._pde.pde import pde
from ._problem.constraint import Constraint
from ._problem.experiments import Experiment
from ._problem.objective import Objective
from ._problem.problem import Problem
from ._problem.unknowns import Unknown
from ._solve.problem_functions import load_problem
from ._solve.resume import resume
from ._solve.solve import solve
from .domains import (
    Box,
    Data,
    GaussQuadrature,
    Interval,
    Normal,
    Points,
)
from .methods import LevenbergMarquardt, Optax, Stage
from .models import MLP, Linear, RandomFeatures, with_output, with_projection
from .operators import (
    at_least,
    at_most,
    derivative,
    integral,
    jacobian,
    laplacian,
    partial,
    taylor,
)
from .results.loading import load_solution
from .studies.ensembles.cross_validation import cross_validate
from .studies.ensembles.ensemble import ensemble
from .studies.study import study
from .studies.tables.table import load_study
from .targets import Circle

__version__: str
__all__ = [
    "MLP",
    "Box",
    "Circle",
    "Constraint",
    "Data",
    "Experiment",
    "GaussQuadrature",
    "Interval",
    "LevenbergMarquardt",
    "Linear",
    "Normal",
    "Objective",
    "Optax",
    "Points",
    "Problem",
    "RandomFeatures",
    "Stage",
    "Unknown",
    "at_least",
    "at_most",
    "bvp",
    "check",
    "cross_validate",
    "derivative",
    "domains",
    "ensemble",
    "errors",
    "integral",
    "ivp",
    "jacobian",
    "laplacian",
    "load_problem",
    "load_solution",
    "load_study",
    "methods",
    "models",
    "operators",
    "partial",
    "pde",
    "results",
    "resume",
    "runs",
    "solve",
    "studies",
    "study",
    "targets",
    "taylor",
    "testing",
    "with_output",
    "with_projection",
]
