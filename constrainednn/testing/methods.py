"""The contract of methods."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from constrainednn.methods.base import (
    NONFINITE,
    RUNNING,
    AbstractMethod,
    AbstractResidual,
    FunctionResidual,
    StepInfo,
    loss_of,
)
from constrainednn.testing.promises import close, finite, kind, promise, same

# A run of any sensible method on the trial problem ends or descends within so many steps.
_STEPS = 100


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
    promise(isinstance(method, AbstractMethod), f"{method!r} is a cx.methods.AbstractMethod")
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
    promise(same(state, method.init(residual, params)), f"init of {method!r} is pure")
    result = _jitted_step(method, residual, params, state)
    promise(
        isinstance(result, tuple) and len(result) == 3 and isinstance(result[2], StepInfo),
        f"step of {method!r} returns parameters, state and a cx.methods.StepInfo",
    )
    promise(
        same(result, _jitted_step(method, residual, params, state)),
        f"step of {method!r} is pure: the same input gives the same bits",
    )
    # Whatever Python decides or draws is fixed when a step is compiled: a second trace shows it.
    programs = [
        eqx.filter_make_jaxpr(lambda r, p, s: method.step(r, p, s))(residual, params, state)[0]
        for _ in range(2)
    ]
    promise(
        str(programs[0]) == str(programs[1]) and same(programs[0].consts, programs[1].consts),
        f"step of {method!r} is pure: tracing it twice gives the same program",
    )
    moved, new_state, info = result
    for what, old, new in (("parameters", params, moved), ("state", state, new_state)):
        promise(
            kind(old) == kind(new),
            f"step of {method!r} keeps structure, shapes and dtypes of the {what}, "
            f"got {kind(new)} from {kind(old)}",
        )
    promise(
        close(info.loss, loss_of(residual, params)),
        f"the loss that {method!r} tells is |residual|^2 at the incoming parameters",
    )
    promise(
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
        promise(
            close(part, moved, loose=True),
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
    promise(finite((moved, state)), f"{method!r} keeps parameters and state finite ({case})")
    promise(
        bool(after < before),
        f"{method!r} lowers the loss within {_STEPS} steps ({case}), got {before} to {after}",
    )
    promise(int(info.verdict) != NONFINITE, f"{method!r} sees nothing that is not finite ({case})")
    # The parameters of a verdict are the incoming ones, whose loss it tells, or better.
    rounding = 100 * jnp.finfo(residual.at.dtype).eps
    promise(
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
        promise(
            int(info.verdict) == NONFINITE,
            f"{method!r} gives the verdict NONFINITE where the {what} is NaN, got {info.verdict}",
        )
        promise(
            same(moved, start), f"{method!r} leaves the parameters alone where the {what} is NaN"
        )
