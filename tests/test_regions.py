"""Regions by signed distances: areas, moments, normals, boundaries and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from marks import slow

import constrainednn as cx
from constrainednn.domains import Ball, HalfSpace, Independent, LevelSet, Polygon
from constrainednn.domains.samplers.draws import draw
from constrainednn.testing.domains import check_domain

N = 40_000
HOLE = cx.Box([0, 0], [1, 1]) - Ball(2, 0.25, center=[0.5, 0.5], name="hole")
LENS = Ball(2) & Ball(2, center=[1, 0])
KEYHOLE = Ball(2) | cx.Box([-0.5, -2], [0.5, 0])
L_SHAPE = Polygon([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]])
CAP = Ball(2) & HalfSpace([1, 1], 0.0)


def oval(x):
    return x[0] ** 2 / 4 + x[1] ** 2 - 1


def flower(x):
    """r < 1 + cos(5 theta) / 4, as a function that is smooth where it is zero."""
    return x[0] ** 2 + x[1] ** 2 - (1 + jnp.cos(5 * jnp.arctan2(x[1], x[0])) / 4) ** 2


def under(x):
    return x[1] - jnp.sin(x[0])


ELLIPSE = LevelSet(oval, [-2, -1], [2, 1])
FLOWER = LevelSet(flower, [-1.3, -1.3], [1.3, 1.3])
ARCH = LevelSet(under, [-np.inf] * 2, [np.inf] * 2, name="arch") & cx.Box([0, 0], [np.pi, 2])
SHELL = Ball(3) - Ball(3, 0.5)
# Overlap of the unit disk and the box above: a strip that ends in two circular segments.
UNDER_ROOT = np.sqrt(3) / 4 + np.arcsin(0.5)

# Region, its area or volume, and the middle of it where that is known by symmetry or by hand.
AREAS = [
    (HOLE, 1 - np.pi / 16, [0.5, 0.5]),
    (LENS, 2 * np.pi / 3 - np.sqrt(3) / 2, [0.5, 0]),
    (KEYHOLE, np.pi + 2 - UNDER_ROOT, None),
    (L_SHAPE, 3.0, [5 / 6, 5 / 6]),
    (CAP, np.pi / 2, [-4 / (3 * np.pi) / np.sqrt(2)] * 2),
    (Ball(2) - cx.Box([0, 0], [2, 2]), 3 * np.pi / 4, [-4 / (9 * np.pi)] * 2),
    (SHELL, 4 / 3 * np.pi * 7 / 8, [0, 0, 0]),
    (cx.Box([0, 0], [1, 1]) | Polygon([[1, 0], [2, 0], [1, 1]]), 1.5, [7 / 9, 4 / 9]),
    (ELLIPSE, 2 * np.pi, [0, 0]),
    (FLOWER, np.pi * (1 + 1 / 32), [0, 0]),
    (ARCH, 2.0, [np.pi / 2, np.pi / 8]),
    (LevelSet(lambda x: x @ x - 1, [-1] * 3, [1] * 3), 4 / 3 * np.pi, [0, 0, 0]),
]
PLANE = [item for item, _, _ in AREAS if len(item.bounds[0]) == 2]


def drawn(domain, n=N, seed=0):
    return draw(domain, n, Independent(), key=jax.random.key(seed)).points


def middle_of(x):
    """The mean of independent points, and four standard errors of it."""
    return x.mean(axis=0), 4 * x.std(axis=0) / np.sqrt(len(x))


@pytest.mark.parametrize(("region", "area", "middle"), AREAS, ids=repr)
def test_points_are_uniform_in_area(region, area, middle):
    low, high = region.bounds
    share = area / (high - low).prod()
    box = low + (high - low) * np.random.default_rng(5).uniform(size=(N, len(low)))
    found = (region.distance(box) < 0).mean()
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / N)
    x = drawn(region)
    assert (region.distance(x) < 0).all()
    if middle is not None:
        mean, error = middle_of(x)
        assert (np.abs(mean - middle) < error).all()


def test_an_overlap_counts_once():
    both = Ball(2) | Ball(2, center=[1, 0])
    x = drawn(both)
    lens = 2 * np.pi / 3 - np.sqrt(3) / 2
    share = lens / (2 * np.pi - lens)
    found = (LENS.distance(x) < 0).mean()
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / N)


def test_second_moments_of_a_square_with_a_hole():
    x = drawn(HOLE) - 0.5
    area = 1 - np.pi / 16
    # Of the square 1/12 in each coordinate, of the hole pi r^4 / 4.
    expected = (1 / 12 - np.pi * 0.25**4 / 4) / area * np.eye(2)
    products = np.einsum("ni,nj->nij", x, x)
    mean, error = middle_of(products)
    assert (np.abs(mean - expected) < error).all()


@pytest.mark.parametrize(
    "region",
    [L_SHAPE, *map(slow, (HOLE, ELLIPSE)), slow(CAP), slow(HOLE.boundary), slow(CAP.boundary)],
    ids=repr,
)
def test_contract(region):
    check_domain(region, key=jax.random.key(1))
    check_domain(region * cx.Interval(0, 1), key=jax.random.key(1))


@pytest.mark.slow
def test_contract_of_a_traced_boundary():
    check_domain(ELLIPSE.boundary, key=jax.random.key(1))


def test_distances_of_shapes_are_distances():
    x = np.random.default_rng(0).uniform(-2, 3, (400, 2))
    shapes = Ball(2, 0.7, center=[0.2, 0.1]), cx.Box([0, -1], [1, 2]), L_SHAPE
    for shape in shapes:
        on = drawn(shape.boundary, 4000)
        nearest = np.linalg.norm(x[:, None] - on[None], axis=2).min(axis=1)
        # Of 4,000 points on a line of length 10 none is further than 0.02 from its neighbours.
        np.testing.assert_allclose(np.abs(shape.distance(x)), nearest, atol=0.02, rtol=0)
        np.testing.assert_array_equal(shape.distance(x) < 0, shape.holds(x))
    half = HalfSpace([3, 4], 5)
    np.testing.assert_allclose(half.distance(np.array([[3.0, 4.0], [0.0, 0.0]])), [4.0, -1.0])


@pytest.mark.parametrize("region", [PLANE[0], *map(slow, PLANE[1:])], ids=repr)
def test_normals_are_slopes_of_the_distance(region):
    boundary, step = region.boundary, 1e-5
    x = drawn(boundary, 500)
    n = boundary.normal(x)
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1, atol=1e-14)
    slope = np.stack(
        [(region.distance(x + e) - region.distance(x - e)) / (2 * step) for e in step * np.eye(2)],
        axis=1,
    )
    # Within a step of a corner the difference sees two faces.
    near = np.abs(np.linalg.norm(slope, axis=1) - 1) < 1e-6
    assert near.mean() > 0.99
    np.testing.assert_allclose(n[near], slope[near], atol=1e-9 + step)
    assert (np.abs(region.distance(x)) < 1e-14 * 10).all()


def test_normals_under_transformations():
    at = jax.jit(jax.vmap(HOLE.boundary.normal))
    x = jnp.array([[0.5, 0.25], [1.0, 0.3], [0.25, 0.5]])
    np.testing.assert_allclose(at(x), [[0, 1], [1, 0], [1, 0]], atol=1e-15)


def test_boundary_is_uniform_in_length():
    x = drawn(HOLE.boundary)
    round_part = np.abs(np.hypot(*(x - 0.5).T) - 0.25) < 1e-12
    share = (np.pi / 2) / (4 + np.pi / 2)
    assert abs(round_part.mean() - share) < 4 * np.sqrt(share * (1 - share) / N)
    angle = np.exp(1j * np.arctan2(*(x[round_part] - 0.5).T))
    assert abs(angle.mean()) < 4 / np.sqrt(round_part.sum())
    # A part of a part that is left: the circle outside of the box.
    on = drawn(KEYHOLE.boundary["circle"])
    assert not ((np.abs(on[:, 0]) < 0.5 - 1e-6) & (on[:, 1] < 0)).any()
    left = 2 * np.pi - 2 * np.arcsin(0.5)
    upper = (on[:, 1] > 0).mean()
    assert abs(upper - np.pi / left) < 4 * np.sqrt(0.25 / N)


@pytest.mark.slow
def test_what_shapes_share_is_no_boundary_or_counts_once():
    beside = cx.Box([0, 0], [1, 1]) | Polygon([[1, 0], [2, 0], [2, 1], [1, 1]])
    x = drawn(beside.boundary)
    assert not ((np.abs(x[:, 0] - 1) < 1e-9) & (x[:, 1] > 1e-6) & (x[:, 1] < 1 - 1e-6)).any()
    over = cx.Box([0, 0], [1, 1]) | Polygon([[0.5, 0], [2, 0], [2, 1], [0.5, 1]])
    x = drawn(over.boundary)
    below = x[np.abs(x[:, 1]) < 1e-12]
    assert abs((below[:, 0] < 1).mean() - 0.5) < 4 * np.sqrt(0.25 / len(below))


def test_names_of_parts():
    assert HOLE.boundary.names == ("left", "right", "bottom", "top", "hole")
    assert (Ball(2) - cx.Box([0, 0], [2, 2])).boundary.names == ("circle", "right", "top")
    assert L_SHAPE.boundary.names == tuple(f"edge {k}" for k in range(1, 7))
    l_shape = cx.Box([-1, -1], [1, 1]) - cx.Box([0, -1], [1, 0])
    assert l_shape.boundary.names == ("left", "right", "bottom", "top")
    edge = drawn(L_SHAPE.boundary["edge 2"], 50)
    assert (edge[:, 0] == 2).all() and (edge[:, 1] < 1).all()
    with pytest.raises(ValueError, match="no part 'inlet': there are 'left', 'right'"):
        HOLE.boundary["inlet"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Ball(2) - Ball(2, 2.0), "the difference of Ball.2, 1. and Ball.2, 2. is empty"),
        (lambda: Ball(2) & Ball(2, center=[3, 0]), "the intersection of .* is empty"),
        (lambda: Ball(2) - 3, "- combines shapes of cx.domains|Type-check error"),
        (lambda: Ball(2) | Ball(3), "shapes of one dimension, got 2 and 3"),
        (lambda: (Ball(2) | HalfSpace([0, 1])).boundary, "has no end"),
        (lambda: Polygon([[0, 0], [1, 0], [0, 1], [1, 1]]), "begin at corners 2 and 4"),
        (lambda: Polygon([[0, 0], [1, 0], [1, 0], [1, 1]]), "must have a length"),
        (lambda: Polygon([[0, 0], [1, 0]]), "three or more points"),
        (lambda: Ball(2, center=[0, 0, 0]), "center of Ball must be a point of 2"),
        (lambda: HalfSpace([0, 0]), "not all zero"),
        (lambda: LevelSet(lambda x: x @ x - 1, [-1, -1], [1, 0.5]), "reaches beyond its box"),
        (lambda: LevelSet(lambda x, y: x * y, [-1, -1], [1, 1]), r"one point, .* takes \(x, y\)"),
        (lambda: LevelSet(lambda x: x @ x + 1, [-1, -1], [1, 1]), "is empty.*Negative is inside"),
        (lambda: LevelSet(lambda x: x, [-1, -1], [1, 1]), "must return one number"),
        (lambda: LevelSet(oval, [1, 1], [1, 2]), "corners low < high"),
        (
            lambda: LevelSet(lambda x: jnp.abs(x).max() - 1, [-1, -1], [1, 1]).boundary,
            r"not smooth near .*by \|, - and &",
        ),
        (
            lambda: LevelSet(lambda x: x @ x - 1, [-1] * 3, [1] * 3).boundary,
            "traced in the plane alone",
        ),
        (lambda: LevelSet(under, [-np.inf] * 2, [np.inf] * 2).boundary, "has no end"),
    ],
)
def test_bad_regions_are_refused(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()


@pytest.mark.parametrize("sampler", [cx.domains.Sobol(), cx.domains.Grid()])
def test_samplers_that_need_the_cube_are_refused_by_name(sampler):
    with pytest.raises(ValueError, match=f"{type(sampler).__name__} fills the unit cube"):
        draw(HOLE, 64, sampler, key=jax.random.key(0))


@pytest.mark.slow
def test_normal_derivative_of_a_model():
    flux = cx.operators.normal_derivative(lambda x: x[0] ** 2 * x[1], HOLE.boundary.normal)
    x = drawn(HOLE.boundary["hole"], 20)
    inward = -(x - 0.5) / 0.25
    expected = 2 * x[:, 0] * x[:, 1] * inward[:, 0] + x[:, 0] ** 2 * inward[:, 1]
    np.testing.assert_allclose(jax.vmap(flux)(x), expected, atol=1e-14)


def test_normal_derivative_in_one_dimension():
    assert cx.operators.normal_derivative(jnp.sin, -1.0)(0.3) == -np.cos(0.3)
    with pytest.raises(ValueError, match=r"normal of shape \(2,\) at a point of shape \(3,\)"):
        cx.operators.normal_derivative(jnp.sum, np.array([1.0, 0.0]))(jnp.zeros(3))


def test_box_boundary_has_normals_too():
    boundary = cx.Box([0, -1], [2, 1]).boundary
    np.testing.assert_array_equal(boundary.normal(jnp.array([0.4, -1.0])), [0, -1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "over", [Ball(2) & cx.Box([-1, -1], [1, 1]), LevelSet(lambda x: x @ x - 1, [-1, -1], [1, 1])]
)
def test_worst_point_stays_inside(over):
    # What a bounded model leaves of x + y is largest at 45 degrees, and grows outwards.
    problem = cx.Problem(
        cx.Constraint(lambda u, x: jnp.tanh(u(x)) / 9 + x.sum(), over=over, name="slope"),
        cx.Linear(2, 1),
    )
    gap = cx.solve(problem, steps=2, heldout=200, monitor=10).gap["slope"]
    assert 1 - 1e-5 < np.hypot(*gap.worst.point) <= 1 + 1e-12
    assert abs(abs(gap.worst.point.sum()) - np.sqrt(2)) < 1e-2


def test_two_faces_at_one_place_bound_what_lies_on_either_side():
    right = Ball(2) & HalfSpace([-1, 0], 0)
    left = Ball(2, center=[0, 3]) & HalfSpace([1, 0], 0)
    normal = (right | left).boundary.normal
    found = normal(np.array([[0.0, 0.5], [0.0, 3.5]]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0]], atol=1e-12)


@pytest.mark.slow
def test_a_face_that_was_taken_away_hides_no_other():
    unit, beside = cx.Box([0, 0], [1, 1]), Polygon([[1, 0], [2, 0], [2, 1], [1, 1]])
    again = Polygon([[0, 0], [1, 0], [1, 1], [0, 1]], name="cut")
    boundary = ((unit | beside) - again).boundary
    points = drawn(boundary, 400)
    share = (np.abs(points[:, 0] - 1) < 1e-9).mean()
    # A quarter of the length, within five standard errors.
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.slow
def test_parts_of_a_kind_are_numbered_unless_they_are_named_alike():
    plate = cx.Box([0, 0], [2, 1])
    holes = [Ball(2, 0.2, center=[x, 0.5]) for x in (0.5, 1.5)]
    assert (plate - holes[0]).boundary.names[4:] == ("circle",)
    two = (plate - holes[0] - holes[1]).boundary
    assert two.names[4:] == ("circle 1", "circle 2")
    assert (drawn(two["circle 2"], 50)[:, 0] > 1).all()
    named = [Ball(2, 0.2, center=[x, 0.5], name="hole") for x in (0.5, 1.5)]
    assert (plate - named[0] - named[1]).boundary.names[4:] == ("hole",)
    triangle = Polygon([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8]])
    both = (Polygon([[0, 0], [2, 0], [0, 2]]) - triangle).boundary
    assert both.names == tuple(f"edge {k}" for k in range(1, 7))
    assert (drawn(both["edge 4"], 20)[:, 1] == 0.2).all()


def test_a_box_has_named_faces_as_regions_have():
    boundary = cx.Box([0, -1], [2, 1]).boundary
    assert boundary.names == ("left", "right", "bottom", "top")
    x = drawn(boundary["right"], 100)
    assert (x[:, 0] == 2).all() and np.ptp(x[:, 1]) > 1.5
    np.testing.assert_array_equal(boundary["bottom"].normal(x), np.tile([0.0, -1.0], (100, 1)))
    with pytest.raises(ValueError, match="no part 'front': there are 'left', 'right'"):
        boundary["front"]
    cube = cx.Box([0, 0, 0], [1, 1, 3]).boundary
    assert cube.names[4:] == ("low 2", "high 2")
    assert (drawn(cube["high 2"], 20)[:, 2] == 3).all()


def test_where_parts_meet_inside_of_a_hole_nothing_is_held():
    hole = cx.Box([-0.5, -0.5], [0, 0.5]) | Polygon([[0, -0.5], [0.5, 0], [0, 0.5]])
    two = cx.Box([-0.5, -0.5], [0, 0.5]) | cx.Box([0, -0.5], [0.5, 0])
    seam = np.array([[0.0, 0.1], [0.0, -0.3]])
    ends = np.array([[0.0, 0.5], [-0.5, 0.2], [0.25, 0.25], [1.0, 0.0]])
    around = Ball(2) - hole
    assert not around.holds(seam).any() and around.holds(ends).all()
    np.testing.assert_array_equal((Ball(2) - two).holds(seam), [True, False])
    assert (hole | Ball(2, 0.1)).holds(seam).all()
    # A hole that is put back is held, seam and all.
    assert (around | hole).holds(np.concatenate([seam, ends])).all()
    assert (
        (Ball(3) - (cx.Box([-0.5] * 3, [0, 0.5, 0.5]) | Ball(3, 0.1)))
        .holds(np.array([[0.0, 0.5, 0.5], [0.0, 0.3, 0.3]]))
        .all()
    )


def test_lengths_of_level_sets():
    (ellipse,) = ELLIPSE.boundary.faces
    exact = 8 * scipy.special.ellipe(1 - 1 / 4)
    assert abs(ellipse.content - exact) < 1e-14 * exact
    # Places are even in length: by symmetry half of them lie on either side of an axis.
    x = ellipse.along((np.arange(1000) + 0.5) / 1000)
    assert np.abs(x.mean(axis=0)).max() < 1e-13
    steps = np.linalg.norm(x[1:] - x[:-1], axis=1)
    assert np.ptp(steps) < 1e-4 * steps.mean()  # chords are shorter where the curve bends
    assert np.abs(oval(x.T)).max() < 4e-16
    arch = next(face for face in ARCH.boundary.faces if face.name == "arch")
    from_0_to_pi = scipy.integrate.quad(lambda t: np.hypot(1, np.cos(t)), 0, np.pi)[0]
    on = arch.along(np.linspace(0, 1, 20_001))
    share = ((on[:, 0] > 0) & (on[:, 0] < np.pi)).mean()
    assert abs(share * arch.content - from_0_to_pi) < 2 / 20_000 * arch.content


@pytest.mark.slow
def test_curves_of_one_level_set_are_several_parts():
    def two(x):  # ovals of Cassini
        return (x @ x) ** 2 - 2 * (x[0] ** 2 - x[1] ** 2) + 0.2

    pair = LevelSet(two, [-1.5, -1], [1.5, 1])
    assert pair.boundary.names == ("curve 1", "curve 2")
    one, other = (drawn(pair.boundary[name], 200) for name in pair.boundary.names)
    assert (np.sign(one[:, 0]) == np.sign(one[0, 0])).all()
    assert (np.sign(other[:, 0]) == -np.sign(one[0, 0])).all()
    half = (drawn(pair.boundary, 4000)[:, 0] > 0).mean()
    assert abs(half - 0.5) < 4 * np.sqrt(0.25 / 4000)


@pytest.mark.slow
def test_a_level_set_as_a_hole_has_normals_into_it():
    boundary = (cx.Box([-3, -3], [3, 3]) - ELLIPSE).boundary
    assert boundary.names == ("left", "right", "bottom", "top", "curve")
    x = drawn(boundary["curve"], 50)
    slopes = np.stack([x[:, 0] / 4, x[:, 1]], axis=1)
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
    np.testing.assert_allclose(jax.jit(jax.vmap(boundary.normal))(x), -slopes, atol=1e-13)
