"""Partial differential equations: the statement, and its solution by elements in space and time."""
