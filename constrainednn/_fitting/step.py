"""One damped Gauss-Newton step for the unknowns of an equation.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows that the solution reaches, divided by the largest of them
    S       (N, q)  dr/dz
    unit    (q,)    changes of z that change the numbers by their own size
    scale   (q,)    largest length of the columns so far

Source:
    Damping and scaled columns: More, LNM 630 (1977) 105. Convergence by relative offset: Bates and
    Watts, Technometrics 23 (1981) 179.
"""

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import Unknown, limits, reaches, units

# The size of an unknown that is zero: it contributes this fraction of the rows.
_VISIBLE = 1e-3
# A bound is tried if a step onto it would lower the sum of squares by less than this fraction, and
# kept if the decrease agrees with the linear prediction to the second.
_NEAR_BOUND, _LINEAR = 1e-2, 0.1
# How much closer to the bound: the remaining distance does not affect the rows.
_ONTO = np.log(1e8)
# If no step improves, the fit has converged at a relative offset (in standard errors) below this.
_STATIONARY = 1e-4
# A column this many times shorter than it once was is hidden by its scale.
_SHADOW = 10.0


class Linearised:
    """Rows linearised at some unknowns, and the step that follows.

    Args:
        r: Rows, NaN where the solution does not reach.
        S: Their derivatives.
        z: The unknowns.
        unknowns: How the numbers depend on z.
        scale: Largest lengths of the columns so far, zero for none.
        held: Unknowns that are fixed at a bound.
        eps: Unit round-off of the rows.
    """

    def __init__(
        self,
        r: Float[np.ndarray, " N"],
        S: Float[np.ndarray, "N q"],
        z: Float[np.ndarray, " q"],
        unknowns: dict[str, Unknown],
        *,
        scale: Float[np.ndarray, " q"],
        held: Bool[np.ndarray, " q"],
        eps: float,
    ):
        reached = np.isfinite(r)
        self.row_scale = float(np.abs(r[reached]).max()) or 1.0  # so that squares do not overflow
        self.reached, self.z, self.unknowns, self.eps = reached, z, unknowns, eps
        self.r, self.S = r[reached] / self.row_scale, S[reached] / self.row_scale
        self.rss = float(self.r @ self.r)
        self.unit, self.limit = units(z, unknowns), limits(unknowns)
        self.length = length = np.linalg.norm(self.S, axis=0)
        self.scale = np.maximum(self.row_scale * length, scale)
        self.score = self.r @ self.S
        # How much the rows vary with the unknowns, and the size against which a change is visible.
        self.rows = float(np.linalg.norm(length * self.unit))
        self.visible = max(self.rows, self.rss**0.5)
        # An unknown whose change only affects the rounding of the rows is not changed.
        effect = length * self.unit
        self.insensitive = (length == 0) | ((self.unit > 0) & (effect <= 1e3 * eps * self.visible))
        # Held only as long as the rows pull towards the bound.
        self.held = held & np.isfinite(reaches(z, -np.sign(self.score), unknowns))
        self.insensitive &= ~self.held
        still = self.insensitive | self.held
        self.columns = np.where(still, np.inf, self.scale / self.row_scale)
        self.sizes = np.maximum(self.unit, _VISIBLE * self.visible / self.columns)
        U, self._s, self._Vt = np.linalg.svd(self.S / self.columns, full_matrices=False)
        self._g = U.T @ self.r
        # Scaled by the present lengths: a column that once was long must not hide the gradient.
        U, s, _ = np.linalg.svd(self.S / np.where(still, np.inf, length), full_matrices=False)
        along = (U.T @ self.r)[s > eps**0.6 * s[0]]
        # Fraction of the rows that a step can still remove: the cosine with the tangent plane.
        self.offset = float(np.linalg.norm(along) / (self.rss**0.5 or 1.0))

    def step(self, damping: float) -> tuple[Float[np.ndarray, " q"], float]:
        """The damped step, cut so that no number changes more than tenfold, and its damping."""
        while True:
            step = -self._Vt.T @ (self._s * self._g / (self._s**2 + damping)) / self.columns
            cut = np.clip(step, -self.limit, self.limit)
            # With enough damping, even a step that is cut descends.
            if self.predicted(cut) > 0 or (cut == step).all():
                return cut, damping
            damping *= 4

    def predicted(self, step: Float[np.ndarray, " q"]) -> float:
        """Decrease of the sum of squares if the rows were linear."""
        change = self.S @ step
        return float(-(2 * self.r + change) @ change)

    def tiny(self, step: Float[np.ndarray, " q"]) -> bool:
        """True if the step is at the rounding of the unknowns or of the rows."""
        return bool(np.all(np.abs(step) <= self.eps**0.6 * self.sizes))

    def ended(self, *, tiny: bool, better: bool, undamped: bool, noise: float) -> bool:
        """True if the fit has converged: stationary up to the noise of the solutions."""
        length = self.rss**0.5
        exact = length <= max(self.eps**0.6, noise) * self.rows
        if self.offset <= self.eps**0.5 or (tiny and (exact or undamped)):
            return True
        # No step improves: then the predicted gain must be too small to be visible.
        hidden = self.offset**2 * length <= 10 * noise * self.visible
        return not better and (hidden or (tiny and self.offset <= _STATIONARY))

    @property
    def shadowed(self) -> bool:
        """True if the rows can still be reduced, but columns that once were long hide it."""
        free = ~(self.insensitive | self.held)
        longer = self.scale > _SHADOW * self.row_scale * self.length
        return self.offset > _STATIONARY and bool((longer & free).any())

    def near_bounds(self) -> tuple[Float[np.ndarray, " q"], float]:
        """A step onto the bounds that are almost reached, and its gain; zeros for none."""
        sign = -np.sign(self.score)
        reach = reaches(self.z, sign, self.unknowns)
        gain = 2 * np.abs(self.score) * reach
        free = ~(self.held | self.insensitive)
        # Where the rows curve back before the bound, the minimum lies inside; where they begin to,
        # the gain would not agree with the prediction.
        downhill = _LINEAR * gain >= (self.length * reach) ** 2
        near = free & downhill & (gain <= _NEAR_BOUND * self.rss)
        return np.where(near, sign * _ONTO, 0.0), float(np.sum(gain[near]))

    def is_bound(self, gain: float, expected: float) -> bool:
        """True if the rows are linear up to the bound, so that the minimum is there."""
        noise = 10 * self.eps * self.rss
        return abs(gain - expected) <= _LINEAR * expected + noise
