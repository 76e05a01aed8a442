"""How many equations and conditions on each side a stationary problem needs."""

from constrainednn._common.messages import counted
from constrainednn._pde.stationary.discretisation import Equations
from constrainednn._pde.stationary.region import Region
from constrainednn.errors import ProblemError


def check_order(equations: Equations, name: str) -> None:
    """Refuse what elements cannot determine.

    Raises:
        ProblemError: If equations and components differ in number, or nothing is differentiated.
    """
    d = len(equations.smooth)
    if equations.interior.equations != d:
        raise ProblemError(
            f"{name} returns {equations.interior.equations} numbers for a u of {d}: as many "
            "equations as components are needed. State the shape of u by guess=, such as "
            "guess=jnp.zeros(3)."
        )
    if not any(equations.smooth):
        raise ProblemError(f"{name} has no derivative of u: it is no differential equation.")


def check_sides(equations: Equations, region: Region, name: str) -> None:
    """Refuse sides with more or fewer conditions than an equation of even order needs.

    A component of order 2 m across a side needs m conditions there. Of an odd order, as for
    transport, it depends on the direction: see `check_characteristics`.

    Raises:
        ProblemError: Naming the side, with both numbers.
    """
    for number, face in enumerate(equations.faces):
        # Across a curve the highest order is that by any coordinate.
        curved = region.curved is not None
        orders = [max(a) if curved else a[number // 2] for a in equations.interior.highest]
        needed, given = (
            sum(k // 2 for k in orders if k % 2 == 0),
            0 if face is None else face.equations,
        )
        odd = any(k % 2 for k in orders)
        if given < needed or (given > needed and not odd):
            raise ProblemError(
                f"{name} needs {counted(needed, 'condition')} at {region.sides[number]!r}, half "
                f"the order of its derivatives across that side, and boundary states {given}."
            )
