"""Boundary value problems by SciPy's `solve_bvp`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from constrainednn._common.batched import flat_value, in_blocks
from constrainednn._ode.schemes.boundary_fields import BoundaryConditions, BoundaryField
from constrainednn._ode.schemes.boundary_values import BoundaryValueScheme
from constrainednn.models.pieces import Pieces
from constrainednn.results.comparison.classical_run import (
    UNIFORM,
    ClassicalRun,
    difference,
    fastest,
)
from constrainednn.results.comparison.numpy_twin import agrees, numpy_twin, on_numpy, raveled

# solve_bvp stops at what its fourth order reaches on a mesh of this size.
_TOLERANCE = 1e-9
_MOST_NODES = 50_000


def solved_by_collocation(
    guess: Pieces, model: Pieces, scheme: BoundaryValueScheme
) -> ClassicalRun:
    """Solve a boundary value problem by `solve_bvp`, from the guess that ours began with."""
    from scipy.integrate import solve_bvp

    field, conditions = scheme.statement.field, scheme.statement.conditions
    assert isinstance(field, BoundaryField)
    compiled = _compiled(field, conditions, with_parameters=guess.parameters.size > 0)
    tolerance = max(_TOLERANCE, 1e4 * float(jnp.finfo(model.head.dtype).eps))
    mesh = np.linspace(*scheme.span, 5 * guess.count + 1)
    arguments = {
        **compiled,
        "x": mesh,
        "y": in_blocks(eqx.Partial(flat_value, guess), mesh).T,
        "p": np.asarray(guess.parameters) if guess.parameters.size else None,
        "S": None if field.singular is None else np.asarray(field.singular),
        "tol": tolerance,
        "max_nodes": _MOST_NODES,
    }
    solve_bvp(**arguments)  # compiles for all meshes on the way
    ways = {"compiled by jax": arguments}
    twins = _in_numpy(field, conditions, arguments)
    if twins is not None:
        ways["in NumPy"] = arguments | twins | {"fun_jac": None, "bc_jac": None}
    best = fastest(solve_bvp, ways)
    evaluations = 0
    counted = best.arguments["fun"]

    def counting(x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += len(x)
        return counted(x, *rest)

    again: dict[str, Any] = best.arguments | {"fun": counting}
    solve_bvp(**again)
    x = np.union1d(best.found.x, np.linspace(*scheme.span, UNIFORM))
    return ClassicalRun(
        difference=difference(model, x, best.found.sol(x).T),
        solver=f"solve_bvp at {tolerance:.2g}",
        status=best.found.message,
        evaluations=evaluations,
        field=best.field,
        seconds=best.seconds,
        reached=float(scheme.span[1]),
    )


def _compiled(
    field: BoundaryField, conditions: Any, *, with_parameters: bool
) -> dict[str, Callable]:
    """Equation, conditions and their derivatives compiled by jax, as `solve_bvp` calls them."""
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
        return found if with_parameters else found[0]

    def bc(left: np.ndarray, right: np.ndarray, *p: np.ndarray) -> np.ndarray:
        return np.asarray(ends(left, right, p[0] if p else none))

    def bc_jac(left: np.ndarray, right: np.ndarray, *p: np.ndarray) -> Any:
        found = tuple(np.array(a) for a in end_slopes(left, right, p[0] if p else none))
        return found if with_parameters else found[:2]

    return {"fun": fun, "bc": bc, "fun_jac": fun_jac, "bc_jac": bc_jac}


def _in_numpy(
    field: BoundaryField, conditions: Any, arguments: dict[str, Any]
) -> dict[str, Callable] | None:
    """Equation and conditions in NumPy, as `solve_bvp` calls them, if they run there."""
    equation = numpy_twin(field.fn)
    if equation is None:
        return None
    x, y, p = arguments["x"], arguments["y"], arguments["p"]
    more = () if p is None else (p,)
    last = lambda of: () if of is None else (on_numpy(of),)  # noqa: E731
    args = last(getattr(field, "args", None))
    twins: dict[str, Callable] = {"fun": lambda x, y, *p: np.asarray(equation(x, y, *p, *args))}
    # Off the ends, where the equation may be singular.
    if not agrees(
        twins["fun"], arguments["fun"], [(x[1:8], y[:, 1:8] * factor, *more) for factor in (1, 1.1)]
    ):
        return None
    of_ends = numpy_twin(conditions.fn) if isinstance(conditions, BoundaryConditions) else None
    if of_ends is not None:
        args_of_ends = last(getattr(conditions, "args", None))
        twin = lambda *ends: raveled(of_ends(*ends, *args_of_ends))  # noqa: E731
        if agrees(twin, arguments["bc"], [(y[:, 0], y[:, -1], *more), (y[:, 1], y[:, 2], *more)]):
            twins["bc"] = twin
    return twins
