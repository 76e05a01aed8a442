"""Solving: problem files, drivers, resuming a run."""
