"""Overlap of two arms and the weights that follow from it: effective sizes, concentration, histogram, trimming.

Sources: Kish (1965), *Survey Sampling*, for the effective size; Crump, Hotz, Imbens and Mitnik (2009), *Dealing with
limited overlap in estimation of average treatment effects*, Biometrika 96, eq. 8 for the trimming threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError
from estimators.ols import Vector

Flags = NDArray[np.bool_]

EXTREMES = (0.1, 0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Concentration:
    """How few rows of an arm hold its weight.

    Attributes:
        rows: Rows with a positive weight.
        ess: Kish's effective sample size ``sum(w)^2 / sum(w^2)``, in rows.
        max_share: Largest weight's share of the arm's sum.
        top_1pct_share: Share held by the heaviest 1 % of the rows with a positive weight (at least one row).
    """

    rows: int
    ess: float
    max_share: float
    top_1pct_share: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far the arms' propensities cover the same ground.

    Attributes:
        edges: ``bins + 1`` edges of equal bins from 0 to 1; the last bin holds 1.
        control, treatment: Rows in each bin by arm.
        support: Propensities that occur in both arms: from the larger of the minima to the smaller of the maxima;
            its low end lies above its high end where the arms do not meet.
        outside: Share of all rows outside ``support``.
        beyond: For 0.1, 0.05 and 0.01 the share of rows with a propensity below it or above one minus it.
        quantiles: Of each arm: minimum, 1 %, 25 %, 50 %, 75 %, 99 %, maximum.
        suggested_trim: Crump and co-authors' threshold: the average effect over rows with a propensity from it to one
            minus it is the one that can be told most precisely; 0 where no row need go.
        suggested_share: Share of rows that it would drop.
    """

    edges: tuple[float, ...]
    control: tuple[int, ...]
    treatment: tuple[int, ...]
    support: tuple[float, float]
    outside: float
    beyond: dict[str, float]
    quantiles: dict[str, tuple[float, ...]]
    suggested_trim: float
    suggested_share: float


def overlap(propensity: ArrayLike, treated: ArrayLike, *, bins: int = 20) -> Overlap:
    """Describes the propensities of two arms.

    Args:
        propensity: ``(n,)`` probabilities of treatment.
        treated: ``(n,)`` 0 or 1.
        bins: Of the histogram.

    Raises:
        EstimationError: An empty arm, or a propensity that is no probability.
    """
    e, d = _propensities(propensity), arms(treated)
    if len(e) != len(d):
        raise EstimationError("propensities and arms must have one entry per row each")
    edges = np.arange(bins + 1) / bins
    low = max(float(e[d].min()), float(e[~d].min()))
    high = min(float(e[d].max()), float(e[~d].max()))
    trim = crump_threshold(e)
    control, treatment = (np.histogram(e[side], edges)[0] for side in (~d, d))
    points = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    return Overlap(
        edges=tuple(map(float, edges)),
        control=tuple(map(int, control)),
        treatment=tuple(map(int, treatment)),
        support=(low, high),
        outside=float(((e < low) | (e > high)).mean()),
        beyond={f"{x:g}": float(((e < x) | (e > 1.0 - x)).mean()) for x in EXTREMES},
        quantiles={
            name: tuple(map(float, np.quantile(e[side], points))) for name, side in (("control", ~d), ("treatment", d))
        },
        suggested_trim=trim,
        suggested_share=float(((e < trim) | (e > 1.0 - trim)).mean()),
    )


def crump_threshold(propensity: ArrayLike) -> float:
    """The ``a`` whose rows ``a <= e <= 1 - a`` have the average effect that can be told most precisely, in [0, 0.5].

    With ``g = 1 / (e (1 - e))`` it solves ``1 / (a (1 - a)) = 2 mean(g where g <= 1 / (a (1 - a)))``; where several do,
    the one of least variance is taken. It is 0 where ``max(g) <= 2 mean(g)``.
    """
    e = _propensities(propensity)
    # Rows of a certain propensity can never be kept: their g is without end.
    inner = np.sort(e * (1.0 - e))[::-1]
    g = 1.0 / inner[inner > 0.0]
    if not len(g):
        raise EstimationError("every row's treatment is certain, so no part of the rows overlaps")
    if len(g) == len(e) and g[-1] <= 2.0 * g.mean():
        return 0.0
    total, count = np.cumsum(g), np.arange(1, len(g) + 1)
    last = np.append(np.flatnonzero(np.diff(g) > 0.0), len(g) - 1)  # rows of equal g stay or go together
    best = last[int(np.argmin(total[last] / count[last] ** 2))]
    level = 2.0 * total[best] / count[best]
    return float(0.5 - math.sqrt(max(0.0, 0.25 - 1.0 / level)))


def concentration(weights: ArrayLike) -> Concentration:
    """How an arm's weights are spread over its rows.

    Args:
        weights: ``(n,)`` not negative; rows without weight do not count.

    Raises:
        EstimationError: Weights that are negative, not finite, or zero throughout.
    """
    w = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(w).all() and (w >= 0.0).all()):
        raise EstimationError("weights must be finite and not negative")
    w = w[w > 0.0]
    if not len(w):
        raise EstimationError("no row of an arm has weight")
    share = w / w.max()
    share /= share.sum()
    top = max(1, len(w) // 100)
    heaviest = np.partition(share, len(w) - top)[len(w) - top :]
    return Concentration(len(w), float(1.0 / (share @ share)), float(share.max()), float(heaviest.sum()))


def arms(treated: ArrayLike) -> Flags:
    """``(n,)`` who is treated.

    Raises:
        EstimationError: Values other than 0 and 1, or an empty arm.
    """
    d = np.asarray(treated)
    if d.ndim != 1 or not np.isin(d, (0, 1)).all():
        raise EstimationError("treated must be 0 (control) or 1 (treatment) in every row")
    d = d.astype(bool)
    if not d.any() or d.all():
        raise EstimationError("one of the arms has no rows")
    return d


def weight_notes(weights: Vector, treated: Flags) -> dict[str, dict[str, float]]:
    """``ess {control, treatment}`` and ``weights {max_share, top_1pct_share}`` (the worse arm's) for diagnostics."""
    control, treatment = concentration(weights[~treated]), concentration(weights[treated])
    return {
        "ess": {"control": control.ess, "treatment": treatment.ess},
        "weights": {
            "max_share": max(control.max_share, treatment.max_share),
            "top_1pct_share": max(control.top_1pct_share, treatment.top_1pct_share),
        },
    }


def _propensities(values: ArrayLike) -> Vector:
    e = np.asarray(values, dtype=np.float64)
    if e.ndim != 1 or not len(e) or not ((e >= 0.0) & (e <= 1.0)).all():
        raise EstimationError("a propensity must be a number from 0 to 1 in every row")
    return e
