"""The march: window after window, each as long and with as many elements as its residual allows."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from constrainednn._pde.elements.basis import conforming
from constrainednn._pde.elements.discretisation import Discretisation, Span, at_start
from constrainednn._pde.elements.mesh import State
from constrainednn._pde.elements.monitor import size_of, state_at_end, watched
from constrainednn._pde.elements.window import newton_step

# Newton steps of a window. A window that needs more is too long.
_STEPS = 8
# A window is planned for this share of the tolerance; elements above the same share of theirs are
# halved before they fail, and those below the other are joined.
_PLANNED, _EASY = 0.3, 0.02
# Elements at most: with more, rows and memory say that the solution is not resolved.
MOST_ELEMENTS = 1000


class Solved(NamedTuple):
    """A window that was accepted.

    Attributes:
        stop: Time of its end.
        edges: Ends of its elements.
        c: Coefficients.
        error: What was compared with the tolerance.
        steps: Newton steps.
    """

    stop: float
    edges: Float[np.ndarray, " E_1"]
    c: Float[np.ndarray, "E Kt Kx d"]
    error: float
    steps: int


@dataclasses.dataclass
class March:
    """Where a march got to.

    Attributes:
        disc: The discretisation.
        state: State where the windows end.
        t: That time.
        h: Length of the next window.
        end: Where to go.
        tolerance: Largest error of a window relative to the largest size of u so far.
        size: Largest size of u so far; what is nothing beside it need not be resolved.
        windows: Those that were accepted.
        rejected: Attempts that were given up.
        taken: Newton steps of all attempts.
        why: What was wrong with the last attempt that was given up.
        where: The place where it was worst.
    """

    disc: Discretisation
    state: State
    t: float
    h: float
    end: float
    tolerance: float
    size: float
    windows: list[Solved] = dataclasses.field(default_factory=list)
    rejected: int = 0
    taken: int = 0
    why: str = ""
    where: float = np.nan

    def run(self, steps: int, look: Callable[["March"], bool]) -> str:
        """Go to the end: "end", "steps", "stopped", "shrunk" or "elements"."""
        while self.t < self.end:
            self._attempt()
            if look(self):
                return "stopped"
            if self.taken >= steps:
                return "steps" if self.t < self.end else "end"
            if self.h <= 64 * np.finfo(float).eps * max(abs(self.t), abs(self.end - self.t)):
                return "shrunk"
            if len(self.state.S) > MOST_ELEMENTS:
                return "elements"
        return "end"

    def _attempt(self) -> None:
        left = self.end - self.t
        # A last window a little longer than planned is better than a sliver after it.
        h = left if self.h > left / 1.1 else self.h
        span, E = Span(self.t, h), len(self.state.S)
        disc = at_start(self.disc, span, self.state.edges, self._guess())
        try:
            c, steps = self._newton(disc, span)
        except np.linalg.LinAlgError:
            self.why = "the equation and its conditions do not determine u there"
            c, steps = None, 1
        self.taken += steps
        if c is None:
            self.rejected += 1
            self.h = 0.3 * h
            return
        seen = watched(disc, span, self.state, c)
        lengths = self.state.lengths
        size = max(self.size, self.state.size, size_of(c, lengths))
        share = np.sqrt(lengths / lengths.sum()) / (size or 1.0)
        local = np.hypot(seen.residual, seen.start) * share
        error = float(np.hypot(np.sqrt((local**2).sum()), seen.boundary / (size or 1.0)))
        in_space = seen.tail_x > seen.tail_t
        if not error <= self.tolerance:
            self._give_up(h, local, error, in_space)
            return
        self.size = size
        stop = self.end if h == left else self.t + h
        self.windows.append(Solved(stop, self.state.edges, c, error, steps))
        self.state, self.t = state_at_end(self.disc, h, self.state.edges, c), stop
        timely, spatial = (np.sqrt((local[which] ** 2).sum()) for which in (~in_space, in_space))
        easy = timely + spatial < 0.1 * self.tolerance
        factor = self._factor(_PLANNED, timely)
        longer = h * min(2.5 if easy else 1.5, max(0.5, factor))
        # What the end cut short says nothing against the length that was planned.
        self.h = max(longer, self.h) if h < self.h else longer
        one = self.tolerance / np.sqrt(E)
        hard = in_space & (local > _PLANNED * one)
        if hard.any():
            self.state = self.state.split(hard)
        else:
            self.state = self.state.merge(local < _EASY * one, 0.01 * self.tolerance * size)

    def _factor(self, planned: float, error: float) -> float:
        power = 1 / (self.disc.shape[0] + 1)
        return 0.8 * (self.tolerance * planned / max(error, 1e-300)) ** power

    def _newton(self, disc: Discretisation, span: Span) -> tuple[np.ndarray | None, int]:
        c, last = self._guess(), np.inf
        for step in range(1, _STEPS + 1):
            change = -c
            c = newton_step(disc, span, self.state, c)
            change += c
            size = float(np.sqrt((change**2).sum() / max((c**2).sum(), np.finfo(float).tiny)))
            if not np.isfinite(size):
                self.why = "the equation is NaN or infinite there"
                return None, step
            if size < 1e-9 or (step > 2 and size > 0.3 * last and size < 1e-5):
                return c, step
            last = size
        self.why = "Newton's method does not converge there"
        return None, _STEPS

    def _guess(self) -> Float[np.ndarray, "E Kt Kx d"]:
        """The start, at all times: in the space of continuous traces, which no step leaves."""
        eqs, S = self.disc.equations, self.state.S
        start = conforming(S[:, :1], self.state.edges, eqs.k, eqs.periodic)
        c = np.zeros((len(S), *self.disc.shape, S.shape[3]))
        c[:, 0] = np.sqrt(2) * start[:, 0]
        return c

    def _give_up(self, h: float, local: np.ndarray, error: float, in_space: np.ndarray) -> None:
        self.rejected += 1
        self.why = f"the residual is {error:.1e} of u there"
        worst = int(np.argmax(np.nan_to_num(local, nan=np.inf)))
        self.where = float(self.state.edges[worst : worst + 2].mean())
        bad = local > 0.5 * self.tolerance / np.sqrt(len(local))
        split = bad & in_space
        timely = float((local[bad & ~in_space] ** 2).sum())
        if timely > 0.2 * error**2 or not split.any():
            self.h = h * max(0.3, min(0.8, self._factor(1.0, error)))
        if split.any():
            self.state = self.state.split(split)


def status_of(
    ending: str, steps: int, sizes: list[int], most: int, at: tuple[float, str, str]
) -> tuple[str, str]:
    """Status and reason of a march, over an interval or in the plane.

    Args:
        ending: What `run` returned.
        steps: The limit of Newton steps.
        sizes: Numbers of elements of the windows.
        most: The most elements that a window may have.
        at: The time that was reached, the worst place, and what was wrong there.
    """
    t, where, why = at
    if ending == "stopped":
        return "interrupted", f"at t = {t:.9g}"
    if ending == "steps":
        return "max_steps", f"the limit of {steps} Newton steps, at t = {t:.9g}"
    if ending == "end":
        return (
            "converged",
            f"the end is reached in {len(sizes)} windows of at most {max(sizes)} elements",
        )
    if ending == "elements":
        return "stalled", (
            f"more than {most} elements are needed at t = {t:.9g}, the smallest near {where}: a "
            "front too steep, a shock, or start and boundary values that do not fit. The solution "
            "up to there is kept"
        )
    return (
        "blow_up",
        f"windows shrank to rounding at t = {t:.9g}, near {where}: {why}. The solution up to there "
        "is kept",
    )
