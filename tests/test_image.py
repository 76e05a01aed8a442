"""The image of a model: collapse is told from success.

That the worst-point search finds the hole which a degree proves is tested in test_leakage.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn.domains.samplers.draws import draw
from constrainednn.targets.image import image_of

PLANE = draw(cx.Normal(2), 1024, cx.domains.Independent(), key=jax.random.key(0)).points
SPACE = draw(cx.Normal(3), 1024, cx.domains.Independent(), key=jax.random.key(1)).points
CIRCLE = cx.Circle()


def constant(x):
    return jnp.array([0.6, 0.8]) + 0 * x


def soft_direction(x):
    return x / jnp.sqrt(x @ x + 1e-4)


def two_clusters(x):
    return jnp.stack([jnp.tanh(1e4 * x[0]), 0 * x[1]])


def turned(x):
    """On the circle, by an angle that varies smoothly and does not wind."""
    angle = 4 * x[0] + x[1]
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def squared(x):
    return jnp.stack([x[0] ** 2 - x[1] ** 2, 2 * x[0] * x[1]])


def reflected(x):
    return x * jnp.array([1.0, -1.0])


def rotation(x):
    """The exponential of the skew matrix of x, by Rodrigues' formula: always a rotation."""
    K = jnp.array([[0, -x[2], x[1]], [x[2], 0, -x[0]], [-x[1], x[0], 0]])
    angle = jnp.linalg.norm(x)
    return jnp.eye(3) + jnp.sin(angle) / angle * K + (1 - jnp.cos(angle)) / angle**2 * K @ K


def still_rotation(x):
    return jnp.diag(jnp.array([1.0, -1.0, -1.0])) + 0 * x[0]


def about_one_axis(x):
    return rotation(jnp.stack([0 * x[0], 0 * x[1], x[2]]))


def test_constant_map_is_collapsed():
    image = image_of(constant, CIRCLE, PLANE)
    assert image.collapsed
    assert image.rank == 0
    assert image.degree == 0
    assert max(image.spread) < 1024 * np.finfo(float).eps  # the rounding of their mean
    assert image.coverage == 1 / 72


def test_two_clusters_spread_like_the_circle_and_are_still_collapsed():
    image = image_of(two_clusters, CIRCLE, PLANE)
    # Spread alone would not tell: it is that of the circle, one.
    assert image.spread[0] == pytest.approx(1.0, abs=0.01)
    assert image.rank == 0
    assert image.collapsed


@pytest.mark.parametrize("fn", [soft_direction, turned])
def test_maps_that_fill_the_circle_are_not_collapsed(fn):
    image = image_of(fn, CIRCLE, PLANE)
    assert not image.collapsed
    assert image.rank == 1
    assert image.coverage == 1.0


def short_arc(x):
    """Angles of 23 degrees either side of zero: an eighth of the circle."""
    angle = 0.4 * jnp.tanh(x[0])
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def half_circle_half_constant(x):
    """Flat for two thirds of the points, and all of a half circle for the others."""
    angle = jnp.pi * jnp.clip(x[0] - 0.43, 0.0, 1.0)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@pytest.mark.parametrize(
    ("fn", "rank", "coverage"), [(short_arc, 1, 10 / 72), (half_circle_half_constant, 0, 0.5)]
)
def test_no_verdict_where_rank_and_coverage_disagree(fn, rank, coverage):
    image = image_of(fn, CIRCLE, PLANE)
    assert image.rank == rank
    assert image.coverage == pytest.approx(coverage, abs=2 / 72)
    assert image.collapsed is None


@pytest.mark.parametrize(
    ("fn", "degree"),
    [(constant, 0), (turned, 0), (soft_direction, 1), (reflected, -1), (squared, 2)],
)
def test_degree_is_the_winding_number(fn, degree):
    assert image_of(fn, CIRCLE, PLANE).degree == degree


def test_rotation_valued_map_has_rank_three():
    image = image_of(rotation, cx.targets.RotationGroup(3), SPACE)
    assert image.rank == 3
    assert not image.collapsed
    # Slopes beyond the dimension of the group do not exist: three, whatever the nine entries.
    assert len(image.slopes) == 3
    assert len(image.spread) == 9


@pytest.mark.parametrize(("fn", "rank"), [(still_rotation, 0), (about_one_axis, 1)])
def test_rotation_valued_maps_of_lower_rank_are_collapsed(fn, rank):
    image = image_of(fn, cx.targets.RotationGroup(3), SPACE + 0.1)
    assert image.rank == rank
    assert image.collapsed


