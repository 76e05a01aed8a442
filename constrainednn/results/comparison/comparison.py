"""The classical solver on the same problem: how far apart the two solutions are, and both times."""

import dataclasses
import math
import time
from typing import Any

import jax

from constrainednn._common.random_keys import stream
from constrainednn._common.tables import html_table
from constrainednn._fitting.scheme import AbstractFittedScheme, with_found
from constrainednn._gap.measure import gap_report
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn._ode.trained.scheme import TrainedEquation
from constrainednn._pde.scheme import SpaceTimeScheme
from constrainednn._pde.stationary.scheme import StationaryScheme
from constrainednn._problem.scheme import AbstractPieceScheme
from constrainednn.errors import BadValueError
from constrainednn.results.comparison.boundary_values import solved_by_collocation
from constrainednn.results.comparison.initial_values import integrated
from constrainednn.results.comparison.space import by_collocation
from constrainednn.results.comparison.space_time import by_lines
from constrainednn.results.facts import Facts


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two solutions of one problem.

    Both times exclude compiling: of our solver with the gap report, and of the classical solver
    with the field in NumPy or compiled by jax, whichever is faster.

    Attributes:
        difference: The relative L2 difference of the values, the largest over components, on 2,000
            uniform points and the steps of the classical solver. Radau is compared at its steps
            only: its interpolant is far less accurate.
        solver: The classical solver and its tolerance.
        status: How it ended, in its own words.
        evaluations: Number of evaluations of the field by the classical solver, each at one point.
        field: How it called the field: "in NumPy" or "compiled by jax".
        seconds: Time of its whole call.
        ours: Time of our solver and the gap report, or of the fit where there were unknowns.
        compiling: Time that the first `solve` spent compiling.
        fitted: True where ours is the run that found the solution, not another one: unknowns were
            estimated, of which the classical solver is given the values, or a model was trained.
        reached: How far the classical solver got; the difference is taken up to there. NaN for an
            equation in space alone.
    """

    difference: float
    solver: str
    status: str
    evaluations: int
    field: str
    seconds: float
    ours: float
    compiling: float
    fitted: bool
    reached: float

    def __repr__(self) -> str:
        call = "the fit" if self.fitted else "solving and measuring the gap, once compiled"
        until = "" if math.isnan(self.reached) else f" up to {self.reached:g}"
        return (
            f"cx.solve: {self.ours:.3g} s for {call}; compiling took {self.compiling:.3g} s\n"
            f"{self.solver}: {self.seconds:.3g} s for a whole call, {self.evaluations} evaluations "
            f"of the field {self.field}; relative difference {self.difference:.1e}"
            f"{until}; {self.status}"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("cx.solve", f"{self.ours:.3g}", "the fit" if self.fitted else "a whole call"),
            (self.solver, f"{self.seconds:.3g}", f"a whole call, field {self.field}"),
        ]
        until = "" if math.isnan(self.reached) else f" up to {self.reached:g}"
        lines = [
            f"relative difference {self.difference:.1e}{until}; {self.status}",
            f"{self.evaluations} evaluations of the field; compiling ours took "
            f"{self.compiling:.3g} s",
        ]
        return html_table(("solver", "seconds", "of"), rows, lines)


def compare(facts: Facts) -> Comparison:
    """Run the classical solver on the problem of a solution; its time and ours, side by side.

    DOP853 for an initial value problem, Radau where it is stiff, SciPy's `solve_bvp` for a boundary
    value problem, from the same guess; the method of lines or collocation at Chebyshev nodes for
    `pde`. The field is called in NumPy or compiled by jax, whichever
    is faster; in NumPy only if the function that states it runs there, with the same values, once
    `jax.numpy` is replaced by `numpy`. Nothing is compiled while the clock runs. For our time the
    problem is solved twice more.

    Args:
        facts: Those of a solution for a problem made by `ivp`, `bvp` or `pde`.

    Raises:
        ValueError: If the problem is not of that kind.
    """
    scheme, model = with_found(facts.problem.scheme, facts.model), facts.model
    guess = facts.problem.model
    if isinstance(scheme, TrainedEquation):
        scheme, model, guess = scheme.as_pieces(model)
    if isinstance(scheme, InitialValueScheme) and scheme.field.mass is None:
        run = integrated(model, scheme)
    elif isinstance(scheme, SpaceTimeScheme):
        run = by_lines(facts.model, scheme)
    elif isinstance(scheme, StationaryScheme):
        run = by_collocation(facts.problem.model, facts.model, scheme)
    elif isinstance(scheme, BoundaryValueScheme):
        run = solved_by_collocation(guess, model, scheme)
    else:
        raise BadValueError(
            "compare needs the solution of a problem that SciPy can solve, made by cx.ivp without "
            "mass= and delays=, by cx.bvp, or by cx.pde but in time and the plane; got one with "
            f"scheme={scheme!r}."
        )
    if isinstance(facts.problem.scheme, (AbstractFittedScheme, TrainedEquation)):
        ours = {"ours": facts.timings.run, "compiling": facts.timings.compile, "fitted": True}
    else:
        ours = _ours(facts, scheme)
    return Comparison(**run._asdict(), **ours)


def _ours(facts: Facts, scheme: AbstractPieceScheme) -> dict[str, Any]:
    """Our times, as fields of a comparison."""
    problem, settings, key = facts.problem, facts.settings, jax.random.key(facts.settings.seed)
    ours = math.nan
    for _ in range(2):  # the first may compile
        began = time.perf_counter()
        found = scheme.solve(
            problem.build_model(key=key),
            tolerance=settings.tolerance,
            steps=settings.steps,
            key=stream(key, "monitor/pieces"),
            watch=lambda *_: False,
        )
        gap_report(problem, found.model, facts.streams)
        ours = time.perf_counter() - began
    return {"ours": ours, "compiling": facts.timings.compile, "fitted": False}
