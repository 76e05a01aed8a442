"""Stationary equations on regions of the plane: elements that a boundary cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import constrainednn as cx
from constrainednn._pde.stationary.curved.cells import Curved, Outline
from constrainednn._pde.stationary.curved.integrals import integrals_within
from constrainednn._pde.stationary.curved.places import Cuts
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn.domains import Ball

HOLE = cx.Box([0, 0], [1, 1]) - Ball(2, 0.25, center=[0.5, 0.5], name="hole")


def cells_of(region, count):
    """Boxes of an even grid that a region reaches into."""
    outline = Outline(Curved.of(region))
    ends = np.linspace(*outline.curved.ends, count + 1)
    low = np.stack(np.meshgrid(*ends[:-1].T, indexing="ij"), axis=-1).reshape(-1, 2)
    high = np.stack(np.meshgrid(*ends[1:].T, indexing="ij"), axis=-1).reshape(-1, 2)
    kept = outline.reaches(low, high)
    return Mesh(low[kept], high[kept], outline)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_places_of_cut_elements_measure_area_and_length(count):
    mesh = cells_of(HOLE, count)
    cuts = Cuts(mesh.region, mesh, 10)
    area = sum(a * cuts[k].weights.sum() for k, a in enumerate(mesh.area))
    # Points of a rule are counted, not integrated: right to some of them at the edge.
    assert abs(area - (1 - np.pi / 16)) < 0.05 / count
    lengths = dict.fromkeys(range(5), 0.0)
    for k, (low, high) in enumerate(zip(mesh.low, mesh.high, strict=True)):
        for part, s, weights in cuts[k].arcs:
            lengths[part] += weights.sum() * (high - low).min()
            x = low + (high - low) * (s + 1) / 2
            assert np.abs(HOLE.distance(x)).max() < 1e-14
            assert np.abs(s).max() < 1 + 1e-4  # arcs end at sides, to some digits
    # Where the circle touches a side, what is shorter than two of 2,048 places may be missed.
    np.testing.assert_allclose(list(lengths.values()), [1, 1, 1, 1, np.pi / 2], rtol=3e-4)


def test_elements_within_a_hole_are_left_out_and_slivers_kept():
    # Of 8 x 8 elements 2 x 2 lie in the hole; the circle touches sides of others.
    mesh = cells_of(HOLE, 8)
    assert len(mesh.low) == 60
    x = np.asarray(HOLE.boundary.faces[-1].along(np.linspace(0, 1, 999)))
    inside = ((x[:, None] >= mesh.low - 1e-12) & (x[:, None] <= mesh.high + 1e-12)).all(axis=2)
    assert inside.any(axis=1).all()


@pytest.fixture(scope="module")
def disk():
    return cx.solve(cx.load_problem("poisson_disk"))


@pytest.mark.slow
def test_disk_to_rounding(disk):
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    x = x[np.hypot(*x.T) < 1]
    exact = jax.vmap(disk.problem.reference)(x)
    np.testing.assert_allclose(disk(x), exact, atol=1e-14)
    assert disk.verdict.word == "solved"
    assert disk.gap.worst is not None
    assert [item.name for item in disk.problem.constraints] == ["poisson", "circle", "jumps"]
    assert disk.error_estimate().relative < 1e-12


@pytest.mark.slow
def test_outside_of_the_disk_is_refused(disk):
    with pytest.raises(cx.errors.UsageError, match=r"known in Ball\(2, 1\), got \(0.9, 0.9\)"):
        disk([0.9, 0.9])
    with pytest.raises(cx.errors.UsageError, match="compare needs"):
        disk.compare()


@pytest.mark.slow
def test_flux_through_a_hole():
    solution = cx.solve(cx.load_problem("poisson_hole"))
    x = np.random.default_rng(0).uniform(0, 1, (500, 2))
    x = x[HOLE.holds(x)]
    np.testing.assert_allclose(solution(x), jax.vmap(solution.problem.reference)(x), atol=1e-12)
    assert solution.verdict.word == "solved"


def laplace(u, x):
    return cx.laplacian(u)(x)


@pytest.mark.slow
def test_a_part_of_the_boundary_that_does_not_exist():
    zero = lambda u, x: u(x)  # noqa: E731
    with pytest.raises(cx.errors.UsageError, match=r"names 'inlet': there are 'left', .*'hole'"):
        cx.pde(laplace, over=HOLE, boundary={"inlet": zero})
    with pytest.raises(cx.errors.UsageError, match="needs 1 condition at 'hole'"):
        cx.pde(laplace, over=HOLE, boundary=dict.fromkeys(["left", "right", "bottom", "top"], zero))


def test_the_same_statement_with_random_features():
    problem = cx.pde(
        laplace,
        over=HOLE,
        boundary=lambda u, x, n: u(x) - x @ jnp.array([1.0, 2.0]),
        model=cx.RandomFeatures(cx.Box([0, 0], [1, 1]), "scalar", width=60),
    )
    names = [item.name for item in problem.constraints]
    assert names == ["laplace", "left", "right", "bottom", "top", "hole"]
    assert problem.constraints[-1].over.names == ("hole",)


UNIT = cx.Box([0, 0], [1, 1])
BESIDE = cx.domains.Polygon([[1, 0], [2, 0], [2, 1], [1, 1]])
L_SHAPE = cx.Box([-1, -1], [1, 1]) - cx.Box([0, -1], [1, 0])


@pytest.mark.parametrize(
    ("region", "count", "sides"),
    [(UNIT | BESIDE, 2, 4), (L_SHAPE - Ball(2, 0.2, center=[-0.5, 0.5]), 2, 2)],
)
def test_elements_are_joined_where_parts_of_a_region_meet(region, count, sides):
    """On the seam the signed distance is zero, as at a boundary."""
    assert len(cells_of(region, count).sides) == sides


def loaded(u, x):
    return cx.laplacian(u)(x) + 1.0


def clamped(u, x):
    return u(x)


@pytest.mark.slow
def test_a_seam_within_a_region_is_none():
    shape = {"boundary": clamped, "width": 10}
    whole = cx.solve(cx.pde(loaded, over=cx.Box([0, 0], [2, 1]), **shape), tolerance=1e-5)
    joined = cx.solve(cx.pde(loaded, over=UNIT | BESIDE, **shape), tolerance=1e-5)
    x = np.array([[0.999, 0.5], [1.001, 0.5], [0.5, 0.3], [1.7, 0.6]])
    np.testing.assert_allclose(joined(x), whole(x), atol=1e-4)


def test_no_box_at_a_corner_is_passed_over_however_small():
    # Boxes of sizes 1/2, 1/4, ... around the corner that points inwards, and their mirror images.
    corner = cx.domains.Polygon([[-1, -1], [0, -1], [0, 0], [1, 0], [1, 1], [-1, 1]])
    ends = np.append(0.5 ** np.arange(40), 0.0)
    ends = np.concatenate([-ends, ends[-2::-1]])
    low = np.stack(np.meshgrid(ends[:-1], ends[:-1], indexing="ij"), axis=-1).reshape(-1, 2)
    high = np.stack(np.meshgrid(ends[1:], ends[1:], indexing="ij"), axis=-1).reshape(-1, 2)
    arcs = Outline(Curved.of(corner)).arcs(low, high)
    below, right = (high[:, 1] <= 0) & (high[:, 0] == 0), (low[:, 0] >= 0) & (low[:, 1] == 0)
    for axis, part, touching in ((1, 1, below), (0, 2, right)):
        for k in np.flatnonzero(touching):
            length = sum(arc.last - arc.first for arc in arcs[k] if arc.part == part)
            assert np.isclose(length, (high - low)[k, axis], rtol=1e-6), (low[k], arcs[k])


def test_curves_are_seen_in_boxes_however_small():
    # A half disk: boxes beside the place (1, 0), where the circle goes up and meets the diameter.
    half = Ball(2, 1.0) - cx.Box([-1, -1], [1, 0])
    for size in 0.5 ** np.arange(2, 31, 4):
        outline = Outline(Curved.of(half))
        low = np.array([[1 - size, 0.0], [1 - size, size]])
        arcs, above = outline.arcs(low, low + size)
        lengths = [
            sum(outline.at_rule([arc], np.zeros(1), np.ones(1))[1][0] for arc in own)
            for own in (arcs, above)
        ]
        # The circle between heights of 0, size and twice size; and the diameter below.
        angles = np.arcsin([size, 2 * size])
        np.testing.assert_allclose(lengths[0], angles[0] + size, rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(lengths[1], angles[1] - angles[0], rtol=1e-6, atol=1e-14)


@pytest.mark.slow
def test_a_value_at_a_point_fixes_what_fluxes_leave_free():
    def exact(x):
        return 5.0 + x[0] ** 2 - x[1] ** 2

    def flux(u, x, n):
        return cx.operators.normal_derivative(u, n)(x) - jax.grad(exact)(x) @ n

    def value(u, x):
        return u(x) - exact(x)

    boundary = {"circle": flux, (0.3, 0.2): value}
    found = cx.solve(cx.pde(laplace, over=Ball(2), boundary=boundary, reference=exact))
    np.testing.assert_allclose(found([0.3, 0.2]), exact(np.array([0.3, 0.2])), atol=1e-10)
    np.testing.assert_allclose(found([-0.5, 0.6]), exact(np.array([-0.5, 0.6])), atol=1e-10)


def test_what_elements_cannot_resolve_is_refused_in_words():
    lens = UNIT & Ball(2, 1e4, center=[0.5, 0.9 - 1e4], name="lens")
    thin = Ball(2, 1e7, center=[0.5 - 1e7, 0]) & Ball(2, 1e7, center=[1e7 - 0.5, 0])
    for region, words in [
        (lens, "'lens' of length .*HalfSpace"),
        (thin, "thinner than can be resolved"),
        (cx.Box([0.0], [1.0]), "cx.Interval"),
    ]:
        with pytest.raises(cx.errors.UsageError, match=words):
            cx.pde(loaded, over=region, boundary=clamped)


def smooth(x):
    return jnp.exp(x[0]) * jnp.cos(2 * x[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "region",
    [
        cx.domains.Polygon([[0, 0], [2, 0.3], [1.5, 1.7], [0.4, 1.4]]),
        cx.domains.LevelSet(lambda x: x[0] ** 2 / 4 + x[1] ** 2 - 1, [-2, -1], [2, 1]),
        cx.domains.LevelSet(lambda x: x[1] - jnp.cos(x[0]), [-np.inf] * 2, [np.inf] * 2)
        & cx.Box([-1, 0], [1, 2]),
    ],
    ids=["polygon", "ellipse", "under a curve"],
)
def test_slanted_and_curved_sides_to_rounding(region):
    def poisson(u, x):
        return cx.laplacian(u)(x) - cx.laplacian(smooth)(x)

    solution = cx.solve(cx.pde(poisson, over=region, boundary=lambda u, x: u(x) - smooth(x)))
    x = np.random.default_rng(0).uniform(*region.bounds, (500, 2))
    x = x[region.holds(x)]
    np.testing.assert_allclose(solution(x), jax.vmap(smooth)(x), atol=1e-13)
    assert solution.verdict.word == "solved"


def test_arcs_of_a_level_set_measure_its_length():
    ellipse = cx.domains.LevelSet(lambda x: x[0] ** 2 / 4 + x[1] ** 2 - 1, [-2, -1], [2, 1])
    mesh = cells_of(ellipse, 3)
    total = sum(
        mesh.region.curved.boundary.faces[arc.face].content * (arc.last - arc.first)
        for arcs in mesh.arcs
        for arc in arcs
    )
    assert abs(total - ellipse.boundary.faces[0].content) < 1e-6
    table, area = integrals_within(mesh.region, mesh, 8)
    assert abs(area - 2 * np.pi) < 1e-6 and table.shape == (len(mesh.low), 64)
