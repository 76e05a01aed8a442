"""What a method is: `init` and `step` with explicit state, on a residual."""

import abc
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

# Verdicts of a step, as integers because they are traced.
RUNNING, CONVERGED, STALLED, NONFINITE = range(4)

State = TypeVar("State")


class StepInfo(NamedTuple):
    """What a step tells about the parameters it was given.

    Attributes:
        loss: Squared norm of the residual at the incoming parameters.
        verdict: RUNNING, or why there is nothing left to do.
    """

    loss: Float[Array, ""]
    verdict: Int[Array, ""]


class AbstractResidual(eqx.Module):
    """A residual vector as a function of parameters; its squared norm is the loss."""

    @abc.abstractmethod
    def __call__(self, params: PyTree) -> Float[Array, " m"]:
        """Evaluate the residual."""

    @abc.abstractmethod
    def jacobian(self, params: PyTree) -> tuple[Float[Array, " m"], Float[Array, "m P"]]:
        """Evaluate the residual and its derivative by the raveled parameters."""

    def beside(self, rest: PyTree) -> "AbstractResidual":
        """The same as a function of those parameters alone that `rest` has not, None in it."""
        return FunctionResidual(lambda part: self(eqx.combine(part, rest)))


class AbstractLagrangian(eqx.Module):
    """An objective and residual rows as functions of parameters; the loss is f + |rows|^2.

    It takes the place of a residual for methods that lower a loss, whatever it is made of.
    """

    @abc.abstractmethod
    def parts(self, params: PyTree) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        """Evaluate the objective, and the rows of all constraints that nothing else enforces."""


class FunctionResidual(AbstractResidual):
    """A residual given as a plain function of the parameters, for use outside problems."""

    fn: Callable[[Any], Float[Array, " m"]]

    def __call__(self, params: PyTree) -> Float[Array, " m"]:
        """Evaluate the function."""
        return self.fn(params)

    def jacobian(self, params: PyTree) -> tuple[Float[Array, " m"], Float[Array, "m P"]]:
        """Differentiate in the mode that needs fewer passes."""
        theta, unravel = ravel_pytree(params)
        flat = lambda theta: self.fn(unravel(theta))  # noqa: E731
        r = flat(theta)
        mode = jax.jacfwd if theta.size <= r.size else jax.jacrev
        return r, mode(flat)(theta)


class AbstractMethod(eqx.Module, Generic[State]):
    """A way to make |residual(params)|^2 smaller, one step at a time.

    `init` and `step` are pure and can be jitted, vmapped and driven by hand:

        state = method.init(residual, params)
        params, state, info = method.step(residual, params, state)

    `constrainednn.testing.check_method` says whether a method of your own keeps the contract.
    """

    @abc.abstractmethod
    def init(self, residual: AbstractResidual, params: PyTree) -> State:
        """Make the state before the first step."""

    @abc.abstractmethod
    def step(
        self, residual: AbstractResidual, params: PyTree, state: State
    ) -> tuple[PyTree, State, StepInfo]:
        """Take one step.

        Returns:
            New parameters, new state, and what was seen at the incoming parameters. With a verdict
            other than RUNNING the parameters are the incoming ones or better, and finite if those
            were.
        """

    def explain(self, params: PyTree, state: State) -> tuple[str, PyTree | None]:
        """Say what is in the way of a run that stalled; nothing unless a method knows.

        Returns:
            A clause, and parameters nearby where the residual is NaN or infinite, or None.
        """
        del params, state
        return "", None


def loss_of(residual: AbstractResidual | AbstractLagrangian, params: PyTree) -> Float[Array, ""]:
    """The loss: squared norm of the residual, added to the objective where there is one."""
    if isinstance(residual, AbstractLagrangian):
        objective, rows = residual.parts(params)
        return objective + jnp.vdot(rows, rows)
    r = residual(params)
    return jnp.vdot(r, r)
