"""What the page of a solution shows, gathered from its facts."""

import numpy as np

from constrainednn._figures.evaluate import evaluate
from constrainednn._gap.tables import COLUMNS, notes, table_rows
from constrainednn._pages.contents import Contents, Said
from constrainednn._problem.scheme import PieceHistory
from constrainednn.models.space import SpacePieces
from constrainednn.results.comparison.comparison import Comparison
from constrainednn.results.facts import Facts
from constrainednn.results.page.rerun import again, sources, title_of
from constrainednn.results.shown import shown
from constrainednn.results.summary import error_lines, missing_lines, unknown_lines
from constrainednn.results.verdict.verdict import Verdict
from constrainednn.runs.history import History

# Steps that stand for all in a plot of a history.
_STEPS = 400


def contents(
    facts: Facts, judged: Verdict, report: dict, comparison: Comparison | None = None
) -> Contents:
    """All that a page shows of a solution.

    Args:
        facts: Those of the solution.
        judged: Its verdict.
        report: What `report.json` says, as it is read from there.
        comparison: With the classical solver, where there is one.
    """
    command, shell = again(facts)
    files, about = sources(facts.problem)
    said = Said(
        title=title_of(facts.problem),
        rounding=tuple(item.name for item in facts.gap.constraints if item.at_rounding),
        columns=COLUMNS,
        rows=tuple(table_rows(facts.gap)),
        notes=tuple([*notes(facts.gap), *missing_lines(facts.problem)]),
        lines=tuple([*error_lines(facts, judged), *unknown_lines(facts)]),
        sources=files,
        about_source=about,
        again=command,
        command=shell,
        compared=_compared(facts, comparison),
    )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        views = evaluate(shown(facts))
    in_space = isinstance(facts.model, SpacePieces)  # its elements are drawn in the solution
    return Contents(report, said, views, {} if in_space else _history(facts.history))


def _compared(facts: Facts, comparison: Comparison | None) -> str:
    if comparison is not None:
        return repr(comparison)
    if not facts.problem.scheme.in_pieces:
        return ""
    return "The classical solver was not run: report(..., comparison=solution.compare()) shows it."


def _history(history: History) -> dict[str, np.ndarray]:
    if isinstance(history.pieces, PieceHistory):
        return {"edges": np.asarray(history.pieces.edges, float)}
    if history.pieces is not None:
        return {}
    count = len(history.loss)
    kept = np.arange(count)
    if count > _STEPS:
        kept = np.unique(np.geomspace(1, count, _STEPS).astype(int)) - 1
    return {
        "steps": kept,
        "loss": np.asarray(history.loss)[kept],
        "monitor_steps": np.asarray(history.monitor_steps),
        "monitor": np.asarray(history.monitor),
        "redraws": np.asarray(history.redraws, int),
    }
