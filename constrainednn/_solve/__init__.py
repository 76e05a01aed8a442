"""Solving: problem files, drivers, going on with a run."""
