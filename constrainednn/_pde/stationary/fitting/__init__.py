"""Unknowns of an equation in space alone, estimated from data."""
