"""Operators: derivatives of a model by its point, integrals, inequalities."""
