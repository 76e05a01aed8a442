"""The contract suite: put a domain, sampler, method or problem of your own through it.

A test of a domain reads:

    from constrainednn.testing import check_domain

    def test_my_domain():
        check_domain(MyDomain(), key=jax.random.key(0))

Each check returns nothing, or raises AssertionError with a sentence that names the broken promise.
Everything that the package brings passes it too.
"""

import itertools
from collections.abc import Collection

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._check import check
from constrainednn._domains import AbstractDomain
from constrainednn._gap import draw_streams, residuals_at, shared_points
from constrainednn._keys import numpy_generator, stream
from constrainednn._methods._abstract import (
    NONFINITE,
    RUNNING,
    AbstractMethod,
    AbstractResidual,
    FunctionResidual,
    StepInfo,
    loss_of,
)
from constrainednn._models import trainable_mask
from constrainednn._problem import Constraint, Problem
from constrainednn._samplers import AbstractSampler

__all__ = ["check_domain", "check_method", "check_problem", "check_sampler"]

# 64 is a power of two, a square and a cube: it suits every sampler in one to three dimensions.
_POINTS = 64
# A run of any sensible method on the trial problem ends or descends within so many steps.
_STEPS = 100


def check_domain(domain: AbstractDomain, *, key: Key[Array, ""]) -> None:
    """Check that a domain is a map from the unit cube as samplers and the gap report need it.

    Args:
        domain: The domain.
        key: Random key of the cube points that are tried.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    _promise(isinstance(domain, AbstractDomain), f"{domain!r} is a cx.AbstractDomain")
    dim = domain.unit_dim
    _promise(
        isinstance(dim, int) and not isinstance(dim, bool) and dim >= 1,
        f"unit_dim of {domain!r} is an int of at least 1, got {dim!r}",
    )
    rules = domain.gauss_rules
    _promise(
        isinstance(rules, tuple) and len(rules) == dim,
        f"gauss_rules of {domain!r} is a tuple with one entry a cube coordinate, got {rules!r}",
    )
    _promise(
        all(rule in (None, "legendre", "hermite") for rule in rules),
        f"gauss_rules of {domain!r} are 'legendre', 'hermite' or None, got {rules!r}",
    )
    _promise(isinstance(domain.unbounded, bool), f"unbounded of {domain!r} is a bool")

    dtype = jnp.result_type(float)
    cube = numpy_generator(key).uniform(0.01, 0.99, (8, dim)).astype(dtype)
    first, second = domain.place(jnp.asarray(cube[0])), domain.place(jnp.asarray(cube[1]))
    for leaf in jax.tree.leaves(first):
        _promise(
            hasattr(leaf, "dtype") and hasattr(leaf, "shape"),
            f"place of {domain!r} returns arrays, got {type(leaf).__name__}",
        )
    _promise(bool(jax.tree.leaves(first)), f"place of {domain!r} returns at least one array")
    _promise(
        _kind(first) == _kind(second),
        f"place of {domain!r} gives every point the same shape and dtype, "
        f"got {_kind(first)} and {_kind(second)}",
    )
    _promise(
        _same(first, domain.place(jnp.asarray(cube[0]))),
        f"place of {domain!r} is deterministic: the same cube point gives the same point",
    )
    many = jax.vmap(domain.place)(jnp.asarray(cube))
    one = jax.tree.map(lambda leaf: leaf[0], many)
    _promise(_close(one, first), f"place of {domain!r} under jax.vmap agrees with one point")
    jitted = jax.jit(domain.place)(jnp.asarray(cube[0]))
    _promise(_close(jitted, first), f"place of {domain!r} under jax.jit agrees with one point")
    _check_faces(domain, cube)


def _check_faces(domain: AbstractDomain, cube: Float[np.ndarray, "n d"]) -> None:
    """Finite wherever samplers go; for a bounded domain on the faces of the cube themselves."""
    eps = float(jnp.finfo(cube.dtype).eps)
    place = jax.vmap(domain.place)
    _promise(
        _finite(place(jnp.asarray(cube))), f"{domain!r} places inner cube points at finite points"
    )
    lowest, highest = (eps, 1 - eps) if domain.unbounded else (0.0, 1.0)
    faces = []
    for axis, end in itertools.product(range(cube.shape[1]), (lowest, highest)):
        face = cube.copy()
        face[:, axis] = end
        faces.append(face)
    where = "near the faces" if domain.unbounded else "on the faces"
    _promise(
        _finite(place(jnp.asarray(np.concatenate(faces)))),
        f"{domain!r}, whose unbounded is {domain.unbounded}, places cube points {where} of the "
        "cube at finite points",
    )


def check_sampler(sampler: AbstractSampler, domain: AbstractDomain, *, key: Key[Array, ""]) -> None:
    """Check that a sampler fills the cube of a domain with weighted points of its measure.

    Args:
        sampler: The sampler.
        domain: A domain it suits, of at most three cube dimensions for a grid.
        key: Random key of the draws.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    _promise(isinstance(sampler, AbstractSampler), f"{sampler!r} is a cx.AbstractSampler")
    _promise(isinstance(sampler.random, bool), f"random of {sampler!r} is a bool")
    fills = [
        sampler.fill(domain, _POINTS, key=stream(key, f"fill/{i}"))
        for i in range(16 if sampler.random else 2)
    ]
    for cube, share in fills:
        _promise(
            np.shape(cube) == (_POINTS, domain.unit_dim) and np.shape(share) == (_POINTS,),
            f"{sampler!r} returns cube points of shape (n, unit_dim) and weights of shape (n,), "
            f"got {np.shape(cube)} and {np.shape(share)}",
        )
        _promise(
            bool(np.all(np.isfinite(cube)) and np.all(cube >= 0) and np.all(cube <= 1)),
            f"{sampler!r} keeps cube points in [0, 1]",
        )
        _promise(
            bool(np.all(share >= 0)) and abs(float(np.sum(share)) - 1) < 1e-5,
            f"{sampler!r} returns weights >= 0 that sum to one, got sum {np.sum(share)}",
        )
    again = sampler.fill(domain, _POINTS, key=stream(key, "fill/0"))
    _promise(_same(fills[0], again), f"{sampler!r} returns the same points for the same key")
    if sampler.random:
        _promise(
            shared_points(fills[0][0], fills[1][0]) <= 1,
            f"{sampler!r}, which says it is random, returns other points for another key",
        )
    else:
        _promise(
            _same(fills[0], fills[1]),
            f"{sampler!r}, which says it is not random, returns the same points for every key",
        )
    _check_means(sampler, fills)


