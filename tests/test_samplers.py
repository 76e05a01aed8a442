"""Samplers fill the cube: quadrature is exact, low discrepancy is low, keys decide the rest."""

import math

import jax
import numpy as np
import pytest
from scipy.stats import qmc

import constrainednn as cx
from constrainednn.domains.samplers.draws import draw
from constrainednn.domains.samplers.random import SOBOL_DIMENSIONS
from constrainednn.testing.domains import check_sampler

KEY = jax.random.key(0)
SAMPLERS = [
    cx.domains.Independent(),
    cx.domains.Adaptive(),
    cx.domains.LatinHypercube(),
    cx.domains.Sobol(),
    cx.domains.Grid(),
    cx.GaussQuadrature(),
]
FITTING = [cx.Interval(-1, 3), cx.Normal(2), cx.Box([0, 0], [1, 2]) * cx.Normal(1)]


@pytest.mark.parametrize("domain", FITTING, ids=repr)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_sampler_keeps_its_contract(sampler, domain):
    check_sampler(sampler, domain, key=KEY)


def uniform_moment(low, high, power):
    return (high ** (power + 1) - low ** (power + 1)) / ((power + 1) * (high - low))


def normal_moment(power):
    return 0.0 if power % 2 else float(math.prod(range(power - 1, 0, -2)))


def quadrature(domain, n):
    points = draw(domain, n, cx.GaussQuadrature(), key=KEY)
    return points.points, points.weights


# Rounding of a sum of n terms of one sign; signs that cancel are measured by the sum of sizes.
ROUNDING = 1e3 * np.finfo(float).eps


@pytest.mark.parametrize("power", range(10))
def test_gauss_legendre_integrates_degree_2n_minus_1_exactly(power):
    x, share = quadrature(cx.Interval(-1, 3), 5)
    expected = uniform_moment(-1, 3, power)
    assert abs(share @ x**power - expected) < ROUNDING * (share @ np.abs(x) ** power)


@pytest.mark.parametrize("power", range(10))
def test_gauss_hermite_integrates_degree_2n_minus_1_exactly(power):
    x, share = quadrature(cx.Normal(1), 5)
    size = share @ np.abs(x[:, 0]) ** power
    # A node passes through the cube, 1 - z at +2.86 has lost three digits.
    assert abs(share @ x[:, 0] ** power - normal_moment(power)) < 10 * ROUNDING * size


def test_gauss_rules_are_not_exact_beyond():
    x, share = quadrature(cx.Interval(-1, 3), 5)
    # The error term of Gauss-Legendre, (b-a)^(2n) (n!)^4 / ((2n+1) ((2n)!)^2) per unit of length.
    expected = 4**10 * math.factorial(5) ** 4 / (11 * math.factorial(10) ** 2)
    missing = uniform_moment(-1, 3, 10) - share @ x**10
    assert missing == pytest.approx(expected, rel=1e-9)
    x, share = quadrature(cx.Normal(1), 5)
    assert normal_moment(10) - share @ x[:, 0] ** 10 == pytest.approx(math.factorial(5), rel=1e-9)


def test_gauss_rules_of_products_are_exact_in_each_factor():
    x, share = quadrature(cx.Box([0, -1], [1, 1]) * cx.Normal(1), 27)
    for powers in [(5, 4, 4), (1, 2, 0), (0, 4, 2), (5, 5, 5)]:
        expected = (
            uniform_moment(0, 1, powers[0])
            * uniform_moment(-1, 1, powers[1])
            * normal_moment(powers[2])
        )
        assert abs(share @ np.prod(x**powers, axis=1) - expected) < 10 * ROUNDING


@pytest.mark.parametrize(
    "domain",
    [
        cx.domains.Sphere(2),
        cx.domains.Ball(2),
        cx.Box([0], [1]).boundary,
        cx.domains.Sphere(2) * cx.Normal(1),
    ],
)
def test_gauss_rules_are_refused_where_there_are_none(domain):
    with pytest.raises(ValueError, match=r"no rule for .*Use Sobol"):
        cx.GaussQuadrature().fill(domain, 4, key=KEY)


@pytest.mark.parametrize("sampler", [cx.domains.Grid(), cx.GaussQuadrature()], ids=repr)
def test_rules_say_which_counts_fit(sampler):
    with pytest.raises(ValueError, match=r"points=26 is no power 2\. Write 25 or 36"):
        sampler.fill(cx.Normal(2), 26, key=KEY)
    with pytest.raises(ValueError, match="up to three dimensions"):
        sampler.fill(cx.Normal(4), 16, key=KEY)


def test_grid_holds_cell_midpoints():
    cube, share = cx.domains.Grid().fill(cx.Box([0, 0], [1, 1]), 9, key=KEY)
    thirds = [1 / 6, 1 / 2, 5 / 6]
    assert np.allclose(cube, [(a, b) for a in thirds for b in thirds], atol=1e-15)
    assert np.allclose(share, 1 / 9, atol=1e-15)


