"""The residual vector: its squared norm is the loss, its Jacobian is its derivative.

And the problems it is made of keep the contract of the public suite.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from marks import slow

import constrainednn as cx
from constrainednn._common.compilation.indices import refuse_indices
from constrainednn._common.paths import gallery
from constrainednn._gap.residual_vector import residual_vector, rows
from constrainednn.domains.samplers.draws import draw, finite_points
from constrainednn.models.recipes import trainable_mask
from constrainednn.testing.problems import check_problem

KEY = jax.random.key(0)
EPS = np.finfo(float).eps


def slope(u, x):
    return jax.grad(lambda x: u(x)[0])(x) - x[::-1]


def matrix(u, x):
    return jnp.outer(u(x), u(x)) - jnp.eye(2)


def value(u, x):
    return u(x)[1] - 1.0


CONSTRAINTS = [
    cx.Constraint(slope, over=cx.Box([0, -1], [2, 1]), points=9, sampler=cx.GaussQuadrature()),
    cx.Constraint(matrix, over=cx.Normal(2), points=7, weight=2.5),
    cx.Constraint(value, over=cx.Points(np.array([[0.0, 0.0], [1.0, 2.0]])), weight=1e3),
]


def setting(model, select=None):
    """Model, draws and residual vector."""
    draws = [
        draw(item.over, item.points, item.sampler, key=KEY)
        if not isinstance(item.over, cx.Points)
        else finite_points(item.over)
        for item in CONSTRAINTS
    ]
    params, static = eqx.partition(model, trainable_mask(model, select))
    return params, draws, residual_vector(CONSTRAINTS, static, rows(CONSTRAINTS, draws))


@pytest.mark.slow
def test_squared_norm_is_the_weighted_mean_square_by_hand():
    u = cx.MLP(2, 2, width=3)(key=KEY)
    params, draws, residual = setting(u)
    loss = 0.0
    for item, points in zip(CONSTRAINTS, draws, strict=True):
        at_point = eqx.filter_jit(item.residual)
        for x, share in zip(points.points, points.weights, strict=True):
            r = np.asarray(at_point(u, jnp.asarray(x)))
            loss += item.weight * share * (r**2).sum()
    r = eqx.filter_jit(residual)(params)
    assert r.shape == (9 * 2 + 7 * 4 + 2,)
    assert float(r @ r) == pytest.approx(loss, rel=100 * EPS)


def test_quadrature_shares_are_not_equal():
    # Else the test above could not tell a weight from 1/n.
    _, draws, _ = setting(cx.MLP(2, 2, width=3)(key=KEY))
    assert np.ptp(draws[0].weights) > 0.1


MODELS = {
    "more parameters than entries": (cx.MLP(2, 2, width=3)(key=KEY), None),
    "the last layer only": (cx.MLP(2, 2, width=3)(key=KEY), lambda u: u.layers[-1]),
    # Two parameters, fewer than the four entries of a matrix: the forward mode.
    "fewer parameters than entries": (cx.MLP(2, 2, width=3)(key=KEY), lambda u: u.layers[-1].bias),
}


@pytest.mark.parametrize(
    "case", [slow(name) if name != "fewer parameters than entries" else name for name in MODELS]
)
def test_jacobian_is_the_derivative_of_the_stacked_vector(case):
    params, _, residual = setting(*MODELS[case])
    theta, unravel = ravel_pytree(params)
    flat = eqx.filter_jit(lambda theta: residual(unravel(theta)))
    r, J = eqx.filter_jit(residual.jacobian)(params)
    size = float(np.abs(J).max())
    assert np.abs(r - flat(theta)).max() < 100 * EPS * np.abs(r).max()
    assert np.abs(J - jax.jacfwd(flat)(theta)).max() < 100 * EPS * size
    # Truncation h^2 and rounding eps / h of a central difference balance at h = eps^(1/3).
    h = EPS ** (1 / 3)
    for i in range(theta.size):
        step = h * np.eye(theta.size)[i]
        difference = (flat(theta + step) - flat(theta - step)) / (2 * h)
        assert np.abs(difference - J[:, i]).max() < 100 * h**2 * size


def test_function_residual_differentiates_in_both_modes():
    A = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    for m, p in [(3, 2), (2, 3)]:
        part = A[:m, :p]
        residual = cx.methods.FunctionResidual(lambda theta, part=part: jnp.sin(part @ theta["a"]))
        theta = {"a": jnp.linspace(0.1, 0.5, p)}
        r, J = residual.jacobian(theta)
        assert np.allclose(r, np.sin(part @ theta["a"]), atol=10 * EPS)
        assert np.allclose(J, np.cos(part @ theta["a"])[:, None] * part, atol=10 * EPS)


# One of each kind is quick.
QUICK = ("unit_circle", "exponential_decay", "monotone_fit", "linear_regression")


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in gallery()])
def test_gallery_problem_keeps_the_contract(name):
    # Noise in the data: the curve that made them does not go through them.
    noisy = {"linear_regression": ["misfit"], "monotone_fit": ["fit"]}
    # References by quadrature, and of a line that is cut off.
    noisy |= {"burgers": ["burgers"], "schroedinger": ["periodic"]}
    # The nearest map to the identity is not the identity.
    noisy |= {name: ["stays_close"] for name in ("circle_projected", "sphere_projected")}
    check_problem(cx.load_problem(name), noisy=noisy.get(name, []))


def decay(u, t):
    return jax.grad(u)(t) + u(t)


def nothing(u, t):
    return t - 1.0


def rising(t):
    return jnp.exp(t)


class Counting(cx.models.AbstractRecipe):
    """Another model at every call, whatever the key."""

    calls: list

    def __call__(self, *, key):
        self.calls.append(key)
        return cx.MLP("scalar", "scalar", width=4)(key=jax.random.key(len(self.calls)))


TIME = cx.Interval(0, 5)
SMALL = cx.MLP("scalar", "scalar", width=4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cx.Problem(cx.Constraint(nothing, over=TIME), SMALL), "does not depend on the"),
        (
            lambda: cx.Problem(cx.Constraint(decay, over=TIME), SMALL, reference=rising),
            "reference satisfies constraint 'decay' to rounding",
        ),
        (
            lambda: cx.Problem(cx.Constraint(decay, over=TIME), Counting([])),
            "same key builds the same model",
        ),
        (
            lambda: cx.Problem(cx.Constraint(decay, over=TIME), SMALL, trainable=lambda u: ()),
            "something is trained",
        ),
    ],
)
def test_contract_suite_names_the_promise_a_problem_breaks(make, says):
    with pytest.raises(AssertionError, match=f"Broken promise: .*{says}"):
        check_problem(make())


def test_contract_suite_refuses_to_excuse_a_constraint_that_is_not_there():
    problem = cx.Problem(cx.Constraint(decay, over=TIME), SMALL)
    with pytest.raises(AssertionError, match="noisy='dacay' names a constraint"):
        check_problem(problem, noisy=["dacay"])


def beyond_the_point(u, x):
    return u(x) - x[2]


def beyond_the_value(u, x):
    return jax.grad(lambda x: u(x)[1])(x)[0] - jax.jacfwd(u)(x)[-3, 0]


@pytest.mark.parametrize(
    ("residual", "model", "words"),
    [
        (beyond_the_point, cx.MLP(2, "scalar", width=4), r"index 2 .* 2 entries .*u\(x\) - x\[2\]"),
        (beyond_the_value, cx.MLP(2, 2, width=4), r"index -3 .* 2 entries"),
    ],
)
def test_index_outside_of_an_array_is_refused(residual, model, words):
    # JAX alone takes the last entry.
    problem = cx.Problem(cx.Constraint(residual, over=cx.Box([0, 0], [1, 1]), points=5), model)
    with pytest.raises(cx.errors.ProblemError, match=words):
        cx.solve(problem, steps=1)


def test_index_outside_of_an_array_is_refused_in_equations():
    with pytest.raises(cx.errors.ProblemError, match=r"vector_field: index 2 .* 2 entries"):
        cx.ivp(lambda t, y, args: -y[2] * y, jnp.ones(2), (0, 1))
    with pytest.raises(cx.errors.ProblemError, match="beyond_the_point: index 2"):
        cx.pde(beyond_the_point, over=cx.Box([0, 0], [1, 1]), boundary=lambda u, x: u(x))


def test_indices_within_an_array_are_taken():
    def fn(x):
        inner = jax.vmap(lambda k: x[-2] * k)(jnp.arange(2.0))
        # Rounded down to 1 before it is looked up; the third of three cases.
        inner = inner + x[lax.convert_element_type(1.7, int)]
        inner = inner + x[lax.select_n(np.int32(2), np.int32(8), np.int32(9), np.int32(1))]
        moved = jnp.roll(x, 1)[-1] + jnp.interp(x[0], x, x) + jnp.diff(x)[0]
        return lax.fori_loop(0, 2, lambda i, c: c + x[i] * inner[i], moved)

    refuse_indices(jax.make_jaxpr(fn)(jnp.ones(2)).jaxpr, "fn")
