"""Initial value problems by SciPy's `solve_ivp`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from constrainednn._ode.schemes.field import Field
from constrainednn._ode.schemes.initial_values import InitialValueScheme
from constrainednn.models.pieces import Pieces
from constrainednn.results.comparison.classical_run import (
    UNIFORM,
    ClassicalRun,
    difference,
    fastest,
)
from constrainednn.results.comparison.numpy_twin import (
    agrees,
    numpy_twin,
    on_numpy,
    raveled,
    unraveled,
)

_TOLERANCE = 1e-12  # or what the floating-point type allows
# A problem is stiff if its pieces are longer than this many of the fastest times: stability would
# hold an explicit method to steps of a few of them.
_STIFF = 100.0


def integrated(model: Pieces, scheme: InitialValueScheme) -> ClassicalRun:
    """Integrate an initial value problem by DOP853, or by Radau where it is stiff."""
    from scipy.integrate import solve_ivp

    field = scheme.field
    order, d = model.states.shape[1:]

    # By closure, against the rule: equinox's filtered jit costs several times the field itself.
    @jax.jit
    def slope(t: Array, y: Array) -> Array:
        state = y.reshape(order, d)
        return jnp.concatenate([state[1:].ravel(), field(t, state)])

    jacobian = jax.jit(jax.jacfwd(slope, argnums=1))
    states = np.asarray(model.states, float)[: model.count].reshape(model.count, -1)
    start, end = float(model.ends[0]), float(model.ends[-1])
    stiff = _stiffness(jacobian, model.ends, states) > _STIFF
    scale = np.abs(states).max(axis=0)
    tolerance = max(_TOLERANCE, 100 * float(jnp.finfo(model.head.dtype).eps))
    arguments = {
        "t_span": (start, end),
        "y0": states[0],
        "method": "Radau" if stiff else "DOP853",
        "rtol": tolerance,
        # Relative to each component; one that is zero throughout has no size of its own.
        "atol": 1e-2 * tolerance * np.where(scale > 0, scale, scale.max() or 1.0),
    }
    if stiff:
        arguments["jac"] = lambda t, y: np.asarray(jacobian(t, y))
    fields = {"compiled by jax": lambda t, y: np.asarray(slope(t, y))}
    twin = slope_in_numpy(field, d)
    points = list(zip(model.ends[:-1].astype(float), states, strict=True))[
        :: max(1, len(states) // 9)
    ]
    if twin is not None and agrees(twin, slope, points):
        fields["in NumPy"] = twin
    slope(start, states[0]).block_until_ready()
    best = fastest(solve_ivp, {name: arguments | {"fun": fun} for name, fun in fields.items()})
    t, values = best.found.t, best.found.y.T
    if not stiff:
        dense = solve_ivp(**best.arguments, dense_output=True)
        t = np.union1d(t, np.linspace(start, t[-1], UNIFORM))
        values = dense.sol(t).T
    return ClassicalRun(
        difference=difference(model, t, values[:, :d]),
        solver=f"{arguments['method']} at {tolerance:.2g}",
        status=best.found.message,
        evaluations=best.found.nfev,
        field=best.field,
        seconds=best.seconds,
        reached=float(best.found.t[-1]),
    )


def slope_in_numpy(field: Field, d: int) -> Callable | None:
    """The slope of a flat state in NumPy; None if the field is no plain function."""
    twin, order = numpy_twin(field.fn), field.order
    if twin is None:
        return None
    args = on_numpy(field.args)
    unravel = unraveled(field.unravel(jnp.zeros(d)))
    if order == 1:
        return lambda t, y: raveled(twin(t, unravel(y), args))

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        states = tuple(unravel(row) for row in y.reshape(order, d))
        return np.concatenate([y[d:], raveled(twin(t, states, args))])

    return slope


def _stiffness(jacobian: Callable, ends: np.ndarray, states: np.ndarray) -> float:
    """How many of the fastest times the pieces are long, on average."""
    chosen = np.unique(np.linspace(0, len(states) - 1, 200).astype(int))
    fields = [np.asarray(jacobian(ends[j], states[j])) for j in chosen]
    fastest = np.abs(np.linalg.eigvals(np.stack(fields))).max(axis=1)
    return float(np.mean(fastest * np.abs(np.diff(ends)[chosen])))
