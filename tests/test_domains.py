"""Domains push the uniform measure of the cube forward to the measure they declare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow

import constrainednn as cx
from constrainednn.domains.samplers.draws import draw
from constrainednn.testing.domains import check_domain

N = 4096
EPS = np.finfo(float).eps


def noisy(z):
    return z[0], 10 * z[0] + 4 + z[1]


DOMAINS = [
    cx.Interval(-1, 3),
    cx.Box([0, -1], [2, 4]),
    cx.domains.BoxBoundary([0, -1], [2, 4]),
    cx.domains.Segment([0, -1], [2, 4]),
    cx.Normal(2),
    cx.domains.Sphere(2),
    cx.domains.Sphere(3),
    cx.domains.Sphere(4),
    cx.domains.Ball(2),
    cx.domains.Ball(4),
    cx.Interval(0, 1) * cx.Normal(2),
    cx.Normal(2).map(noisy),
]

QUICK = cx.Interval, cx.Box, cx.domains.Segment


def points_of(domain, seed=0):
    return draw(domain, N, cx.domains.Independent(), key=jax.random.key(seed)).points


def assert_mean(values, expected):
    """The mean of independent values is what it should be, within 4 standard errors."""
    error = values.std(axis=0) / np.sqrt(len(values))
    # Where the values do not vary they are exact up to the rounding of summing them.
    allowed = 4 * error + N * EPS * np.abs(values).max()
    assert np.all(np.abs(values.mean(axis=0) - expected) <= allowed)


def outer(x):
    return np.einsum("ni,nj->nij", x, x)


@pytest.mark.parametrize(
    "domain",
    [
        item if isinstance(item, QUICK) or item == cx.domains.Ball(2) else slow(item)
        for item in DOMAINS
    ],
    ids=repr,
)
def test_domain_keeps_its_contract(domain):
    check_domain(domain, key=jax.random.key(1))


def test_interval_is_uniform():
    x = points_of(cx.Interval(-1, 3))
    assert x.min() > -1
    assert x.max() < 3
    assert_mean(x, 1)
    assert_mean((x - 1) ** 2, 16 / 12)
    assert_mean((x - 1) ** 4, 2**4 / 5)


def test_box_is_uniform_with_independent_coordinates():
    x = points_of(cx.Box([0, -1], [2, 4]))
    assert np.all((x > [0, -1]) & (x < [2, 4]))
    assert_mean(x, [1, 1.5])
    assert_mean(outer(x - [1, 1.5]), np.diag([4 / 12, 25 / 12]))


def test_normal_has_the_moments_of_the_standard_normal():
    x = points_of(cx.Normal(3))
    assert_mean(x, 0)
    assert_mean(outer(x), np.eye(3))
    assert_mean(x**4, 3)
    assert_mean(x > 1.959963984540054, 0.025)


@pytest.mark.parametrize("dim", [3, slow(2), slow(4)])
def test_sphere_is_uniform_in_area(dim):
    x = points_of(cx.domains.Sphere(dim, 2.0))
    assert np.abs(np.linalg.norm(x, axis=1) - 2).max() < 10 * EPS
    assert_mean(x, 0)
    assert_mean(outer(x), 4 * np.eye(dim) / dim)
    assert_mean(x**4, 16 * 3 / (dim * (dim + 2)))


@pytest.mark.parametrize("dim", [2, slow(3), slow(4)])
def test_ball_is_uniform_in_volume(dim):
    x = points_of(cx.domains.Ball(dim, 2.0))
    square = (x**2).sum(axis=1)
    assert square.max() < 4
    assert_mean(x, 0)
    assert_mean(square, 4 * dim / (dim + 2))
    assert_mean(square**2, 16 * dim / (dim + 4))
    assert_mean(outer(x), 4 * np.eye(dim) / (dim + 2))


def test_box_boundary_weighs_faces_by_area_and_is_uniform_on_them():
    low, high = np.array([0.0, -1.0, 2.0]), np.array([1.0, 1.0, 5.0])
    x = points_of(cx.Box(low, high).boundary)
    areas = np.array([2 * 3, 1 * 3, 1 * 2])
    faces = []
    for axis in range(3):
        for end in (low, high):
            on = np.abs(x[:, axis] - end[axis]) < 10 * EPS
            assert_mean(on, areas[axis] / (2 * areas.sum()))
            others = [other for other in range(3) if other != axis]
            place = (x[on] - low)[:, others] / (high - low)[others]
            assert_mean(place, 1 / 2)
            assert_mean(outer(place - 1 / 2), np.eye(2) / 12)
            faces.append(on)
    assert np.all(np.sum(faces, axis=0) == 1)


def test_boundary_of_a_segment_is_its_two_ends():
    x = points_of(cx.domains.BoxBoundary([1.0], [3.0]))[:, 0]
    assert set(x.tolist()) == {1.0, 3.0}
    assert_mean(x == 3.0, 1 / 2)


def test_product_joins_independent_factors_in_order():
    domain = cx.Interval(0, 1) * cx.Normal(2)
    x = points_of(domain)
    centred = x - [0.5, 0, 0]
    assert_mean(centred, 0)
    assert_mean(outer(centred), np.diag([1 / 12, 1, 1]))
    # Correlation that a covariance cannot see: squares of independent factors do not correlate.
    assert_mean((centred[:, 0] ** 2 - 1 / 12) * (centred[:, 1] ** 2 - 1), 0)
    longer = cx.Box([0, 0], [1, 1]) * domain
    assert [type(factor).__name__ for factor in longer.factors] == ["Box", "Interval", "Normal"]
    assert longer.unit_dim == 5


def test_map_pushes_the_measure_forward():
    x, y = points_of(cx.Normal(2).map(noisy))
    assert_mean(y, 4)
    assert_mean(x * (y - 4), 10)
    assert_mean((y - 10 * x - 4) ** 2, 1)


def test_same_factor_twice_gives_independent_coordinates():
    part = cx.Interval(0, 1)
    x = points_of(part * part)
    assert_mean(outer(x - 0.5), np.eye(2) / 12)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: cx.Interval(1, 0), ValueError, "finite low < high.*Swap them"),
        (lambda: cx.Interval(0, np.inf), ValueError, "finite low < high"),
        (lambda: cx.Interval(0, np.nan), ValueError, "finite low < high"),
        (lambda: cx.Box([0, 0], [1]), ValueError, r"equal length, got shapes \(2,\) and \(1,\)"),
        (lambda: cx.Box([0, 2], [1, 1]), ValueError, "low < high in every coordinate"),
        (lambda: cx.Normal(0), ValueError, "dim of Normal must be at least 1"),
        (lambda: cx.Normal("2"), TypeError, "without quotes"),
        (lambda: cx.Normal(True), TypeError, "must be an integer"),
        (lambda: cx.domains.Sphere(1), ValueError, "dim of Sphere must be at least 2"),
        (
            lambda: cx.domains.Ball(2, -1.0),
            ValueError,
            "radius of Ball must be finite and above zero",
        ),
        (lambda: cx.domains.Product(), ValueError, "at least one factor"),
        (lambda: cx.Normal(2).map(noisy) * cx.Normal(1), TypeError, r"shape \(\) or \(d,\)"),
        (lambda: cx.Points(np.zeros((0, 2))), ValueError, "Points is empty"),
        (lambda: cx.Points(1.0), ValueError, r"x\[None\]"),
        (lambda: cx.Data((np.zeros(3), np.zeros(4))), ValueError, "equal length"),
        (lambda: cx.Data(np.array([1.0, np.nan, 2.0])), ValueError, r"1 rows.*index \[1\]"),
        (lambda: cx.Data(np.zeros(10), holdout=1.0), ValueError, r"must be in \[0, 1\)"),
        (lambda: cx.Data(np.zeros(2)), ValueError, "0 held out"),
        (lambda: cx.Points(np.array(["a", "b"])), TypeError, "real numbers"),
        (lambda: cx.Points(np.array([1j])), TypeError, "real numbers"),
    ],
)
@pytest.mark.usefixtures("as_released")
def test_wrong_settings_are_refused_with_what_to_write(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.usefixtures("as_released")
def test_a_finite_set_cannot_be_a_factor():
    with pytest.raises(TypeError, match="no measures"):
        _ = cx.Interval(0, 1) * cx.Points(np.zeros(3))


def test_a_map_to_nan_is_refused_with_the_cube_point():
    with pytest.raises(ValueError, match=r"places \d+ of 64 points at NaN or infinity"):
        draw(cx.Normal(1).map(jnp.log), 64, cx.domains.Independent(), key=jax.random.key(0))


class Unkept(cx.domains.AbstractDomain):
    """Keeps all promises but one."""

    broken: str

    @property
    def unit_dim(self):
        return 1.0 if self.broken == "unit_dim" else 1

    @property
    def gauss_rules(self):
        return (None, None) if self.broken == "gauss_rules" else (None,)

    @property
    def unbounded(self):
        return self.broken not in ("face", "nothing")

    def place(self, z):
        if self.broken == "face":
            return jax.scipy.special.ndtri(z)
        if self.broken == "inside":
            return jnp.sqrt(z - 0.5)
        if self.broken == "jit":
            return z * (2.0 if isinstance(z, jax.core.Tracer) else 1.0)
        if self.broken == "deterministic":
            return z + np.random.default_rng().random()
        if self.broken == "array":
            return float(z[0])
        return z


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("unit_dim", "int of at least 1, got 1.0"),
        ("gauss_rules", "one entry a cube coordinate"),
        slow("face", "on the faces of the cube"),
        ("inside", "finite points"),
        ("jit", r"under jax\.vmap agrees"),
        ("deterministic", "deterministic"),
        ("array", "returns arrays, got float"),
    ],
)
def test_contract_suite_names_the_promise_a_domain_breaks(broken, says):
    check_domain(Unkept("nothing"), key=jax.random.key(0))
    with pytest.raises(AssertionError, match=f"Broken promise: .*{says}"):
        check_domain(Unkept(broken), key=jax.random.key(0))