def _check_means(sampler: AbstractSampler, fills: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """First and second moments of the cube, pooled over the fills."""
    # Five standard errors of as many independent points; a rule is expected to be better.
    total = _POINTS * (len(fills) if sampler.random else 1)
    dim = fills[0][0].shape[1]
    mean = np.mean([np.asarray(share) @ np.asarray(cube) for cube, share in fills], axis=0)
    allowed = 5 * np.sqrt(1 / 12 / total)
    _promise(
        bool(np.all(np.abs(mean - 1 / 2) < allowed)),
        f"{sampler!r} integrates cube coordinates to 1/2 within {allowed:.2g}, got {mean}",
    )
    second = np.mean(
        [np.asarray(cube).T @ (np.asarray(share)[:, None] * cube) for cube, share in fills], axis=0
    )
    expected = np.full((dim, dim), 1 / 4) + np.eye(dim) / 12
    # Variance of z^2 is 4/45, that of a product of two coordinates 7/144: the larger one.
    allowed = 5 * np.sqrt(4 / 45 / total)
    _promise(
        bool(np.all(np.abs(second - expected) < allowed)),
        f"{sampler!r} integrates products of cube coordinates to 1/4 and squares to 1/3 within "
        f"{allowed:.2g}, got {second.tolist()}",
    )


class _Fit(AbstractResidual):
    """A straight line plus a hyperbola through given heights; three parameters.

    With `softness` zero the derivative by `rate` is NaN at rate zero, although the value is finite.
    """

    at: Float[Array, " m"]
    heights: Float[Array, " m"]
    softness: Float[Array, ""]

    def __call__(self, params: PyTree) -> Float[Array, " m"]:
        line = params["line"][0] + params["line"][1] * self.at
        curve = line + jnp.sqrt((params["rate"] * self.at) ** 2 + self.softness)
        return (curve - self.heights) / self.at.size**0.5

    def jacobian(self, params: PyTree) -> tuple[Float[Array, " m"], Float[Array, "m P"]]:
        return FunctionResidual(self.__call__).jacobian(params)


def check_method(method: AbstractMethod) -> None:
    """Check that a method is pure, can be compiled and batched, descends, and survives NaN.

    It is run on a small nonlinear least-squares problem, with more residual entries than
    parameters in the default precision and with fewer in float32.

    Args:
        method: The method. A learning rate should suit a loss whose curvature is about one.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    _promise(isinstance(method, AbstractMethod), f"{method!r} is a cx.AbstractMethod")
    tall, params = _trial(5, jnp.result_type(float))
    _check_pure(method, tall, params)
    _check_batched(method, tall, params)
    _check_descends(method, tall, params)
    wide, params = _trial(2, jnp.dtype("float32"))
    _check_descends(method, wide, params)
    _check_nonfinite(method, *_trial(5, jnp.result_type(float)))


def _trial(m: int, dtype: np.dtype) -> tuple[_Fit, PyTree]:
    at = jnp.linspace(-1.0, 1.0, m, dtype=dtype)
    residual = _Fit(at, jnp.cos(3 * at) + 1, jnp.ones((), dtype))
    return residual, {"line": jnp.asarray([0.3, -0.2], dtype), "rate": jnp.asarray(0.5, dtype)}


@eqx.filter_jit
def _jitted_step(
    method: AbstractMethod, residual: AbstractResidual, params: PyTree, state: PyTree
) -> tuple[PyTree, PyTree, StepInfo]:
    return method.step(residual, params, state)


@eqx.filter_jit
def _drive(
    method: AbstractMethod, residual: AbstractResidual, params: PyTree, state: PyTree
) -> tuple[PyTree, PyTree, StepInfo]:
    """Step until a verdict or `_STEPS`; the carry of a compiled loop is what `solve` uses."""

    def running(carry):
        *_, info, count = carry
        return (count < _STEPS) & (info.verdict == RUNNING)

    def body(carry):
        params, state, _, count = carry
        params, state, info = method.step(residual, params, state)
        return params, state, StepInfo(info.loss, jnp.asarray(info.verdict, int)), count + 1

    start = StepInfo(loss_of(residual, params), jnp.asarray(RUNNING, int))
    carry = (params, state, start, jnp.asarray(0))
    params, state, info, _ = lax.while_loop(running, body, carry)
    return params, state, info


def _check_pure(method: AbstractMethod, residual: AbstractResidual, params: PyTree) -> None:
    state = method.init(residual, params)
    _promise(_same(state, method.init(residual, params)), f"init of {method!r} is pure")
    result = _jitted_step(method, residual, params, state)
    _promise(
        isinstance(result, tuple) and len(result) == 3 and isinstance(result[2], StepInfo),
        f"step of {method!r} returns parameters, state and a cx.StepInfo",
    )
    _promise(
        _same(result, _jitted_step(method, residual, params, state)),
        f"step of {method!r} is pure: the same input gives the same bits",
    )
    # Whatever Python decides or draws is fixed when a step is compiled: a second trace shows it.
    programs = [
        eqx.filter_make_jaxpr(lambda r, p, s: method.step(r, p, s))(residual, params, state)[0]
        for _ in range(2)
    ]
    _promise(
        str(programs[0]) == str(programs[1]) and _same(programs[0].consts, programs[1].consts),
        f"step of {method!r} is pure: tracing it twice gives the same program",
    )
    moved, new_state, info = result
    for what, old, new in (("parameters", params, moved), ("state", state, new_state)):
        _promise(
            _kind(old) == _kind(new),
            f"step of {method!r} keeps structure, shapes and dtypes of the {what}, "
            f"got {_kind(new)} from {_kind(old)}",
        )
    _promise(
        _close(info.loss, loss_of(residual, params)),
        f"the loss that {method!r} tells is |residual|^2 at the incoming parameters",
    )
    _promise(
        info.verdict.shape == () and jnp.issubdtype(info.verdict.dtype, jnp.integer),
        f"the verdict of {method!r} is an integer of shape ()",
    )


def _check_batched(method: AbstractMethod, residual: AbstractResidual, params: PyTree) -> None:
    other = jax.tree.map(lambda leaf: leaf + 0.1, params)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other)
    states = jax.vmap(lambda params: method.init(residual, params))(batch)
    step = jax.jit(jax.vmap(lambda params, state: method.step(residual, params, state)[:2]))
    batch, states = step(batch, states)
    batch, states = step(batch, states)
    for i, start in enumerate((params, other)):
        state = method.init(residual, start)
        moved, state, _ = _jitted_step(method, residual, start, state)
        moved, *_ = _jitted_step(method, residual, moved, state)
        part = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        _promise(
            _close(part, moved, loose=True),
            f"step of {method!r} under jax.vmap agrees with one run at a time",
        )


def _check_descends(method: AbstractMethod, residual: _Fit, params: PyTree) -> None:
    case = f"{residual.at.size} entries, 3 parameters, {residual.at.dtype}"
    try:
        moved, state, info = _drive(method, residual, params, method.init(residual, params))
    except TypeError as error:
        raise AssertionError(
            f"Broken promise: the state of {method!r} keeps its structure, so that a compiled loop "
            f"can carry it ({case}). {error}"
        ) from error
    before, after = loss_of(residual, params), loss_of(residual, moved)
    _promise(_finite((moved, state)), f"{method!r} keeps parameters and state finite ({case})")
    _promise(
        bool(after < before),
        f"{method!r} lowers the loss within {_STEPS} steps ({case}), got {before} to {after}",
    )
    _promise(int(info.verdict) != NONFINITE, f"{method!r} sees nothing that is not finite ({case})")
    # The parameters of a verdict are the incoming ones, whose loss it tells, or better.
    rounding = 100 * jnp.finfo(residual.at.dtype).eps
    _promise(
        int(info.verdict) == RUNNING or bool(after <= info.loss * (1 + rounding)),
        f"{method!r} leaves parameters no worse than the incoming ones when it stops ({case})",
    )


def _check_nonfinite(method: AbstractMethod, residual: _Fit, params: PyTree) -> None:
    kink = {"line": params["line"], "rate": jnp.zeros_like(params["rate"])}
    missing = eqx.tree_at(lambda r: r.heights, residual, residual.heights * jnp.nan)
    sharp = eqx.tree_at(lambda r: r.softness, residual, 0 * residual.softness)
    faults = {"residual": (missing, params), "derivative": (sharp, kink)}
    for what, (broken, start) in faults.items():
        state = method.init(residual, start)
        moved, _, info = _jitted_step(method, broken, start, state)
        _promise(
            int(info.verdict) == NONFINITE,
            f"{method!r} gives the verdict NONFINITE where the {what} is NaN, got {info.verdict}",
        )
        _promise(
            _same(moved, start), f"{method!r} leaves the parameters alone where the {what} is NaN"
        )


def check_problem(problem: Problem, *, noisy: Collection[str] = ()) -> None:
    """Check that a problem can be solved as stated and that its reference solves it.

    Args:
        problem: The problem.
        noisy: Names of constraints that the reference does not satisfy, because the data there
            carry noise, as in `Normal(2).map(...)` with a noisy y.

    Raises:
        AssertionError: If a promise is broken, naming it.
    """
    _promise(isinstance(problem, Problem), f"{problem!r} is a cx.Problem")
    names = [item.name for item in problem.constraints]
    _promise(len(set(names)) == len(names), f"names of constraints are unique, got {names}")
    for name in noisy:
        _promise(name in names, f"noisy={name!r} names a constraint, one of {names}")
    key = jax.random.key(0)
    model = problem.build_model(key=key)
    again = problem.build_model(key=key)
    _promise(
        _same(eqx.filter(model, eqx.is_array), eqx.filter(again, eqx.is_array)),
        "the same key builds the same model",
    )
    trained = eqx.filter(model, trainable_mask(model, problem.trainable))
    _promise(bool(jax.tree.leaves(trained)), "something is trained")
    for finding in check(problem):
        _promise(not finding.error, f"every residual can be trained. {finding.error}")
    for constraint in problem.constraints:
        _check_streams(constraint, key=key)
        if problem.reference is not None and constraint.name not in noisy:
            _check_reference(problem, constraint, model, key=key)


def _check_streams(constraint: Constraint, *, key: Key[Array, ""]) -> None:
    points = draw_streams(constraint, key=key, monitor=_POINTS, heldout=_POINTS)
    train, monitor, held = points.train, points.monitor, points.heldout
    if monitor is None or held is None or train.cube is None:
        return
    streams = {"training": train, "monitor": monitor, "held-out": held}
    for (what, one), (which, other) in itertools.combinations(streams.items(), 2):
        assert one.cube is not None and other.cube is not None
        _promise(
            shared_points(one.cube, other.cube) <= 1,
            f"constraint {constraint.name!r} shares no points between {what} and {which} points",
        )
    assert constraint.points is not None
    if constraint.sampler.random:
        more = eqx.tree_at(lambda item: item.points, constraint, 2 * constraint.points)
        again = draw_streams(more, key=key, monitor=_POINTS, heldout=_POINTS)
        _promise(
            _same((monitor, held), (again.monitor, again.heldout)),
            f"constraint {constraint.name!r} keeps its held-out points when it trains on more",
        )


def _check_reference(
    problem: Problem, constraint: Constraint, model: PyTree, *, key: Key[Array, ""]
) -> None:
    points = draw_streams(constraint, key=key, monitor=2, heldout=_POINTS)
    some = points.train if points.heldout is None else points.heldout
    r = residuals_at(constraint.residual, problem.reference, some.points)
    untrained = residuals_at(constraint.residual, model, some.points)
    # About 1000 operations an entry, on numbers of the size that an untrained model gives.
    rounding = 1e3 * np.finfo(r.dtype).eps * max(1.0, float(np.abs(untrained).max()))
    _promise(
        bool(np.all(np.abs(r) < rounding)),
        f"the reference satisfies constraint {constraint.name!r} to rounding ({rounding:.1e}), "
        f"got a residual of {np.abs(r).max():.3g}. If the data are noisy, name it in noisy=",
    )


def _promise(kept: bool, sentence: str) -> None:
    # Not a bare assert: python -O would drop it.
    if not kept:
        raise AssertionError(f"Broken promise: {sentence}.")


def _kind(tree: PyTree) -> str:
    """Structure, shapes and dtypes, to compare and to show."""
    leaves, structure = jax.tree.flatten(eqx.filter(tree, eqx.is_array_like))
    return f"{[(np.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]} in {structure}"


def _finite(tree: PyTree) -> bool:
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    )


def _same(one: PyTree, other: PyTree) -> bool:
    """Equal bits, NaN included."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() if eqx.is_array_like(a) else a == b
        for a, b in pairs
    )


def _close(one: PyTree, other: PyTree, *, loose: bool = False) -> bool:
    """Equal to rounding of about 1000 operations; `loose` where a step may amplify it."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if not np.issubdtype(a.dtype, np.floating):
            if not np.array_equal(a, b):
                return False
            continue
        eps = float(np.finfo(a.dtype).eps)
        allowed = (eps**0.5 if loose else 1e3 * eps) * max(1.0, float(np.abs(b).max(initial=0)))
        if not np.all(np.abs(a - b) <= allowed):
            return False
    return True
