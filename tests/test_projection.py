"""Values are moved to the nearest point of a set, with the derivative of that map."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from scipy.optimize import minimize

import constrainednn as cx
from constrainednn._common.batched import in_blocks
from constrainednn.models import Projected
from constrainednn.models.projection import factors
from constrainednn.models.projection.affine import is_affine
from constrainednn.models.projection.equations.groups import in_groups
from constrainednn.models.projection.rows import jacobian

# Of the violation of a point that arrived, and of its distance from the exact nearest point.
ROUNDING, NEAREST = 1e-13, 1e-9
# Interior steps stop at a gap of 1e-14; a value as far as its root from a face moves by as much.
WITHIN = 1e-7


class Values(eqx.Module):
    """The point itself, times a parameter."""

    factor: jax.Array

    def __call__(self, x):
        return self.factor * x


def onto(**settings):
    return cx.with_projection(Values(jnp.ones(())), **settings)


def points(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def on_sphere(x, y):
    return y @ y - 1.0


def on_ellipse(x, y):
    return (y[0] / 2) ** 2 + y[1] ** 2 - 1.0


def is_rotation(x, A):
    return jnp.concatenate([(A.T @ A - jnp.eye(3)).ravel(), jnp.linalg.det(A)[None] - 1.0])


def in_cube(x, y):
    return jnp.concatenate([y - 0.5, -0.5 - y])


def sums_to_one(x, y):
    return jnp.sum(y) - 1.0


def not_negative(x, y):
    return -y


def nearest_rotation(A):
    u, _, vt = np.linalg.svd(A)
    flip = np.ones(A.shape[:2])
    flip[:, 2] = np.linalg.det(u @ vt)
    return u @ (flip[:, :, None] * vt)


def nearest_of_sphere(y):
    return y / np.linalg.norm(y, axis=1)[:, None]


def nearest_of_plane(y):
    return y + (1 - y.sum(axis=1))[:, None] / 3


def nearest_of_simplex(v):
    ordered = np.sort(v)[:, ::-1]
    excess = ordered.cumsum(axis=1) - 1
    count = (ordered - excess / np.arange(1, v.shape[1] + 1) > 0).sum(axis=1)
    return np.maximum(v - (excess[np.arange(len(v)), count - 1] / count)[:, None], 0)


def differences(model, x, step=1e-5):
    """Central differences by the point, one column an entry."""
    columns = []
    for e in np.eye(x[0].size):
        e = step * e.reshape(x[0].shape)
        columns.append((in_blocks(model, x + e) - in_blocks(model, x - e)) / (2 * step))
    return np.stack([column.reshape(len(x), -1) for column in columns], axis=-1)


EXACT = {
    "sphere": (
        dict(equalities=on_sphere),
        (400, 3),
        lambda y: y / np.linalg.norm(y, axis=1)[:, None],
    ),
    "rotations": (dict(equalities=is_rotation), (400, 3, 3), nearest_rotation),
    "plane": (
        dict(equalities=sums_to_one),
        (50, 3),
        lambda y: y + (1 - y.sum(axis=1))[:, None] / 3,
    ),
    "cube": (dict(inequalities=in_cube), (400, 3), lambda y: np.clip(y, -0.5, 0.5)),
    "simplex": (
        dict(equalities=sums_to_one, inequalities=not_negative),
        (400, 3),
        nearest_of_simplex,
    ),
}


@pytest.mark.parametrize("name", [name if name == "plane" else slow(name) for name in EXACT])
def test_values_move_to_the_nearest_point_wherever_they_arrive(name):
    settings, shape, exact = EXACT[name]
    model, x = onto(**settings), points(*shape)
    if name == "rotations":  # a reflection has a sphere of nearest rotations close by
        x = x[np.linalg.det(x) > 0.05]
    y, left = in_blocks(model, x), in_blocks(model.violation, x)
    assert left.max() <= ROUNDING
    allowed = WITHIN if "inequalities" in settings else NEAREST
    near = np.abs(y - exact(x)).reshape(len(x), -1).max(axis=1) < allowed
    # A value close to the centre of a sphere has one stationary point on either side.
    assert near.mean() >= (0.99 if name == "sphere" else 1.0)


@pytest.mark.parametrize(
    "name", [slow("sphere"), slow("rotations"), "plane", slow("cube"), slow("simplex")]
)
def test_derivative_is_that_of_the_nearest_point(name):
    settings, shape, _ = EXACT[name]
    model, x = onto(**settings), points(*shape)[:50]
    if name == "rotations":
        x = x[np.linalg.det(x) > 0.5]
    forward = in_blocks(jax.jacfwd(model), x)
    forward = forward.reshape(len(x), x[0].size, x[0].size)
    backward = in_blocks(jax.jacrev(model), x).reshape(forward.shape)
    np.testing.assert_allclose(forward, backward, atol=1e-12)
    error = np.abs(forward - differences(model, x)).max(axis=(1, 2))
    # Where a value is within a step of another face there are two derivatives.
    assert np.quantile(error, 0.95) < 1e-6


@pytest.mark.slow
def test_ellipse_and_its_derivative_agree_with_scipy():
    model, x = onto(equalities=on_ellipse), points(12, 2, scale=3.0)
    y = in_blocks(model, x)
    for one, found in zip(x, y, strict=True):
        angle = np.linspace(0, 2 * np.pi, 721)
        curve = np.stack([2 * np.cos(angle), np.sin(angle)], axis=1)
        first = angle[np.argmin(((curve - one) ** 2).sum(axis=1))]
        best = minimize(
            lambda t, one=one: (2 * np.cos(t[0]) - one[0]) ** 2 + (np.sin(t[0]) - one[1]) ** 2,
            [first],
            tol=1e-14,
        )
        assert np.linalg.norm(found - one) == pytest.approx(np.sqrt(best.fun), abs=1e-9)
    slopes = in_blocks(jax.jacfwd(model), x)
    assert np.abs(slopes - differences(model, x)).max() < 1e-6


@pytest.mark.slow
def test_second_derivatives_are_those_of_the_map():
    model, x = onto(equalities=on_sphere), jnp.asarray([0.6, -0.9, 1.3])
    exact = lambda y: y / jnp.linalg.norm(y)  # noqa: E731
    found, wanted = jax.hessian(model)(x), jax.hessian(exact)(x)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.slow
def test_sets_that_move_with_the_point_and_numbers_in_closures():
    radius = jnp.asarray(2.0)

    def on_moving(x, y):
        return jnp.sum((y - x) ** 2) - radius**2

    model = cx.with_projection(eqx.nn.Linear(2, 2, key=jax.random.key(0)), equalities=on_moving)
    x = points(20, 2)
    y = in_blocks(model, x)
    np.testing.assert_allclose(np.linalg.norm(y - x, axis=1), 2.0, atol=ROUNDING)
    assert np.abs(in_blocks(jax.jacfwd(model), x) - differences(model, x)).max() < 1e-6
    slope = jax.grad(
        lambda r: jnp.sum(onto(equalities=lambda x, y: y @ y - r**2)(jnp.asarray(x[0])))
    )
    unit = x[0] / np.linalg.norm(x[0])
    assert float(slope(2.0)) == pytest.approx(unit.sum(), rel=1e-9)


@pytest.mark.slow
def test_metric_weighs_the_distance():
    weights = np.array([1.0, 9.0])
    x = points(30, 2)
    line = onto(equalities=lambda x, y: y[0] + y[1] - 1.0, metric=weights)
    # Minimise sum of weights times squares: the move is along (1 / w0, 1 / w1).
    along = (1 / weights) / (1 / weights).sum()
    np.testing.assert_allclose(
        in_blocks(line, x), x + (1 - x.sum(axis=1))[:, None] * along, atol=ROUNDING
    )
    whole = onto(equalities=lambda x, y: y[0] + y[1] - 1.0, metric=np.diag(weights))
    np.testing.assert_allclose(in_blocks(whole, x), in_blocks(line, x), atol=ROUNDING)


@pytest.mark.slow
def test_points_within_stay_and_unreachable_ones_say_so_without_harm_to_others():
    inside = onto(inequalities=in_cube)
    x = points(20, 3, scale=0.1)
    np.testing.assert_array_equal(in_blocks(inside, x), x)

    def reachable_on_the_right(x, y):
        return y @ y + jnp.where(x[0] > 0, -1.0, 1.0)

    model, x = onto(equalities=reachable_on_the_right), points(40, 3)
    left = in_blocks(model.violation, x)
    right = x[:, 0] > 0
    assert (left[right] <= ROUNDING).all() and (left[~right] >= 1.0).all()
    assert np.isfinite(in_blocks(model, x)).all()
    np.testing.assert_array_equal(in_blocks(model, x[right]), in_blocks(model, x)[right])
    assert list(left <= model.projection.allowed(left.dtype)) == list(right)
    both = onto(inequalities=lambda x, y: jnp.stack([y[0] - 1.0, 2.0 - y[0]]))
    assert in_blocks(both.violation, x) == pytest.approx(0.5, abs=1e-6)
    square = onto(equalities=lambda x, y: (y @ y - 1.0) ** 2)  # no slope where it holds
    assert np.isfinite(in_blocks(square, x)).all()
    assert in_blocks(square.violation, x).max() < 1e-6


def test_affine_constraints_are_seen_and_take_one_factorisation():
    x = jnp.zeros(2)
    A = jnp.arange(6.0).reshape(2, 3)
    affine = {
        "matrix": lambda x, y: A @ y - x,
        "entries": lambda x, y: jnp.stack([y[0] + 2 * y[1], y[2] * x[0]]),
        "sum": lambda x, y: (jnp.sum(y) - 1.0)[None],
    }
    curved = {"square": lambda x, y: (y @ y)[None], "sine": lambda x, y: jnp.sin(y)}
    assert all(is_affine(fn, x, jnp.zeros(3)) for fn in affine.values())
    assert not any(is_affine(fn, x, jnp.zeros(3)) for fn in curved.values())
    model = onto(equalities=lambda x, y: A @ y - 1.0)
    program = str(jax.make_jaxpr(jax.vmap(model))(jnp.zeros((7, 3))))
    # The square root of a pivot has no axis for the points.
    roots = [line.split("=")[0] for line in program.splitlines() if "= sqrt" in line]
    assert roots and not any("7" in root for root in roots)


def stays_on_circle(u, x):
    return jnp.linalg.norm(u(x)) - 1.0


def points_along(u, x):
    return u(x)[0] - x[0] / (1 + jnp.abs(x[0]))


def trained_on_circle(residual=points_along):
    held = cx.Constraint(residual, over=cx.Normal(2), points=20)
    return cx.Problem(held, cx.with_projection(cx.MLP(2, 2, width=8), equalities=on_sphere))


@pytest.mark.slow
def test_a_projected_network_is_trained_saved_and_loaded(tmp_path):
    solution = cx.solve(trained_on_circle(), steps=15, heldout=400, monitor=16)
    assert isinstance(solution.model, Projected)
    assert solution.history.loss[-1] < 1e-2 * solution.history.loss[0]
    x = points(400, 2, scale=3.0)
    assert np.abs(np.linalg.norm(solution(x), axis=1) - 1).max() < ROUNDING
    solution.save(tmp_path / "a")
    loaded = cx.load_solution(tmp_path / "a", trained_on_circle())
    np.testing.assert_array_equal(loaded(x), solution(x))


def test_what_cannot_be_projected_is_said(as_released):
    net, bad = cx.MLP(2, 2), [1.0, -1.0]
    for words, given in {
        "nothing to project onto": {},
        "equalities of with_projection must be a function": {"equalities": 3.0},
        "metric of with_projection must be weights": {"equalities": on_sphere, "metric": bad},
        "iterations of with_projection": {"equalities": on_sphere, "iterations": 0},
        "tolerance of with_projection": {"equalities": on_sphere, "tolerance": -1.0},
        "holds arrays": {"equalities": eqx.Partial(on_sphere, jnp.ones(2))},
        "equalities of with_projection must take one point and": {"equalities": lambda y: y @ y},
        "inequalities of with_projection must take one": {"inequalities": lambda x, y, z: y},
    }.items():
        with pytest.raises(cx.errors.UsageError, match=words):
            cx.with_projection(net, **given)
    with pytest.raises(cx.errors.BadTypeError, match="takes a model or a recipe"):
        cx.with_projection(3, equalities=on_sphere)
    with pytest.raises(cx.errors.BadTypeError, match="equalities of with_projection must return"):
        onto(equalities=lambda x, y: y > 0)(jnp.ones(2))
    for wrong in (lambda x, y: "y", lambda x, y: None, lambda x, y: ()):
        with pytest.raises(cx.errors.BadTypeError, match="inequalities of with_projection must re"):
            onto(inequalities=wrong)(jnp.ones(2))
    with pytest.raises(cx.errors.BadValueError, match="for values of 3 numbers"):
        onto(equalities=on_sphere, metric=[1.0, 1.0, 1.0])(jnp.ones(2))
    with pytest.raises(cx.errors.BadTypeError, match="one array of reals"):
        Projected(lambda x: (x, x), onto(equalities=on_sphere).projection)(jnp.ones(2))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (stays_on_circle, "is not callable"),
        (lambda x, y: y.reshape(3, 3) @ x, "reshape"),
        (lambda x, y: jnp.ones((2, 3)) @ y - x, "shape"),
    ],
)
def test_a_function_of_something_else_is_named_with_the_shapes_it_is_called_with(wrong, says):
    words = r"equalities of with_projection .* point x of shape \(2,\) and .* y of shape \(2,\): "
    model = onto(equalities=wrong)
    with pytest.raises(cx.errors.BadTypeError, match=words) as refused:
        model(jnp.ones(2))
    assert says in str(refused.value) and "no residual of (u, x)" in str(refused.value)
    held = cx.Constraint(points_along, over=cx.Normal(2))
    with pytest.raises(cx.errors.UsageError, match="equalities of with_projection"):
        cx.solve(cx.Problem(held, model), steps=1)


@pytest.mark.slow
def test_factors_of_more_rows_than_one_loop_takes_are_those_of_dense_algebra():
    B = np.random.default_rng(0).normal(size=(70, 90))
    A, b = B @ B.T, B[:, :2]
    M = factors.inverse_factor(jnp.asarray(A))
    np.testing.assert_allclose(M, np.linalg.inv(np.linalg.cholesky(A)), atol=1e-10)
    np.testing.assert_allclose(M.T @ (M @ b), np.linalg.solve(A, b), atol=1e-10)
    A[60, 60] = -1.0
    assert not np.isfinite(factors.inverse_factor(jnp.asarray(A))).all()


def test_jacobians_of_more_rows_than_are_found_at_a_time_are_whole():
    B = points(27, 40)
    curved, y = lambda y: jnp.sin(B @ y), jnp.asarray(points(40))
    value, slopes = jacobian(curved, y)
    np.testing.assert_allclose(value, np.sin(B @ y), atol=1e-14)
    np.testing.assert_allclose(slopes, np.cos(B @ y)[:, None] * B, atol=1e-14)
    assert is_affine(lambda x, y: B @ y - 1.0, jnp.zeros(2), y)
    assert not is_affine(lambda x, y: curved(y), jnp.zeros(2), y)


@pytest.mark.slow
def test_groups_of_a_batch_give_what_each_point_gives_alone():
    def start(parts, y):
        return jnp.asarray(0), 1 + y, 1.0

    def step(state, parts, y):
        k, root, _ = state
        scale, shift = parts
        root = (root + y / root) / 2
        return (k + 1, root, scale * root + shift), (k < 60) & (abs(root**2 - y) > 1e-14 * y)

    grouped = in_groups(start, step, lambda state: state[2], size=16)
    y = np.random.default_rng(0).uniform(0.1, 1e6, size=53)
    shift = np.arange(53.0)
    found = jax.vmap(lambda shift, y: grouped((2.0, shift), y))(shift, y)
    np.testing.assert_allclose(found, 2 * np.sqrt(y) + shift, rtol=1e-14)
    np.testing.assert_array_equal(grouped((2.0, shift[7]), y[7]), found[7])
    shared = jax.vmap(lambda y: grouped((jnp.asarray(2.0), jnp.asarray(1.0)), y))(y)
    np.testing.assert_allclose(shared, 2 * np.sqrt(y) + 1, rtol=1e-14)


@pytest.mark.slow
def test_affine_equations_and_inequalities_together_against_scipy():
    generator = np.random.default_rng(0)
    A, K = generator.normal(size=(2, 6)), generator.normal(size=(5, 6))
    model = onto(equalities=lambda x, y: A @ y - 0.1, inequalities=lambda x, y: K @ y - 1.0)
    x = 3 * generator.normal(size=(40, 6))
    y = in_blocks(model, x)
    assert np.abs(y @ A.T - 0.1).max() < 1e-14 and (y @ K.T - 1.0).max() < 1e-14
    for start, found in zip(x, y, strict=True):
        known = minimize(
            lambda y, start=start: 0.5 * np.sum((y - start) ** 2),
            start,
            jac=lambda y, start=start: y - start,
            constraints=[
                {"type": "eq", "fun": lambda y: A @ y - 0.1, "jac": lambda y: A},
                {"type": "ineq", "fun": lambda y: 1 - K @ y, "jac": lambda y: -K},
            ],
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 300},
        )
        np.testing.assert_allclose(found, known.x, atol=1e-9)
