"""Difference in means of units with errors clustered by something larger, which may hold units of both arms.

Estimand: that of ``difference_in_means``; clustering moves its error only. It is least squares of the units' linearised
values on an intercept and the arm. Sources: Liang and Zeger (1986) for CR1; Bell and McCaffrey (2002) and Pustejovsky
and Tipton (2018) for CR2 and its degrees of freedom; Deng, Knoblich and Lu (2018) for ratios of sums.

Units of one cluster and arm have the same regressors, so that their sums are all that either error needs: a cell's mean
weighted by its units gives the residual sums, the leverages and the degrees of freedom of the units themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    relative_from_log,
    relative_reason,
    t_interval,
)
from estimators.ols import Vector, fit

VARIANCES = ("CR1", "CR2")
Error = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Sums by cluster and arm, one entry a pair that holds units.

    Attributes:
        num: ``(n,)`` sums of ``outcome - centre * denominator``.
        den: ``(n,)`` sums of the denominator; of a plain mean, the units.
        units: ``(n,)`` units, at least 1.
        arm: ``(n,)`` 0 control, 1 treatment.
        cluster: ``(n,)`` codes.
        centre: A constant near the values, so that sums of large outcomes do not cancel.
    """

    num: Vector
    den: Vector
    units: Vector
    arm: NDArray[np.intp]
    cluster: NDArray[np.intp]
    centre: float = 0.0


def clustered_difference(cells: Cells, *, variance: str = "CR1", alpha: float = 0.05) -> Estimate:
    """Treatment's value minus control's, with a cluster-robust error.

    Args:
        cells: Units summed by cluster and arm.
        variance: ``CR1``: the factor ``G/(G-1) (N-1)/(N-2)`` with ``G`` clusters and ``N`` units, ``G - 1`` degrees of
            freedom. ``CR2``: unbiased under independent units of equal variance, Bell and McCaffrey's degrees of
            freedom.
        alpha: Level of the test; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit, ``n_control`` and ``n_treatment`` units. The relative effect's interval is
        of the log ratio (of the ratio itself where treatment's value is not positive) with the same clusters.
        Diagnostics: ``variance``, ``n_clusters`` and ``clusters_with_both_arms``.

    Raises:
        EstimationError: An arm whose units stand in fewer than two clusters, values that are not finite, a denominator
            that does not sum to a positive number, or no variation between clusters.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {VARIANCES}")
    if not all(np.isfinite(v).all() for v in (cells.num, cells.den)):
        raise EstimationError("the outcome holds values that are not finite")
    treated = cells.arm == 1
    sides = (~treated, treated)
    n_clusters = len(np.unique(cells.cluster))
    if not all(side.any() for side in sides):
        raise EstimationError("an arm has no observations")
    # The sum of an arm's residuals is zero, so that one cluster with all of them would show no error at all.
    if any(len(np.unique(cells.cluster[side])) < 2 for side in sides):
        raise EstimationError("the units of an arm stand in one cluster, so its error between clusters cannot be seen")
    above, below = ([float(v[side].sum()) for side in sides] for v in (cells.num, cells.den))
    if not min(below) > 0.0:
        raise EstimationError("the denominator does not sum to a positive number in one arm")
    gaps = [a / b for a, b in zip(above, below, strict=True)]
    c, t = (cells.centre + gap for gap in gaps)
    residual = (cells.num - np.where(treated, gaps[1], gaps[0]) * cells.den) / np.where(treated, below[1], below[0])
    error = _cr1(cells, residual, n_clusters) if variance == "CR1" else _cr2(cells, residual)
    std_error, df = error(-1.0, 1.0)
    # Rounding leaves a trace of the outcome's size; a spread below it is none.
    if std_error <= 1e-13 * max(abs(c), abs(t)):
        raise EstimationError("the outcome does not vary between clusters, so nothing says how sure the estimate is")
    n = [float(cells.units[side].sum()) for side in sides]
    both = n_clusters - len(np.setxor1d(cells.cluster[treated], cells.cluster[~treated]))
    return finish(
        "difference_in_means",
        estimate=gaps[1] - gaps[0],
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=int(n[0]),
        n_treatment=int(n[1]),
        relative=_relative(c, t, error, alpha),
        diagnostics={"variance": variance, "n_clusters": n_clusters, "clusters_with_both_arms": both},
    )


def _cr1(cells: Cells, residual: Vector, n_clusters: int) -> Error:
    """Standard error and degrees of freedom of a combination of control's and treatment's value."""
    n = float(cells.units.sum())
    if n <= 2.0:
        raise EstimationError("an arm has fewer than two independent units")
    factor = n_clusters / (n_clusters - 1) * (n - 1.0) / (n - 2.0)
    codes = np.unique(cells.cluster, return_inverse=True)[1]

    def error(control: float, treatment: float) -> tuple[float, float]:
        score = np.bincount(codes, np.where(cells.arm == 1, treatment, control) * residual)
        return math.sqrt(factor * float(score @ score)), n_clusters - 1.0

    return error


def _cr2(cells: Cells, residual: Vector) -> Error:
    """As :func:`_cr1`, from the regression of the cells' mean linearised values weighted by their units."""
    treated = (cells.arm == 1).astype(np.float64)
    size = np.where(cells.arm == 1, cells.units[cells.arm == 1].sum(), cells.units[cells.arm == 0].sum())
    # Two intercepts are the intercept and the arm in other coordinates.
    design = np.column_stack([1.0 - treated, treated])
    regression = fit(design, residual * size / cells.units, cells.units, cells.cluster)

    def error(control: float, treatment: float) -> tuple[float, float]:
        _, std_error, df = regression.contrast([control, treatment])
        # `fit` scales its weights to a mean of 1, which leaves coefficients and their errors alone.
        return std_error, df

    return error


def _relative(c: float, t: float, error: Error, alpha: float) -> Relative:
    if reason := relative_reason(c):
        return Relative(reason=reason)
    ratio = t / c
    if t > 0.0:
        log_se, df = error(-1.0 / c, 1.0 / t)
        return relative_from_log(c, t, log_se, df, alpha)
    std_error, df = error(-ratio / c, 1.0 / c)
    return Relative(ratio - 1.0, *t_interval(ratio - 1.0, std_error, df, alpha))
