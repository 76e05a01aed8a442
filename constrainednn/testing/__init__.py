"""The contract suite: put a domain, sampler, method or problem of your own through it.

A test of a domain reads:

    from constrainednn.testing import check_domain

    def test_my_domain():
        check_domain(MyDomain(), key=jax.random.key(0))

Each check returns nothing, or raises AssertionError with a sentence that names the broken promise.
Everything that the package brings passes it too.
"""

from constrainednn.testing.domains import check_domain, check_sampler
from constrainednn.testing.methods import check_method
from constrainednn.testing.problems import check_problem

__all__ = ["check_domain", "check_method", "check_problem", "check_sampler"]