def test_numbers_of_a_linear_map_are_its_singular_values():
    A = np.random.default_rng(0).normal(size=(3, 2))
    image = image_of(lambda x: A @ x, None, PLANE)
    singular = np.linalg.svd(A, compute_uv=False)
    assert np.allclose(image.slopes, singular, rtol=1e-14)
    # Covariance of A x is A C A^T with the sample covariance C of x.
    covariance = A @ np.cov(PLANE, rowvar=False) @ A.T
    expected = np.sqrt(np.linalg.eigvalsh(covariance)[::-1][:2])
    assert np.allclose(image.spread[:2], expected, rtol=1e-12)
    assert image.collapsed is image.rank is image.coverage is None


def test_coverage_counts_the_sectors_that_are_reached():
    angles = np.linspace(0, np.pi, 1000, endpoint=False) + 1e-6
    half = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert CIRCLE.coverage(half) == 0.5
    assert CIRCLE.coverage(1000 * half) == CIRCLE.coverage(0.4 * half) == 0.0  # nowhere near it
    assert CIRCLE.coverage(1.4 * half) == cx.Circle(2.0).coverage(2.9 * half) == 0.5


def test_models_used_in_another_way_have_no_image():
    assert image_of({"a": jnp.ones(2)}, None, PLANE) is None
    assert image_of(lambda x, y: x, None, PLANE) is None


def torus(angles):
    a, b = angles
    return jnp.stack([(2 + jnp.cos(b)) * jnp.cos(a), (2 + jnp.cos(b)) * jnp.sin(a), jnp.sin(b)])


def ellipse(t):
    return jnp.stack([3 * jnp.cos(t), jnp.sin(t)])


ANGLES = cx.Box([0.0, 0.0], [2 * np.pi, 2 * np.pi])
TORUS = cx.targets.Manifold(torus, over=ANGLES)
ELLIPSE = cx.targets.Manifold(ellipse, over=cx.Interval(0.0, 2 * np.pi))
FLAT_TORUS = cx.targets.Product(cx.Circle(), cx.Circle(2.0))
GROUP, SPHERE = cx.targets.RotationGroup(3), cx.targets.Sphere(2.0)
CLOUD = cx.targets.Cloud(np.random.default_rng(5).uniform(size=(3000, 2)), dimension=2)
SQUARE = draw(cx.Box([0.0, 0.0], [1.0, 1.0]), 1024, cx.domains.Independent(), key=jax.random.key(2))
CUBE = draw(cx.Box([0, 0, 0.0], [1, 1, 1.0]), 1024, cx.domains.Independent(), key=jax.random.key(3))


def on_sphere(share):
    """Evenly over a cap with this share of the sphere: equal heights have equal areas."""

    def fn(z):
        height, angle = 1 - 2 * share * z[0], 2 * jnp.pi * z[1]
        width = jnp.sqrt(1 - height**2 + 1e-12)
        return 2 * jnp.stack([width * jnp.cos(angle), width * jnp.sin(angle), height])

    return fn


def on_group(share):
    """Rotations by an angle up to one that a share of all rotations has, about any axis."""
    # Of angles the density is (1 - cos a) / pi.
    grid = np.linspace(0, np.pi, 2001)
    most = np.interp(share, (grid - np.sin(grid)) / np.pi, grid)
    shares = (grid - np.sin(grid)) / np.pi

    def fn(z):
        angle = jnp.interp(z[0] * share, shares, grid)
        height, turn = 1 - 2 * z[1], 2 * jnp.pi * z[2]
        width = jnp.sqrt(1 - height**2 + 1e-12)
        axis = jnp.stack([width * jnp.cos(turn), width * jnp.sin(turn), height])
        return rotation(jnp.minimum(angle, most) * axis + 1e-9)

    return fn


def on_flat_torus(z):
    a, b = 2 * jnp.pi * z[0], 2 * jnp.pi * z[1]
    return jnp.stack([jnp.cos(a), jnp.sin(a), 2 * jnp.cos(b), 2 * jnp.sin(b)])


def part(fn, share):
    """The same map of a part of the square, of which the first factor is even."""
    return lambda z: fn(z * jnp.array([share, 1.0]))


def spiral(z):
    """A curve on the sphere, twenty times around: close to every point and of rank one."""
    height = 1 - 2 * z[0]
    width, angle = jnp.sqrt(1 - height**2 + 1e-12), 40 * jnp.pi * z[0] + 1e-9 * z[1]
    return 2 * jnp.stack([width * jnp.cos(angle), width * jnp.sin(angle), height])


PLANTED = {
    "sphere": (lambda share: on_sphere(share), SPHERE, SQUARE),
    "flat torus": (lambda share: part(on_flat_torus, share), FLAT_TORUS, SQUARE),
    "torus": (lambda s: part(lambda z: torus(2 * jnp.pi * z), s), TORUS, SQUARE),
    "rotations": (lambda share: on_group(share), GROUP, CUBE),
    "cloud": (lambda share: part(lambda z: z, share), CLOUD, SQUARE),
}


