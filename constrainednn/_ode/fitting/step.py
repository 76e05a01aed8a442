"""One damped Gauss-Newton step on the unknowns of an equation.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained
    r       (N,)    rows that the solution reaches, divided by the largest of them
    S       (N, q)  derivative of r by z
    unit    (q,)    changes of z that are as large as the numbers
    scale   (q,)    largest length of the columns so far

Source:
    Damping and scaled columns: More, LNM 630 (1977) 105. The end by relative offset: Bates and
    Watts, Technometrics 23 (1981) 179.
"""

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import Unknown, limits, reaches, units

# An unknown that is zero is as good as one that makes up this share of the rows.
_SEEN = 1e-3
# A bound is tried where going there would lower the sum of squares by less than this share, and it
# is kept if the rows are as near to linear as this.
_NEAR, _LINEAR = 1e-2, 0.1
# So much nearer to the bound: what is left of the way is nothing to the rows.
_ONTO = np.log(1e8)
# Where no step helps any more, a relative offset below this is an end: of the standard errors.
_STATIONARY = 1e-4
# A column so many times shorter than it was is hidden by its scale.
_SHADOW = 10.0


class Linearised:
    """Rows linearised at some unknowns, and what follows for a step.

    Args:
        r: Rows, NaN where the solution does not reach.
        S: Their derivatives.
        z: The unknowns.
        unknowns: How numbers follow from z.
        scale: Lengths of the columns so far, zero for none.
        held: Unknowns that lie at a bound and stay there.
        eps: Rounding of the rows.
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
        seen = np.isfinite(r)
        self.top = float(np.abs(r[seen]).max()) or 1.0  # squares of what is far off would overflow
        self.seen, self.z, self.unknowns, self.eps = seen, z, unknowns, eps
        self.r, self.S = r[seen] / self.top, S[seen] / self.top
        self.rss = float(self.r @ self.r)
        self.unit, self.limit = units(z, unknowns), limits(unknowns)
        self.length = length = np.linalg.norm(self.S, axis=0)
        self.scale = np.maximum(self.top * length, scale)
        self.score = self.r @ self.S
        # How much the rows vary by unknowns, and what of each of these would be seen in them.
        self.rows = float(np.linalg.norm(length * self.unit))
        self.visible = max(self.rows, self.rss**0.5)
        # An unknown whose change is rounding to the rows stays where it is.
        effect = length * self.unit
        self.blind = (length == 0) | ((self.unit > 0) & (effect <= 1e3 * eps * self.visible))
        # WithFixedUnknowns only as long as the rows pull to the bound.
        self.held = held & np.isfinite(reaches(z, -np.sign(self.score), unknowns))
        self.blind &= ~self.held
        still = self.blind | self.held
        self.columns = np.where(still, np.inf, self.scale / self.top)
        self.sizes = np.maximum(self.unit, _SEEN * self.visible / self.columns)
        U, self._s, self._Vt = np.linalg.svd(self.S / self.columns, full_matrices=False)
        self._g = U.T @ self.r
        # By the present lengths: a column that was long once must not hide the gradient.
        U, s, _ = np.linalg.svd(self.S / np.where(still, np.inf, length), full_matrices=False)
        along = (U.T @ self.r)[s > eps**0.6 * s[0]]
        # Share of the rows that a step can still lower: the cosine with the tangent plane.
        self.offset = float(np.linalg.norm(along) / (self.rss**0.5 or 1.0))

    def step(self, damping: float) -> tuple[Float[np.ndarray, " q"], float]:
        """The damped step, cut so that no number changes more than tenfold, and its damping."""
        while True:
            step = -self._Vt.T @ (self._s * self._g / (self._s**2 + damping)) / self.columns
            cut = np.clip(step, -self.limit, self.limit)
            # Damped enough, a step that is cut goes downhill.
            if self.predicted(cut) > 0 or (cut == step).all():
                return cut, damping
            damping *= 4

    def predicted(self, step: Float[np.ndarray, " q"]) -> float:
        """Decrease of the sum of squares if the rows were linear."""
        change = self.S @ step
        return float(-(2 * self.r + change) @ change)

    def tiny(self, step: Float[np.ndarray, " q"]) -> bool:
        """True if the step is rounding to the unknowns or to the rows."""
        return bool(np.all(np.abs(step) <= self.eps**0.6 * self.sizes))

    def ended(self, *, tiny: bool, better: bool, undamped: bool, noise: float) -> bool:
        """True if nothing is left to gain: stationary up to the noise of the solutions."""
        length = self.rss**0.5
        exact = length <= max(self.eps**0.6, noise) * self.rows
        if self.offset <= self.eps**0.5 or (tiny and (exact or undamped)):
            return True
        # No step is better: then what was predicted must be too little to be seen.
        hidden = self.offset**2 * length <= 10 * noise * self.visible
        return not better and (hidden or (tiny and self.offset <= _STATIONARY))

    @property
    def shadowed(self) -> bool:
        """True if the rows can still be lowered, and columns that were long once hide it."""
        free = ~(self.blind | self.held)
        longer = self.scale > _SHADOW * self.top * self.length
        return self.offset > _STATIONARY and bool((longer & free).any())

    def near_bounds(self) -> tuple[Float[np.ndarray, " q"], float]:
        """A step onto the bounds that are as good as reached, and its gain; zeros for none."""
        sign = -np.sign(self.score)
        gain = 2 * np.abs(self.score) * reaches(self.z, sign, self.unknowns)
        free = ~(self.held | self.blind)
        near = free & (gain > 0) & (gain <= _NEAR * self.rss)
        return np.where(near, sign * _ONTO, 0.0), float(np.sum(gain[near]))

    def is_bound(self, gain: float, expected: float) -> bool:
        """True if the rows are linear all the way, so that the least sum is at the bound."""
        noise = 10 * self.eps * self.rss
        return abs(gain - expected) <= _LINEAR * expected + noise
