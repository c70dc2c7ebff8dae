"""Rows that have nobody to be compared with: common support by nearness of propensities.

A row is compared with those within a fifth of the standard deviation of the propensity's logit, the width of Austin
(2011), *Optimal caliper widths for propensity-score matching when estimating differences in means and differences in
proportions in observational studies*; where few rows stand so near, with its nearest ones. So many are asked that where
one in ten meets the other action, hardly a row is without a counterpart by chance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

CALIPER = 0.2
NEAREST = 30


def without_counterpart(
    propensity: ArrayLike, treated: ArrayLike, *, caliper: float = CALIPER, nearest: int = NEAREST
) -> NDArray[np.bool_]:
    """Rows that have no row of the other arm near them.

    Args:
        propensity: ``(n,)`` fitted probabilities of treatment; those at or beyond 0 and 1 have no counterpart.
        treated: ``(n,)`` 0 or 1.
        caliper: Half-width of what is near, in standard deviations of the logit within arms (the root of the mean of
            their variances).
        nearest: Neighbours by rank, half of them to either side, that are near however far off they stand.

    Returns:
        ``(n,)`` flags, the same in any order of the rows.

    Raises:
        EstimationError: Arrays that do not fit, values that are not finite, or an empty arm.
    """
    e, d = np.asarray(propensity, dtype=np.float64), np.asarray(treated).astype(np.bool_)
    if e.ndim != 1 or e.shape != d.shape or not np.isfinite(e).all():
        raise EstimationError("propensities and arms must have one finite entry per row each")
    if not d.any() or d.all():
        raise EstimationError("one of the arms has no rows")
    inside = (e > 0.0) & (e < 1.0)
    alone = ~inside
    side = d[inside]
    if not side.any() or side.all():
        return np.ones(len(e), dtype=np.bool_)
    logit = np.log(e[inside]) - np.log1p(-e[inside])
    width = caliper * math.sqrt((logit[side].var() + logit[~side].var()) / 2.0)
    order = np.argsort(logit, kind="stable")
    first, last = _near(logit[order], width, nearest)
    treatment = np.concatenate([[0], np.cumsum(side[order])])
    others = treatment[last] - treatment[first]
    others = np.where(side[order], last - first - others, others)
    lonely = np.empty(len(order), dtype=np.bool_)
    lonely[order] = others == 0
    alone[inside] = lonely
    return alone


def _near(logit: NDArray[np.float64], width: float, nearest: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the near rows of each sorted one begin and end; rows of equal logits are near together or not at all."""
    n = len(logit)
    least = min(nearest + 1, n)
    begin = np.clip(np.arange(n) - nearest // 2, 0, n - least)
    first = np.minimum(np.searchsorted(logit, logit - width, "left"), begin)
    last = np.maximum(np.searchsorted(logit, logit + width, "right"), begin + least)
    return np.searchsorted(logit, logit[first], "left"), np.searchsorted(logit, logit[last - 1], "right")
