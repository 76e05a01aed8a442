"""Profile intervals of unknowns: where the least sum of squares rises by what noise explains.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained, and what is fitted besides
    r, S            rows and their derivatives by z, both times the root of how much a row counts
    i               the unknown in question; the others follow it to the least sum of squares

Source:
    Venzon and Moolgavkar, Applied Statistics 37 (1988) 87, with the Gauss-Newton Hessian.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._unknowns import Unknown, limits, reaches, units

# Ends are exact to this share of half of the interval: coverage to a third of a per cent.
_CLOSE = 0.02
_MOST_TRIES, _SHORTER = 30, 6
# So many times the number, or e-folds of it, from the estimate there is no end.
_FAR = 35.0

Rows = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Profile:
    """The sum of squares along one unknown.

    Args:
        rows: Rows and derivatives at other z; NaN where there is no solution.
        z: The estimate, with what is fitted besides.
        r: Rows at the estimate.
        S: Their derivatives.
        unknowns: How numbers follow from the first entries of z.
        fixed: Entries of z that do not follow: those at their bounds, and what is not determined.
    """

    def __init__(
        self,
        rows: Rows,
        z: Float[np.ndarray, " q"],
        r: Float[np.ndarray, " N"],
        S: Float[np.ndarray, "N q"],
        unknowns: dict[str, Unknown],
        *,
        fixed: Bool[np.ndarray, " q"],
    ):
        self.rows, self.z, self.r, self.S = rows, z, r, S
        self.unknowns, self.fixed, self.least = unknowns, fixed, float(r @ r)
        self.known = limits(unknowns).size
        self.limit = np.concatenate([limits(unknowns), np.full(z.size - self.known, np.inf)])

    def end(self, i: int, sign: int, rise: float) -> tuple[float, str]:
        """Where the sum of squares has risen by `rise`, in direction `sign` of the i-th entry of z.

        Returns:
            The entry of z there, infinite if a bound comes first or nothing does, and a label.
        """
        z, r, S = self.z, self.r, self.S
        others = ~self.fixed
        others[i] = False
        for tried in range(_MOST_TRIES):
            a, B = S[:, i], S[:, others]
            back = _solved(B, np.stack([r, a], axis=1))
            across, along = r - B @ back[:, 0], a - B @ back[:, 1]
            over = float(across @ across) - self.least - rise
            size, slope = float(along @ along), float(along @ across)
            if self._no_end(z, i, sign, size, slope, over, rise):
                return sign * np.inf, ""
            if size == 0:
                break
            step = (-slope + sign * np.sqrt(max(slope**2 - size * over, 0.0))) / size
            moved = np.zeros(z.size)
            moved[i] = step
            moved[others] = -(back[:, 0] + step * back[:, 1])
            follows = float(np.sum((B @ moved[others]) ** 2))
            if tried and max(size * step**2, follows) <= _CLOSE**2 * rise:
                return z[i] + step, ""
            # Far from the end a logarithm goes as the number itself would.
            far = np.isfinite(self.limit) & (np.abs(moved) > 1)
            moved = np.where(far, np.sign(moved) * np.log1p(np.abs(moved)), moved)
            for _ in range(_SHORTER):
                r, S = self.rows(z + moved)
                if np.isfinite(r).all() and np.isfinite(S).all():
                    break
                moved = moved / 4
            else:
                return z[i], "not solved at an end"
            z = z + moved
        return z[i], "an end not found"

    def stiffness(self, i: int) -> float:
        """Half the second derivative of the least sum of squares by the i-th entry, at z."""
        others = ~self.fixed
        others[i] = False
        a, B = self.S[:, i], self.S[:, others]
        return float(np.sum((a - B @ _solved(B, a)) ** 2))

    def _no_end(
        self, z: np.ndarray, i: int, sign: int, size: float, slope: float, over: float, rise: float
    ) -> bool:
        """True if the rows hardly change from here to the bound, or any further."""
        known = z[: self.known]
        way = reaches(known, np.full(known.size, float(sign)), self.unknowns)[i]
        if np.isinf(way):
            if abs(z[i] - self.z[i]) < _FAR * units(self.z[: self.known], self.unknowns)[i]:
                return False
            way = max(1.0, abs(z[i] - self.z[i]))
        return bool(over + (2 * abs(slope) + size * way) * way <= -_CLOSE * rise)


def _solved(B: Float[np.ndarray, "N k"], right: np.ndarray) -> np.ndarray:
    """Least squares in columns of length one."""
    length = np.linalg.norm(B, axis=0)
    length = np.where(length > 0, length, 1.0)
    found = np.linalg.lstsq(B / length, right, rcond=1e-9)[0]
    return found / (length if right.ndim == 1 else length[:, None])
