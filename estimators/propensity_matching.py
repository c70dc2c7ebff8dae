"""What the estimation of the propensity that rows are matched on does to the standard error.

Source: Abadie and Imbens (2016), *Matching on the estimated propensity score*, Econometrica 84, theorems 1 and 2 with
the estimators of section 4. For the average effect estimation narrows the interval; for the effect on the treated it
may widen it. The covariances within rows of a propensity are those among the nearest rows of an arm, the derivative of
the effect on the treated comes from matches on the covariates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from estimators.logit import Logit
from estimators.matches import Matches, part, whitening
from estimators.neighbours import Neighbours, nearest, points
from estimators.ols import Matrix, Vector


def correction(matches: Matches, logit: Logit, values: Vector, effect: float) -> float:
    """What to add to the variance times the squared number of rows in the estimand.

    Args:
        matches: On the propensity.
        logit: Its model.
        values: ``(n,)`` outcome.
        effect: Estimated effect on ``values``.
    """
    e, density = logit.probability, logit.density
    within = [_among(matches, logit, values, arm) for arm in (0, 1)]
    inverse = logit.inverse_information
    (mean0, cov0), (mean1, cov1) = within
    if matches.estimand == "ate":
        c = (density[:, None] * (cov1 / e[:, None] + cov0 / (1.0 - e)[:, None]))[matches.used].sum(axis=0)
        return -float(c @ inverse @ c)
    odds = (e / (1.0 - e))[:, None]
    c = (density[:, None] * (logit.design * (mean1 - mean0 - effect)[:, None] + cov1 + odds * cov0)).sum(axis=0)
    slope = logit.design.T @ (density * (_gaps(matches, values) - effect))
    return float(slope @ inverse @ slope - c @ inverse @ c)


def _among(matches: Matches, logit: Logit, values: Vector, arm: int) -> tuple[Vector, Matrix]:
    """Among the rows of an arm nearest to each row: the mean of the outcome, its covariance with the covariates."""
    own, other = matches.rows[arm], matches.rows[1 - arm]
    alike = matches.alike[arm]
    across = nearest(matches.alike[1 - arm].source, alike.source, matches.variance_neighbours + 1)
    mean, covariance = np.empty(len(values)), np.zeros_like(logit.design)
    for rows, near in ((own, alike), (other, across)):
        mean[rows] = near.mean(values[own])
        for j in range(1, logit.design.shape[1]):
            covariance[rows, j] = near.covariance(logit.design[own, j], values[own])
    return mean, covariance


def _gaps(matches: Matches, values: Vector) -> Vector:
    """``(n,)`` outcome with treatment minus without, one of them from the nearest rows in the covariates."""
    rows = points(matches.covariates)
    places = replace(rows, place=rows.place @ whitening(matches.covariates, "mahalanobis"))
    sides = [part(places, own) for own in matches.rows]
    both = [values.copy(), values.copy()]
    for arm in (0, 1):
        near: Neighbours = nearest(sides[1 - arm], sides[arm], matches.variance_neighbours + 1)
        both[arm][matches.rows[1 - arm]] = near.mean(values[matches.rows[arm]])
    out: Vector = both[1] - both[0]
    return out
