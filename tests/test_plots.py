"""Figures say what is there: shares of all points, pieces instead of steps, limits that compare."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._figures.curves import hues
from constrainednn._figures.panels.residual import share_above
from constrainednn._figures.style import new_figure, widen
from constrainednn.errors import StoreError


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_share_counts_points_without_residual_and_those_that_overflow():
    size, share = share_above(np.array([0.0, 2.0, np.inf, 1.0]))
    assert size.tolist() == [1.0, 2.0]
    # Three of four are not zero; at the largest finite size two remain, one of them infinite.
    assert share.tolist() == [0.75, 0.5]
    assert share_above(np.zeros(5))[0].size == 0


@pytest.fixture(scope="module")
def oscillator():
    problem = cx.ivp(
        lambda t, y, args: jnp.stack([y[1], -y[0]]),
        jnp.array([0.0, 1.0]),
        (0.0, 6.0),
        reference=lambda t: jnp.stack([jnp.sin(t), jnp.cos(t)]),
    )
    return cx.solve(problem)


@pytest.mark.slow
def test_pieces_are_drawn_with_their_lengths_and_the_solution_at_all_edges(oscillator):
    figure, pieces = oscillator.plot(), oscillator.history.pieces
    (steps,) = oscillator.plot("history").axes[0].patches
    np.testing.assert_allclose(np.diff(steps.get_data().edges), np.diff(pieces.edges))
    np.testing.assert_array_equal(steps.get_data().values, pieces.monitor)
    u = next(axes for axes in figure.axes if axes.get_title() == "u(t)")
    labels = [text.get_text() for text in u.get_legend().get_texts()]
    assert labels == ["u[0]", "u[1]", "reference"]
    t, first = u.get_lines()[0].get_data()
    assert set(pieces.edges) <= set(t)
    # The tolerance of 1e-12, grown at most by the length of the span.
    assert np.abs(first - np.sin(t)).max() < 1e-11


@pytest.mark.slow
def test_moments_of_pieces_show_the_solution_above_its_residual(oscillator):
    assert titles(oscillator.plot_moments())[:2] == [
        "u(t)",
        "residual at train and monitor points",
    ]


@pytest.mark.slow
def test_both_rows_of_moments_have_the_same_limits_and_sizes(solved):
    figure = solved(
        "unit_circle", settings={"points": 100, "model": "smooth"}, steps=3
    ).plot_moments()
    figure.draw_without_rendering()
    columns = len(figure.axes) // 2
    for above, below in zip(figure.axes[:columns], figure.axes[columns:], strict=True):
        assert above.get_xlim() == below.get_xlim()
        assert above.get_ylim() == below.get_ylim()
        # To a millionth of the figure: the layout is solved in floating point.
        np.testing.assert_allclose(above.get_position().size, below.get_position().size, atol=1e-6)


@pytest.mark.slow
def test_moments_of_matrices_have_panels_of_one_size_that_show_every_point(solved):
    figure = solved("rotation", steps=3).plot_moments()
    figure.draw_without_rendering()
    size = figure.axes[0].get_position().size
    for axes in figure.axes:
        np.testing.assert_allclose(axes.get_position().size, size, atol=1e-6)
        (x, y), half = (
            np.mean([axes.get_xlim(), axes.get_ylim()], axis=1),
            np.ptp(axes.get_xlim()) / 2,
        )
        assert np.ptp(axes.get_ylim()) == pytest.approx(2 * half)
        assert np.abs(axes.collections[0].get_offsets() - (x, y)).max() <= half


@pytest.mark.slow
def test_one_constraint_of_several_is_named_with_its_place():
    def fit(u, x):
        return u(x) - x

    def start(u, x):
        return u(x)

    problem = cx.Problem(
        [
            cx.Constraint(start, over=cx.Points(np.zeros(1)), name="$start"),
            cx.Constraint(fit, over=cx.Interval(0, 1), name="$fit$"),
        ],
        cx.MLP("scalar", "scalar", width=4),
    )
    figure = cx.solve(problem, steps=1).plot()
    assert figure.get_suptitle().startswith("constraint 2 of 2: $fit$: train RMS")
    assert titles(figure)[-1] == "total loss"


@pytest.mark.slow
def test_rows_are_drawn_as_dots_on_a_curve_that_is_finer():
    def fit(u, point):
        return u(point[0]) - point[1]

    x = np.linspace(0, 1, 20)
    problem = cx.Problem(
        cx.Constraint(fit, over=cx.Data((x, x**2))), cx.MLP("scalar", "scalar", width=4)
    )
    # The fewer training rows are drawn last, above the others.
    curve, held, train = cx.solve(problem, steps=1).plot("solution").axes[0].get_lines()
    assert [np.size(line.get_xdata()) for line in (curve, held, train)] == [501, 4, 16]
    both = np.concatenate([train.get_xdata(), held.get_xdata()])
    np.testing.assert_array_equal(np.sort(both), x)


def test_log_axes_show_two_powers_of_ten():
    axes = new_figure(3, 3).subplots()
    axes.plot([1, 2], [0.2, 0.3])
    axes.set(xscale="linear", yscale="log")
    widen(axes)
    assert axes.get_ylim() == pytest.approx((0.1, 1.0))
    assert axes.get_xlim() == pytest.approx((0.95, 2.05))  # linear axes stay


def test_colours_of_directions_are_dark_on_white_wherever_the_cloud_is():
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    colours = hues(ring + 10)
    # Contrast with white by WCAG needs the relative luminance; sRGB decoded as in hues.
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert 1.05 / (luminance.max() + 0.05) > 3
    np.testing.assert_allclose(colours, hues(ring), atol=1e-12)


def off_line(u, x):
    return u(x) - x[0]


def off_edge(u, x):
    return u(x)


@pytest.fixture(scope="module")
def plane():
    box = cx.Box([0, 0], [1, 2])
    problem = cx.Problem(
        [
            cx.Constraint(off_line, over=box, points=9),
            cx.Constraint(off_edge, over=cx.domains.Segment([0, 0], [0, 2]), points=5),
        ],
        cx.MLP(2, "scalar", width=4),
        reference=lambda x: x[0],
    )
    return cx.solve(problem, steps=2, heldout=50, monitor=10)


def test_fields_are_the_solution_and_its_residual_on_a_grid(plane):
    axes, _ = plane.plot("solution").axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("x[0]", "x[1]", 1.0)
    (mesh,) = axes.collections
    corners = mesh.get_coordinates()  # of the cells around the places of the grid
    x = np.asarray(corners[:-1, :-1] + corners[1:, 1:]) / 2
    np.testing.assert_allclose(mesh.get_array(), plane(x), atol=1e-12)
    axes, _ = plane.plot("residual").axes
    np.testing.assert_allclose(
        axes.collections[0].get_array(), np.abs(plane(x) - x[..., 0]), rtol=1e-6, atol=1e-12
    )
    train, ring = axes.get_lines()
    np.testing.assert_array_equal(
        np.sort(train.get_xydata(), axis=0), np.sort(plane.streams[0].train.points, axis=0)
    )
    np.testing.assert_array_equal(ring.get_xydata()[0], plane.gap["off_line"].worst.point)
    axes, _ = plane.plot("error").axes
    np.testing.assert_allclose(
        axes.collections[0].get_array(), np.abs(plane(x) - x[..., 0]), rtol=1e-6, atol=1e-12
    )


def test_any_constraint_is_drawn_into_axes_of_the_user(plane):
    figure = new_figure(5, 3)
    axes = figure.subplots()
    assert plane.plot("residual", constraint="off_edge", ax=axes) is figure
    assert axes.get_title() == "residual of off_edge"
    held = next(line for line in axes.get_lines() if "held-out" in line.get_label())
    assert axes.get_xlabel() == "x[1]"  # the one coordinate in which the points vary
    np.testing.assert_allclose(
        np.sort(held.get_ydata()), np.sort(np.abs(plane(plane.streams[1].heldout.points)))
    )
    assert plane.plot(constraint="off_edge").get_suptitle().startswith("constraint 2 of 2")


@pytest.mark.slow
def test_components_have_the_names_they_are_given(oscillator):
    figure = oscillator.plot("phase", names=["place", "$speed$"])
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("place", "$speed$")
    path = axes.get_lines()[0].get_xydata()
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1.0, atol=1e-10)  # a circle


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "eror"}, "kind of plot is no 'eror'.*error"),
        ({"kind": "phase"}, "only a solution over time.*There is: solution, slices, residual"),
        ({"constraint": "edge"}, "no constraint named 'edge'.*off_edge"),
        ({"names": ["a", "b"]}, "has 2 entries, and u has 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(plane, arguments, said):
    with pytest.raises(ValueError, match=said):
        plane.plot(**arguments)
    with pytest.raises(ValueError, match="give kind="):
        plane.plot(ax=new_figure(2, 2).subplots())


@pytest.mark.slow
def test_no_panel_is_empty_where_the_residual_is_rounding():
    def fit(u, x):
        return u(x)

    model = cx.Linear("scalar", "scalar", bias=False)
    problem = cx.Problem(cx.Constraint(fit, over=cx.Interval(0, 1), points=4), model)
    figure = cx.solve(problem, steps=3).plot()
    assert "at rounding" in figure.get_suptitle()
    assert titles(figure) == ["u(x)", "loss"]
    loss = figure.axes[-1]
    assert loss.get_xscale() == "linear" and loss.get_xlabel() == "step"


def moments_of(file):
    """The pictures of a film as arrays, and how long each is seen."""
    from PIL import Image

    pictures, durations = [], []
    with Image.open(file) as film:
        for k in range(film.n_frames):
            film.seek(k)
            pictures.append(np.asarray(film.convert("RGB"), float))
            durations.append(film.info["duration"])
    return pictures, durations


def test_film_of_training_shows_every_kept_model_and_stays_small(plane, tmp_path):
    file = tmp_path / "out.gif"
    plane.animate(file)
    pictures, durations = moments_of(file)
    assert len(pictures) == len(plane.history.snapshots) == 3  # steps 0, 1 and 2
    assert durations == [600, 600, 2500]
    assert all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(pictures))
    assert file.stat().st_size < 100_000
    plane.animate(file)  # its own film is replaced, another file is not
    file.write_bytes(b"GIF89a of somebody else")
    with pytest.raises(StoreError, match="no film of this package"):
        plane.animate(file)
    with pytest.raises(StoreError, match=r"must end in \.gif"):
        plane.animate(tmp_path / "out.mp4")


@pytest.mark.slow
def test_film_over_time_grows_curves_up_to_the_moment(oscillator, tmp_path):
    oscillator.animate(tmp_path / "out.gif")
    pictures, _ = moments_of(tmp_path / "out.gif")
    assert len(pictures) == 61
    # The first component is blue: less of it is there the earlier it is, and nothing moves back.
    blue = [(np.abs(part - (0, 114, 178)).max(axis=2) < 40).sum() for part in pictures]
    assert blue[0] < blue[20] < blue[40] < blue[60]
    assert (tmp_path / "out.gif").stat().st_size < 300_000


@pytest.mark.slow
def test_nothing_is_animated_of_a_loaded_training_or_of_several_experiments(plane, tmp_path):
    plane.save(tmp_path / "run")
    loaded = cx.load_solution(tmp_path / "run", plane.problem)
    with pytest.raises(ValueError, match="no models of the training are known"):
        loaded.animate(tmp_path / "out.gif")
    assert not (tmp_path / "out.gif").exists()


def of_space(u, x):
    return u(x) - x[0] * x[1] - x[2]


@pytest.fixture(scope="module")
def space():
    problem = cx.Problem(
        cx.Constraint(of_space, over=cx.Box([0, 0, 0], [1, 1, 1]), points=20),
        cx.MLP(3, "scalar", width=4),
        reference=lambda x: x[0] * x[1] + x[2],
    )
    return cx.solve(problem, steps=2, heldout=40, monitor=10)


@pytest.mark.slow
def test_space_is_drawn_in_a_plane_through_its_middle(space):
    (solution, _), (residual, _) = (space.plot(kind).axes for kind in ("solution", "residual"))
    for axes, correct in ((solution, False), (residual, True)):
        assert axes.get_ylabel() == "x[1] at x[2] = 0.5"
        mesh = next(item for item in axes.collections if hasattr(item, "get_coordinates"))
        corners = mesh.get_coordinates()
        x = np.asarray(corners[:-1, :-1] + corners[1:, 1:]) / 2
        x = np.concatenate([x, np.full((*x.shape[:2], 1), 0.5)], axis=-1)
        off = x[..., 0] * x[..., 1] + x[..., 2]
        values = np.abs(space(x) - off) if correct else space(x)
        np.testing.assert_allclose(mesh.get_array(), values, rtol=1e-6, atol=1e-12)
    # The worst point lies elsewhere: a mark in this plane would be wrong.
    assert not [line for line in residual.get_lines() if line.get_marker() == "o"]


def test_slices_are_the_solution_at_values_of_the_first_coordinate(plane):
    (axes,) = plane.plot("slices").axes
    assert axes.get_title() == "slices at values of x[0]" and axes.get_xlabel() == "x[1]"
    curves = [line for line in axes.get_lines() if line.get_linestyle() != ":"]
    assert len(curves) == 5
    y, last = curves[-1].get_data()
    x = plane.plot("solution").axes[0].get_xlim()[1]
    np.testing.assert_allclose(last, plane(np.stack([np.full_like(y, x), y], axis=1)), atol=0.02)


def swirl(u, x):
    return u(x) - jnp.stack([-x[1], x[0]])


@pytest.mark.slow
def test_one_component_and_arrows_of_two_are_drawn():
    problem = cx.Problem(
        cx.Constraint(swirl, over=cx.Box([-1, -1], [1, 1]), points=9), cx.Linear(2, 2)
    )
    solution = cx.solve(problem, steps=3, heldout=40, monitor=10)
    mesh, arrows = solution.plot("vectors").axes[0].collections
    x = arrows.get_offsets()
    np.testing.assert_allclose(arrows.U, -x[:, 1], atol=1e-5)
    np.testing.assert_allclose(arrows.V, x[:, 0], atol=1e-5)
    assert mesh.get_array().max() == pytest.approx(np.sqrt(2), rel=0.1)
    (axes,) = solution.plot("slices", component=1).axes
    assert axes.get_ylabel() == "u[1]"
    first = axes.get_lines()[0].get_ydata()
    np.testing.assert_allclose(first, first[0], atol=1e-5)  # it does not depend on x[1]
    with pytest.raises(ValueError, match="component of plot must be a number below"):
        solution.plot(component=5)


@pytest.mark.slow
def test_no_column_is_empty_where_all_experiments_are_at_rounding(solved):
    figure = solved("experiments").plot()
    assert len(figure.axes) % 2 == 0 and all(axes.axison for axes in figure.axes)


@pytest.mark.slow
def test_default_is_the_first_constraint_whose_residual_is_no_rounding():
    def always(u, x):
        return 0 * u(x)

    def fit(u, x):
        return u(x) - jnp.sin(3 * x)

    over = cx.Interval(0, 1)
    constraints = [cx.Constraint(fn, over=over, points=5) for fn in (always, fit)]
    problem = cx.Problem(constraints, cx.MLP("scalar", "scalar", width=3))
    figure = cx.solve(problem, steps=2, heldout=30, monitor=10).plot()
    assert figure.get_suptitle().startswith("constraint 2 of 2: fit")
    assert "residual of fit" in titles(figure)


@pytest.mark.slow
def test_nothing_is_drawn_outside_of_a_region(solved):
    solution = solved("poisson_disk")
    field = solution.plot("solution").axes[0].collections[0]
    error = solution.error_estimate().plot().axes[0].collections[0]
    for mesh in (field, error):
        corners = mesh.get_coordinates()
        x = np.asarray(corners[:-1, :-1] + corners[1:, 1:]) / 2
        shown = ~np.ma.getmaskarray(np.ma.masked_invalid(mesh.get_array()))
        assert shown.any() and np.linalg.norm(x[shown], axis=-1).max() < 1 + 1e-6
    for line in solution.plot("slices").axes[0].get_lines():
        y = line.get_ydata()
        assert y[np.isfinite(y)].min() > -0.05  # the solution vanishes on the edge, and is positive
