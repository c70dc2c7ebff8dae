"""Randomization inference for switchbacks: the schedule is drawn anew by its mechanism.

Under the sharp null of a constant additive effect, with nothing carried over between the blocks' cells, every outcome
under every schedule is known, so that the p-value is exact at any number of blocks and however outcomes run on in
time. The statistic is the block regression's effect over its error: least squares on arm, cluster and calendar, the
calendar's levels standing as they are whatever arms are drawn. By Frisch, Waugh and Lovell outcome and every drawn
schedule are cleared of cluster and calendar once, and each regression is then one of a single column.

Sources: Fisher (1935); Bojinov, Simchi-Levi and Zhao (2023), *Design and analysis of switchback experiments*, section
on exact inference; Wu and Ding (2021), *Randomization tests for weak null hypotheses in randomized experiments*, for
the studentized statistic; Phipson and Smyth (2010) for ``(1 + exceedances) / (1 + draws)``.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from estimators.block_regression import log_ratio_contrast, most_influential
from estimators.cells import Cells, Model, counts_by_arm, prepare
from estimators.cluster_robust import Replicates
from estimators.estimate import Estimate
from estimators.inference import EstimationError, Relative, finish, relative_reason
from estimators.ols import Fit, Matrix, fit
from estimators.randomization_inference import Assignments

_CHUNK = 2_000_000  # numbers in one array of a batch of draws
_NULL = 1e-9  # below it one minus leverage is zero


def randomization_blocks(
    cells: Cells,
    assignments: Assignments,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
) -> Estimate:
    """The block regression's effect with the p-value and interval of the schedules that might have been.

    Args:
        cells: One entry per cluster x block; arms 0 and 1.
        assignments: Schedules by the same mechanism; ``arms`` is ``(B, n_cells)`` in the order of ``cells``.
        alpha: Level; the interval holds the constant additive effects that the test does not reject.
        weights, clustered_by: As in ``block_regression``. The statistic takes HC2 errors by cell, and sums of scores
            by block where all clusters switch together.

    Returns:
        The estimate in the outcome's unit with CR2's standard error and degrees of freedom, p-value ``(1 + exceedances)
        / (1 + draws)`` or the exact share, and the interval by inversion; the relative effect's interval reaches as
        many standard errors on the log ratio. ``diagnostics``: as in ``block_regression``, with ``mechanism``,
        ``draws`` (those that allow a comparison of the arms) and ``exact``.

    Raises:
        EstimationError: As ``block_regression``; schedules of another shape, or too few for an interval at ``alpha``.
    """
    model = prepare(cells, weights, clustered_by, arms_shape_calendar=False)
    arms = np.asarray(assignments.arms)
    if arms.ndim != 2 or len(arms) == 0 or arms.shape[1] != len(cells.arm):
        raise EstimationError("schedules must have one row per draw and one column per cell")
    if not np.isin(arms, (0, 1)).all():
        raise EstimationError("arms of schedules must be 0 (control) or 1 (treatment)")
    y = model.cells.num / model.cells.den
    centre = float(np.average(y, weights=model.weight))
    regression = fit(model.x, y - centre, model.weight, model.groups)
    estimate = _estimate(model, regression, centre, alpha)
    statistics = _Statistics(model, regression)
    replicates, own_error = statistics.of(arms[:, cells.den > 0.0], assignments)
    units = "blocks" if clustered_by == "block" else "cluster-blocks"
    low, high = replicates.interval(estimate.estimate, own_error, alpha, units)
    reach = ((estimate.estimate - low) / estimate.std_error, (high - estimate.estimate) / estimate.std_error)
    relative = _relative(model, regression, estimate, reach)
    notes = {"mechanism": assignments.mechanism, "draws": len(replicates.q), "exact": assignments.exact}
    return replace(
        estimate,
        p_value=replicates.p_value(-estimate.estimate, own_error),
        ci_low=low,
        ci_high=high,
        relative=relative.value,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        relative_reason=relative.reason,
        diagnostics={**estimate.diagnostics, **notes},
    )


def leave_one_out_schedule(
    cells: Cells,
    assignments: Assignments,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
) -> Estimate:
    """``randomization_blocks`` without the randomized unit whose leaving out moves the effect most.

    Returns:
        The full estimate without that unit; ``diagnostics["left_out"]`` holds its ``index`` as in
        ``leave_one_out_blocks``.
    """
    model = prepare(cells, weights, clustered_by, arms_shape_calendar=False)
    index, keep = most_influential(cells, model, clustered_by)
    rest = replace(assignments, arms=np.asarray(assignments.arms)[:, keep])
    estimate = randomization_blocks(cells.take(keep), rest, alpha=alpha, weights=weights, clustered_by=clustered_by)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"index": index}})


class _Statistics:
    """Statistics of drawn schedules on outcomes that are cleared of cluster and calendar."""

    def __init__(self, model: Model, regression: Fit) -> None:
        self._root = np.sqrt(model.weight / model.weight.mean())
        others = np.delete(model.x, 1, axis=1)
        self._q = np.linalg.qr(self._root[:, None] * others)[0]
        self._free = 1.0 - (self._q**2).sum(axis=1)
        self._residual = regression.residuals[:, 0]
        self._arm = self._cleared(model.cells.arm[None, :].astype(np.float64))[0]
        # Cells in the order of their block, where the block is the unit.
        self._order: NDArray[np.intp] | None = None
        if model.groups is model.cells.block:
            self._order = np.argsort(model.groups, kind="stable")
            self._starts = np.flatnonzero(np.r_[True, np.diff(model.groups[self._order]) > 0])

    def of(self, arms: NDArray[np.int8], assignments: Assignments) -> tuple[Replicates, float]:
        """The draws' statistics, those left out that do not exist, and the observed effect's error by the same
        formula."""
        size = max(1, _CHUNK // arms.shape[1])
        parts = [self._fields(self._cleared(arms[i : i + size].astype(np.float64))) for i in range(0, len(arms), size)]
        table = np.concatenate(parts, axis=1)
        some = np.isfinite(table).all(axis=0)
        if not some.any():
            raise EstimationError("no schedule that could be drawn allows a comparison of the arms")
        weight = None if assignments.weight is None else assignments.weight[some]
        effect, slope, q, cross, q_slope = table[:, some]
        own = float(self._fields(self._arm[None, :])[2, 0])
        if not own > 0.0:
            raise EstimationError("one randomized unit alone decides the estimate, so its error cannot be seen")
        return Replicates(effect, slope, q, cross, q_slope, weight, assignments.exact), math.sqrt(own)

    def _cleared(self, arms: Matrix) -> Matrix:
        scaled = arms * self._root
        return np.asarray(scaled - (scaled @ self._q) @ self._q.T, dtype=np.float64)

    def _fields(self, x: Matrix) -> Matrix:
        """``(5, B)`` fields of ``Replicates``; not a number where a schedule allows no comparison."""
        with np.errstate(divide="ignore", invalid="ignore"):
            curvature = (x * x).sum(axis=1)
            curvature = np.where(curvature > 1e-9 * (self._root**2).sum() / x.shape[1], curvature, np.nan)
            load = x / curvature[:, None]
            effects = [load @ outcome for outcome in (self._residual, self._arm)]
            scores = [
                self._scores(load, outcome - effect[:, None] * x, x)
                for outcome, effect in zip((self._residual, self._arm), effects, strict=True)
            ]
        a, b = scores
        return np.vstack([*effects, (a * a).sum(axis=1), (a * b).sum(axis=1), (b * b).sum(axis=1)])

    def _scores(self, load: Matrix, residual: Matrix, x: Matrix) -> Matrix:
        """Scores of the randomized units."""
        if self._order is not None:
            return np.asarray(np.add.reduceat((load * residual)[:, self._order], self._starts, axis=1))
        left = self._free - x * load
        # A cell that cluster and calendar alone fit says nothing of the effect; one that the arm fits decides it.
        left = np.where(left > _NULL, left, np.where(np.abs(x) < _NULL, np.inf, np.nan))
        return np.asarray(load * residual / np.sqrt(left), dtype=np.float64)


def _estimate(model: Model, regression: Fit, centre: float, alpha: float) -> Estimate:
    point, std_error, df = regression.contrast(model.effect)
    values = [centre + float(model.adjusted_mean(a) @ regression.coef[:, 0]) for a in (0, 1)]
    if std_error <= 1e-13 * max(map(abs, values)):
        raise EstimationError("the outcome does not vary between cells, so nothing says how sure the estimate is")
    return finish(
        "randomization_inference",
        estimate=point,
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=values[0],
        treatment_value=values[1],
        **counts_by_arm(model),
        relative=Relative(),
        diagnostics=model.diagnostics(),
    )


def _relative(model: Model, regression: Fit, estimate: Estimate, reach: tuple[float, float]) -> Relative:
    """The relative effect, its interval reaching so many standard errors down and up on the log ratio."""
    control, treatment = values = [estimate.control_value, estimate.treatment_value]
    if reason := relative_reason(control):
        return Relative(reason=reason)
    error = math.sqrt(regression.variance(log_ratio_contrast(model, values)))
    down, up = (r * error for r in reach)
    ratio = treatment / control
    if treatment > 0.0:
        top = math.log(ratio) + up
        return Relative(ratio - 1.0, math.expm1(math.log(ratio) - down), math.expm1(top) if top < 700.0 else None)
    return Relative(ratio - 1.0, ratio - 1.0 - down, ratio - 1.0 + up)
