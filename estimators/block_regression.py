"""Block regression for switchback experiments: cluster x block cells on arm, cluster and calendar effects.

Estimand: the effect of switching whole cells from control to treatment, averaged over cells with their weights. Errors
are clustered by the unit that was randomized, which is what the assignment justifies (Abadie, Athey, Imbens and
Wooldridge 2023; Bojinov, Simchi-Levi and Zhao 2023); outcomes may correlate over time where the arms of different
blocks are drawn independently, and lagged errors (``estimators.hac``) are for where they are not. CR2 errors and
Satterthwaite degrees of freedom: Pustejovsky and Tipton (2018).

Quantiles: distribution regression, Chernozhukov, Fernandez-Val and Melly (2013), *Inference on counterfactual
distributions*, with the linear link, so that the block regression itself is the model of every cumulative share; and
Woodruff (1952) for the way from the share's error to the quantile's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from estimators.cells import Cells, Model, counts_by_arm, prepare
from estimators.estimate import Estimate
from estimators.hac import Hac
from estimators.hac import hac as lagged
from estimators.inference import (
    EstimationError,
    Relative,
    critical_value,
    finish,
    relative_from_log,
    relative_reason,
    t_interval,
)
from estimators.ols import Fit, Vector, fit
from estimators.quantiles import Histogram, below_quantile, invert, woodruff

__all__ = ["Cells", "block_quantile", "block_regression", "most_influential"]


def block_regression(
    cells: Cells,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
    hac: int | None = None,
) -> Estimate:
    """Effect of the arm on the cells' outcomes ``num / den``, adjusted for cluster, hour of day and weekday.

    Args:
        cells: One entry per cluster x block.
        alpha: Level; intervals are at ``1 - alpha``.
        weights: ``rows``: cells weigh their denominator; ``units``: alike.
        clustered_by: The randomized unit: ``cell`` where clusters switch apart, ``block`` where all switch together.
        hac: Blocks up to so many apart may be alike whatever their arms (``estimators.hac``); None: CR2.

    Returns:
        The estimate in the outcome's unit, values by arm being adjusted means over the weighted cells, ``n_control``
        and ``n_treatment`` randomized units. The relative effect's interval is that of the log ratio of the adjusted
        means, with their covariance. ``diagnostics``: ``n_cells``, ``n_clusters``, ``n_randomized``, ``calendar``
        terms in the model, ``dropped_levels`` (hours and weekdays without both arms, joined to their neighbour; whole
        factors where the randomized units do not carry them), ``single_arm_clusters``, ``lag1_autocorrelation`` of
        residuals, ``hac_lags`` where errors are lagged.

    Raises:
        EstimationError: Fewer than two randomized units in an arm, a numerator without denominator in a cell, mixed
            arms in a block where the block was randomized, too few units for the model, or too many lags.
    """
    model = prepare(cells, weights, clustered_by)
    y = model.cells.num / model.cells.den
    centre = float(np.average(y, weights=model.weight))
    regression = fit(model.x, y - centre, model.weight, model.groups)
    errors = None if hac is None else lagged(model, regression, hac)
    estimate, std_error, df = (errors or regression).contrast(model.effect)
    values = [centre + float(model.adjusted_mean(a) @ regression.coef[:, 0]) for a in (0, 1)]
    lag = _lag1(model.cells, regression.residuals[:, 0])
    # Rounding leaves a trace of the outcome's size; a spread below it is none.
    if std_error <= 1e-13 * max(map(abs, values)):
        raise EstimationError("the outcome does not vary between cells, so nothing says how sure the estimate is")
    return finish(
        "block_regression",
        estimate=estimate,
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=values[0],
        treatment_value=values[1],
        **counts_by_arm(model),
        relative=_relative(errors or regression, model, values, df, alpha),
        diagnostics=model.diagnostics() | {"lag1_autocorrelation": lag} | ({"hac_lags": hac} if hac else {}),
    )


def block_quantile(
    cells: Cells,
    histogram: Histogram,
    q: float,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
) -> Estimate:
    """Treatment's adjusted ``q`` quantile minus control's.

    Each bucket's cumulative share in a cell is regressed on the design of ``block_regression``; the adjusted means
    are the arms' distribution functions (linear in the shares, so two weighted histograms give all of them at once),
    sorted into monotone order and inverted. The share's CR2 error at the quantile goes over to the outcome's axis by
    Woodruff's width, and the arms' errors are combined with their covariance.

    Args:
        cells: As in ``block_regression``; ``num`` is not used and ``den`` must be the rows in the histogram.
        histogram: Counts ``(n_cells, T)``, in the order of the cells.
        q: In (0, 1).
        alpha, weights, clustered_by: As in ``block_regression``.

    Returns:
        The estimate in the outcome's unit; ``diagnostics`` as in ``block_regression`` with ``effective_rows_beyond``
        by arm.

    Raises:
        EstimationError: As ``block_regression`` and ``quantile_effect`` do.
    """
    if not 0.0 < q < 1.0:
        raise EstimationError(f"a quantile must lie between 0 and 1, not {q!r}")
    sizes = histogram.counts.sum(axis=1, dtype=np.float64)
    if sizes.shape != cells.den.shape or not np.array_equal(sizes, cells.den):
        raise EstimationError("the histogram must hold the rows of the cells, in their order")
    model = prepare(cells, weights, clustered_by)
    counts = histogram.counts[cells.den > 0.0]
    lower, upper = histogram.lower, histogram.upper
    cdfs = _adjusted_cdfs(model, counts)
    values = [float(invert(cdf, lower, upper, q)) for cdf in cdfs]
    shares = np.column_stack([below_quantile(counts, cdf, q) for cdf in cdfs]) / model.cells.den[:, None]
    regression = fit(model.x, shares - q, model.weight, model.groups)
    df = regression.contrast(model.effect)[2]
    errors, rows, scores = _quantile_errors(regression, model, cdfs, (lower, upper), q, critical_value(alpha, df))
    variance = float(((scores[1] - scores[0]) ** 2).sum())
    if not max(errors) > 0.0:
        raise EstimationError("so many rows share the quantile's value that its interval has no width")
    log_variance = 0.0
    if not relative_reason(values[0]):
        slope = 1.0 / values[1] if values[1] > 0.0 else 1.0 / values[0]
        log_variance = float((slope**2 * (scores[1] - scores[0] * values[1] / values[0]) ** 2).sum())
    return finish(
        "block_regression",
        estimate=values[1] - values[0],
        std_error=math.sqrt(variance),
        df=df,
        alpha=alpha,
        control_value=values[0],
        treatment_value=values[1],
        **counts_by_arm(model),
        relative=log_ratio_relative(values, log_variance, df, alpha),
        diagnostics=model.diagnostics() | {"effective_rows_beyond": {"control": rows[0], "treatment": rows[1]}},
    )


def most_influential(cells: Cells, model: Model, clustered_by: str) -> tuple[int, NDArray[np.bool_]]:
    """The randomized unit whose leaving out moves the effect most, and the cells that stay without it.

    Returns:
        Its position in ``cells`` (``clustered_by="cell"``) or the code of the block (``"block"``), and a mask of
        ``cells``.
    """
    y = model.cells.num / model.cells.den
    regression = fit(model.x, y - np.average(y, weights=model.weight), model.weight, model.groups)
    worst = int(np.argmax(np.abs(regression.leave_out(model.effect))))
    if clustered_by == "block":
        index = int(np.unique(model.groups)[worst])
        return index, cells.block != index
    index = int(np.flatnonzero(cells.den > 0.0)[worst])
    return index, np.arange(len(cells.arm)) != index


def log_ratio_relative(values: list[float], variance: float, df: float, alpha: float) -> Relative:
    """Relative effect of two adjusted values from the variance of their log ratio (of their ratio where there is no
    log)."""
    control, treatment = values
    if reason := relative_reason(control):
        return Relative(reason=reason)
    if treatment > 0.0:
        return relative_from_log(control, treatment, math.sqrt(variance), df, alpha)
    low, high = t_interval(treatment / control - 1.0, math.sqrt(variance), df, alpha)
    return Relative(treatment / control - 1.0, low, high)


def log_ratio_contrast(model: Model, values: list[float]) -> Vector:
    """Contrast whose error is that of the log ratio of the adjusted means (of their ratio where there is no log);
    control's must be positive."""
    control, treatment = values
    slope = 1.0 / treatment if treatment > 0.0 else 1.0 / control
    return slope * model.adjusted_mean(1) - slope * (treatment / control) * model.adjusted_mean(0)


