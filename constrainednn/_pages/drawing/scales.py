"""Scales from values to places on a page, and their ticks."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

# Powers of ten from one tick to the next.
_STEPS = 1, 2, 3, 4, 5, 10, 20, 50, 100, 200
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Scale:
    """From values to places on the page, linear or logarithmic.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Place of the low end.
        end: Place of the high end.
        log: True for a logarithmic scale; values of zero and below have no place on it.
        names: What 0, 1, 2, ... are called, where the values are places of a list.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        values: Iterable[np.ndarray],
        ends: tuple[float, float],
        *,
        log: bool = False,
        tight: bool = False,
    ) -> "Scale | None":
        """A scale that shows all values that can be shown; None if there are none.

        It ends a little beyond them, at powers of ten where it is logarithmic; if `tight`, at them.
        """
        flat = np.concatenate([np.zeros(0), *(np.ravel(item) for item in values)])
        flat = flat[np.isfinite(flat)]
        flat = flat[flat > 0] if log else flat
        if not flat.size:
            return None
        low, high = float(flat.min()), float(flat.max())
        if log and not (tight and high > low):
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
            return cls(low, high if high > low else 10 * low, *ends, log=True)
        if tight and high > low:
            return cls(low, high, *ends, log=log)
        # A constant is a line in the middle, whatever its last digits do.
        margin = 0.05 * (high - low)
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            margin = 0.5 * max(abs(high), 1e-300)
        return cls(low - margin, high + margin, *ends)

    def at(self, values: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
        """Places of values; NaN where there is none."""
        x = np.asarray(values, float)
        if self.log:
            x = np.log10(np.where(x > 0, x, np.nan))
            low, high = math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return np.asarray(self.start + (x - low) / (high - low) * (self.end - self.start))

    def ticks(self) -> list[tuple[float, str]]:
        """Round values with their labels."""
        if self.names:
            return [(float(k), name) for k, name in enumerate(self.names)]
        if self.log:
            low = math.ceil(math.log10(self.low) - 1e-9)
            high = math.floor(math.log10(self.high) + 1e-9)
            if high - low <= 1:
                return self._between_powers()
            step = next(k for k in _STEPS if (high - low) / k <= 5)
            powers = range(step * math.ceil(low / step), high + 1, step)
            return [(10.0**n, _power(n)) for n in powers]
        span = self.high - self.low
        unit = 10.0 ** math.floor(math.log10(span / 5))
        step = next(unit * k for k in (1, 2, 2.5, 5, 10) if span / (unit * k) <= 6)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        digits = max(1, math.ceil(math.log10(max(abs(self.low), abs(self.high)) / step)) + 2)
        # A tick that is zero but for rounding is zero.
        return [(k * step, f"{k * step:.{digits}g}") for k in range(first, last + 1)]

    def _between_powers(self) -> list[tuple[float, str]]:
        """1, 2 and 5 times powers of ten, where there are few powers."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = [(k, n) for n in range(first, last + 1) for k in (1, 2, 5)]
        slack = 1e-9 * self.high
        shown = [(k, n) for k, n in values if self.low - slack <= k * 10.0**n <= self.high + slack]
        return [
            (k * 10.0**n, f"{k * 10.0**n:.3g}" if -4 < n < 5 else f"{k}·{_power(n)}")
            for k, n in shown
        ]


def _power(n: int) -> str:
    return f"10{str(n).translate(_SUPERSCRIPTS)}"
