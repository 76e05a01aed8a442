"""The gap report as text for terminals and as a table for notebooks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from constrainednn._gap.tables import notes, row
from constrainednn._problem.experiments import Experiments
from constrainednn.domains.finite import Data
from constrainednn.domains.missing import missing_values
from constrainednn.results.estimates.estimates import estimate_lines, has_unknowns

if TYPE_CHECKING:
    from constrainednn.results.solution import Solution


def header(solution: "Solution") -> str:
    """Status, reason, sizes and seconds in one sentence each."""
    settings, times, history = solution.settings, solution.timings, solution.history
    # A run that converged ends in steps which differ by rounding.
    best = solution.steps if solution.status == "converged" else history.best_step
    return (
        f"{solution.status}: {solution.reason}\n"
        f"{settings.method}: {solution.steps} steps"
        f"{f' (the best is step {best})' if best != solution.steps else ''}, "
        f"{solution.parameters} parameters, "
        f"seed {settings.seed}, {settings.dtype} on {settings.device}\n"
        f"{_redrawn(history.redraws, solution.steps)}"
        f"compile {times.compile:.2f} s, run {times.run:.2f} s, report {times.report:.2f} s"
    )


def _redrawn(redraws: Sequence[int], steps: int) -> str:
    """How often each draw of the training points was used, where there was more than one."""
    if not redraws:
        return ""
    used = np.diff([0, *redraws, steps])
    each = f"{used.min()}" if used.min() == used.max() else f"{used.min()} to {used.max()}"
    return f"train = last of {len(used)} draws, used for {used[-1]} steps; all for {each}\n"


def summary(solution: "Solution") -> str:
    """Plain text of a solution."""
    lines = [str(solution.verdict), header(solution)]
    for gap in solution.gap.constraints:
        cells = row(gap)
        lines.append(
            f"{cells[0]}: train RMS {cells[1]}, held-out RMS {cells[2]}, gap {cells[3]}, "
            f"worst {cells[5]} at {cells[6]}"
        )
    lines += notes(solution.gap) + missing_lines(solution)
    return "\n".join([*lines, *error_lines(solution), *unknown_lines(solution)])


def missing_lines(solution: "Solution") -> list[str]:
    """What is missing among data, a line for each constraint that lacks some."""
    lines = []
    for item in solution.problem.constraints:
        if isinstance(item.over, Data) and (count := missing_values(item.over.rows)[0]):
            values = sum(leaf.size for leaf in jax.tree.leaves(item.over.rows[1:]))
            whole = int(missing_values(item.over.rows)[1].sum())
            rows = f", among them {whole} whole row{'s' * (whole > 1)}" * bool(whole)
            lines.append(f"{item.name}: {count} of {values} values are missing{rows}; left out")
    return lines


def unknown_lines(solution: "Solution") -> list[str]:
    """The estimates of a solution that has unknowns and data, else nothing."""
    if not has_unknowns(solution):
        return []
    try:
        return estimate_lines(solution.estimates())
    except ValueError as error:
        return [str(error)]


def error_lines(solution: "Solution") -> list[str]:
    """What the residual says about the error of a solution in pieces, for each experiment."""
    if solution.problem.scheme is None:
        return []
    several = isinstance(solution.model, Experiments)
    named = {f"{name}: ": solution[name] for name in solution.model.names} if several else {}
    parts = {name: part.verdict.error for name, part in (named or {"": solution}).items()}
    return [f"{name}{error!r}" for name, error in parts.items() if error is not None]
