"""The classical solver on the same problem: how far apart the two solutions are, and both times."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from constrainednn._common.batched import in_blocks
from constrainednn._common.random_keys import stream
from constrainednn._gap.measure import gap_report
from constrainednn._ode.fitting.scheme import AbstractFittedScheme
from constrainednn._ode.schemes.boundary_fields import BoundaryConditions, BoundaryField
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn._ode.schemes.initial_values import Field, InitialValueScheme
from constrainednn.errors import BadValueError
from constrainednn.models.pieces import Pieces
from constrainednn.results.comparison.numpy_twin import (
    agrees,
    numpy_twin,
    on_numpy,
    raveled,
    unraveled,
)
from constrainednn.results.facts import Facts

_UNIFORM = 2000
_TOLERANCE = 1e-12  # or what the floating-point type allows
# solve_bvp stops at what its fourth order reaches on a mesh of this size.
_BVP_TOLERANCE = 1e-9
_BVP_NODES = 50_000
# A piece covers this many of the fastest times of a problem that is not stiff; an explicit method
# would be held to steps of a few of them by stability alone.
_STIFF = 100.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two solutions of one problem.

    Both times are with everything compiled: of our solver with the gap report, and of the
    classical solver with the field that it is faster with, in NumPy or compiled by jax.

    Attributes:
        difference: The largest over components of the relative L2 difference of the values, on
            2,000 uniform points joined with the steps of the classical solver; Radau, whose
            interpolant is far less accurate than its steps, is compared at those only.
        solver: The classical solver and its tolerance.
        status: How it ended, in its own words.
        evaluations: Evaluations of the field by the classical solver, each at one point.
        field: How it called the field: "in NumPy" or "compiled by jax".
        seconds: Time of its whole call.
        ours: Time of our solver and the gap report, or of the fit where there were unknowns.
        compiling: Time that the first `solve` spent compiling.
        fitted: True where unknowns were estimated, which the classical solver is given.
        reached: How far along the classical solver got; the difference is taken up to there.
    """

    difference: float
    solver: str
    status: str
    evaluations: int
    field: str
    seconds: float
    ours: float
    compiling: float
    fitted: bool
    reached: float

    def __repr__(self) -> str:
        call = "the fit" if self.fitted else "solving and measuring, when compiled"
        return (
            f"cx.solve: {self.ours:.3g} s for {call}; {self.compiling:.3g} s of compiling before\n"
            f"{self.solver}: {self.seconds:.3g} s for a whole call, {self.evaluations} evaluations "
            f"of the field {self.field}; relative difference {self.difference:.1e} up to "
            f"{self.reached:g}; {self.status}"
        )


def compare(facts: Facts) -> Comparison:
    """Run the classical solver on the problem of a solution; its time and ours, side by side.

    DOP853 for an initial value problem, Radau where it is stiff, SciPy's `solve_bvp` for a boundary
    value problem, from the same guess. It is given the field in NumPy, if that runs and has the
    same values once `jax.numpy` is replaced by `numpy` in the function that states it, or compiled
    by jax: whichever it is faster with. Nothing is compiled while a clock runs. For our time the
    problem is solved twice more.

    Args:
        facts: Those of a solution for a problem made by `ivp` or `bvp`.

    Raises:
        ValueError: If the problem is not of that kind.
    """
    scheme = facts.problem.scheme
    if isinstance(scheme, AbstractFittedScheme):  # for the unknowns as they were found
        scheme = scheme.at(facts.model)
    if isinstance(scheme, InitialValueScheme) and scheme.field.mass is None:
        return _initial(facts, scheme)
    if isinstance(scheme, BoundaryValueScheme):
        return _boundary(facts, scheme)
    raise BadValueError(
        "compare needs the solution of a problem that SciPy can solve, made by cx.ivp without "
        f"mass= and delays=, or by cx.bvp; got one with scheme={scheme!r}."
    )