def test_latin_hypercube_has_one_point_in_each_slice():
    cube, _ = cx.domains.LatinHypercube().fill(cx.Normal(3), 50, key=KEY)
    slices = np.sort(np.floor(50 * cube).astype(int), axis=0)
    assert np.array_equal(slices, np.repeat(np.arange(50)[:, None], 3, axis=1))


@pytest.mark.parametrize("n", [100, 128])
def test_sobol_fills_more_evenly_than_independent_points(n):
    domain = cx.Normal(2)
    sobol, _ = cx.domains.Sobol().fill(domain, n, key=KEY)
    # Independent points have an expected square discrepancy; ten draws stand for it.
    plain = [
        qmc.discrepancy(cx.domains.Independent().fill(domain, n, key=jax.random.key(seed))[0])
        for seed in range(10)
    ]
    assert qmc.discrepancy(sobol) < min(plain) / 4


def test_sobol_points_of_any_count_are_the_first_of_the_sequence():
    longer, _ = cx.domains.Sobol().fill(cx.Normal(2), 128, key=KEY)
    shorter, _ = cx.domains.Sobol().fill(cx.Normal(2), 100, key=KEY)
    assert np.array_equal(shorter, longer[:100])


def test_extreme_cube_points_have_an_image_in_unbounded_domains():
    class Corners(cx.domains.AbstractSampler):
        def fill(self, domain, n, *, key):
            return np.array([[0.0], [1.0]]), np.array([0.5, 0.5])

    x = draw(cx.Normal(1), 2, Corners(), key=KEY).points[:, 0]
    # The quantile of eps: -8.1 in double precision.
    assert np.allclose(x, [-8.125890664701906, 8.125890664701906], rtol=1e-10)


class Unkept(cx.domains.AbstractSampler):
    """Keeps all promises but one."""

    broken: str

    @property
    def random(self):
        return self.broken != "varies"

    def fill(self, domain, n, *, key):
        if self.broken == "ignores":
            key = jax.random.key(7)
        cube, share = cx.domains.Independent().fill(domain, n, key=key)
        if self.broken == "repeats":
            cube = np.random.default_rng().random(cube.shape)
        if self.broken == "shape":
            cube = cube[:-1]
        if self.broken == "outside":
            cube = 2 * cube
        if self.broken == "weights":
            share = 2 * share
        if self.broken == "negative":
            share = share * np.where(np.arange(n) < 2, [-1.0] * n, (n + 2) / (n - 2))
        if self.broken == "nan":
            cube = np.where(cube > 0.5, np.nan, cube)
        if self.broken == "mean":
            cube = cube**1.5
        if self.broken == "correlated":
            cube = np.repeat(cube[:, :1], cube.shape[1], axis=1)
        return cube, share


PROMISES = [
    ("ignores", "returns other points for another key"),
    ("repeats", "the same points for the same key"),
    ("varies", "the same points for every key"),
    ("shape", r"got \(63, 2\)"),
    ("outside", r"keeps cube points in \[0, 1\]"),
    ("nan", r"keeps cube points in \[0, 1\]"),
    ("weights", "sum to one, got sum 2"),
    ("negative", "weights >= 0"),
    ("mean", "to 1/2 within"),
    ("correlated", "to 1/4 and squares to 1/3"),
]


@pytest.mark.parametrize(("broken", "says"), PROMISES)
def test_contract_suite_names_the_promise_a_sampler_breaks(broken, says):
    check_sampler(Unkept("nothing"), cx.Normal(2), key=KEY)
    with pytest.raises(AssertionError, match=f"Broken promise: .*{says}"):
        check_sampler(Unkept(broken), cx.Normal(2), key=KEY)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("shape", r"shape \(64, 2\).*got \(63, 2\)"),
        ("outside", r"outside \[0, 1\] or NaN"),
        ("nan", r"outside \[0, 1\] or NaN"),
        ("weights", "sum to one, got sum 2"),
        ("negative", "weights >= 0"),
    ],
)
def test_drawing_refuses_a_sampler_that_breaks_its_contract(broken, says):
    with pytest.raises(ValueError, match=says):
        draw(cx.Normal(2), 64, Unkept(broken), key=KEY)


@pytest.mark.slow
def test_sobol_names_its_largest_dimension_and_models_do_with_independent_points():
    from scipy.stats import qmc

    assert SOBOL_DIMENSIONS == qmc.Sobol.MAXDIM
    domain = cx.Normal(SOBOL_DIMENSIONS + 1)
    with pytest.raises(ValueError, match=r"at most 21201 dimensions, but Normal.*Independent\(\)"):
        cx.domains.Sobol().fill(domain, 4, key=KEY)
    model = cx.MLP(SOBOL_DIMENSIONS + 1, 1, width=2)(key=KEY)
    # 2.5 over the deviation in each coordinate, which 1024 points give to 2 %, and less on average.
    lengths = np.linalg.norm(model.layers[0].weight, axis=1)
    np.testing.assert_allclose(lengths, 2.5, rtol=0.02)
