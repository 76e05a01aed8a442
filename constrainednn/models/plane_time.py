"""A model made of elements in time and the plane: in each window of time the boxes of a mesh."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from constrainednn.errors import BadTypeError
from constrainednn.models.space import SpacePieces


class PlaneTimePieces(eqx.Module):
    """A function of (t, x, y), a polynomial on each element of each window; what `pde` trains.

    Outside of all elements, by more than rounding, its value is NaN.

    Attributes:
        boxes: The elements as boxes of (t, x, y), window after window.
        order: Number of derivatives by t, the value among them, that windows share.
    """

    boxes: SpacePieces
    order: int = eqx.field(static=True)

    @property
    def args(self) -> PyTree:
        """The arguments of the equation."""
        return self.boxes.args

    @property
    def parameters(self) -> Float[Array, " q"]:
        """Unknown numbers of the equation that are solved for: none."""
        return self.boxes.parameters

    @property
    def coefficients(self) -> Float[Array, "N K_dim d"]:
        """Those of all elements."""
        return self.boxes.coefficients

    @property
    def width(self) -> int:
        """Polynomials in each coordinate."""
        return self.boxes.width

    @property
    def count(self) -> int:
        """Number of elements of all windows."""
        return self.boxes.count

    @property
    def numbers(self) -> int:
        """How many numbers were solved for."""
        return self.boxes.numbers

    @property
    def ends(self) -> Float[np.ndarray, " W_1"]:
        """Ends of the windows."""
        low, high = self.boxes.corners
        return np.unique(np.concatenate([low[:, 0], high[:, 0]]))

    @property
    def extent(self) -> str:
        """Where it is defined, for messages."""
        return self.boxes.extent

    def __call__(self, p: Float[Array, "3"]) -> PyTree[Array]:
        """Evaluate at one point (t, x, y)."""
        if jnp.shape(p) != (3,):
            raise BadTypeError(
                f"u of pde takes a point (t, x, y) of shape (3,), got {jnp.shape(p)}."
            )
        return self.boxes(p)

    def derivatives(
        self, p: Float[Array, "3"], orders: Sequence[tuple[int, ...]]
    ) -> Float[Array, "a d"]:
        """Derivatives by t, x and y of the given orders at one point."""
        return self.boxes.derivatives(p, orders)

    def jumps(self, p: Float[Array, "3"]) -> Float[Array, " n"]:
        """Jumps at the start of the window and the lower sides of the element of a point.

        In units of u: derivatives are multiplied by powers of the lengths. There are none at the
        start of the first window and at the boundary.
        """
        return self.boxes.jumps(p, most=(self.order, None, None))
