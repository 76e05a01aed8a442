"""Samplers: which points of the unit cube there are, with what weights."""