@pytest.mark.parametrize(
    "name",
    [slow(name) if name in ("rotations", "torus", "flat torus") else name for name in PLANTED],
)
def test_planted_maps_that_reach_little_are_flagged_and_healthy_ones_never(name):
    make, target, over = PLANTED[name]
    for share, collapsed in {0.01: True, 0.045: True, 0.35: False, 1.0: False}.items():
        image = image_of(make(share), target, over.points)
        assert image.collapsed is collapsed, (share, image.coverage)
        # Balls reach over the rim of what is covered, and leave gaps where values are even.
        assert 0.6 * share < image.coverage < 0.05 + 1.3 * share


@pytest.mark.parametrize("share", [0.01, 0.04, 0.35, 1.0])
def test_parts_of_an_ellipse_are_told_by_their_length(share):
    image = image_of(lambda z: ellipse(2 * jnp.pi * share * z[0]), ELLIPSE, SQUARE.points)
    t = np.linspace(0, 2 * np.pi, 100_001)
    speed = np.hypot(3 * np.sin(t), np.cos(t))
    length = speed[t <= 2 * np.pi * share].sum() / speed.sum()
    assert image.coverage == pytest.approx(length, abs=0.02)
    assert image.collapsed is bool(length < 0.05)


def test_a_dense_curve_on_a_surface_is_too_low_a_dimension():
    image = image_of(spiral, SPHERE, SQUARE.points)
    assert image.coverage > 0.25 and image.rank == 1 and image.collapsed
    constant_angle = image_of(
        lambda z: on_flat_torus(z * jnp.array([1.0, 0])), FLAT_TORUS, CUBE.points[:, :2]
    )
    assert constant_angle.coverage < 0.02 and constant_angle.rank == 1 and constant_angle.collapsed


def test_samples_are_even_by_length_area_and_volume():
    # Moments in closed form: of z^2 on a sphere of radius 2, of the distance from the axis on the
    # torus, whose area element is (2 + cos b), of an entry of a rotation, squared.
    n = 4096
    assert np.mean(SPHERE.sample(n)[:, 2] ** 2) == pytest.approx(4 / 3, abs=0.01)
    radius = np.hypot(*TORUS.sample(n)[:, :2].T)
    assert radius.mean() == pytest.approx(2 + 1 / 4, abs=4 * 0.71 / np.sqrt(n))
    assert np.mean(GROUP.sample(n)[:, 4] ** 2) == pytest.approx(1 / 3, abs=4 * 0.3 / np.sqrt(n))
    assert np.linalg.det(GROUP.sample(9).reshape(9, 3, 3)) == pytest.approx(1.0)
    for target in (SPHERE, FLAT_TORUS, GROUP):
        points = target.sample(n)
        spread = np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
        assert target.spread == pytest.approx(spread, rel=1e-3)
    assert FLAT_TORUS.dimension == TORUS.dimension == 2 and ELLIPSE.dimension == 1


def turned_sphere(x):
    """Twice around the axis where the sphere is passed once: degree two."""
    angle, width = 2 * jnp.arctan2(x[1], x[0]), jnp.hypot(x[0], x[1])
    return 2 * jnp.stack([width * jnp.cos(angle), width * jnp.sin(angle), x[2]])


@pytest.mark.parametrize(
    ("fn", "degree"),
    [
        (lambda x: 2 * x / jnp.linalg.norm(x), 1),
        (lambda x: -2 * x / jnp.linalg.norm(x), -1),
        (lambda x: jnp.array([0.0, 0.0, 2.0]) + 0.1 * x, 0),
        (turned_sphere, 2),
    ],
)
def test_degree_of_a_map_of_space_is_how_often_it_covers_the_sphere(fn, degree):
    assert image_of(fn, SPHERE, SPACE).degree == degree


def test_targets_say_what_they_need():
    with pytest.raises(cx.errors.BadTypeError, match="over of Manifold must be a domain"):
        cx.targets.Manifold(ellipse, over=cx.Interval)
    with pytest.raises(cx.errors.BadTypeError, match="fn of Manifold must be a function"):
        cx.targets.Manifold(3.0, over=ANGLES)
    with pytest.raises(cx.errors.BadValueError, match="points of Cloud must be finite numbers"):
        cx.targets.Cloud([1.0, 2.0], dimension=1)
    with pytest.raises(cx.errors.BadValueError, match="dimension of Cloud must be at most 2"):
        cx.targets.Cloud(np.ones((9, 2)), dimension=3)
    with pytest.raises(cx.errors.BadTypeError, match="Product takes two or more targets"):
        cx.targets.Product(cx.Circle())
