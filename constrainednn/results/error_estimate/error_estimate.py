"""What is reported of the error of a solution in pieces."""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._common.tables import html_table
from constrainednn._figures.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# An estimate below this many times the rounding level says "at rounding".
_CLEAR = 10
# The largest error, in tolerances, that a residual below the tolerance is taken to promise.
_PROMISED = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorEstimate:
    """True minus computed along a solution, to leading order.

    Attributes:
        t: Uniform points and the edges of the pieces, in order of solution.
        estimate: Estimate of each component of the value; NaN where not `trusted`.
        bound: Bound on the Euclidean norm of the same; infinite where not `trusted` and from
            `unresolved` on, and NaN for a boundary value problem, where growth from one end says
            nothing.
        rounding: Level below which the error is hidden by rounding or by that part of the residual
            which the nodes miss; one standard deviation.
        trusted: False where the error is so large that its equation is far from linear.
        relative_size: For each component, L2 norm of the estimate relative to the solution's, over
            2,000 uniform points and the nodes of all pieces.
        relative_rounding: The same for the rounding level.
        unresolved: Start of the first piece where the residual has a kink, jump or pulse that its
            nodes miss; NaN if there is none.
        glimpsed: True if such a feature lies between nodes altogether, so that its size is unknown.
            Otherwise `rounding` covers its effect.
        spacing: The longest time between two points at which the residual was evaluated.
        parameters: Estimate of the error of unknown parameters.
        parameters_rounding: Level of rounding in them.
    """

    t: Float[np.ndarray, " n"]
    estimate: Float[np.ndarray, "n d"]
    bound: Float[np.ndarray, " n"]
    rounding: Float[np.ndarray, "n d"]
    trusted: Bool[np.ndarray, " n"]
    relative_size: Float[np.ndarray, " d"]
    relative_rounding: Float[np.ndarray, " d"]
    unresolved: float
    glimpsed: bool
    spacing: float
    parameters: Float[np.ndarray, " q"]
    parameters_rounding: Float[np.ndarray, " q"]

    @property
    def at_rounding(self) -> Bool[np.ndarray, "n d"]:
        """Where an entry of the estimate is too close to rounding to mean anything."""
        return np.abs(self.estimate) <= _CLEAR * self.rounding

    @property
    def relative(self) -> float:
        """The largest over components of the relative L2 size; NaN if not trusted everywhere."""
        return float(np.max(self.relative_size))

    @property
    def label(self) -> str:
        """One of "estimate", "at rounding", "not resolved" and "too large to tell"."""
        if math.isfinite(self.unresolved):
            return "not resolved"
        if not self.trusted.all():
            return "too large to tell"
        # Less than a last digit is rounding, even where the level is lower: in a zero component.
        level = np.maximum(self.relative_rounding, np.finfo(float).eps)
        clear = self.relative_size > _CLEAR * level
        return "estimate" if clear.any() else "at rounding"

    def objection(self, tolerance: float) -> str:
        """Why this estimate speaks against a solution to a tolerance; empty if it does not.

        Args:
            tolerance: What the residual of each piece was to be below, relative to the state.
        """
        # However loose the tolerance, it allows no error above a tenth.
        allowed = min(_PROMISED * tolerance, 0.1)
        known = not self.glimpsed and bool(self.trusted.all())
        if self.label == "not resolved" and not (known and self._size <= allowed):
            return (
                f"the equation has a kink, jump or pulse after t = {self.unresolved:.6g} that is "
                "not resolved"
            )
        if self.label == "too large to tell":
            return f"the error is too large to tell near t = {self._first_untrusted:.6g}"
        if self._size > allowed:
            return (
                f"the error is estimated at {self._size:.1e} of the solution, "
                f"{self._size / tolerance:.0e} times the tolerance"
            )
        return ""

    @property
    def _first_untrusted(self) -> float:
        return float(self.t[np.argmin(self.trusted)])

    @property
    def _size(self) -> float:
        """The larger of estimate and rounding level, in the component where that is largest."""
        return float(np.max(np.fmax(self.relative_size, self.relative_rounding)))

    def __repr__(self) -> str:
        level = float(np.max(self.relative_rounding))
        if self.label == "not resolved":
            feature = f"the equation has a kink, jump or pulse after {self.unresolved:.6g}"
            text = f"unknown: {feature}, which the solve did not resolve"
            if not self.glimpsed and self.trusted.all():
                text = f"about {self._size:.1e}: {feature}, where no piece ends"
        elif self.label == "too large to tell":
            text = f"too large to tell near {self._first_untrusted:.6g}, and perhaps elsewhere"
        elif self.label == "at rounding":
            text = f"at rounding, about {self._size:.1e}"
        else:
            text = f"{self.relative:.1e}, rounding at {level:.1e}"
        highest = float(np.max(self.bound))
        bound = f"; bound on its norm {highest:.1e}" if math.isfinite(highest) else ""
        if math.isinf(highest) and self.trusted.all():
            bound = "; no useful bound"
        unseen = f"; features shorter than {self.spacing:.1e} are not seen"
        return f"estimated relative error {text}{bound}{unseen}"

    def _repr_html_(self) -> str:
        sizes = zip(self.relative_size, self.relative_rounding, strict=True)
        rows = [(k, f"{size:.1e}", f"{level:.1e}") for k, (size, level) in enumerate(sizes)]
        columns = ("component", "relative error", "rounding")
        return html_table(columns, rows, [repr(self)])

    def plot(self) -> "Figure":
        """Draw the size of each component's estimate, the bound and the level of rounding."""
        figure = new_figure(7, 4)
        axes = figure.subplots()
        for i in range(self.estimate.shape[1]):
            (line,) = axes.semilogy(self.t, np.abs(self.estimate[:, i]), label=f"component {i}")
            axes.semilogy(self.t, self.rounding[:, i], ":", color=line.get_color(), lw=0.8)
        if np.isfinite(self.bound).any():
            axes.semilogy(self.t, self.bound, "k--", lw=0.8, label="bound on the norm")
        axes.set(xlabel="t", ylabel="|true - computed|; dotted: rounding")
        axes.legend()
        return figure
