"""Sample ratio mismatch: are the arms as large as the split says?"""

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
