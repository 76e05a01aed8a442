"""The gap report as text for terminals and as a table for notebooks."""

import html
import math
from collections.abc import Sequence

import jax
import numpy as np

from constrainednn._common.tables import WIDEST, html_table, table_lines, wrapped
from constrainednn._gap.tables import COLUMNS, notes, table_rows
from constrainednn._problem.experiments import Experiments
from constrainednn._problem.problem import Problem
from constrainednn.domains.finite import Data
from constrainednn.domains.missing import missing_values
from constrainednn.results.estimates.estimates import estimates, has_unknowns
from constrainednn.results.estimates.from_rows import estimate_lines
from constrainednn.results.facts import Facts
from constrainednn.results.one_experiment import one_experiment
from constrainednn.results.verdict.judge import verdict
from constrainednn.results.verdict.verdict import Verdict
from constrainednn.runs.history import Timings


def header(facts: Facts) -> str:
    """Status, reason, sizes and seconds in one sentence each."""
    settings, times, history = facts.settings, facts.timings, facts.history
    # A run that converged ends in steps which differ by rounding.
    best = facts.steps if facts.status == "converged" else history.best_step
    return (
        f"{facts.status}: {facts.reason}\n"
        f"{settings.method}: {facts.steps} steps"
        f"{f' (the best is step {best})' if best != facts.steps else ''}, "
        f"{facts.parameters} parameters, "
        f"seed {settings.seed}, {settings.dtype} on {settings.device}\n"
        f"{_redrawn(history.redraws, facts.steps)}"
        f"{_seconds(times)}"
    )


def _seconds(times: Timings) -> str:
    """Where the time went; elements in space compile while they are solved for."""
    if not times.compile:
        return f"run {times.run:.2f} s, compilation included, report {times.report:.2f} s"
    return f"compile {times.compile:.2f} s, run {times.run:.2f} s, report {times.report:.2f} s"


def _redrawn(redraws: Sequence[int], steps: int) -> str:
    """How often each draw of the training points was used, where there was more than one."""
    if not redraws:
        return ""
    used = np.diff([0, *redraws, steps])
    each = f"{used.min()}" if used.min() == used.max() else f"{used.min()} to {used.max()}"
    return f"train = last of {len(used)} draws, used for {used[-1]} steps; all for {each}\n"


def summary(facts: Facts, judged: Verdict, width: int | None, imported: float = math.nan) -> str:
    """Plain text of a solution, as a terminal shows it.

    Args:
        facts: The run.
        judged: Its verdict.
        width: Columns of the terminal; None for a file, whose lines stay whole.
        imported: Seconds that the command line took to import what it needs.
    """
    ended = header(facts)
    if math.isfinite(imported):
        ended = ended.replace("compile ", f"import {imported:.2f} s, compile ")
    table = table_lines([COLUMNS, *table_rows(facts.gap)], 1, width or WIDEST)
    said = [*unknown_lines(facts), *error_lines(facts, judged), *notes(facts.gap)]
    said += missing_lines(facts.problem)
    return wrapped("\n".join([str(judged), "", *table, "", *said, "", ended]), width)


def summary_html(facts: Facts, judged: Verdict) -> str:
    """A solution in a notebook: verdict, gap, and what was found besides."""
    lines = [*notes(facts.gap), *missing_lines(facts.problem), *error_lines(facts, judged)]
    lines += [*unknown_lines(facts), *header(facts).splitlines()]
    word, reason = html.escape(judged.word), html.escape(judged.reason)
    return f"<p><b>{word}</b>: {reason}</p>\n" + html_table(COLUMNS, table_rows(facts.gap), lines)


def missing_lines(problem: Problem) -> list[str]:
    """What is missing among data, a line for each constraint that lacks some."""
    lines = []
    for item in problem.constraints:
        if isinstance(item.over, Data) and (count := missing_values(item.over.rows)[0]):
            values = sum(leaf.size for leaf in jax.tree.leaves(item.over.rows[1:]))
            whole = int(missing_values(item.over.rows)[1].sum())
            rows = f", among them {whole} whole row{'s' * (whole > 1)}" * bool(whole)
            lines.append(f"{item.name}: {count} of {values} values are missing{rows}; left out")
    return lines


def unknown_lines(facts: Facts) -> list[str]:
    """The estimates of a solution that has unknowns and data, else nothing."""
    if not has_unknowns(facts.problem, facts.model):
        return []
    try:
        return estimate_lines(estimates(facts))
    except ValueError as error:
        return [str(error)]


def error_lines(facts: Facts, judged: Verdict) -> list[str]:
    """What the residual says about the error of a solution in pieces, for each experiment."""
    errors = {"": judged.error}
    if isinstance(facts.model, Experiments):
        parts = {name: one_experiment(facts, name) for name in facts.model.names}
        errors = {f"{name}: ": verdict(part).error for name, part in parts.items()}
    return [f"{name}{error!r}" for name, error in errors.items() if error is not None]
