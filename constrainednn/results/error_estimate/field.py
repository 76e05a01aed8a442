"""The error of a solution in pieces, from a solve with more polynomials on the same pieces."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from constrainednn._common.batched import in_blocks
from constrainednn._common.tables import html_table
from constrainednn.models.space import PlaneTimePieces

# An estimate below this many times the rounding level says "at rounding".
_CLEAR = 10
# The largest error, in tolerances, that pieces within the tolerance are taken to promise.
_PROMISED = 1000
# Relative error above which nothing is a solution, whatever the tolerance.
_MOST = 0.1


class Fresh(NamedTuple):
    """What a constraint leaves on fresh points, relative to the size of u."""

    name: str
    size: float


@dataclasses.dataclass(frozen=True, eq=False)
class FieldErrorEstimate:
    """True minus computed, from a solve with more polynomials.

    Attributes:
        richer: The solution with more polynomials on the same pieces, a model.
        solution: The solution that was found, likewise.
        relative: L2 norm of their difference relative to that of the solution.
        components: The same for each component, relative to its own.
        rounding: Level below which the error is hidden by round-off, likewise.
    """

    richer: Any
    solution: Any
    relative: float
    components: Float[np.ndarray, " d"]
    rounding: float

    def __call__(self, p: Any) -> Float[np.ndarray, "n d"]:
        """The estimate at n points, called as the solution is."""
        dim = 3 if isinstance(self.solution, PlaneTimePieces) else 2
        shape = () if getattr(self.solution, "scalar", False) else (dim,)
        rows = jnp.asarray(np.reshape(p, (-1, *shape)), jnp.result_type(float))
        values = lambda u: np.asarray(in_blocks(eqx.Partial(_flat, u), rows))  # noqa: E731
        return values(self.richer) - values(self.solution)

    @property
    def unclear(self) -> str:
        """Why the error cannot be told; empty if it can."""
        return "" if np.isfinite(self.relative) else "the error is too large to tell"

    @property
    def label(self) -> str:
        """One of "estimate", "at rounding" and "too large to tell"."""
        if self.unclear:
            return "too large to tell"
        return "estimate" if self.relative > _CLEAR * self.rounding else "at rounding"

    def objection(self, tolerance: float) -> str:
        """Why this estimate speaks against a solution to a tolerance; empty if it does not."""
        if self.unclear:
            return self.unclear
        # A loose tolerance allows a hundredth, or ten of it, and never more than a tenth: that of
        # a network is a root of the loss, in the units of its rows.
        allowed = min(_PROMISED * tolerance, max(10 * tolerance, 0.01), _MOST)
        if self.rounding > allowed:
            return (
                f"rounding alone may change the solution by {self.rounding:.1e}: equation and "
                "conditions hardly determine it"
            )
        worst = int(np.argmax(self.components))
        if self.components[worst] > _MOST:
            return (
                f"the error of component {worst} is estimated at {self.components[worst]:.1e} of it"
            )
        if self.relative > allowed:
            return (
                f"the error is estimated at {self.relative:.1e} of the solution, "
                f"{self.relative / tolerance:.0e} times the tolerance"
            )
        return ""

    def __repr__(self) -> str:
        if self.unclear:
            text = self.unclear.removeprefix("the error is ")
        elif self.label == "at rounding":
            text = f"at rounding, about {max(self.relative, self.rounding):.1e}"
        else:
            text = f"{self.relative:.1e}, rounding at {self.rounding:.1e}"
        worst = int(np.argmax(self.components))
        if self.components[worst] > 10 * max(self.relative, self.rounding):
            text += f"; {self.components[worst]:.1e} of component {worst} alone"
        return f"estimated relative error {text}"

    def _repr_html_(self) -> str:
        rows = [(k, f"{size:.1e}") for k, size in enumerate(self.components)]
        return html_table(("component", "relative error"), rows, [repr(self)])


def _flat(u: Any, p: Array) -> Array:
    if not hasattr(u, "derivatives"):  # a network
        return jnp.ravel(u(p))
    return u.derivatives(p, [(0,) * max(1, p.size)])[0]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MarchErrorEstimate(FieldErrorEstimate):
    """The same for a march, whose error may grow beyond what its linear equation can tell.

    Attributes:
        trusted_until: Time from which the error is too large to tell; infinite if nowhere.
    """

    trusted_until: float

    @property
    def unclear(self) -> str:
        """Why the error cannot be told; empty if it can."""
        if np.isfinite(self.trusted_until) or not np.isfinite(self.relative):
            return f"the error is too large to tell from t = {self.trusted_until:.6g} on"
        return ""
