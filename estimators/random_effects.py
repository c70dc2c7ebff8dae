"""Random-effects mean of estimates with known standard errors, by restricted maximum likelihood.

``x_i = mu + v_i + e_i`` with ``v_i`` of variance ``omega^2`` and ``e_i`` of known variance: Viechtbauer (2005), *Bias
and efficiency of meta-analytic variance estimators in the random-effects model*, by Fisher scoring.
"""

from __future__ import annotations

import numpy as np

from estimators.ols import Matrix, Vector

_STEPS = 500
CLOSE = 1e-13  # relative, of the variance between


def random_effects(values: Matrix, variances: Matrix, keep: Matrix, close: float = CLOSE) -> tuple[Vector, Vector]:
    """Mean and variance between true values, of ``p`` problems at once; any ``p`` may be 1 for all.

    Args:
        values: ``(p, n)`` estimates.
        variances: ``(p, n)`` their squared standard errors, zero or more.
        keep: ``(p, n)`` of ones and zeros: the estimates that count.
        close: Relative change of the variance between at which it is found.

    Returns:
        ``(p,)`` means and ``(p,)`` variances between, zero or more, in the squared unit of ``values``. Where estimates
        are exact and alike, the mean is the plain one.
    """
    n = keep.sum(axis=1)
    plain = (keep * values).sum(axis=1) / n
    scatter = (keep * (values - plain[:, None]) ** 2).sum(axis=1) / np.maximum(n - 1.0, 1.0)
    floor = np.where(variances.min(axis=1) > 0.0, 0.0, 1e-12 * np.where(scatter > 0.0, scatter, 1.0))
    between = np.maximum(scatter - (keep * variances).sum(axis=1) / n, 0.0)
    mean = plain
    for _ in range(_STEPS):
        w = keep / (variances + np.maximum(between, floor)[:, None])
        one = w.sum(axis=1)
        mean = (w * values).sum(axis=1) / one
        w2 = w * w
        two, three = w2.sum(axis=1) / one, (w2 * w).sum(axis=1) / one
        squares = (w2 * (values - mean[:, None]) ** 2).sum(axis=1)
        information = one * two - 2.0 * three + two * two
        found = np.maximum(between + (squares - one + two) / information, 0.0)
        done = np.abs(found - between) <= close * (scatter + found)
        between = found
        if done.all():
            break
    return mean, between
