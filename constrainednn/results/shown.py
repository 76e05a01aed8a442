"""What the figures are given of a solution."""

from constrainednn._figures.shown import Shown
from constrainednn._problem.experiments import Experiments
from constrainednn.results.facts import Facts
from constrainednn.results.one_experiment import one_experiment

# Experiments that one page holds.
_MOST_EXPERIMENTS = 6


def shown(facts: Facts) -> Shown:
    """What is drawn of a run, and of each of its first few experiments."""
    several = isinstance(facts.model, Experiments)
    names = facts.model.names[:_MOST_EXPERIMENTS] if several else ()
    return Shown(
        facts.problem,
        facts.model,
        facts.gap,
        facts.history,
        facts.streams,
        facts.settings.tolerance,
        {name: shown(one_experiment(facts, name)) for name in names},
    )