def _ours(facts: Facts) -> dict[str, Any]:
    """Fields of a comparison that tell of this package."""
    fitted, settings = (
        isinstance(facts.problem.scheme, AbstractFittedScheme),
        facts.settings,
    )
    compiling = facts.timings.compile
    if fitted:
        return {"ours": facts.timings.run, "compiling": compiling, "fitted": True}
    problem, scheme, key = facts.problem, facts.problem.scheme, jax.random.key(settings.seed)
    assert scheme is not None
    ours = math.nan
    for _ in range(2):  # the first may compile
        began = time.perf_counter()
        found = scheme.solve(
            problem.build_model(key=key),
            tolerance=settings.tolerance,
            steps=settings.steps,
            key=stream(key, "monitor/pieces"),
            watch=lambda *_: False,
        )
        gap_report(problem, found.model, facts.streams)
        ours = time.perf_counter() - began
    return {"ours": ours, "compiling": compiling, "fitted": False}


class _Timed(NamedTuple):
    """A way to call the classical solver, what it found and how long that took."""

    field: str
    arguments: dict[str, Any]
    found: Any
    seconds: float


def _fastest(solver: Callable, ways: dict[str, dict[str, Any]]) -> _Timed:
    runs = []
    for field, arguments in ways.items():
        began = time.perf_counter()
        found = solver(**arguments)
        runs.append(_Timed(field, arguments, found, time.perf_counter() - began))
    return min(runs, key=lambda run: run.seconds)


