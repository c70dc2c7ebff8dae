"""How much of an estimate hangs on one unit: leave-one-out, found in closed form and recomputed exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from estimators.block_regression import block_regression, most_influential
from estimators.cells import Cells, prepare
from estimators.cuped import cuped
from estimators.difference_in_means import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.joint_moments import JointMoments
from estimators.moments import Moments
from estimators.ols import Vector
from estimators.regression_adjusted import leave_one_out_moves, regression_adjusted

ArmArrays = tuple[ArrayLike, ArrayLike | None]


def leave_one_out_means(control: ArmArrays, treatment: ArmArrays, *, alpha: float = 0.05) -> Estimate:
    """The difference in means (or ratios) without the unit whose leaving out moves it most.

    Args:
        control, treatment: ``(num, den)`` by unit; ``den`` None for a plain mean.

    Returns:
        The full estimate without that unit; ``diagnostics["left_out"]`` holds its ``arm`` (0 control, 1 treatment) and
        its ``index`` in the arm (the first of equals).

    Raises:
        EstimationError: Where an arm has fewer than three units, and as ``difference_in_means``.
    """
    arms = [_arrays(arm) for arm in (control, treatment)]
    moves = [_moves(num, den) for num, den in arms]
    arm = int(max(moves[1]) > max(moves[0]))
    index = int(np.argmax(moves[arm]))
    num, den = arms[arm]
    arms[arm] = (np.delete(num, index), None if den is None else np.delete(den, index))
    estimate = difference_in_means(*(Moments.from_arrays(num, den) for num, den in arms), alpha=alpha)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"arm": arm, "index": index}})


def leave_one_out_cuped(
    control: tuple[ArmArrays, ArmArrays], treatment: tuple[ArmArrays, ArmArrays], *, alpha: float = 0.05
) -> Estimate:
    """CUPED without the unit whose leaving out moves it most, ``theta`` held for finding it and fitted afresh after.

    Args:
        control, treatment: Outcome and covariate, each ``(num, den)`` by unit; ``den`` None for a plain mean.

    Returns:
        As ``leave_one_out_means``.

    Raises:
        EstimationError: Where an arm has fewer than three units, and as ``cuped``.
    """
    arms = [[_arrays(values) for values in arm] for arm in (control, treatment)]
    theta = float(cuped(*(JointMoments.from_arrays(*arm) for arm in arms), alpha=alpha).diagnostics["theta"])
    moves = [np.abs(_signed_moves(*outcome) - theta * _signed_moves(*covariate)) for outcome, covariate in arms]
    arm = int(max(moves[1]) > max(moves[0]))
    index = int(np.argmax(moves[arm]))
    arms[arm] = [(np.delete(num, index), None if den is None else np.delete(den, index)) for num, den in arms[arm]]
    estimate = cuped(*(JointMoments.from_arrays(*values) for values in arms), alpha=alpha)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"arm": arm, "index": index}})


def leave_one_out_adjusted(
    y: ArrayLike, arm: ArrayLike, covariates: ArrayLike, den: ArrayLike | None = None, *, alpha: float = 0.05
) -> Estimate:
    """Regression adjustment without the unit whose leaving out moves it most.

    Args:
        y, arm, covariates, den: As ``regression_adjusted`` takes them.

    Returns:
        The full estimate without that unit; ``diagnostics["left_out"]`` holds its ``index``.

    Raises:
        EstimationError: As ``regression_adjusted``, with the unit and without it.
    """
    index = int(np.argmax(leave_one_out_moves(y, arm, covariates, den)))
    num, code, x = (np.delete(np.asarray(v), index, axis=0) for v in (y, arm, covariates))
    weight = None if den is None else np.delete(np.asarray(den), index)
    estimate = regression_adjusted(num, code, x, weight, alpha=alpha)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"index": index}})


def leave_one_out_blocks(
    cells: Cells,
    *,
    alpha: float = 0.05,
    weights: str = "rows",
    clustered_by: str = "cell",
    hac: int | None = None,
) -> Estimate:
    """The block regression without the randomized unit whose leaving out moves it most, its calendar chosen afresh.

    Returns:
        The full estimate without that unit; ``diagnostics["left_out"]`` holds its ``index``: the position in ``cells``
        (``clustered_by="cell"``) or the code of the block (``"block"``).

    Raises:
        EstimationError: As ``block_regression``, with the unit and without it.
    """
    index, keep = most_influential(cells, prepare(cells, weights, clustered_by), clustered_by)
    estimate = block_regression(cells.take(keep), alpha=alpha, weights=weights, clustered_by=clustered_by, hac=hac)
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": {"index": index}})


def share_of_top(num: ArrayLike, fraction: float = 0.01) -> float:
    """Share of the sum of absolute values that the largest ``fraction`` of units hold (at least one); 0 of nothing."""
    size = np.abs(np.asarray(num, dtype=np.float64))
    total = float(size.sum())
    if not math.isfinite(total):
        raise EstimationError("the outcome holds values that are not finite")
    if total == 0.0:
        return 0.0
    # 1 % of 700 units is 7, though 0.01 * 700 is a little more.
    top = max(1, math.ceil(fraction * len(size) * (1.0 - 1e-12)))
    return float(np.partition(size, len(size) - top)[len(size) - top :].sum()) / total


def _arrays(arm: ArmArrays) -> tuple[Vector, Vector | None]:
    num, den = arm
    x = np.asarray(num, dtype=np.float64)
    if len(x) < 3:
        raise EstimationError("an arm has fewer than three units, so none can be left out")
    return x, None if den is None else np.asarray(den, dtype=np.float64)


def _moves(num: Vector, den: Vector | None) -> Vector:
    """How far the ratio moves without each unit."""
    return np.abs(_signed_moves(num, den))


def _signed_moves(num: Vector, den: Vector | None) -> Vector:
    """``R - R without i = (num_i - R den_i) / (D - den_i)``: no difference of large sums is taken."""
    d = np.ones(len(num)) if den is None else den
    total = float(d.sum())
    if not total > 0.0:
        raise EstimationError("the denominator does not sum to a positive number in one arm")
    rest = total - d
    residual = num - num.sum() / total * d
    return np.where(rest > 0.0, residual / np.where(rest > 0.0, rest, 1.0), 0.0)
