"""How a run went: its status, settings, history and timings."""

import dataclasses
import enum

import numpy as np
from jaxtyping import PyTree

from constrainednn._problem.scheme import PieceHistory

# Lines of a history when it is printed.
_MOMENTS = 12


class Status(enum.StrEnum):
    """How a method ended; whether the statement holds is another matter, see `Verdict`."""

    CONVERGED = "converged"
    MAX_STEPS = "max_steps"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    EARLY_STOPPED = "early_stopped"
    BLOW_UP = "blow_up"
    NONFINITE = "nonfinite"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a run besides the problem.

    Attributes:
        method: The method or stages, as written.
        steps: Largest number of steps.
        seed: Seed of all streams.
        tolerance: Root of the training loss at which the run stops.
        heldout: Number of held-out points per constraint on a domain.
        monitor: Number of monitor points per constraint on a domain.
        redraw: Steps between new training draws, or None.
        dtype: Floating-point type.
        device: Platform and device kind.
        threads: CPU cores this process may use; results can differ where it does.
        versions: Versions of this package and of those it depends on.
        environment: Environment variables that JAX and the linear algebra obey, where they are set.
        problem: SHA-256 of the file the problem was loaded from and of those it imports beside
            it; empty for a problem stated in Python.
        early_stopping: True if the parameters are those of the lowest monitor loss.
        looked: How often the run went on, with a new limit of steps, after its held-out points had
            been looked at.
    """

    method: str
    steps: int
    seed: int
    tolerance: float
    heldout: int
    monitor: int
    redraw: int | None
    dtype: str
    device: str
    threads: int
    versions: dict[str, str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ""
    early_stopping: bool = False
    looked: int = 0


@dataclasses.dataclass(frozen=True)
class History:
    """Losses, models and pieces during the run.

    Attributes:
        loss: Training loss at the parameters before step 0, 1, 2, ...; the last entry, as that of
            `monitor` and `snapshots`, belongs to the parameters that were returned.
        monitor_steps: Steps at which the monitor loss was taken, log-spaced.
        monitor: Loss on monitor points at those steps; finite sets have none and count with their
            training points, so that it compares with `loss`. NaN if no constraint has any.
        snapshots: Models at a few of those steps, as pairs (step, model).
        best_step: Steps that led to the parameters that were returned.
        redraws: Steps before which new training points were drawn.
        last_draw: How many of the redraws there were before those parameters: 0 for the first draw.
        pieces: How the pieces came about, for a problem that is solved in pieces; one entry per
            experiment where there are several. `loss` and `monitor` then hold the final numbers
            only.
    """

    loss: np.ndarray
    monitor_steps: np.ndarray
    monitor: np.ndarray
    snapshots: tuple[tuple[int, PyTree], ...]
    best_step: int
    redraws: tuple[int, ...] = ()
    last_draw: int = 0
    pieces: PieceHistory | tuple[PieceHistory, ...] | None = None

    def ended(self, step: int, loss: float, monitor: float, model: PyTree) -> "History":
        """With the last entries, those of the parameters that are returned after `step` steps."""
        # What was reached last may not be what is returned.
        before = self.monitor_steps < step
        return dataclasses.replace(
            self,
            loss=np.append(self.loss, loss),
            monitor_steps=np.append(self.monitor_steps[before], step),
            monitor=np.append(self.monitor[before], monitor),
            snapshots=(*(item for item in self.snapshots if item[0] < step), (step, model)),
        )

    def __repr__(self) -> str:
        """A dozen moments, whatever the number of steps."""
        watched = dict(zip(self.monitor_steps.tolist(), self.monitor.tolist(), strict=True))
        steps = sorted(watched)
        some = np.unique(np.linspace(0, len(steps) - 1, _MOMENTS).round().astype(int))
        lines = ["  step  train loss  monitor loss"]
        for step in [steps[i] for i in some] if steps else []:
            # Of a problem in pieces only the end is kept.
            loss = float(self.loss[min(step, len(self.loss) - 1)])
            lines.append(f"{step:6}  {loss:10.3g}  {watched[step]:12.3g}")
        best = f"the best is step {self.best_step}"
        return "\n".join([*lines, f"{best}, {len(self.redraws)} redraws; arrays: .loss, .monitor"])


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds spent: compiling (first calls), running steps, measuring the gap."""

    compile: float
    run: float
    report: float
