"""The image of a model: collapse is told from success.

That the worst-point search finds the hole which a degree proves is tested in test_leakage.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    """Angles of about 6 degrees either side of zero."""
    angle = 0.1 * jnp.tanh(x[0])
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def half_circle_half_constant(x):
    """Flat for two thirds of the points, and all of a half circle for the others."""
    angle = jnp.pi * jnp.clip(x[0] - 0.43, 0.0, 1.0)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@pytest.mark.parametrize(
    ("fn", "rank", "coverage"), [(short_arc, 1, 4 / 72), (half_circle_half_constant, 0, 0.5)]
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
