"""Unknowns of an equation, estimated from data."""
