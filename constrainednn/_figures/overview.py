"""Figures of a solution, as `Figure` objects: no pyplot, no global state."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from constrainednn._common.messages import known_names
from constrainednn._common.messages import shown as in_words
from constrainednn._common.tables import number
from constrainednn._figures.evaluate import evaluate
from constrainednn._figures.panels.history import draw_history, draw_pieces
from constrainednn._figures.panels.parameters import draw_parameters
from constrainednn._figures.panels.plane import draw_slices, draw_vectors, draws_vectors
from constrainednn._figures.panels.residual import (
    draw_distance,
    draw_residual,
    draw_spread,
    draws_distance,
    draws_residual,
)
from constrainednn._figures.panels.solution import (
    component_names,
    draw_error,
    draw_phase,
    draw_solution,
)
from constrainednn._figures.shown import Shown
from constrainednn._figures.style import new_figure, say_how_many_experiments
from constrainednn._pages.evaluated import Evaluated, ResidualSeen
from constrainednn.errors import BadTypeError, BadValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What can be drawn, in the order of the overview.
KINDS = (
    *("solution", "slices", "vectors", "residual", "error", "phase", "parameters"),
    *("spread", "distance", "history"),
)
# Panels that make room for others where there are more than a page holds, the first to go first.
_SPARED = ("distance", "slices", "spread")
# Panels of a page, and letters of a title that an inch holds.
_MOST_PANELS, _LETTERS = 6, 12

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
    component: int | None,
    names: Sequence[str] | None,
    ax: "Axes | None",
) -> "Figure":
    """One panel, or all of them; `Solution.plot` has the documentation."""
    if shown.experiments:
        if any(item is not None for item in (kind, constraint, component, names, ax)):
            raise BadValueError(
                "there are several experiments: draw one, as in solution[0].plot('residual')."
            )
        return overview(shown)
    seen = evaluate(shown)[0]
    seen, called = _of_component(component, seen, _as_names(names, seen))
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


def _of_component(
    k: int | None, seen: Evaluated, names: tuple[str, ...]
) -> tuple[Evaluated, tuple[str, ...]]:
    """One component of what is seen, with its name; all of them for None."""
    if k is None:
        return seen, names
    count = seen.values.shape[-1] if seen.grid else 0
    if isinstance(k, bool) or not isinstance(k, int) or not -count <= k < count:
        raise BadValueError(f"component of plot must be a number below {count}, got {in_words(k)}.")
    known = seen.reference[..., [k]] if seen.reference.size else seen.reference
    chosen = dataclasses.replace(seen, values=seen.values[..., [k]], reference=known)
    return chosen, (component_names(count, names)[k],)


def _residual_of(
    shown: Shown, constraint: str | None, seen: Evaluated
) -> tuple[Evaluated, ResidualSeen | None]:
    """What is drawn of a constraint: the one that is named, else the first that is no rounding."""
    names = [item.name for item in shown.problem.constraints]
    if constraint is None:
        found = shown.first_with_heldout()
        constraint = names[0] if found is None else found[0].name
        seen_by_figure = {item.name for item in seen.residuals if draws_residual(item)}
        telling = [item.name for item in shown.gap.constraints if not item.at_rounding]
        constraint = next((name for name in telling if name in seen_by_figure), constraint)
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
    if len(seen.grid) == 2:
        panels["slices"] = lambda axes: draw_slices(axes, seen, names)
    if draws_vectors(seen):
        panels["vectors"] = lambda axes: draw_vectors(axes, seen, names)
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
    if unknowns := shown.unknowns():
        panels["parameters"] = lambda axes: draw_parameters(axes, unknowns)
    panels["history"] = lambda axes: draw_history(axes, shown)
    return panels


def _why_not(kind: str) -> str:
    return {
        "solution": "u is no function of numbers, and no map between planes.",
        "slices": "only a function of two coordinates or more has slices.",
        "vectors": "only two components or more over a plane are arrows.",
        "parameters": "there are no unknowns, or the data do not determine them.",
        "residual": "it is at rounding, or its points vary in too many coordinates.",
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
    if len(seen.images):  # it is a map: its image says what curves and arrows would say again
        panels = {kind: panels[kind] for kind in panels if kind not in ("slices", "vectors")}
    for kind in _SPARED:
        if len(panels) > _MOST_PANELS:
            panels.pop(kind, None)
    columns = 1 if len(panels) == 1 else 2 if len(panels) in (2, 4) else 3
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 3.5 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, draw in zip(grid.flat, panels.values(), strict=False):
        draw(axes)
        axes.title.set_fontsize(10)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    title = textwrap.fill(_title(shown, item), int(_LETTERS * figure.get_figwidth()))
    figure.suptitle(title, parse_math=False, fontsize=11)
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
    parts, every = shown.experiments, evaluate(shown)
    items = [_residual_of(parts[seen.name], None, seen)[1] for seen in every]
    drawn = [item is not None and draws_residual(item) for item in items]
    columns = 2 + any(drawn)
    figure = new_figure(1 + 3.4 * columns, 2.8 * len(parts))
    grid = figure.subplots(len(parts), columns, squeeze=False)
    for seen, item, has_residual, (first, second, *third) in zip(
        every, items, drawn, grid, strict=True
    ):
        part = parts[seen.name]
        draw_solution(first, part, seen)
        first.set_title(seen.name, fontsize=9, parse_math=False)
        draw_pieces(second, part)
        second.title.set_fontsize(9)
        if third and has_residual and item is not None:
            draw_residual(third[0], seen, item)
            third[0].set_title(item.name, fontsize=9, parse_math=False)
        elif third:
            third[0].remove()
    if not any(drawn):
        figure.suptitle("residuals at rounding", fontsize=9)
    say_how_many_experiments(figure, len(parts), len(shown.model.names))
    return figure
