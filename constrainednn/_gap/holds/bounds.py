"""Bounds that hold for any distribution, from nothing but independent draws.

Shares and quantiles only: of a mean nothing can be said without knowing the tail.
"""

import math

import numpy as np

from constrainednn.errors import BadValueError


def share_bound(violated: int, n: int, confidence: float) -> float:
    """Bound the probability of an event from above, by how often it occurred in n draws.

    The largest p for which so few occurrences, or fewer, have probability 1 - confidence or more.

    Args:
        violated: Draws in which it occurred.
        n: Independent draws.
        confidence: In (0, 1).

    Source:
        Clopper and Pearson, Biometrika 26 (1934) 404, one-sided, as a quantile of a beta
        distribution.
    """
    from scipy.special import betaincinv

    _check(n, confidence)
    if not 0 <= violated <= n:
        raise BadValueError(f"violated must lie between 0 and n={n}, got {violated}.")
    return 1.0 if violated == n else float(betaincinv(violated + 1, n - violated, confidence))


def band_half_width(n: int, confidence: float) -> float:
    """How far the share of n draws below a level is from its probability, over all levels at once.

    Source:
        Dvoretzky, Kiefer and Wolfowitz, Ann. Math. Statist. 27 (1956) 642, with the constant 2 of
        Massart, Ann. Probab. 18 (1990) 1269.
    """
    _check(n, confidence)
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))


def rank_of_bound(n: int, share: float, confidence: float) -> int | None:
    """Which of n draws, from the smallest, a share of the population does not exceed.

    Args:
        n: Independent draws.
        share: Of the population, in (0, 1).
        confidence: In (0, 1).

    Returns:
        The smallest rank k, counted from one, for which fewer than k draws lie in the lower share
        with the probability asked for; None where not even the largest draw will do.

    Source:
        Wilks, Ann. Math. Statist. 12 (1941) 91: one-sided tolerance limits. At atoms of the
        distribution the confidence is larger.
    """
    from scipy.special import bdtr

    _check(n, confidence)
    below = bdtr(np.arange(n, dtype=float), n, share)  # at most 0, 1, ..., n - 1 of them
    k = int(np.searchsorted(below, confidence)) + 1
    return k if k <= n else None


def draws_needed(share: float, confidence: float) -> int:
    """The fewest draws whose largest one bounds a share of the population."""
    return math.ceil(math.log1p(-confidence) / math.log(share))


def _check(n: int, confidence: float) -> None:
    if n < 1 or not 0 < confidence < 1:
        raise BadValueError(
            f"a bound needs a draw or more and a confidence in (0, 1), got n={n} and {confidence}."
        )
