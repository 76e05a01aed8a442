"""What the figures are given of a solution."""

from constrainednn._figures.shown import Shown
from constrainednn._gap.statistics import Estimate
from constrainednn._problem.experiments import Experiments
from constrainednn.results.estimates.estimates import estimates, has_unknowns
from constrainednn.results.facts import Facts
from constrainednn.results.one_experiment import one_experiment

# Experiments that one page holds.
_MOST_EXPERIMENTS = 6


def shown(facts: Facts) -> Shown:
    """What is drawn of a run, and of each of its first few experiments."""
    problem, model, tolerance = facts.problem, facts.model, facts.settings.tolerance
    names = model.names[:_MOST_EXPERIMENTS] if isinstance(model, Experiments) else ()
    parts = {name: shown(one_experiment(facts, name)) for name in names}
    streams = facts.streams[: len(problem.constraints)]  # without those of an objective
    return Shown(
        problem,
        model,
        facts.gap,
        facts.history,
        streams,
        tolerance,
        parts,
        lambda: _unknowns(facts),
    )


def _unknowns(facts: Facts) -> dict[str, Estimate]:
    """The estimates of a run; none where it has no unknowns, or too few data."""
    if not has_unknowns(facts.problem, facts.model):
        return {}
    try:
        return estimates(facts).values
    except ValueError:
        return {}
