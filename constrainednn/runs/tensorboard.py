"""Sinks: where the numbers of a running solve may go besides its own folder."""

import math
from collections.abc import Callable
from pathlib import Path


class TensorBoard:
    """Writes training and monitor loss for TensorBoard, through tensorboardX.

    Args:
        path: Folder for the event files, made at the first numbers. `tensorboard --logdir` shows
            it.

    Raises:
        ModuleNotFoundError: If tensorboardX is not installed, with the line that installs it.
    """

    def __init__(self, path: str | Path):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "TensorBoard needs tensorboardX: pip install 'constrainednn[tensorboard]'."
            ) from None
        self._open: Callable[[], SummaryWriter] = lambda: SummaryWriter(str(path), flush_secs=5)
        self._writer: SummaryWriter | None = None

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write the losses as scalars; what is not finite has no place in a figure."""
        if self._writer is None:
            self._writer = self._open()
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"loss/{name}", value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
