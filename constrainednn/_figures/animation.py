"""How a solution moves: over time where it has one, else while it was trained."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._common.tables import number
from constrainednn._figures.curves import draw_cloud, hues, values_at, window
from constrainednn._figures.evaluate import evaluate, places_of
from constrainednn._figures.panels.plane_time import AtTime
from constrainednn._figures.panels.solution import component_names, draw_phase, draw_solution
from constrainednn._figures.shown import Shown
from constrainednn._figures.space import held_in
from constrainednn._figures.space_time import map_grid, map_points
from constrainednn._figures.style import COMPONENTS, DASHES, KNOWN, draw_map_of_values, new_figure
from constrainednn._pages.drawing.plot import early, is_plane
from constrainednn._pages.evaluated import Evaluated
from constrainednn.errors import BadValueError
from constrainednn.models.space import PlaneTimePieces
from constrainednn.models.space_time import SpaceTimePieces

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# Moments of a film over time, and places of each.
_MOMENTS, _PLACES = 61, 801
# Milliseconds that a moment, a step of training, and the last picture are seen.
_MOMENT, _STEP, _LAST = 90, 600, 2500
# Colours of a picture, which lines, letters and a map share.
_COLOURS = 128

# What tells a film of this package from others, which are not overwritten.
FILM = b"made by constrainednn"

_Show = Callable[[int], None]


class _Film(NamedTuple):
    """A figure and what brings it to moment k.

    Attributes:
        figure: It, with everything drawn.
        show: Changes it to the moment of a number.
        moments: How many there are.
        milliseconds: How long each is seen.
        moving: All that changes, where that is known: the rest is then drawn once.
    """

    figure: "Figure"
    show: _Show
    moments: int
    milliseconds: int
    moving: "tuple[Artist, ...]" = ()


def animation(shown: Shown) -> bytes:
    """A GIF of a solution over time, or of its training; `Solution.animate` has the rest."""
    if shown.experiments:
        raise BadValueError(
            "there are several experiments: animate one, as in solution[0].animate('out.gif')."
        )
    if isinstance(shown.model, SpaceTimePieces):
        return _as_gif(_profiles(shown))
    if isinstance(shown.model, PlaneTimePieces):
        return _as_gif(_maps(shown))
    seen = evaluate(shown)[0]
    if shown.history.pieces is None:
        return _as_gif(_training(shown, seen))
    if seen.axes != ("t",):
        raise BadValueError("nothing of this solution moves: it has no time, and no training.")
    return _as_gif(_along_time(shown, seen))


def _along_time(shown: Shown, seen: Evaluated) -> _Film:
    """Curves that grow, and the path of the first two components beside them."""
    has_path = seen.values.shape[1] > 1
    figure = new_figure(8 if has_path else 5, 3.6)
    panels = figure.subplots(1, 1 + has_path, squeeze=False)[0]
    draw_solution(panels[0], shown, seen)
    if has_path:
        draw_phase(panels[1], seen)
    t = seen.grid[0]
    every = [line for axes in panels for line in axes.get_lines()]
    grown = [(line, *line.get_data()) for line in every if np.size(line.get_xdata()) == len(t)]
    spaced = np.linspace(t[0], t[-1], _MOMENTS)
    if early(t):
        spaced = np.geomspace(max(t[0], t[1] / 3), t[-1], _MOMENTS)
    last = np.clip(np.searchsorted(t, spaced), 0, len(t) - 1)

    title = figure.suptitle(" ", fontsize=11)

    def show(k: int) -> None:
        for line, x, y in grown:
            line.set_data(x[: last[k] + 1], y[: last[k] + 1])
        title.set_text(f"t = {t[last[k]]:.3g}")

    return _Film(figure, show, _MOMENTS, _MOMENT, (title, *(line for line, _, _ in grown)))


def _profiles(shown: Shown) -> _Film:
    """The solution against x, moment after moment."""
    times, places = map_grid(shown.model, _MOMENTS, _PLACES)
    points, shape = map_points(times, places), (_MOMENTS, _PLACES, -1)
    values = values_at(shown.model, points)
    assert values is not None
    values, reference = values.reshape(shape), shown.problem.reference
    known = None if reference is None else values_at(reference, points)
    known = None if known is None else known.reshape(shape)
    figure, draw = _curves("x", places, values, known, values)
    title = figure.suptitle(" ", fontsize=11)

    def show(k: int) -> None:
        draw(k)
        title.set_text(f"t = {times[k]:.3f}")

    return _Film(figure, show, _MOMENTS, _MOMENT, (title, *figure.axes[0].get_lines()))


def _maps(shown: Shown) -> _Film:
    """The first component over the plane, moment after moment, in the colours of all of them."""
    u, seen = shown.model, evaluate(shown)[0]
    times, places = np.linspace(u.ends[0], u.ends[-1], _MOMENTS), places_of(shown, seen.grid)
    found = [values_at(AtTime(u, float(t)), places) for t in times]
    values = np.stack([part[:, 0] for part in found if part is not None])
    largest = values[np.abs(values).max(axis=1).argmax()]
    figure, draw = _fields(shown, seen, values, seen.values.shape[-1], largest)

    def show(k: int) -> None:
        draw(k)
        figure.suptitle(f"t = {times[k]:.3f}", fontsize=11)

    return _Film(figure, show, _MOMENTS, _MOMENT)


def _training(shown: Shown, seen: Evaluated) -> _Film:
    """The image of a map, a curve or a field at the steps whose models were kept."""
    snapshots, loss = shown.history.snapshots, shown.history.loss
    if len(snapshots) < 2:
        raise BadValueError(
            "no models of the training are known, as of a solution that was loaded: animate what "
            "solve or resume returns."
        )
    if not len(seen.images) and not seen.grid:
        raise BadValueError("nothing to animate: u is no function of one or two numbers, no map.")
    places = seen.inputs if len(seen.images) else places_of(shown, seen.grid)
    found = [values_at(model, places) for _, model in snapshots]
    values = np.stack([part for part in found if part is not None])
    if len(seen.images):
        figure, draw = _clouds(shown, seen, values)
    elif len(seen.grid) == 1:
        known = np.stack([seen.reference] * len(values)) if seen.reference.size else None
        # A first guess may be far from all that follows.
        figure, draw = _curves(seen.axes[0], seen.grid[0], values, known, values[-1])
    else:
        figure, draw = _fields(shown, seen, values[..., 0], values.shape[-1], values[-1, :, 0])

    def show(k: int) -> None:
        draw(k)
        at = number(float(loss[min(snapshots[k][0], len(loss) - 1)]))
        figure.suptitle(f"step {snapshots[k][0]}, training loss {at}", fontsize=11)

    return _Film(figure, show, len(snapshots), _STEP)


def _curves(
    axis: str,
    x: Float[np.ndarray, " n"],
    values: Float[np.ndarray, "moments n k"],
    known: Float[np.ndarray, "moments n k"] | None,
    inside: np.ndarray,
) -> "tuple[Figure, _Show]":
    """A line for each component and its reference, on axes that hold all that is `inside`."""
    figure = new_figure(5.6, 3.8)
    axes = figure.subplots()
    seen = [inside.ravel()] if known is None else [inside.ravel(), known.ravel()]
    low, high = np.nanmin(np.concatenate(seen)), np.nanmax(np.concatenate(seen))
    slack = 0.06 * (high - low) or 1.0
    axes.set(xlim=(x[0], x[-1]), ylim=(low - slack, high + slack), xlabel=axis)
    count = values.shape[2]
    lines = []
    for k, name in enumerate(component_names(count)):
        colour, dash = (some[k % len(some)] for some in (COMPONENTS, DASHES))
        (line,) = axes.plot([], [], color=colour, ls=dash, lw=1.8, label=name)
        lines.append((line, values[..., k]))
    for k in range(0 if known is None else count):
        assert known is not None
        label = "reference" if k == count - 1 else None
        (line,) = axes.plot([], [], ":", color=KNOWN, lw=1.4, label=label)
        lines.append((line, known[..., k]))
    if len(lines) > 1:
        axes.legend(fontsize=8, loc="upper right")

    def draw(k: int) -> None:
        for line, part in lines:
            line.set_data(x, part[k])

    return figure, draw


def _clouds(
    shown: Shown, seen: Evaluated, values: Float[np.ndarray, "moments n k"]
) -> "tuple[Figure, _Show]":
    """Points and where they are mapped to, each point in the colour of its direction."""
    found = shown.first_with_heldout()
    target = None if found is None else found[0].target
    figure = new_figure(7.4, 3.9)
    left, right = figure.subplots(1, 2)
    colours, square = hues(seen.inputs[:, :2]), window([values[-1]], target)
    draw_cloud(left, seen.inputs, colours, window([seen.inputs], None))
    left.set_title("x")

    def draw(k: int) -> None:
        right.clear()
        draw_cloud(right, values[k], colours, square, target)
        right.set_title("u(x)")

    return figure, draw


def _fields(
    shown: Shown,
    seen: Evaluated,
    values: Float[np.ndarray, "moments n"],
    count: int,
    coloured: Float[np.ndarray, " n"],
) -> "tuple[Figure, _Show]":
    """A map of colours that mean the same in every picture: those of one."""
    values = np.where(held_in(shown.problem, places_of(shown, seen.grid)), values, np.nan)
    shape = [len(part) for part in seen.grid]
    figure = new_figure(5.2, 4.2)
    axes = figure.subplots()
    draw_map_of_values(axes, seen.grid, coloured.reshape(shape), component_names(count)[0])
    axes.set(xlabel=seen.axes[0], ylabel=seen.axes[1])
    if is_plane(seen.axes, *(float(part[-1] - part[0]) for part in seen.grid)):
        axes.set_aspect("equal")
    (mesh,) = axes.collections

    def draw(k: int) -> None:
        mesh.set_array(values[k].reshape(shape).T)

    return figure, draw


def _as_gif(film: _Film) -> bytes:
    """All moments as one file that begins again; the last stays for a while."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, pictures = FigureCanvasAgg(film.figure), []
    film.show(film.moments - 1)
    canvas.draw()  # the layout is that of the last moment, and stays
    film.figure.set_layout_engine("none")
    for artist in film.moving:
        artist.set_animated(True)  # left out when all is drawn
    canvas.draw()
    still = canvas.copy_from_bbox(film.figure.bbox)
    for k in range(film.moments):
        film.show(k)
        if film.moving:
            canvas.restore_region(still)
            for artist in film.moving:
                film.figure.draw_artist(artist)
        else:
            canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    colours = pictures[-1].quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    # Without dithering: what does not change between pictures then takes no space.
    first, *rest = [item.quantize(palette=colours, dither=Image.Dither.NONE) for item in pictures]
    durations = [film.milliseconds] * (film.moments - 1) + [_LAST]
    file = io.BytesIO()
    kept = {"save_all": True, "append_images": rest, "loop": 0, "comment": FILM}
    first.save(file, "GIF", duration=durations, **kept)
    return file.getvalue()
