"""Operators: derivatives of a model by its point, integrals, inequalities."""

from constrainednn.operators.derivatives import (
    derivative,
    divergence,
    jacobian,
    laplacian,
    normal_derivative,
    partial,
    taylor,
)
from constrainednn.operators.residual_terms import at_least, at_most, gradient_enhanced, integral

__all__ = [
    "at_least",
    "at_most",
    "derivative",
    "divergence",
    "gradient_enhanced",
    "integral",
    "jacobian",
    "laplacian",
    "normal_derivative",
    "partial",
    "taylor",
]
