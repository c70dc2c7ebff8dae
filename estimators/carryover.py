"""Carryover in switchbacks: what the arms of earlier blocks still do to a block's outcome.

Model: the block regression with the arms of the blocks before as further columns. Where the arms of blocks are drawn
independently, the coefficient of lag ``j`` estimates the effect of having been in treatment rather than control ``j``
blocks ago, the arms since then being as they are; no carryover of that order means that it is zero.

Sources: Bojinov, Simchi-Levi and Zhao (2023), *Design and analysis of switchback experiments* (order of carryover);
Cochran, Autrey and Cannon (1941) for first-order residual effects in cross-over trials; errors as in
``block_regression``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.cells import Cells, prepare
from estimators.inference import EstimationError, t_interval, two_sided_p
from estimators.ols import Fit, Vector, fit

UNKNOWN = -1

Arms = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Lag:
    """Effect of the arm ``lag`` blocks ago, the other arms of the model held; lag 0 is the block's own arm.

    Attributes:
        lag: Blocks back in time.
        estimate, std_error: Treatment minus control, in the outcome's unit.
        df: Satterthwaite degrees of freedom.
        p_value: Two-sided test of no effect.
        ci_low, ci_high: Interval at ``1 - alpha``.
        n_cells: Cells in the regression, whose earlier arms are all known.
    """

    lag: int
    estimate: float
    std_error: float
    df: float
    p_value: float
    ci_low: float
    ci_high: float
    n_cells: int


@dataclass(frozen=True, slots=True, eq=False)
class SinceSwitch:
    """The effect of the block's own arm and of the arm before, by time since the block began; one entry per bin.

    Attributes:
        effect, std_error, df: Of the block's own arm, the arm before held.
        carryover, carryover_std_error, carryover_df: Of the arm before.
        reasons: Why a bin has no numbers (they are nan); empty where it has.
    """

    effect: Vector
    std_error: Vector
    df: Vector
    carryover: Vector
    carryover_std_error: Vector
    carryover_df: Vector
    reasons: tuple[str, ...]


def earlier_arms(cells: Cells, lags: int, clustered_by: str = "cell") -> Arms:
    """``(n, lags)`` arms of the same cluster's blocks 1, 2 … ``lags`` before on the time grid; -1 where unknown.

    Where all clusters switch together (``clustered_by="block"``) a block's arm is known from any cluster.
    """
    cluster = cells.cluster if clustered_by == "cell" else np.zeros_like(cells.cluster)
    width = int(cells.slot.max() - cells.slot.min()) + lags + 1 if len(cells.arm) else 1
    place = cluster * width + (cells.slot - cells.slot.min(initial=0)) + lags
    known, first = np.unique(place, return_index=True)
    out = np.full((len(cells.arm), lags), UNKNOWN, dtype=np.intp)
    for j in range(1, lags + 1):
        # The first ``lags`` places of every cluster are empty, so that a lag never reaches into another cluster.
        at = np.minimum(np.searchsorted(known, place - j), len(known) - 1)
        found = known[at] == place - j
        out[found, j - 1] = cells.arm[first[at[found]]]
    return out


def lagged_effects(
    cells: Cells,
    lags: int,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
    previous: ArrayLike | None = None,
) -> tuple[Lag, ...]:
    """Effects of a block's own arm and of the ``lags`` arms before it, from one regression.

    Args:
        cells: One entry per cluster x block; ``order`` says which blocks follow each other.
        lags: Earlier blocks that enter, at least 1.
        alpha, weights, clustered_by: As in ``block_regression``.
        previous: ``(n_cells, lags)`` arms of the blocks 1, 2 … before, 0 or 1, and -1 where unknown or of another arm;
            None: those of ``cells``, with ``earlier_arms``.

    Returns:
        Lag 0 first, then lag 1 … ``lags``. Cells that have an unknown earlier arm are left out: the first blocks of a
        cluster and those after a gap.

    Raises:
        EstimationError: As ``block_regression`` for the cells that are left; an earlier arm that cluster, calendar and
            the later arms foretell, as in a schedule that alternates.
    """
    before = _previous(cells, lags, clustered_by, previous)
    regression = _regression(cells, before, weights, clustered_by)
    return tuple(_lag(regression, j, alpha) for j in range(lags + 1))


def effect_since_switch(
    cells: Cells,
    num: ArrayLike,
    den: ArrayLike,
    *,
    weights: str = "rows",
    clustered_by: str = "cell",
    previous: ArrayLike | None = None,
) -> SinceSwitch:
    """The effect and its carryover from the block before, by time since the block began.

    Every bin has its own regression on arm and arm before, cluster and calendar; the carryover's course over the bins
    is how fast the state that the last block left behind fades.

    Args:
        cells: One entry per cluster x block; its own ``num`` and ``den`` are not used.
        num, den: ``(n_cells, n_bins)`` sums of the outcome and its denominator by time since the block's start.
        weights, clustered_by: As in ``block_regression``.
        previous: ``(n_cells,)`` arm of the block before, 0 or 1, and -1 where unknown or of another arm; None: that of
            ``cells``.

    Returns:
        Arrays of ``n_bins``; nan, with the reason, where a bin cannot carry its regression.
    """
    numerator, denominator = np.asarray(num, dtype=np.float64), np.asarray(den, dtype=np.float64)
    if numerator.shape != denominator.shape or numerator.ndim != 2 or len(numerator) != len(cells.arm):
        raise EstimationError("sums since the switch must have one row per cell and one column per bin")
    if previous is not None:
        previous = np.asarray(previous, dtype=np.intp).reshape(-1, 1)
    before = _previous(cells, 1, clustered_by, previous)
    n_bins = numerator.shape[1]
    found, reasons = np.full((6, n_bins), np.nan), [""] * n_bins
    for b in range(n_bins):
        try:
            regression = _regression(
                _with_sums(cells, numerator[:, b], denominator[:, b]), before, weights, clustered_by
            )
            found[:, b] = (*_contrast(regression, 0), *_contrast(regression, 1))
        except EstimationError as error:
            reasons[b] = str(error)
    effect, std_error, df, carried, carried_error, carried_df = found
    return SinceSwitch(effect, std_error, df, carried, carried_error, carried_df, tuple(reasons))


def _previous(cells: Cells, lags: int, clustered_by: str, given: ArrayLike | None) -> Arms:
    if lags < 1:
        raise ValueError("lags must be at least 1")
    if given is None:
        return earlier_arms(cells, lags, clustered_by)
    before = np.asarray(given, dtype=np.intp)
    if before.shape != (len(cells.arm), lags):
        raise EstimationError("earlier arms must have one row per cell and one column per lag")
    if not np.isin(before, (UNKNOWN, 0, 1)).all():
        raise EstimationError("earlier arms must be 0 (control), 1 (treatment) or -1 (unknown)")
    return before


def _regression(cells: Cells, before: Arms, weights: str, clustered_by: str) -> Fit:
    # A numerator without a denominator stays in, to be refused there.
    keep = (before != UNKNOWN).all(axis=1) & ((cells.den > 0.0) | (cells.num != 0.0))
    if not keep.any():
        raise EstimationError("no block follows another one whose arm is known")
    model = prepare(cells.take(keep), weights, clustered_by, before[keep])
    y = model.cells.num / model.cells.den
    centre = float(np.average(y, weights=model.weight))
    regression = fit(model.x, y - centre, model.weight, model.groups)
    if float(np.abs(regression.residuals).max()) <= 1e-13 * float(np.abs(y).max()):
        raise EstimationError("the outcome does not vary between cells, so nothing says how sure the estimate is")
    return regression


def _contrast(regression: Fit, lag: int) -> tuple[float, float, float]:
    return regression.contrast(np.arange(len(regression.coef)) == 1 + lag)


def _lag(regression: Fit, lag: int, alpha: float) -> Lag:
    estimate, std_error, df = _contrast(regression, lag)
    low, high = t_interval(estimate, std_error, df, alpha)
    p = two_sided_p(estimate / std_error, df)
    return Lag(lag, estimate, std_error, df, p, low, high, len(regression.groups))


def _with_sums(cells: Cells, num: Vector, den: Vector) -> Cells:
    return Cells(
        num, den, cells.arm, cells.cluster, cells.block, cells.hour, cells.weekday, cells.cluster_labels, cells.order
    )
