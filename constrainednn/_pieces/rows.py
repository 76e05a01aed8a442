"""Rows of a residual on an element: its Jacobian for the coefficients of a local basis.

A local residual is a function of some derivatives D u at a point, so its Jacobian for the
coefficients is the sum over D of dr/d(D u) times the table of D.

Symbols::

    symbol  shape      meaning
    n       int        points of an element, of any dimension
    K       int        basis functions: of its interior, and those that belong to its nodes
    e, d    int        equations; components of u
"""

from collections.abc import Sequence

from jaxtyping import Float

from constrainednn._pieces.condensation import Numbers


def by_coefficients(
    slopes: Sequence[Float[Numbers, "_ e d"]],
    tables: Sequence[Float[Numbers, "n K"]],
) -> Float[Numbers, "n e K d"]:
    """Derivative of the residual at the points by the coefficients of each component.

    Args:
        slopes: dr/d(D u) at the points, or the same at all of them, for one D after the other.
        tables: Values of D of each basis function at the points.
    """
    terms = (
        slope[:, :, None] * table[:, None, :, None]
        for slope, table in zip(slopes, tables, strict=True)
    )
    total = next(terms)
    for term in terms:
        total = total + term
    return total
