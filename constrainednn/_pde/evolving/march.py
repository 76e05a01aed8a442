"""The march in the plane: window after window, each a problem on boxes of (t, x, y).

A window is solved as an equation in space is: the time is one coordinate more, with the state as
the condition on its first side and none on its last one.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from constrainednn._pde.evolving.start import from_state, held_in_time
from constrainednn._pde.stationary.discretisation import Discretisation, tails
from constrainednn._pde.stationary.mesh import Mesh
from constrainednn._pde.stationary.rounds import Rounds

# A window is planned for this share of the tolerance.
_PLANNED = 0.3
# Elements of a window at most: their matrices fit in some gigabytes.
MOST_ELEMENTS = 128
# Elements with less than this share of the largest residual are not divided.
_SPOILT = 0.3


class Solved(NamedTuple):
    """A window that was accepted.

    Attributes:
        stop: Time of its end.
        mesh: Its elements.
        c: Coefficients.
        error: What was compared with the tolerance.
        steps: Newton steps.
    """

    stop: float
    mesh: Mesh
    c: Float[np.ndarray, "N n d"]
    error: float
    steps: int


@dataclasses.dataclass
class March:
    """Where a march got to.

    Attributes:
        disc: Polynomials and places.
        linear: True if one step solves a window.
        order: Order in time.
        low: Lower corners of the elements in the plane.
        high: Upper corners.
        state: From a point to values and derivatives by time where the windows end.
        ended: From a window to such a state at its end.
        t: That time.
        h: Length of the next window.
        end: Where to go.
        tolerance: Largest error of a window relative to the largest size of u so far.
        size: That size.
        windows: Those that were accepted.
        rejected: Attempts that were given up.
        taken: Newton steps of all attempts.
        why: What was wrong with the last attempt that was given up.
        where: The place where it was worst.
    """

    disc: Discretisation
    linear: bool
    order: int
    low: Float[np.ndarray, "N 2"]
    high: Float[np.ndarray, "N 2"]
    state: Callable
    ended: Callable[[Mesh, np.ndarray], Callable]
    t: float
    h: float
    end: float
    tolerance: float
    size: float = 0.0
    windows: list[Solved] = dataclasses.field(default_factory=list)
    rejected: int = 0
    taken: int = 0
    why: str = ""
    where: tuple[float, ...] = (np.nan, np.nan)

    def run(self, steps: int, look: Callable[["March"], bool]) -> str:
        """Go to the end: "end", "steps", "stopped", "shrunk" or "elements"."""
        while self.t < self.end:
            self._attempt(steps)
            if look(self):
                return "stopped"
            if self.taken >= steps:
                return "steps" if self.t < self.end else "end"
            if self.h <= 64 * np.finfo(float).eps * max(abs(self.t), abs(self.end - self.t)):
                return "shrunk"
            if len(self.low) > MOST_ELEMENTS:
                return "elements"
        return "end"

    def _attempt(self, steps: int) -> None:
        left = self.end - self.t
        # A last window a little longer than planned is better than a sliver after it.
        h = left if self.h > left / 1.1 else self.h
        stop = self.end if h == left else self.t + h
        rounds = self._rounds(self.t, stop)
        before = rounds.taken
        ending = rounds.solve_once(max(1, steps - self.taken))
        self.taken += max(1, rounds.taken - before)
        if ending == "steps":
            return  # which says nothing against the window: it is begun again where the run goes on
        if ending or rounds.unsolved:
            reasons = {
                "singular": "the equation and its conditions do not determine u there",
                "nonfinite": "the equation is NaN or infinite there",
            }
            self.why = reasons.get(ending, "Newton's method does not converge there")
            self.rejected, self.h = self.rejected + 1, 0.3 * h
            return
        rounds.watch()
        size = max(self.size, rounds.size) or 1.0
        local = rounds.local / size
        error = float(np.linalg.norm(local))
        fall = tails(rounds.c, self.disc.width, 3)
        spatial = fall[:, 1:] >= np.maximum(fall[:, :1], 0.1 * fall.max(axis=1, keepdims=True))
        timely = float(np.linalg.norm(local[~spatial.any(axis=1)]))
        if not error <= self.tolerance:
            self._give_up(h, rounds, local, spatial, timely)
            return
        self.size = max(self.size, rounds.size)
        self.windows.append(Solved(stop, rounds.mesh, rounds.c, error, rounds.taken - before))
        self.state, self.t = self.ended(rounds.mesh, rounds.c), stop
        longer = h * min(2.5, max(0.5, self._factor(_PLANNED, timely)))
        # What the end cut short says nothing against the length that was planned.
        self.h = max(longer, self.h) if h < self.h else longer

    def _rounds(self, t: float, stop: float) -> Rounds:
        return window(self.disc, self.linear, self.order, self.low, self.high, self.state, t, stop)

    def _factor(self, planned: float, error: float) -> float:
        power = 1 / self.disc.width
        return 0.8 * (self.tolerance * planned / max(error, 1e-300)) ** power

    def _give_up(
        self,
        h: float,
        rounds: Rounds,
        local: Float[np.ndarray, " N"],
        spatial: Bool[np.ndarray, "N 2"],
        timely: float,
    ) -> None:
        self.rejected += 1
        error = float(np.linalg.norm(local))
        self.why = f"the residual is {error:.1e} of u there"
        self.where = tuple(rounds.worst[1:].tolist())
        if not np.isfinite(error):
            self.h = 0.3 * h
            return
        bad = local > max(0.5 * self.tolerance / np.sqrt(len(local)), _SPOILT * local.max())
        across = bad[:, None] & spatial
        if timely > 0.5 * error or not across.any():
            self.h = h * max(0.3, min(0.8, self._factor(1.0, error)))
        if across.any():
            flat = Mesh(self.low, self.high)
            divided, _ = flat.divided(across)
            self.low, self.high = divided.low, divided.high


def window(
    disc: Discretisation,
    linear: bool,
    order: int,
    low: Float[np.ndarray, "N 2"],
    high: Float[np.ndarray, "N 2"],
    state: Callable,
    t: float,
    stop: float,
) -> Rounds:
    """A window that is yet to be solved, with a state that stays as the first guess."""
    first, last = (np.full((len(low), 1), time) for time in (t, stop))
    mesh = Mesh(np.concatenate([first, low], axis=1), np.concatenate([last, high], axis=1))
    disc = dataclasses.replace(disc, equations=from_state(disc.equations, state, order))
    d = len(disc.equations.smooth)
    nothing = np.zeros((len(low), disc.width**3, d))
    c = nothing if linear else held_in_time(state, mesh, disc.width)
    return Rounds(disc, mesh, c, 0.0, {} if linear else None)
