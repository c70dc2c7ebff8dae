"""Shares: do the arms have the sizes that the split says, and how large may a share be of which little was seen?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError


def chi_square_srm(counts: ArrayLike, shares: ArrayLike) -> tuple[float, int, float]:
    """Pearson's chi-square test of arm counts against configured shares.

    Args:
        counts: Independent assignments by arm (units, clusters or blocks; never rows unless rows are randomized).
        shares: Configured weights by arm, non-negative; normalised to sum to 1.

    Returns:
        Statistic, degrees of freedom (arms with a positive share, less one) and p-value. Assignments seen in an arm
        whose share is zero cannot happen by chance: the statistic is then infinite and the p-value 0.

    Raises:
        EstimationError: No assignments, negative counts or shares, or fewer than two arms with a positive share.
    """
    observed = np.asarray(counts, dtype=np.float64)
    weight = np.asarray(shares, dtype=np.float64)
    if observed.shape != weight.shape or observed.ndim != 1:
        raise EstimationError("counts and shares must have one entry per arm each")
    if not (np.isfinite(observed).all() and np.isfinite(weight).all()) or observed.min() < 0 or weight.min() < 0:
        raise EstimationError("counts and shares of arms must be finite and not negative")
    open_arms = weight > 0
    df = int(open_arms.sum()) - 1
    if df < 1:
        raise EstimationError("the split gives fewer than two arms a positive share")
    total = float(observed.sum())
    if total == 0:
        raise EstimationError("nothing has been assigned yet")
    if observed[~open_arms].any():
        return math.inf, df, 0.0
    expected = total * weight[open_arms] / weight.sum()
    statistic = float(((observed[open_arms] - expected) ** 2 / expected).sum())
    from scipy.special import chdtrc

    return statistic, df, float(chdtrc(df, statistic))


def binomial_upper(successes: int, n: int, alpha: float) -> float:
    """Upper end of the exact two-sided interval of a share at level ``1 - alpha``.

    Clopper and Pearson (1934), *The use of confidence or fiducial limits illustrated in the case of the binomial*.
    ``1 - (alpha / 2) ** (1 / n)`` where nothing was found. It also bounds the share in a finite population that ``n``
    were drawn from without replacement.

    Raises:
        EstimationError: No trials, or a count outside them.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise EstimationError("a share needs trials, and as many successes at most")
    if successes == n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(successes + 1.0, n - successes, 1.0 - alpha / 2.0))


def imbalance_p(successes_control: int, n_control: int, successes_treatment: int, n_treatment: int) -> float:
    """Chance that a random draw of the arms puts as large a part of all successes, or a larger, into treatment.

    Fisher's exact test, one side doubled, at most 1.

    Raises:
        EstimationError: An arm without trials, or a count outside its trials.
    """
    for successes, n in ((successes_control, n_control), (successes_treatment, n_treatment)):
        if not (n > 0 and 0 <= successes <= n):
            raise EstimationError("a share needs trials, and as many successes at most")
    found, n = successes_control + successes_treatment, n_control + n_treatment
    ways = [
        math.comb(n_treatment, k) * math.comb(n_control, found - k)
        for k in range(successes_treatment, min(found, n_treatment) + 1)
    ]
    return min(1.0, 2 * sum(ways) / math.comb(n, found))
