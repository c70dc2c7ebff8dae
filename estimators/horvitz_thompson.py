"""Horvitz-Thompson estimation for switchbacks under a stated order of carryover.

Estimand: with ``p`` the order, the mean over blocks of the outcome after ``p + 1`` blocks of treatment minus that after
``p + 1`` blocks of control, blocks alike; the effect of treatment always against control always where the true order is
at most ``p``. A block counts for an arm where it and the ``p`` blocks before it all had that arm, and is divided by the
probability of that path, which the mechanism of assignment gives:

    tau = 1/n sum_t Y_t (1{path of treatment} / P(path of treatment) - 1{path of control} / P(path of control))

No model of the outcome enters. The estimator is unbiased over the assignments; its error grows with the outcome's
level, as nothing is divided by the paths that happened to be drawn. The variance is that of the design, with the
products of outcomes that are never seen together bounded by ``2 a b <= a^2 + b^2``, so that its estimator's mean is at
least the true variance; the two agree where neither arm nor time moves the outcome. Intervals take Student's t with
Satterthwaite's degrees of freedom from the blocks on either path, as the normal falls short where one arm is rare.

Sources: Bojinov, Simchi-Levi and Zhao (2023), *Design and analysis of switchback experiments*; Aronow and Samii (2013),
*Conservative variance estimation for sampling designs with zero pairwise inclusion probabilities*, for the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.block_regression import log_ratio_relative
from estimators.cells import RANDOMIZED, Cells, require_sums
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite
from estimators.ols import Matrix

ARMS = ("control", "treatment")
UNKNOWN = -1

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Blocks on the time grid, a row for every series: a cluster, or all clusters where they switch together.

    Attributes:
        outcome: ``(series, slots)``; nan where there is none.
        arm: ``(series, slots)`` 0 control, 1 treatment, 2 another arm, -1 unknown.
        probability: Of control and of treatment, each ``(series, slots)``; nan where unknown.
        place: ``(n_cells,)`` position of every cell in the flattened grid.
    """

    outcome: Matrix
    arm: NDArray[np.intp]
    probability: tuple[Matrix, Matrix]
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """One arm's paths.

    Attributes:
        on: ``(series, slots)`` blocks that enter and are on the arm's path.
        chance: ``(series, slots)`` probability of the path.
        weighted: ``(series, slots)`` outcome over that probability, 0 off the path.
        variance: Of the arm's mean, its share of the bound included; both arms' add up to the effect's.
    """

    on: Flags
    chance: Matrix
    weighted: Matrix
    variance: float


def horvitz_thompson(
    cells: Cells, probability: ArrayLike, *, order: int = 1, alpha: float = 0.05, clustered_by: str = "cell"
) -> Estimate:
    """The effect of ``order + 1`` blocks of treatment against as many of control.

    Args:
        cells: One entry per cluster x block, those of other arms (code 2) and those without rows (``den`` 0) among
            them, as their arms make the paths; ``order`` of the cells says which blocks follow each other.
        probability: Of control and of treatment, ``(2,)`` or ``(n_cells, 2)``, every randomized unit drawn on its own.
        order: Blocks for which an arm acts after it ended, 0 or more.
        alpha: Level; intervals are at ``1 - alpha``.
        clustered_by: ``cell``: every cluster has a path of its own, and its outcome is ``num / den``; ``block``: all
            switch together, and a block's outcome is that of its clusters' rows taken together.

    Returns:
        The estimate in the outcome's unit, ``n_control`` and ``n_treatment`` the blocks on a path.
        ``diagnostics``: ``order``, ``n_blocks`` that enter, ``blocks_left_out`` whose path is not known,
        ``smallest_path_probability``, ``hajek_estimate`` (the same paths with weights that add up to one) and
        ``n_clusters``.

    Raises:
        EstimationError: An arm without two blocks on its path, probabilities outside (0, 1), a block with both arms
            where blocks were randomized, or a variance estimate that is not positive.
    """
    grid, enters, paths = _laid_out(cells, probability, order, clustered_by)
    on = [_count(path, name, order) for path, name in zip(paths, ARMS, strict=True)]
    n = int(enters.sum())
    control, treatment = (float(p.weighted.sum()) / n for p in paths)
    variance = sum(p.variance for p in paths)
    if not variance > 0.0:
        raise EstimationError("the variance cannot be estimated: too few blocks are on a path of one arm")
    df = satterthwaite((paths[0].variance, paths[1].variance), (on[0] - 1.0, on[1] - 1.0))
    relative_variance = _relative_variance(control, treatment, paths)
    notes: dict[str, Any] = {
        "order": order,
        "n_blocks": n,
        "n_clusters": len(np.unique(cells.cluster)),
        "blocks_left_out": int(np.isfinite(grid.outcome).sum()) - n,
        "smallest_path_probability": min(float(p.chance[enters].min()) for p in paths),
        "hajek_estimate": _hajek(paths[1]) - _hajek(paths[0]),
    }
    return finish(
        "horvitz_thompson",
        estimate=treatment - control,
        std_error=math.sqrt(variance),
        df=df,
        alpha=alpha,
        control_value=control,
        treatment_value=treatment,
        n_control=on[0],
        n_treatment=on[1],
        relative=log_ratio_relative([control, treatment], relative_variance, df, alpha),
        diagnostics=notes,
    )