def _initial(facts: Facts, scheme: InitialValueScheme) -> Comparison:
    from scipy.integrate import solve_ivp

    model, field = facts.model, scheme.field
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
    twin = _slope_in_numpy(field, d)
    points = list(zip(model.ends[:-1].astype(float), states, strict=True))[
        :: max(1, len(states) // 9)
    ]
    if twin is not None and agrees(twin, slope, points):
        fields["in NumPy"] = twin
    slope(start, states[0]).block_until_ready()
    best = _fastest(solve_ivp, {name: arguments | {"fun": fun} for name, fun in fields.items()})
    t, values = best.found.t, best.found.y.T
    if not stiff:
        dense = solve_ivp(**best.arguments, dense_output=True)
        t = np.union1d(t, np.linspace(start, t[-1], _UNIFORM))
        values = dense.sol(t).T
    return Comparison(
        difference=_difference(model, t, values[:, :d]),
        solver=f"{arguments['method']} at {tolerance:.2g}",
        status=best.found.message,
        evaluations=best.found.nfev,
        field=best.field,
        seconds=best.seconds,
        reached=float(best.found.t[-1]),
        **_ours(facts),
    )


def _slope_in_numpy(field: Field, d: int) -> Callable | None:
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


def _boundary(facts: Facts, scheme: BoundaryValueScheme) -> Comparison:
    from scipy.integrate import solve_bvp

    field, conditions = scheme.statement.field, scheme.statement.conditions
    assert isinstance(field, BoundaryField)
    guess, model = facts.problem.model, facts.model
    unknown = guess.parameters.size > 0
    # Functions around them: arrays in args= have no hash.
    regular = lambda x, y, p: field.regular(x, y, p)  # noqa: E731
    at_ends = lambda left, right, p: conditions(left, right, p)  # noqa: E731
    many = jax.jit(jax.vmap(regular, in_axes=(0, 0, None)))
    slopes = jax.jit(jax.vmap(jax.jacfwd(regular, argnums=(1, 2)), in_axes=(0, 0, None)))
    ends = jax.jit(at_ends)
    end_slopes = jax.jit(jax.jacfwd(at_ends, argnums=(0, 1, 2)))
    none = np.zeros(0)

    def padded(fn: Callable, x: np.ndarray, y: np.ndarray, p: tuple) -> Any:
        # To powers of two: meshes grow, and each new shape would be compiled.
        spare = (1 << (len(x) - 1).bit_length()) - len(x)
        fill = lambda a: np.concatenate([a, np.repeat(a[-1:], spare, axis=0)])  # noqa: E731
        found = fn(fill(x), fill(y.T), p[0] if p else none)
        # Copies: solve_bvp writes into what it is given.
        return jax.tree.map(lambda a: np.moveaxis(np.array(a)[: len(x)], 0, -1), found)

    def fun(x: np.ndarray, y: np.ndarray, *p: np.ndarray) -> np.ndarray:
        return padded(many, x, y, p)

    def fun_jac(x: np.ndarray, y: np.ndarray, *p: np.ndarray) -> Any:
        found = padded(slopes, x, y, p)
        return found if unknown else found[0]

    def bc(left: np.ndarray, right: np.ndarray, *p: np.ndarray) -> np.ndarray:
        return np.asarray(ends(left, right, p[0] if p else none))

    def bc_jac(left: np.ndarray, right: np.ndarray, *p: np.ndarray) -> Any:
        found = tuple(np.array(a) for a in end_slopes(left, right, p[0] if p else none))
        return found if unknown else found[:2]

    tolerance = max(_BVP_TOLERANCE, 1e4 * float(jnp.finfo(model.head.dtype).eps))
    mesh = np.linspace(*scheme.span, 5 * guess.count + 1)
    arguments = {
        "fun": fun,
        "bc": bc,
        "x": mesh,
        "y": in_blocks(eqx.Partial(_flat, guess), mesh).T,
        "p": np.asarray(guess.parameters) if unknown else None,
        "S": None if field.singular is None else np.asarray(field.singular),
        "fun_jac": fun_jac,
        "bc_jac": bc_jac,
        "tol": tolerance,
        "max_nodes": _BVP_NODES,
    }
    solve_bvp(**arguments)  # compiles for all meshes on the way
    ways = {"compiled by jax": arguments}
    twins = _twins_of(field, conditions, fun, bc, arguments)
    if twins is not None:
        ways["in NumPy"] = arguments | twins | {"fun_jac": None, "bc_jac": None}
    best = _fastest(solve_bvp, ways)
    evaluations = 0
    counted = best.arguments["fun"]

    def counting(x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += len(x)
        return counted(x, *rest)

    again: dict[str, Any] = best.arguments | {"fun": counting}
    solve_bvp(**again)
    x = np.union1d(best.found.x, np.linspace(*scheme.span, _UNIFORM))
    return Comparison(
        difference=_difference(model, x, best.found.sol(x).T),
        solver=f"solve_bvp at {tolerance:.2g}",
        status=best.found.message,
        evaluations=evaluations,
        field=best.field,
        seconds=best.seconds,
        reached=float(scheme.span[1]),
        **_ours(facts),
    )


def _twins_of(
    field: BoundaryField, conditions: Any, fun: Callable, bc: Callable, arguments: dict[str, Any]
) -> dict[str, Callable] | None:
    """Equation and conditions in NumPy, for many points at once as `solve_bvp` has them."""
    equation = numpy_twin(field.fn)
    if equation is None:
        return None
    x, y, p = arguments["x"], arguments["y"], arguments["p"]
    more = () if p is None else (p,)
    last = lambda of: () if of is None else (on_numpy(of),)  # noqa: E731
    args = last(getattr(field, "args", None))
    twins: dict[str, Callable] = {"fun": lambda x, y, *p: np.asarray(equation(x, y, *p, *args))}
    # Off the ends, where the equation may be singular.
    if not agrees(twins["fun"], fun, [(x[1:8], y[:, 1:8] * factor, *more) for factor in (1, 1.1)]):
        return None
    of_ends = numpy_twin(conditions.fn) if isinstance(conditions, BoundaryConditions) else None
    if of_ends is not None:
        args_of_ends = last(getattr(conditions, "args", None))
        twin = lambda *ends: raveled(of_ends(*ends, *args_of_ends))  # noqa: E731
        if agrees(twin, bc, [(y[:, 0], y[:, -1], *more), (y[:, 1], y[:, 2], *more)]):
            twins["bc"] = twin
    return twins


def _flat(model: Pieces, t: Float[Array, ""]) -> Float[Array, " d"]:
    return ravel_pytree(model(t))[0]


def _difference(
    model: Pieces, t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n d"]
) -> float:
    ours = in_blocks(eqx.Partial(_flat, model), t.astype(model.head.dtype))
    norm = np.linalg.norm(values, axis=0)
    return float(np.max(np.linalg.norm(ours - values, axis=0) / np.where(norm > 0, norm, 1.0)))
