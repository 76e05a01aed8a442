"""Profile intervals of unknowns: where the least sum of squares rises by what noise explains.

Symbols::

    symbol  shape   meaning
    z       (q,)    the unknowns, in the scale in which they are trained, and numbers fitted too
    r, S            rows and their derivatives by z, both times the root of how much a row counts
    i               the unknown in question; the others follow it to the least sum of squares

Source:
    Venzon and Moolgavkar, Applied Statistics 37 (1988) 87, with the Gauss-Newton Hessian.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._problem.unknowns import Unknown, limits, reaches, units

# Ends are exact to this share of half of the interval: coverage to a third of a per cent.
_CLOSE = 0.02
_MOST_TRIES, _SHORTER = 30, 6
# So many times the number, or e-folds of it, away: rows that no longer change have no end there.
_FAR = 5.0
# Where the rows change by less than this share of the most they did, they fade.
_FADED = 1e-2
# Of a jump from next to a bound the last digits are found by the steps that follow.
_LONGEST = 100.0
# Of the noise: with so little effect one is as good as on its bound.
_FAINT = 1e-3

Rows = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Profile:
    """The sum of squares along one unknown.

    Args:
        rows: Rows and derivatives at other z; NaN where there is no solution.
        z: The estimate, with what is fitted with them.
        r: Rows at the estimate.
        S: Their derivatives.
        unknowns: How numbers follow from the first entries of z.
        fixed: Entries of z that do not follow, since they are not determined.
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

    def end(self, i: int, sign: int, rise: float) -> float:
        """Where the sum of squares has risen by `rise`, in direction `sign` of the i-th entry of z.

        Returns:
            The entry of z there; infinite if a bound comes first, or no end was found.
        """
        z, r, S, peak = self.z, self.r, self.S, 0.0
        for tried in range(_MOST_TRIES):
            with np.errstate(all="ignore"):  # what is not finite is not taken
                moved, along, over, follows = self._step(z, r, S, i, sign, rise)
            size, slope = along
            peak = max(peak, size)
            fading = size <= _FADED**2 * peak or np.isfinite(
                reaches(z[: self.known], np.full(self.known, float(sign)), self.unknowns)[i]
            )
            gone = fading and self._no_end(z, i, sign, size, slope, over, rise)
            if gone or not np.isfinite(moved).all():
                break
            length = size**0.5 * abs(moved[i])
            if tried and max(length, follows**0.5) <= _CLOSE * rise**0.5:
                return float(z[i] + moved[i])
            # Far from the end a logarithm goes as the number itself would.
            far = np.isfinite(self.limit) & (np.abs(moved) > 1)
            capped = np.minimum(np.log1p(np.abs(moved)), _LONGEST)
            moved = np.where(far, np.sign(moved) * capped, moved)
            for _ in range(_SHORTER):
                r, S = self.rows(z + moved)
                if np.isfinite(r).all() and np.isfinite(S).all():
                    break
                moved = moved / 4
            else:
                break
            z = z + moved
        return sign * np.inf

    def _step(
        self, z: np.ndarray, r: np.ndarray, S: np.ndarray, i: int, sign: int, rise: float
    ) -> tuple[np.ndarray, tuple[float, float], float, float]:
        """The step to the end as linear rows have it, and the sum of squares along its way."""
        others = ~self.fixed
        others[i] = False
        faint = np.linalg.norm(S, axis=0) <= _FAINT * rise**0.5
        while True:
            moved, slopes, over = self._linear(r, S, i, others, sign, rise)
            # One that is as good as on its bound stays there if it would go beyond.
            beyond = np.isfinite(reaches(z[: self.known], moved[: self.known], self.unknowns))
            stuck = others & faint & np.append(beyond, np.zeros(z.size - self.known, bool))
            if not stuck.any():
                break
            others = others & ~stuck
        return moved, slopes, over, float(np.sum((S[:, others] @ moved[others]) ** 2))

    def _linear(
        self,
        r: np.ndarray,
        S: np.ndarray,
        i: int,
        others: Bool[np.ndarray, " z"],
        sign: int,
        rise: float,
    ) -> tuple[np.ndarray, tuple[float, float], float]:
        """The step to the end with some others following, as linear rows have it."""
        a, B = S[:, i], S[:, others]
        back = _solved(B, np.stack([r, a], axis=1))
        across, along = r - B @ back[:, 0], a - B @ back[:, 1]
        over = float(across @ across) - self.least - rise
        size, slope = float(along @ along), float(along @ across)
        moved = np.zeros(S.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):  # where squares are out of range
            room = np.float64(slope) ** 2 - np.float64(size) * over
            moved[i] = (-slope + sign * np.sqrt(np.fmax(room, 0.0))) / size
        moved[others] = -(back[:, 0] + moved[i] * back[:, 1])
        return moved, (size, slope), over

    def stiffness(self, i: int, bound: Bool[np.ndarray, " known"]) -> float:
        """Half the second derivative of the least sum of squares, with those at bounds held."""
        others = ~self.fixed
        others[: self.known] &= ~bound
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
            unit, gone = units(self.z[: self.known], self.unknowns)[i], abs(z[i] - self.z[i])
            if gone < _FAR * unit:
                return False
            way = max(unit, gone)
        return bool(over + (2 * abs(slope) + size * way) * way <= -_CLOSE * rise)


def _solved(B: Float[np.ndarray, "N k"], right: np.ndarray) -> np.ndarray:
    """Least squares in columns of length one."""
    length = np.linalg.norm(B, axis=0)
    length = np.where(length > 0, length, 1.0)
    found = np.linalg.lstsq(B / length, right, rcond=1e-9)[0]
    return found / (length if right.ndim == 1 else length[:, None])
