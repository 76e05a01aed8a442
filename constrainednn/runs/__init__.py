"""A run: its settings, its folder, what it tells and hears."""

from constrainednn.runs.listeners import Progress, Sink
from constrainednn.runs.tensorboard import TensorBoard

__all__ = ["Progress", "Sink", "TensorBoard"]
