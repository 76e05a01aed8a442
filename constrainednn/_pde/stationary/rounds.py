"""Rounds of solving and dividing, until residuals at monitor points are within the tolerance."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from constrainednn._pde.stationary.constants import balanced, centred
from constrainednn._pde.stationary.curved.watching import root_mean_squares, watched_within
from constrainednn._pde.stationary.discretisation import Discretisation, tails, watched
from constrainednn._pde.stationary.mesh import MOST_ELEMENTS, Mesh
from constrainednn._pde.stationary.system import Known, System, restricted
from constrainednn._pieces.gauss_newton import advance, begun

# Newton steps of a round at most.
_STEPS = 30
# Share of the allowed residual that elements which are not divided may have together.
_LEFT = 0.5
# Elements with less than this share of the largest residual wait: they may only be spoilt by it.
_SPOILT = 0.3
# One in so many monitor places lies close to an edge of its element.
_NEAR_EDGE = 3
# An element is halved across all axes along which its polynomials fall as slowly as this.
_SLOW = 0.1
# Rounds in a row that may leave a residual below so much as it was, before rounding is taken for
# the reason; and those in which Newton's method may not converge.
_PATIENCE, _ROUNDED = 4, 1e-6
# Share of a residual that is little beside what data that do not balance make of it.
_LITTLE = 0.03


@dataclasses.dataclass
class Rounds:
    """Where the solve got to.

    Attributes:
        disc: Polynomials and places.
        mesh: Elements.
        c: Coefficients.
        allowed: Residual relative to the size of u that ends the solve.
        taken: Newton steps so far, of all rounds.
        count: Rounds so far.
        known: What is left of elements of a linear equation, else None.
        local: Residual of each element in the last round, as in `watched`.
        unsolved: Rounds in a row in which Newton's method did not converge.
        balance: What was added to the equation whose data must balance, see `constants.py`.
        contradicted: Rounds in a row in which they did not, and nothing else was wrong.
        size: Root mean square of u in the last round, of elements that are cut within the region.
    """

    disc: Discretisation
    mesh: Mesh
    c: Float[np.ndarray, "N n d"]
    allowed: float
    known: Known | None = None
    taken: int = 0
    count: int = 0
    local: Float[np.ndarray, " N"] = dataclasses.field(default_factory=lambda: np.zeros(0))
    unsolved: int = 0
    balance: float = 0.0
    contradicted: int = 0
    size: float = 0.0

    @property
    def error(self) -> float:
        """Residual of all, relative to the size of u."""
        total = float(np.linalg.norm(self.local))
        return total / max(self.size, np.finfo(float).tiny) if self.count else math.nan

    def run(self, steps: int, look: Callable[["Rounds"], bool]) -> str:
        """Solve, divide, solve; how it ended."""
        errors: list[float] = []
        while True:
            ending = self.solve_once(steps)
            self.watch()
            errors.append(self.error)
            if look(self):
                return "stopped"
            if ending:
                return ending
            if self.error <= self.allowed and not self.unsolved:
                return "end"
            recent = errors[-_PATIENCE - 1 :]
            if len(errors) > _PATIENCE and min(recent) < _ROUNDED and min(recent) > recent[0] / 2:
                return "rounding"
            if self.taken >= steps:
                return "steps"
            self.contradicted = self.contradicted + 1 if self._contradicted() else 0
            if self.contradicted > 1:
                return "contradiction"
            across = self._across()
            if len(self.mesh.low) + int(across.any(axis=1).sum()) > MOST_ELEMENTS:
                return "elements"
            before = self.mesh
            self.mesh, parent = before.divided(across)
            self.c = restricted(self.c, before, self.mesh, parent, self.disc.width)

    def watch(self) -> None:
        """Look at the residual and at the size of u."""
        self.local = self._watched(self.disc)
        self.size = float(np.linalg.norm(root_mean_squares(self.mesh, self.disc.width, self.c)))
        self.count += 1

    def _watched(self, disc: Discretisation) -> Float[np.ndarray, " N"]:
        with np.errstate(all="ignore"):
            look = watched if self.mesh.region is None else watched_within
            return look(disc, self.mesh, self.c)

    def _contradicted(self) -> bool:
        """Whether all but little of the residual is that data do not balance."""
        if not self.balance or self.unsolved:
            return False
        left = self._watched(balanced(self.disc, self.balance))
        return float(np.linalg.norm(left)) < _LITTLE * float(np.linalg.norm(self.local))

    def solve_once(self, steps: int) -> str:
        """Newton steps on the present mesh; empty, or why they ended early."""
        system = System(self.disc, self.mesh, self.known)
        if self.known is not None:
            try:
                self.c = self._centred(system.solve())
            except np.linalg.LinAlgError:
                return "singular"
            self.taken, self.balance = self.taken + 1, system.balance
            return "" if np.isfinite(self.c).all() else "nonfinite"
        at = begun(jnp.asarray(self.c), notes=None)
        limit = min(_STEPS, steps - self.taken)
        try:
            while at.unfinished and at.steps < limit:
                at = advance(system.propose, at)
        except np.linalg.LinAlgError:
            return "singular"
        finally:
            self.taken += int(at.steps)
        self.c, self.balance = self._centred(np.asarray(at.unknowns, float)), system.balance
        if not np.isfinite(self.c).all():
            return "nonfinite"
        if self.taken >= steps and not at.solved:
            return "steps"
        # On elements that are too large there may be no solution: they are divided, some times.
        self.unsolved = 0 if at.solved else self.unsolved + 1
        return "stuck" if self.unsolved > _PATIENCE else ""

    def _centred(self, c: Float[np.ndarray, "N n d"]) -> Float[np.ndarray, "N n d"]:
        return centred(self.disc.equations, self.mesh, self.disc.width, c)

    def _across(self) -> np.ndarray:
        """Across which axes each element is halved."""
        local = np.nan_to_num(self.local, nan=np.inf)
        # As few as leave half of what is allowed in all the others.
        order = np.argsort(local)
        rest = np.sqrt(np.cumsum(local[order] ** 2))
        bad = np.empty(len(local), bool)
        bad[order] = rest > _LEFT * self.allowed * self.size
        bad &= local >= _SPOILT * local.max()
        slow = tails(self.c, self.disc.width, self.disc.dim)
        slow = slow >= _SLOW * slow.max(axis=1, keepdims=True)
        return bad[:, None] & slow

    @property
    def worst(self) -> Float[np.ndarray, " dim"]:
        """The middle of the element with the largest residual."""
        number = int(np.argmax(np.nan_to_num(self.local, nan=np.inf)))
        return (self.mesh.low[number] + self.mesh.high[number]) / 2


def monitor_places(key: jax.Array, width: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Random places of a scaled element and of a face, a few more than there are polynomials."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    most = (width + width // 4) ** dim
    inside = rng.uniform(-1, 1, (most, dim))
    # What is abrupt just inside of an element lies between its edge and the nearest of these.
    for row in range(0, most, _NEAR_EDGE):
        distance = 10.0 ** -rng.integers(2, 8)
        inside[row, rng.integers(dim)] = rng.choice([-1, 1]) * (1 - distance)
    return inside, rng.uniform(-1, 1, (3 * width if dim > 1 else 1, dim - 1))
