"""Matches of rows with the other arm, with replacement, and what every outcome needs of them.

Source: Abadie and Imbens (2006), *Large sample properties of matching estimators for average treatment effects*,
Econometrica 74; Abadie, Drukker, Herr and Imbens (2004), *Implementing matching estimators*, for ties. Rows are matched
once; every outcome of the same rows shares the matches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError
from estimators.logit import Logit, fit_logit
from estimators.neighbours import Codes, Neighbours, Points, nearest, points
from estimators.ols import Matrix, Vector
from estimators.overlap import Flags, arms

ESTIMANDS = ("ate", "att")
METRICS = ("mahalanobis", "inverse_variance", "propensity")

_RANK = 1e-10
_CONSTANT = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Who stands in for whom.

    Attributes:
        treated: ``(n,)``.
        estimand, neighbours, metric, caliper: As asked for.
        rows: Row numbers of control and of treatment.
        stand_ins: By arm, its rows that stand in for rows of the other arm; None: nobody of the other arm counts.
        alike: By arm, the nearest rows of the same arm, the row itself among them: they tell the outcome's variance.
        used: ``(n,)`` rows whose effect counts; without those that no row of the other arm is near enough to.
        uses: ``(n,)`` how often each stands in for another row, shared where several do.
        shared: ``(n,)`` the same with every share squared.
        covariates: ``(n, p)`` standardised, without those that are constant.
        adjusters: ``(n, q)`` what the bias adjustment regresses on: the covariates, or the propensity.
        units: ``(n,)`` codes where a unit has several rows; None: every row is a unit.
        variance_neighbours: Rows of the same arm, beside itself, that a row is compared with in ``alike``.
        logit: The propensity's model where it was estimated for matching.
    """

    treated: Flags
    estimand: str
    neighbours: int
    metric: str
    caliper: float | None
    rows: tuple[Codes, Codes]
    stand_ins: tuple[Neighbours, Neighbours | None]
    alike: tuple[Neighbours, Neighbours]
    used: Flags
    uses: Vector
    shared: Vector
    covariates: Matrix
    adjusters: Matrix
    units: Codes | None
    variance_neighbours: int
    logit: Logit | None

    @property
    def weights(self) -> Vector:
        """``(n,)`` weight of every row's outcome: its own effect's 1 and what it lends to others."""
        return self.used + self.uses

    def unmatched(self) -> dict[str, int]:
        """Rows by arm that are of the estimand's population and have no match within the caliper."""
        wanted = self.treated if self.estimand == "att" else np.ones_like(self.treated)
        lost = wanted & ~self.used
        return {"control": int((lost & ~self.treated).sum()), "treatment": int((lost & self.treated).sum())}


