"""Equations of `ivp` and `bvp` for a model that is trained: a network or random features."""
