"""Random samplers: independent points, Latin hypercubes and scrambled Sobol points."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from constrainednn._common.batched import in_blocks
from constrainednn._common.messages import shown
from constrainednn._common.random_keys import numpy_generator
from constrainednn.domains.base import AbstractDomain
from constrainednn.domains.samplers.base import AbstractSampler, Cube, Shares, equal
from constrainednn.errors import BadValueError

# For so many there are direction numbers: `MAXDIM` of `scipy.stats.qmc.Sobol`.
SOBOL_DIMENSIONS = 21201
# Cube points that are tried together by rejection, and how rare accepted ones may be.
_LEAST, _MOST, _RAREST = 1024, 1 << 18, 100_000


class Independent(AbstractSampler):
    """Independent uniform draws: the measure itself."""

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` independent cube points of equal weight, each anew until it is accepted.

        Raises:
            ValueError: If next to none are accepted.
        """
        rng, dim = numpy_generator(key), domain.unit_dim
        if not domain.by_rejection:
            return rng.random((n, dim)), equal(n)
        found, tried, kept = [np.zeros((0, dim))], 0, 0
        while kept < n:
            # The share of those accepted so far says how many to try; the choice of points does
            # not depend on it.
            wanted = (n - kept) * (tried + 1) / (kept + 1) * 1.1
            cube = rng.random((int(np.clip(wanted, _LEAST, _MOST)), dim))
            found.append(cube[in_blocks(domain.accepts, cube.astype(jnp.result_type(float)))])
            tried, kept = tried + len(cube), kept + len(found[-1])
            if tried > _MOST and tried > _RAREST * kept:
                raise BadValueError(
                    f"of {tried:,} points of the box around {shown(domain)} only {kept} lie in it: "
                    "too few to draw from. Give a tighter box."
                )
        return np.concatenate(found)[:n], equal(n)

    @property
    def fills_cube(self) -> bool:
        """False."""
        return False


class LatinHypercube(AbstractSampler):
    """A randomised Latin hypercube: one point in each of n slices of every coordinate.

    Source:
        McKay, Beckman and Conover, Technometrics 21 (1979) 239; drawn by `scipy.stats.qmc`.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw `n` stratified cube points of equal weight."""
        from scipy.stats import qmc  # slow to import, and most runs do without

        return qmc.LatinHypercube(domain.unit_dim, rng=numpy_generator(key)).random(n), equal(n)


class Sobol(AbstractSampler):
    """A Sobol sequence under a random scrambling; best with a power of two of points.

    Source:
        Owen, J. Complexity 14 (1998) 466; drawn by `scipy.stats.qmc`.
    """

    def fill(self, domain: AbstractDomain, n: int, *, key: Key[Array, ""]) -> tuple[Cube, Shares]:
        """Draw the first `n` points of the scrambled sequence, of equal weight."""
        from scipy.stats import qmc  # slow to import, and most runs do without

        if domain.unit_dim > SOBOL_DIMENSIONS:
            raise BadValueError(
                f"Sobol has at most {SOBOL_DIMENSIONS} dimensions, but {shown(domain)} has "
                f"{domain.unit_dim}. Use Independent()."
            )
        # Never unscrambled: such sequences nest, so held-out points would repeat training points.
        engine = qmc.Sobol(domain.unit_dim, scramble=True, bits=32, rng=numpy_generator(key))
        return engine.random_base2(max(n - 1, 0).bit_length())[:n], equal(n)