def _relative(errors: Fit | Hac, model: Model, values: list[float], df: float, alpha: float) -> Relative:
    if reason := relative_reason(values[0]):
        return Relative(reason=reason)
    return log_ratio_relative(values, errors.variance(log_ratio_contrast(model, values)), df, alpha)


def _lag1(cells: Cells, residuals: Vector) -> float | None:
    """Correlation of residuals in successive blocks of a cluster; None where there are fewer than ten pairs."""
    order = np.lexsort((cells.slot, cells.cluster))
    e, cluster, slot = residuals[order], cells.cluster[order], cells.slot[order]
    pair = (cluster[1:] == cluster[:-1]) & (slot[1:] == slot[:-1] + 1)
    before, after = e[:-1][pair], e[1:][pair]
    scale = math.sqrt(float(before @ before) * float(after @ after))
    return float(before @ after) / scale if len(before) >= 10 and scale > 0.0 else None


def _adjusted_cdfs(model: Model, counts: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Both arms' adjusted distribution functions at the buckets' upper edges, monotone and ending at 1."""
    design = fit(model.x, np.zeros(len(model.weight)), model.weight, model.groups)
    root = np.sqrt(model.weight / model.weight.mean()) / model.cells.den
    cdfs = []
    for arm in (0, 1):
        per_cell = root * (design.q @ design.loadings(model.adjusted_mean(arm)))
        raw = np.cumsum(per_cell @ counts)
        cdfs.append(np.clip(np.sort(raw), 0.0, 1.0))
    return cdfs


def _quantile_errors(
    regression: Fit,
    model: Model,
    cdfs: list[NDArray[np.float64]],
    edges: tuple[NDArray[np.float64], NDArray[np.float64]],
    q: float,
    critical: float,
) -> tuple[list[float], list[float], list[NDArray[np.float64]]]:
    """By arm: the quantile's standard error, the effective rows beyond it, and the groups' contributions to it."""
    errors, rows, scores = [], [], []
    for arm, cdf in enumerate(cdfs):
        score = regression.scores(model.adjusted_mean(arm))[:, arm]
        share_error = math.sqrt(float((score**2).sum()))
        std_error, beyond = woodruff(cdf, *edges, q, share_error, critical)
        errors.append(std_error)
        rows.append(beyond)
        # A larger share below means a smaller quantile: the sign is the same for both arms and drops out.
        scores.append(score * (std_error / share_error if share_error > 0.0 else 0.0))
    return errors, rows, scores
