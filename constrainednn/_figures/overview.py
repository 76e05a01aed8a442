"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from constrainednn._common.messages import known_names
from constrainednn._common.messages import shown as in_words
from constrainednn._common.tables import number
from constrainednn._figures.evaluate import evaluate
from constrainednn._figures.panels.history import draw_history, draw_pieces
from constrainednn._figures.panels.residual import (
    draw_distance,
    draw_residual,
    draw_spread,
    draws_distance,
    draws_residual,
)
from constrainednn._figures.panels.solution import draw_error, draw_phase, draw_solution
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import new_figure, say, say_how_many_experiments
from constrainednn._pages.evaluated import Evaluated, ResidualSeen
from constrainednn.errors import BadTypeError, BadValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What can be drawn, in the order of the overview.
KINDS = ("solution", "residual", "error", "phase", "spread", "distance", "history")
_MOST_PANELS = 6

Panels = dict[str, Callable[[Any], None]]


def overview(shown: Shown) -> "Figure":
    """All that there is to draw: solution, residual, error or path, spread, distance, history.

    For several experiments a row for each: its solution, pieces and residual.
    """
    if shown.experiments:
        return _experiments(shown)
    return _all(shown, _residual_of(shown, None, evaluate(shown)[0]), ())


def one_figure(
    shown: Shown,
    kind: str | None,
    constraint: str | None,
    names: Sequence[str] | None,
    ax: "Axes | None",
) -> "Figure":
    """One panel, or all of them; `Solution.plot` has the documentation."""
    if shown.experiments:
        if any(item is not None for item in (kind, constraint, names, ax)):
            raise BadValueError(
                "there are several experiments: draw one, as in solution[0].plot('residual')."
            )
        return overview(shown)
    seen = evaluate(shown)[0]
    called = _as_names(names, seen)
    found = _residual_of(shown, constraint, seen)
    if kind is None:
        if ax is not None:
            raise BadValueError(f"ax= takes one panel: give kind=, one of {', '.join(KINDS)}.")
        return _all(shown, found, called)
    panels = _panels(shown, *found, called)
    if kind not in KINDS:
        raise BadValueError(f"kind of plot is no {in_words(kind)}. {known_names(kind, KINDS)}")
    if kind not in panels:
        raise BadValueError(f"plot({kind!r}): {_why_not(kind)} There is: {', '.join(panels)}.")
    if ax is None:
        figure = new_figure(6, 4)
        panels[kind](figure.subplots())
        return figure
    panels[kind](ax)
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _as_names(names: Sequence[str] | None, seen: Evaluated) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise BadTypeError(f"names of plot must be a list of texts, got {in_words(names)}.")
    count = seen.values.shape[-1] if seen.grid else len(names)
    if len(names) != count:
        raise BadValueError(f"names of plot has {len(names)} entries, and u has {count}.")
    return tuple(names)


def _residual_of(
    shown: Shown, constraint: str | None, seen: Evaluated
) -> tuple[Evaluated, ResidualSeen | None]:
    """What is drawn of a constraint: of the one that is named, else of the first with a gap."""
    names = [item.name for item in shown.problem.constraints]
    if constraint is None:
        found = shown.first_with_heldout()
        constraint = names[0] if found is None else found[0].name
    elif constraint not in names:
        known = known_names(str(constraint), names)
        raise BadValueError(f"there is no constraint named {in_words(constraint)}. {known}")
    item = next((item for item in seen.residuals if item.name == constraint), None)
    return seen, item


def _panels(
    shown: Shown, seen: Evaluated, item: ResidualSeen | None, names: tuple[str, ...]
) -> Panels:
    """What there is to draw, by kind."""
    panels: Panels = {}
    if seen.grid or len(seen.images):
        panels["solution"] = lambda axes: draw_solution(axes, shown, seen, names)
    if item is not None and draws_residual(item):
        panels["residual"] = lambda axes: draw_residual(axes, seen, item)
    if seen.reference.size:
        panels["error"] = lambda axes: draw_error(axes, seen)
    if len(seen.grid) == 1 and seen.axes == ("t",) and seen.values.shape[1] > 1:
        panels["phase"] = lambda axes: draw_phase(axes, seen, names)
    if item is not None and not item.at_rounding and item.heldout_shares.size:
        panels["spread"] = lambda axes: draw_spread(axes, item)
    gap = None
    if item is not None:
        gap = next((gap for gap in shown.gap.constraints if gap.name == item.name), None)
    if gap is not None and draws_distance(gap):
        panels["distance"] = lambda axes: draw_distance(axes, gap)
    panels["history"] = lambda axes: draw_history(axes, shown)
    return panels


def _why_not(kind: str) -> str:
    return {
        "solution": "u is no function of one or two numbers, and no map between planes.",
        "residual": "it is at rounding, or its points vary in more than two coordinates.",
        "error": "there is no reference to compare with, or no grid to do so on.",
        "phase": "only a solution over time with two components or more has a path.",
        "spread": "the residual is at rounding, or there are no held-out points.",
        "distance": "the residual is at rounding, or there are too few points.",
    }[kind]


def _all(
    shown: Shown, found: tuple[Evaluated, ResidualSeen | None], names: tuple[str, ...]
) -> "Figure":
    seen, item = found
    panels = _panels(shown, seen, item, names)
    if len(panels) > _MOST_PANELS:
        panels.pop("distance", None)
    columns = 1 if len(panels) == 1 else 2 if len(panels) in (2, 4) else 3
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 3.5 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, draw in zip(grid.flat, panels.values(), strict=False):
        draw(axes)
        axes.title.set_fontsize(10)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.suptitle(_title(shown, item), parse_math=False, fontsize=11)
    return figure


def _title(shown: Shown, item: ResidualSeen | None) -> str:
    """The constraint that is drawn, its numbers, and whether they are rounding."""
    constraint = next(
        (part for part in shown.problem.constraints if item and part.name == item.name),
        shown.problem.constraints[0],
    )
    title = shown.title_of(constraint)
    gap = next((gap for gap in shown.gap.constraints if gap.name == constraint.name), None)
    if gap is None:
        return f"{title}: no held-out points"
    text = (
        f"{title}: train RMS {number(gap.train_rms)} on {gap.points} points, "
        f"held-out RMS {number(gap.heldout_rms.value)} on {gap.heldout.n}"
    )
    return f"{text}, at rounding" if gap.at_rounding else text


def _experiments(shown: Shown) -> "Figure":
    """A row for each experiment: its solution with data, its pieces, and its residual."""
    parts = shown.experiments
    figure = new_figure(11, 3.3 * len(parts))
    grid = figure.subplots(len(parts), 3, squeeze=False)
    for seen, (first, second, third) in zip(evaluate(shown), grid, strict=True):
        part = parts[seen.name]
        draw_solution(first, part, seen)
        first.set_title(seen.name, fontsize=9, parse_math=False)
        draw_pieces(second, part)
        _, item = _residual_of(part, None, seen)
        if item is not None and draws_residual(item):
            draw_residual(third, seen, item)
        else:
            say(third, "residual at rounding")
        third.set_title(seen.residuals[0].name, fontsize=9, parse_math=False)
    say_how_many_experiments(figure, len(parts), len(shown.model.names))
    return figure
