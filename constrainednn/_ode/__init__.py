"""Ordinary differential equations: statements, brought to pieces."""