def match(
    treated: ArrayLike,
    covariates: ArrayLike,
    *,
    estimand: str = "ate",
    neighbours: int = 1,
    metric: str = "mahalanobis",
    caliper: float | None = None,
    propensity: ArrayLike | None = None,
    units: ArrayLike | None = None,
    variance_neighbours: int = 1,
) -> Matches:
    """Finds for every row the nearest rows of the other arm (``att``: for every treated row).

    Args:
        treated: ``(n,)`` 0 or 1.
        covariates: ``(n, p)`` finite values that stood before treatment; constant and collinear columns do no harm
            but under ``propensity``, where collinear ones are refused.
        estimand: ``ate`` or ``att``.
        neighbours: Matches of a row; all that are as near as the last are taken, with equal shares.
        metric: ``mahalanobis``: inverse covariance of all rows; ``inverse_variance``: its diagonal; ``propensity``:
            difference of probabilities of treatment.
        caliper: Largest distance of a match, in the metric's unit: standard deviations, or probability. Rows without a
            match inside it leave the estimand; None: none does.
        propensity: ``(n,)`` probabilities to match on under ``metric="propensity"``, taken as known; None: a logit on
            the covariates by maximum likelihood, whose estimation the standard error accounts for.
        units: ``(n,)`` labels of the independent units; None: every row is one.
        variance_neighbours: Nearest rows of the same arm that a row is compared with for the outcome's variance.

    Raises:
        ValueError: An unknown metric, or neighbour counts below 1.
        EstimationError: Another estimand, values that are not finite, an arm with too few rows, no covariate that
            varies, a caliper that leaves no match, or a propensity model that tells the arms apart without fail.
    """
    _check(estimand, neighbours, metric, caliper, variance_neighbours)
    if propensity is not None and metric != "propensity":
        raise ValueError("a propensity is only for metric='propensity'")
    d, x = arms(treated), np.asarray(covariates, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if len(x) != len(d):
        raise EstimationError("covariates and arms must have one entry per row each")
    if not np.isfinite(x).all():
        raise EstimationError("a covariate holds values that are not finite")
    x = standardised(x)
    places, logit, score = _places(x, d, metric, propensity)
    control, treatment = np.flatnonzero(~d), np.flatnonzero(d)
    sides = (part(places, control), part(places, treatment))
    stand_ins = (
        nearest(sides[1], sides[0], neighbours, caliper),
        nearest(sides[0], sides[1], neighbours, caliper) if estimand == "ate" else None,
    )
    used, uses, shared = np.zeros(len(d), dtype=bool), np.zeros(len(d)), np.zeros(len(d))
    for found, asking, lending in zip(stand_ins, (treatment, control), (control, treatment), strict=True):
        if found is not None:
            used[asking], uses[lending], shared[lending] = found.found, found.uses(), found.uses(2)
    if not used.any():
        raise EstimationError("no row has a match within the caliper")
    need = variance_neighbours + 1
    return Matches(
        treated=d,
        estimand=estimand,
        neighbours=neighbours,
        metric=metric,
        caliper=caliper,
        rows=(control, treatment),
        stand_ins=stand_ins,
        alike=(nearest(sides[0], sides[0], need), nearest(sides[1], sides[1], need)),
        used=used,
        uses=uses,
        shared=shared,
        covariates=x,
        adjusters=x if score is None else standardised(score[:, None]),
        units=unit_codes(units, len(d)),
        variance_neighbours=variance_neighbours,
        logit=logit,
    )


def _check(estimand: str, neighbours: int, metric: str, caliper: float | None, variance_neighbours: int) -> None:
    if estimand == "overlap":
        raise EstimationError("matching has no overlap-weighted effect: take ate or att, or another method")
    if estimand not in ESTIMANDS:
        raise ValueError(f"estimand must be one of {ESTIMANDS}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}")
    if neighbours < 1 or variance_neighbours < 1:
        raise ValueError("neighbours must be at least 1")
    if caliper is not None and not caliper > 0.0:
        raise EstimationError("a caliper must be a positive number")


def standardised(x: Matrix) -> Matrix:
    """Columns on mean 0 and standard deviation 1, those that do not vary left out."""
    spread = x.std(axis=0)
    varies = spread > _CONSTANT * np.abs(x).max(axis=0)
    out: Matrix = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    return out


def unit_codes(units: ArrayLike | None, n: int) -> Codes | None:
    """Codes of the units; None where every row is one.

    Raises:
        EstimationError: Not one label per row, or fewer than two units.
    """
    if units is None:
        return None
    labels, codes = np.unique(np.asarray(units), return_inverse=True)
    if len(codes) != n:
        raise EstimationError("units must have one label per row")
    if len(labels) < 2:
        raise EstimationError("a standard error needs at least two units")
    return codes.reshape(-1) if len(labels) < n else None


def _places(
    x: Matrix, d: Flags, metric: str, propensity: ArrayLike | None
) -> tuple[Points, Logit | None, Vector | None]:
    """Points in the metric's coordinates, with the propensity and its model where it is the metric."""
    if metric != "propensity":
        if not x.shape[1]:
            raise EstimationError("no covariate varies, so nothing tells which rows are alike")
        rows = points(x)
        return replace(rows, place=rows.place @ whitening(x, metric)), None, None
    logit = None
    if propensity is None:
        logit = fit_logit(x, d)
        score = logit.probability
    else:
        score = np.asarray(propensity, dtype=np.float64)
        if score.shape != d.shape or not ((score > 0.0) & (score < 1.0)).all():
            raise EstimationError("a propensity must lie between 0 and 1 in every row")
    return points(score[:, None]), logit, score


def whitening(x: Matrix, metric: str) -> Matrix:
    """``(p, r)`` map from standardised covariates to coordinates whose Euclidean distance is the metric's."""
    if metric == "inverse_variance":
        return np.eye(x.shape[1])
    values, vectors = np.linalg.eigh(x.T @ x / (len(x) - 1))
    kept = values > _RANK * values[-1]
    out: Matrix = vectors[:, kept] / np.sqrt(values[kept])
    return out


def part(places: Points, rows: Codes) -> Points:
    """The points of some of the rows."""
    occupied, where, count = np.unique(places.where[rows], return_inverse=True, return_counts=True)
    return Points(where.reshape(-1), places.place[occupied], count.astype(np.float64))
