"""Rows that have nobody to be compared with: common support by nearness of propensities.

Source: Austin (2011), *Optimal caliper widths for propensity-score matching when estimating differences in means and
differences in proportions in observational studies*, for the width: a fifth of the standard deviation of the logit of
the propensity, the mean of both arms' variances under the root.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

CALIPER = 0.2


def without_counterpart(propensity: ArrayLike, treated: ArrayLike, *, caliper: float = CALIPER) -> NDArray[np.bool_]:
    """Rows near whose propensity no row of the other arm stands.

    Args:
        propensity: ``(n,)`` fitted probabilities of treatment; those at or beyond 0 and 1 have no counterpart.
        treated: ``(n,)`` 0 or 1.
        caliper: Half-width of what is near, in standard deviations of the logit within arms.

    Returns:
        ``(n,)`` flags. Where the logit does not vary within the arms, what is near is what is equal.

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
    logit = np.log(e[inside]) - np.log1p(-e[inside])
    side = d[inside]
    if not side.any() or side.all():
        return np.ones(len(e), dtype=np.bool_)
    width = caliper * math.sqrt((logit[side].var() + logit[~side].var()) / 2.0)
    width += 1e-9 * float(np.abs(logit).max())  # rounding parts no equals
    lonely = np.zeros(len(logit), dtype=np.bool_)
    for arm in (side, ~side):
        others = np.sort(logit[~arm])
        first = np.searchsorted(others, logit[arm] - width, "left")
        last = np.searchsorted(others, logit[arm] + width, "right")
        lonely[arm] = first == last
    alone[inside] = lonely
    return alone