def leave_one_out_paths(
    cells: Cells, probability: ArrayLike, *, order: int = 1, alpha: float = 0.05, clustered_by: str = "cell"
) -> Estimate:
    """``horvitz_thompson`` without the outcome of the block that moves it most; its arm still stands in the paths.

    Returns:
        The estimate; ``diagnostics["left_out"]`` holds the ``index`` of the block's first cell.
    """
    grid, enters, paths = _laid_out(cells, probability, order, clustered_by)
    part = paths[1].weighted - paths[0].weighted
    moves = np.where(enters, np.abs(part - part.sum() / enters.sum()), -1.0)
    gone = grid.place == int(np.argmax(moves))
    rest = replace(cells, num=np.where(gone, 0.0, cells.num), den=np.where(gone, 0.0, cells.den))
    estimate = horvitz_thompson(rest, probability, order=order, alpha=alpha, clustered_by=clustered_by)
    index = int(np.flatnonzero(gone)[0])
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"index": index}})


def _laid_out(
    cells: Cells, probability: ArrayLike, order: int, clustered_by: str
) -> tuple[_Grid, Flags, tuple[_Paths, _Paths]]:
    if clustered_by not in RANDOMIZED:
        raise ValueError(f"clustered_by must be one of {RANDOMIZED}")
    if order < 0:
        raise ValueError("order must be at least 0")
    grid = _grid(cells, probability, clustered_by)
    known = _over(grid.arm != UNKNOWN, range(order + 1))
    enters = np.isfinite(grid.outcome) & (known > 0.0)
    paths = (_paths(grid, enters, 0, order), _paths(grid, enters, 1, order))
    return grid, enters, paths


def _grid(cells: Cells, probability: ArrayLike, clustered_by: str) -> _Grid:
    require_sums(cells)
    chance = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(cells.arm), 2))
    if not ((chance > 0.0) & (chance < 1.0)).all() or (chance.sum(axis=1) > 1.0 + 1e-9).any():
        raise EstimationError("probabilities of the arms must lie between 0 and 1, and add up to at most 1")
    if not np.isin(cells.arm, (0, 1, 2)).all():
        raise EstimationError("arms of cells must be 0 (control), 1 (treatment) or 2 (another)")
    series = np.unique(cells.cluster, return_inverse=True)[1].reshape(-1)
    if clustered_by == "block":
        series = np.zeros_like(series)
    slot = cells.slot - cells.slot.min()
    shape = (int(series.max()) + 1, int(slot.max()) + 1)
    place = series * shape[1] + slot
    arm = np.full(shape[0] * shape[1], UNKNOWN, dtype=np.intp)
    arm[place] = cells.arm
    if (arm[place] != cells.arm).any():
        raise EstimationError("a block holds both arms, so the block was not what was randomized")
    num, den = (np.bincount(place, weights=x, minlength=len(arm)) for x in (cells.num, cells.den))
    outcome = np.where(den > 0.0, num / np.where(den > 0.0, den, 1.0), np.nan)
    given = np.full((2, len(arm)), np.nan)
    given[:, place] = chance.T
    return _Grid(outcome.reshape(shape), arm.reshape(shape), (given[0].reshape(shape), given[1].reshape(shape)), place)


def _paths(grid: _Grid, enters: Flags, arm: int, order: int) -> _Paths:
    """One arm's paths with their variance: ``sum_{|t - s| <= p} Z_t Z_s (1 - P(common part of both paths))``, and for
    the bound ``Z_t^2 P(path of t)`` as often as blocks that enter lie within ``p`` of ``t``."""
    on = enters & (_over(grid.arm == arm, range(order + 1)) > 0.0)
    p = np.where(np.isnan(grid.probability[arm]), 1.0, grid.probability[arm])
    chance = _over(p, range(order + 1))
    z = np.where(on, grid.outcome, 0.0) / np.where(on, chance, 1.0)
    near = enters.astype(np.float64)
    total = 0.0
    for lag in range(order + 1):
        earlier = _back(z, lag)
        total += (1.0 if lag == 0 else 2.0) * float((z * earlier * (1.0 - _over(p, range(lag, order + 1)))).sum())
        if lag:
            near = near + _back(enters, lag) + _back(enters[:, ::-1], lag)[:, ::-1]
    total += float((near * chance * z * z).sum())
    n = max(int(enters.sum()), 1)
    return _Paths(on, chance, z, total / n**2)


def _over(x: Matrix | Flags, lags: range) -> Matrix:
    """Product over ``lags`` of what stood so many slots before; 0 before the first slot."""
    out = np.ones(x.shape)
    for lag in lags:
        out *= _back(x, lag)
    return out


def _back(x: Matrix | Flags, lag: int) -> Matrix:
    """``x`` as it stood ``lag`` slots before; 0 before the first slot."""
    out = np.zeros(x.shape)
    out[:, lag:] = x[:, : x.shape[1] - lag]
    return out


def _count(path: _Paths, arm: str, order: int) -> int:
    n = int(path.on.sum())
    if n < 2:
        before = f" with {order} of it before" if order else ""
        raise EstimationError(f"{arm} has {n} block{'s' * (n != 1)}{before}; two are needed")
    return n


def _relative_variance(control: float, treatment: float, paths: tuple[_Paths, _Paths]) -> float:
    """Variance of the log ratio of both means, of their ratio where there is no log; 0 where there is neither."""
    if control <= 0.0:
        return 0.0
    slope = 1.0 / treatment if treatment > 0.0 else 1.0 / control
    return slope**2 * (paths[1].variance + (treatment / control) ** 2 * paths[0].variance)


def _hajek(path: _Paths) -> float:
    weights = np.where(path.on, 1.0 / np.where(path.on, path.chance, 1.0), 0.0)
    return float(path.weighted.sum() / weights.sum())
