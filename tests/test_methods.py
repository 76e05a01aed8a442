"""Methods against dense algebra, SciPy and their own formulas, with no network in sight."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jaxtyping import Array, Float, PyTree
from marks import slow

import constrainednn as cx
from constrainednn._gap.residual_vector import residual_vector, rows
from constrainednn._solve.training.steps import advance
from constrainednn.domains.samplers.draws import finite_points
from constrainednn.methods.base import CONVERGED, NONFINITE, RUNNING, STALLED, loss_of
from constrainednn.methods.damped_steps import factored
from constrainednn.methods.endings import along_gradient
from constrainednn.testing.methods import _drive, _jitted_step, check_method

EPS = np.finfo(float).eps
LM = cx.LevenbergMarquardt()


def minimise(residual, params, method=LM):
    """Run to a verdict or for 100 steps; returns parameters, loss there and the verdict."""
    if not isinstance(residual, cx.methods.AbstractResidual):
        residual = cx.methods.FunctionResidual(residual)
    params, _, info = _drive(method, residual, params, method.init(residual, params))
    return params, float(loss_of(residual, params)), int(info.verdict)


class Affine(cx.methods.AbstractResidual):
    """A theta - b: the matrices are arguments of the compiled step, so a shape compiles once."""

    A: Float[Array, "m P"]
    b: Float[Array, " m"]

    def __call__(self, params: PyTree) -> Float[Array, " m"]:
        return self.A @ params - self.b

    def jacobian(self, params: PyTree) -> tuple[Float[Array, " m"], Float[Array, "m P"]]:
        return self(params), self.A


@pytest.mark.parametrize(
    "method",
    [
        slow(LM, id="lm"),
        pytest.param(cx.Optax(optax.sgd(0.1)), id="gd"),
        slow(cx.Optax(optax.adam(1e-2)), id="adam"),
        slow(cx.Optax(optax.lbfgs()), id="lbfgs"),
    ],
)
def test_method_keeps_its_contract(method):
    check_method(method)


# Levenberg-Marquardt ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("condition", [1e0, 1e5, 1e10])
def test_factors_solve_damped_systems_like_a_dense_svd(shape, condition):
    generator = np.random.default_rng(0)
    U, _ = np.linalg.qr(generator.normal(size=(shape[0], 4)))
    V, _ = np.linalg.qr(generator.normal(size=(shape[1], 4)))
    s = np.geomspace(1, 1 / condition, 4)
    A, r = (U * s) @ V.T, generator.normal(size=shape[0])
    W, found, g = map(np.asarray, factored(jnp.asarray(A), jnp.asarray(r)))
    assert np.abs(found - s).max() < 10 * EPS
    assert np.abs(W.T @ W - np.eye(4)).max() < 10 * EPS
    assert np.abs(A.T @ r - W @ (found * g)).max() < 100 * EPS
    damping = 1e-3 / condition**2
    step = W @ (found / (found**2 + damping) * g)
    known = V @ (s / (s**2 + damping) * (U.T @ r))
    # Rounding A to doubles moves its smallest singular value by eps * condition, relatively.
    # Through J^T J it would be eps * condition^2: no digit left at 1e10.
    assert np.linalg.norm(step - known) <= 100 * EPS * condition * np.linalg.norm(known)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_linear_least_squares_is_that_of_lapack(scale):
    generator = np.random.default_rng(1)
    A, b = generator.normal(size=(9, 4)), generator.normal(size=9)
    units = np.array([1, scale, 1 / scale, 1])
    theta, loss, verdict = minimise(Affine(jnp.asarray(A * units), jnp.asarray(b)), jnp.zeros(4))
    known, (best,), *_ = np.linalg.lstsq(A, b, rcond=None)
    assert verdict == CONVERGED
    # The columns are scaled, so the condition is that of a normal matrix, about 10.
    assert np.allclose(theta * units, known, rtol=1e4 * EPS)
    assert loss == pytest.approx(best, rel=100 * EPS)


@pytest.mark.slow
def test_more_parameters_than_rows_give_the_shortest_solution_in_scaled_columns():
    generator = np.random.default_rng(2)
    A, b = generator.normal(size=(4, 9)), generator.normal(size=4)
    theta, loss, verdict = minimise(Affine(jnp.asarray(A), jnp.asarray(b)), jnp.zeros(9))
    assert verdict == CONVERGED
    assert loss < (10 * EPS * np.linalg.norm(b)) ** 2
    # Every step lies in the row space of J / D, so from zero the end has the least |D theta|.
    D = np.linalg.norm(A, axis=0)
    known = np.linalg.pinv(A / D) @ b / D
    assert np.allclose(theta, known, rtol=0, atol=1e3 * EPS * np.abs(known).max())


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def powell_singular(x):
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            jnp.sqrt(5.0) * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            jnp.sqrt(10.0) * (x[0] - x[3]) ** 2,
        ]
    )


TIMES = jnp.linspace(0.0, 3.0, 12)
NOISE = jnp.asarray(np.random.default_rng(3).normal(size=12)) * 0.05


def exponentials(x):
    """Two decays fitted to noisy data: the residual is not zero at the minimum."""
    model = x[0] * jnp.exp(-x[1] * TIMES) + x[2] * jnp.exp(-x[3] * TIMES)
    return model - (2 * jnp.exp(-0.5 * TIMES) + jnp.exp(-4 * TIMES) + NOISE)


def freudenstein_roth(x):
    return jnp.stack(
        [
            -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1],
            -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1],
        ]
    )


@pytest.mark.parametrize(
    ("fn", "start"),
    [
        slow(rosenbrock, [-1.2, 1.0]),
        slow(powell_singular, [3.0, -1.0, 0.0, 1.0]),
        slow(exponentials, [1.0, 1.0, 1.0, 2.0]),
        slow(freudenstein_roth, [0.5, -2.0]),
    ],
)
def test_nonlinear_least_squares_ends_where_scipy_does(fn, start):
    theta, loss, verdict = minimise(fn, jnp.asarray(start))
    known = scipy.optimize.least_squares(
        jax.jit(fn),
        start,
        jac=jax.jit(jax.jacfwd(fn)),
        method="lm",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert verdict == CONVERGED
    # The minimum value is known to rounding; where it is zero, to the square of rounding.
    assert loss <= 2 * known.cost * (1 + 100 * EPS) + (100 * EPS) ** 2
    if fn is not powell_singular:  # singular at its minimum: there the position is known less
        # A position is known to the root of what the loss is known to, and where J is singular
        # (Freudenstein and Roth) the loss is flatter still: a factor 100.
        assert np.allclose(theta, known.x, rtol=0, atol=100 * np.sqrt(EPS))


@pytest.mark.slow
def test_residual_zero_is_reached_to_rounding():
    theta, loss, verdict = minimise(rosenbrock, jnp.array([-1.2, 1.0]))
    assert verdict == CONVERGED
    assert np.sqrt(loss) < 100 * EPS
    assert np.allclose(theta, 1.0, rtol=100 * EPS)


@pytest.mark.slow
def test_iterates_do_not_depend_on_the_units_of_parameters():
    units = jnp.array([1.0, 1e6, 1e-4, 3.0])
    start = jnp.array([1.0, 1.0, 1.0, 2.0])
    plain = cx.methods.FunctionResidual(exponentials)
    scaled = cx.methods.FunctionResidual(lambda x: exponentials(x * units))
    x, y = start, start / units
    state, other = LM.init(plain, x), LM.init(scaled, y)
    for _ in range(8):
        x, state, info = _jitted_step(LM, plain, x, state)
        y, other, same = _jitted_step(LM, scaled, y, other)
        # Rounding differs by the units and grows with the condition of the problem, about 1e3.
        assert float(info.loss) == pytest.approx(float(same.loss), rel=1e6 * EPS)
    assert np.allclose(x, y * units, rtol=1e6 * EPS)
    assert float(info.loss) < 0.1 * float(loss_of(plain, start))


@pytest.mark.slow
def test_damping_retreats_when_every_step_fails():
    # Steps from the kink of |x| at its minimum raise the loss whatever the damping tried.
    residual = cx.methods.FunctionResidual(lambda x: jnp.abs(x) + 1.0)
    params = jnp.array([1e-30])
    state = LM.init(residual, params)
    moved, after, info = _jitted_step(LM, residual, params, state)
    assert float(info.loss) == 1.0
    # A step from 1e-30 by -1 reaches |1e-30 - 1|: no decrease, unless rounding hides it all.
    assert float(after.damping) == pytest.approx(float(state.damping) * 1e4)
    assert np.array_equal(moved, params)


def test_no_step_from_a_kink_ends_as_stalled():
    # The derivative at zero is one by definition of jnp.abs' gradient, the minimum is there.
    residual = cx.methods.FunctionResidual(lambda x: jnp.abs(x) + 1.0)
    params = jnp.array([1e-30])
    state = LM.init(residual, params)
    verdicts = []
    while RUNNING in verdicts[-1:] or not verdicts:
        params, state, info = _jitted_step(LM, residual, params, state)
        verdicts.append(int(info.verdict))
        assert len(verdicts) < 20
    assert verdicts[-1] == STALLED
    assert float(info.loss) == 1.0


def test_a_stall_is_told_by_what_the_loss_does_along_its_gradient():
    at = {"a": jnp.asarray(1.0 + 1e-15), "b": jnp.asarray(0.5)}

    def kink(u):
        return jnp.stack([jnp.abs(u["a"] - 1) + 1, 1e-3 * u["b"]])

    def wrong(u):  # its derivative has the wrong sign
        return jnp.stack([2 * jax.lax.stop_gradient(u["b"]) - u["b"] - 2.0, u["a"] - 1])

    def steps(u):
        floor = jnp.floor(u["b"] * 10 + 0.5) / 10
        return jnp.stack([u["b"] + jax.lax.stop_gradient(floor - u["b"]), u["a"] - 1])

    def smooth(u):
        return jnp.stack([u["b"] ** 2 + 1, u["a"] - 1])

    told = {
        fn: along_gradient(cx.methods.FunctionResidual(fn), at)
        for fn in (kink, wrong, steps, smooth)
    }
    assert "along ['a'] (cosine 1)" in told[kink] and "a kink" in told[kink]
    assert "along ['b'] (cosine 1)" in told[wrong] and "derivative of the res" in told[wrong]
    assert "does not change there" in told[steps]
    assert "for the smallest of steps only" in told[smooth]


def test_nan_ahead_is_avoided_and_nan_here_is_told():
    # log is NaN beyond zero; the undamped step from 3 goes there.
    residual = cx.methods.FunctionResidual(lambda x: jnp.log(x))
    theta, loss, verdict = minimise(residual, jnp.array([3.0]))
    assert verdict == CONVERGED
    assert np.allclose(theta, 1.0, rtol=10 * EPS)
    assert loss < (10 * EPS) ** 2
    _, _, verdict = minimise(residual, jnp.array([-1.0]))
    assert verdict == NONFINITE


# Osborne's data as in MGH17 of NIST's reference datasets, at x = 0, 10, ..., 320.
# fmt: off
OSBORNE = jnp.asarray(
    [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751,
     0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490,
     0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406]
)
# Meyer's data as in MGH10, at x = 50, 55, ..., 125.
MEYER = jnp.asarray(
    [34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744,
     8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
)
# fmt: on
X17, X10 = jnp.asarray(np.arange(33) * 10.0), jnp.asarray(50 + 5.0 * np.arange(16))
X22 = jnp.linspace(0, 10, 40)


def osborne(b):
    return b[0] + b[1] * jnp.exp(-X17 * b[3]) + b[2] * jnp.exp(-X17 * b[4]) - OSBORNE


def meyer(b):
    return b[0] * jnp.exp(b[1] / (X10 + b[2])) - MEYER


def steep(b):
    return b[0] * jnp.exp(b[1] * X22) - 2 * jnp.exp(-X22 / 2)


def test_the_reference_datasets_are_those_that_are_certified():
    b17 = [3.7541005211e-1, 1.9358469127, -1.4646871366, 1.2867534640e-2, 2.2122699662e-2]
    b10 = [5.6096364710e-3, 6.1813463463e3, 3.4522363462e2]
    assert float(jnp.sum(osborne(b17) ** 2)) == pytest.approx(5.4648946975e-5, rel=1e-9)
    assert float(jnp.sum(meyer(b10) ** 2)) == pytest.approx(8.7945855171e1, rel=1e-4)


@pytest.mark.parametrize(
    ("fn", "start", "certified"),
    [
        slow(osborne, [50, 150, -100, 1, 2], 5.4648946975e-5),
        slow(osborne, [0.5, 1.5, -1, 0.01, 0.02], 5.4648946975e-5),
        slow(meyer, [0.02, 4000, 250], 8.7945855171e1),
    ],
)
def test_certified_minima_are_found(fn, start, certified):
    _, loss, verdict = minimise(fn, jnp.asarray(start, float))
    assert verdict == CONVERGED
    assert loss == pytest.approx(certified, rel=1e-9)


@pytest.mark.slow
def test_a_minimum_behind_hidden_columns_is_found():
    # exp(20) in the first Jacobian hides the column of the rate for ever, unless scales forget.
    theta, loss, verdict = minimise(steep, jnp.array([1.0, 2.0]))
    assert verdict == CONVERGED
    assert np.allclose(theta, [2, -0.5], rtol=100 * EPS)
    # With noise the column is small for good, which is no plateau.
    noise = jnp.asarray(np.random.default_rng(4).normal(size=40)) * 0.05
    theta, loss, verdict = minimise(lambda b: steep(b) - noise, jnp.array([1.0, 1.5]))
    known = scipy.optimize.least_squares(lambda b: steep(b) - noise, [2, -0.5], xtol=1e-15)
    assert verdict == CONVERGED
    assert loss == pytest.approx(2 * known.cost, rel=1e-9)


@pytest.mark.slow
def test_converged_never_means_that_a_scale_hides_the_gradient():
    # Meyer's problem from its far start needs more steps than these: no verdict, then.
    _, _, verdict = minimise(meyer, jnp.array([2.0, 4e5, 25e3]))
    assert verdict == RUNNING
    # exp(-theta) has its infimum at infinity, and nothing is left of its column there.
    residual = cx.methods.FunctionResidual(lambda b: jnp.stack([1 + jnp.exp(-b[0]), 1 + 0 * b[0]]))
    start = jnp.array([-3.0])
    theta, state, info = _drive(LM, residual, start, LM.init(residual, start))
    assert int(info.verdict) == STALLED
    assert "no longer depends on 1 of 1 parameters ([0])" in LM.explain(theta, state)[0]


@pytest.mark.slow
def test_parameters_that_nothing_depends_on_stay():
    theta, loss, verdict = minimise(
        lambda p: jnp.stack([p["used"] - 3.0, 2 * p["used"] - 6.0]),
        {"used": jnp.asarray(0.5), "idle": jnp.asarray(7.0)},
    )
    assert verdict == CONVERGED
    assert float(theta["idle"]) == 7.0
    assert float(theta["used"]) == pytest.approx(3.0, rel=10 * EPS)
    assert loss < (100 * EPS) ** 2


def test_damping_must_be_positive():
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match="damping of LevenbergMarquardt must be finite and above"
        ):
            cx.LevenbergMarquardt(damping=wrong)


@pytest.mark.slow
def test_a_cliff_is_named_and_not_called_a_minimum():
    problem = cx.Problem(
        cx.Constraint(
            lambda u, x: jnp.where(u(x) > 2, jnp.nan, u(x) - 3),
            over=cx.Interval(0, 1),
            points=30,
            name="r",
        ),
        model=cx.MLP("scalar", "scalar", width=8),
    )
    solution = cx.solve(problem, seed=2)
    assert solution.status == "stalled"
    assert solution.gap.train > 1  # u <= 2 and the residual is u - 3
    assert "end at a cliff. There, constraint 'r'" in solution.reason


def a_table(value):
    if value > 0.5:
        raise ValueError("the table ends at 0.5")
    return np.asarray(value)


def in_a_callback(a):
    shape = jax.ShapeDtypeStruct((), a.dtype)
    read = jax.pure_callback(a_table, shape, jax.lax.stop_gradient(a), vmap_method="sequential")
    return a + 0 * read


def in_a_check(a):
    return eqx.error_if(a, a > 0.5, "the table ends at 0.5")


@pytest.mark.parametrize("guarded", [in_a_callback, in_a_check])
def test_a_residual_that_raises_on_the_way_costs_a_line_and_not_the_run(guarded):
    problem = cx.Problem(
        cx.Constraint(
            lambda u, x: guarded(u["a"]) - 1 + 0 * x, over=cx.Interval(0, 1), points=3, name="r"
        ),
        model={"a": jnp.zeros(())},
    )
    with pytest.raises(
        cx.results.SolveFailed, match=r"at step \d+: .*the table ends at 0.5"
    ) as caught:
        cx.solve(problem, cx.Optax(optax.sgd(0.01)), steps=100, heldout=8, monitor=8)
    # a = 1 - 0.98^n passes 0.5 with step 35.
    solution = caught.value.solution
    assert "\n" not in str(caught.value)
    assert solution.steps == 35
    assert float(solution.model["a"]) == pytest.approx(1 - 0.98**34, rel=100 * EPS)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-160, 1e200])
def test_units_of_the_residual_do_not_matter(unit):
    def solved(unit):
        problem = cx.Problem(
            cx.Constraint(
                lambda u, x: unit * (u(x) - jnp.sin(x)), over=cx.Interval(0, 3), points=50, name="r"
            ),
            model=cx.MLP("scalar", "scalar", width=4),
        )
        solution = cx.solve(problem, steps=15, seed=2)
        x = jnp.linspace(0, 3, 64)
        return solution, float(jnp.abs(jax.vmap(solution)(x) - jnp.sin(x)).max())

    (solution, error), (one, known) = solved(unit), solved(1.0)
    assert solution.steps == one.steps == 15
    # Rounding of the units grows with the condition of the problem.
    assert error == pytest.approx(known, rel=1e-3)
    assert one.gap.train < 1e-3 * one.history.loss[0]
    here, there = (part.gap.constraints[0] for part in (one, solution))
    assert there.train_rms / unit == pytest.approx(here.train_rms, rel=1e-3)
    for item in (there.heldout, there.difference):  # their squares are out of range
        assert "read the RMS" in item.label
    ends = ((item.value, item.low, item.high) for item in (here.heldout_rms, there.heldout_rms))
    assert np.array(next(ends)) == pytest.approx(np.array(next(ends)) / unit, rel=1e-3)


@pytest.mark.slow
def test_units_of_the_residual_do_not_matter_to_first_order_methods():
    losses = []
    for unit in (1e-12, 1e12):
        problem = cx.Problem(
            cx.Constraint(
                lambda u, x, unit=unit: unit * (u - x), over=cx.Points([1.0, 2.0]), name="r"
            ),
            model=jnp.zeros(()),
        )
        solution = cx.solve(problem, cx.Optax(optax.lbfgs()), steps=20)
        losses.append(solution.gap.finite[0].rms / unit)
    assert losses == pytest.approx([0.5, 0.5])


@pytest.mark.slow
def test_parameter_that_the_residual_never_saw_is_named():
    """A fit that starts on a plateau: exp(-20 x) is zero beside the data from the first step on."""
    x = np.array([77.6, 239.9, 760.0])
    problem = cx.Problem(
        cx.Constraint(
            lambda u, row: u["a"] * (1 - jnp.exp(-u["rate"] * row[0])) - row[1],
            over=cx.Data((x, np.array([10.07, 29.61, 81.78])), holdout=0),
            name="rows",
        ),
        model={"a": jnp.ones(()), "rate": jnp.asarray(20.0)},
    )
    solution = cx.solve(problem)
    assert solution.status == "converged"
    assert solution.reason.endswith("does not depend on 1 of 2 parameters (['rate'])")


# Optax --------------------------------------------------------------------------------------------


def test_gradient_descent_is_its_formula():
    generator = np.random.default_rng(5)
    A, b = generator.normal(size=(9, 4)) / 3, generator.normal(size=9)
    residual = Affine(jnp.asarray(A), jnp.asarray(b))
    method = cx.Optax(optax.sgd(0.1))
    theta, _, _ = minimise(residual, jnp.ones(4), method)
    # The loss is |r|^2 without a factor 1/2: its gradient is 2 A^T r; 100 steps.
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    power = np.linalg.matrix_power(np.eye(4) - 2 * 0.1 * A.T @ A, 100)
    assert np.allclose(theta, best + power @ (1 - best), rtol=0, atol=1e3 * EPS)


def test_lbfgs_solves_a_quadratic():
    generator = np.random.default_rng(6)
    A, b = generator.normal(size=(9, 4)), generator.normal(size=9)
    residual = Affine(jnp.asarray(A), jnp.asarray(b))
    theta, loss, _ = minimise(residual, jnp.ones(4), cx.Optax(optax.lbfgs()))
    known, (best,), *_ = np.linalg.lstsq(A, b, rcond=None)
    assert loss == pytest.approx(best, rel=100 * EPS)
    assert np.allclose(theta, known, atol=10 * np.sqrt(EPS))


LINE = cx.Problem(
    cx.Constraint(lambda u, x: u(x) - x, over=cx.Normal(2), points=3, name="line"),
    cx.MLP(2, 2, width=3),
)


@pytest.mark.parametrize("make", [optax.sgd, *map(slow, [optax.adam, optax.adamw])])
@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan"), float("inf")])
def test_learning_rates_that_cannot_be_right_are_refused(make, rate):
    method = cx.Optax(make(rate))  # which computes nothing
    with pytest.raises(ValueError, match="learning rate must be"):
        cx.check(LINE, method)


def test_a_learning_rate_in_quotes_is_refused():
    with pytest.raises(TypeError, match="write the number without quotes"):
        cx.check(LINE, cx.Optax(optax.sgd("1e-3")))


@pytest.mark.slow
def test_what_only_suits_the_real_parameters_is_tried_on_them():
    """Centred gradients leave nothing of a constant one, and labels name leaves that there are."""
    labels = lambda params: jax.tree.map(lambda leaf: "ab"[leaf.ndim % 2], params)  # noqa: E731
    for rate in (1e-2, -1e-2):
        centred = optax.chain(optax.centralize(), optax.sgd(rate))
        parts = optax.multi_transform({"a": centred, "b": optax.set_to_zero()}, labels)
        if rate > 0:
            assert cx.check(LINE, cx.Optax(parts))[0].error == ""
        else:
            with pytest.raises(ValueError, match="climb"):
                cx.check(LINE, [cx.Stage(LM, steps=1), cx.Stage(cx.Optax(parts), steps=1)])


@pytest.mark.usefixtures("as_released")
@pytest.mark.parametrize("wrong", [optax.adam, "adam", 1e-3, None])
def test_what_is_no_transformation_is_refused(wrong):
    with pytest.raises(TypeError, match=r"takes an optax transformation such as optax\.adam"):
        cx.Optax(wrong)


def test_a_warm_up_from_zero_is_accepted_and_moves():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    residual = Affine(jnp.eye(4), jnp.ones(4))
    _, loss, _ = minimise(residual, jnp.zeros(4), cx.Optax(optax.sgd(schedule)))
    assert loss < 0.01 * 4


@pytest.mark.usefixtures("as_released")
def test_solve_refuses_a_class_or_a_bare_transformation():
    problem = cx.Problem(
        cx.Constraint(lambda u, x: u["a"] - x, over=cx.Interval(0, 1), name="fit"),
        model={"a": jnp.zeros(())},
    )
    with pytest.raises(TypeError, match=r"class LevenbergMarquardt; write LevenbergMarquardt\(\)"):
        cx.solve(problem, cx.LevenbergMarquardt)
    with pytest.raises(TypeError, match=r"write cx\.Optax\(\.\.\.\) around it"):
        cx.solve(problem, optax.adam(1e-3))


# The compiled chunk -------------------------------------------------------------------------------


def test_advancing_compiles_once_whatever_the_number_of_steps():
    traces = []

    class Counted(cx.methods.AbstractMethod):
        """Gradient descent that notes when it is traced; each compilation traces the step."""

        def init(self, residual, params):
            return jnp.asarray(0)

        def step(self, residual, params, state):
            traces.append("step")
            loss, slope = jax.value_and_grad(lambda p: loss_of(residual, p))(params)
            params = jax.tree.map(lambda p, g: p - 0.01 * g, params, slope)
            return params, state + 1, cx.methods.StepInfo(loss, jnp.asarray(RUNNING))

    problem = cx.Problem(
        cx.Constraint(lambda u, x: u["a"] - x, over=cx.Interval(0, 1), name="fit"),
        model={"a": jnp.zeros(())},
    )
    cx.solve(problem, Counted(), steps=1)
    assert traces
    first = len(traces)
    for steps in (7, 300):
        solution = cx.solve(problem, Counted(), steps=steps, seed=steps)
        assert solution.steps == steps
    assert len(traces) == first


@pytest.mark.slow
def test_a_chunk_ends_where_it_is_told_to():
    item = cx.Constraint(
        lambda u, x: u - x, over=cx.Points(np.ones((1, 4))), name="reach_one", weight=1.0
    )
    residual = residual_vector([item], None, rows([item], [finite_points(item.over)]))
    method, params = cx.Optax(optax.sgd(0.1)), jnp.zeros(4)
    state, best = method.init(residual, params), (params, jnp.asarray(jnp.inf, float))
    for steps in (0, 1, 7):
        moved, *_, losses, taken, verdict = advance(
            method, residual, params, state, best, jnp.asarray(0.0, float), jnp.asarray(steps)
        )
        assert int(taken) == steps
        assert int(verdict) == RUNNING
        # |1 - theta| shrinks by 0.8 a step.
        assert np.allclose(moved, 1 - 0.8**steps, rtol=0, atol=10 * EPS)
        assert np.allclose(losses[:steps], 4 * 0.64 ** np.arange(steps), rtol=100 * EPS)
        assert not np.any(losses[steps:])


# The contract suite -------------------------------------------------------------------------------


class Unkept(cx.methods.AbstractMethod):
    """Gradient descent that keeps all promises but one."""

    broken: str

    def init(self, residual, params):
        return {"step": jnp.asarray(0)}

    def step(self, residual, params, state):
        loss, slope = jax.value_and_grad(lambda p: loss_of(residual, p))(params)
        rate = {"climbs": -0.1, "idle": 0.0}.get(self.broken, 0.1)
        if self.broken == "impure":
            rate = 0.1 * np.random.default_rng().random()
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(jax.flatten_util.ravel_pytree(slope)[0]))
        keep = jnp.asarray(True) if self.broken == "nan" else finite
        new = jax.tree.map(lambda p, g: jnp.where(keep, p - rate * g, p), params, slope)
        if self.broken == "half":
            loss = loss / 2
        if self.broken == "structure":
            new = tuple(jax.tree.leaves(new))
        state = {"step": state["step"] + 1}
        if self.broken == "state":
            state["loss"] = loss
        if self.broken == "dtype":
            state = {"step": state["step"].astype(float)}
        if self.broken == "float32":
            new = jax.tree.map(lambda p: p.astype(float), new)
        verdict = jnp.where(finite, RUNNING, RUNNING if self.broken == "silent" else NONFINITE)
        return new, state, cx.methods.StepInfo(loss, verdict)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("climbs", "lowers the loss"),
        slow("idle", "lowers the loss"),
        ("impure", "tracing it twice gives the same program"),
        ("nan", "leaves the parameters alone where the residual is NaN"),
        slow("silent", "verdict NONFINITE where the residual is NaN"),
        ("half", r"is \|residual\|\^2 at the incoming"),
        ("structure", "structure, shapes and dtypes of the parameters"),
        ("state", "structure, shapes and dtypes of the state"),
        ("dtype", "structure, shapes and dtypes of the state"),
        ("float32", "a compiled loop can carry it .2 entries, 3 parameters, float32"),
    ],
)
def test_contract_suite_names_the_promise_a_method_breaks(broken, says):
    with pytest.raises(AssertionError, match=f"Broken promise: .*{says}"):
        check_method(Unkept(broken))


def test_contract_suite_passes_a_method_that_keeps_its_promises():
    check_method(Unkept("nothing"))


@pytest.mark.slow
def test_variable_projection_keeps_the_head_fitted():
    x = jnp.linspace(0.0, 2.0, 60)
    model = cx.MLP("scalar", "scalar", width=8, over=cx.Interval(0, 2))(key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    fn = lambda params: jax.vmap(eqx.combine(params, static))(x) - jnp.sin(5 * x)  # noqa: E731
    residual, method = cx.methods.FunctionResidual(fn), cx.methods.VariableProjection()
    state, first = method.init(residual, params), jnp.sum(residual(params) ** 2)
    step = jax.jit(lambda params, state: method.step(residual, params, state))
    for _ in range(8):
        params, state, _ = step(params, state)
    r, J = residual.jacobian(params)
    head = J[:, -9:]  # eight weights and a bias
    cosines = head.T @ r / jnp.linalg.norm(head, axis=0) / jnp.linalg.norm(r)
    # Rounding, times the condition of the columns.
    assert jnp.max(jnp.abs(cosines)) < 1e-6
    assert r @ r < 1e-4 * first


def test_variable_projection_starts_with_the_head_and_keeps_it_small():
    # Weights so small that the columns of the head are all but polynomials.
    x = jnp.linspace(0.0, 2.0, 200)
    model = cx.MLP("scalar", "scalar", width=30, over=cx.Interval(0, 2))(key=jax.random.key(0))
    first = lambda u: (u.layers[0].weight, u.layers[0].bias)  # noqa: E731
    model = eqx.tree_at(first, model, replace_fn=lambda leaf: leaf / 8)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    fn = lambda params: jax.vmap(eqx.combine(params, static))(x) - jnp.sin(5 * x)  # noqa: E731
    residual, method = cx.methods.FunctionResidual(fn), cx.methods.VariableProjection()
    state = method.init(residual, params)
    step = jax.jit(lambda params, state: method.step(residual, params, state))
    losses = []
    for _ in range(12):
        params, state, info = step(params, state)
        losses.append(float(info.loss))
    # Steps of the inner weights before the head fits end at 0.95 of the first loss.
    assert losses[1] < 1e-6 * losses[0] and losses[-1] < losses[1] / 10
    # By undamped least squares it is 2.6e6.
    assert jnp.max(jnp.abs(params.layers[-1].weight)) < 1e6


def test_variable_projection_needs_a_network():
    residual = cx.methods.FunctionResidual(lambda params: params - 1.0)
    with pytest.raises(ValueError, match="one network with hidden layers"):
        cx.methods.VariableProjection().init(residual, jnp.zeros(2))
