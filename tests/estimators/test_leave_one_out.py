from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from estimators.block_regression import block_regression
from estimators.cells import Cells
from estimators.cuped import cuped
from estimators.difference_in_means import difference_in_means
from estimators.inference import EstimationError
from estimators.joint_moments import JointMoments
from estimators.leave_one_out import (
    leave_one_out_adjusted,
    leave_one_out_blocks,
    leave_one_out_cuped,
    leave_one_out_means,
    share_of_top,
)
from estimators.moments import Moments
from estimators.regression_adjusted import regression_adjusted


@pytest.mark.parametrize("ratio", [False, True])
def test_the_unit_found_is_that_of_brute_force(ratio: bool) -> None:
    rng = np.random.default_rng(1)
    num = [rng.pareto(1.5, 40), rng.pareto(1.5, 30)]
    den = [rng.integers(1, 9, 40).astype(float), rng.integers(1, 9, 30).astype(float)] if ratio else [None, None]

    def estimate(arm: int | None, index: int) -> float:
        moments = []
        for a in (0, 1):
            keep = np.arange(len(num[a])) != (index if a == arm else -1)
            d = den[a]
            moments.append(Moments.from_arrays(num[a][keep], None if d is None else d[keep]))
        return difference_in_means(*moments).estimate

    whole = estimate(None, 0)
    moves = {(a, i): abs(estimate(a, i) - whole) for a in (0, 1) for i in range(len(num[a]))}
    arm, index = max(moves, key=lambda key: moves[key])
    ours = leave_one_out_means((num[0], den[0]), (num[1], den[1]))
    assert ours.diagnostics["left_out"] == {"arm": arm, "index": index}
    assert ours.estimate == pytest.approx(estimate(arm, index), rel=1e-12)
    assert ours.n_control + ours.n_treatment == 69


def test_one_giant_decides_the_sign() -> None:
    control, treatment = np.ones(50) + np.arange(50) / 100, np.ones(50) + np.arange(50) / 100 - 0.2
    treatment[13] = 1000.0
    assert difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment)).estimate > 0
    without = leave_one_out_means((control, None), (treatment, None))
    assert without.diagnostics["left_out"] == {"arm": 1, "index": 13}
    assert without.ci_high < 0


def cells(seed: int, together: bool) -> Cells:
    rng = np.random.default_rng(seed)
    block, cluster = np.tile(np.arange(60), 2), np.repeat([0, 1], 60)
    arm = rng.integers(0, 2, 60)[block] if together else rng.integers(0, 2, 120)
    den = rng.integers(5, 50, 120).astype(float)
    num = den * (3 + cluster + rng.standard_t(2, 120))
    return Cells(num, den, arm, cluster, block, 2 * (block % 12), (block // 12) % 7, ("a", "b"))


@pytest.mark.parametrize("together", [False, True])
def test_the_cell_or_block_found_is_that_of_brute_force(together: bool) -> None:
    c = cells(2, together)
    how = "block" if together else "cell"
    units = c.block if together else np.arange(120)
    whole = block_regression(c, clustered_by=how).estimate
    moves = [abs(block_regression(c.take(units != u), clustered_by=how).estimate - whole) for u in np.unique(units)]
    ours = leave_one_out_blocks(c, clustered_by=how)
    index = int(np.argmax(moves))
    assert ours.diagnostics["left_out"] == {"index": index}
    assert ours == replace(
        block_regression(c.take(units != index), clustered_by=how), diagnostics=dict(ours.diagnostics)
    )


def test_share_of_the_top_units() -> None:
    assert share_of_top(np.r_[np.ones(99), 99.0]) == pytest.approx(0.5)
    assert share_of_top(np.ones(700)) == pytest.approx(0.01)
    assert share_of_top(np.ones(50)) == pytest.approx(0.02)
    assert share_of_top(np.r_[-5.0, 5.0], 0.5) == pytest.approx(0.5)
    assert share_of_top(np.zeros(10)) == 0.0


def test_too_few_units_are_refused() -> None:
    with pytest.raises(EstimationError, match="fewer than three"):
        leave_one_out_means((np.ones(2), None), (np.arange(9.0), None))


def test_cuped_without_the_unit_that_moves_it_most() -> None:
    rng = np.random.default_rng(8)
    arms = []
    for shift in (0.0, 0.4):
        before, rows = rng.gamma(2, 3, 60), rng.integers(1, 9, 60).astype(float)
        arms.append(((rows * (before + shift) + rng.standard_t(3, 60), rows), (before, None)))
    # Large, and foretold by the covariate: it is not what moves the estimate.
    arms[0][0][0][7], arms[0][0][1][7] = 5.0 * 40.0, 5.0
    arms[0][1][0][7] = 40.0
    arms[1][0][0][11] += 120.0
    found = leave_one_out_cuped(arms[0], arms[1])
    assert found.diagnostics["left_out"] == {"arm": 1, "index": 11}
    whole = cuped(*(JointMoments.from_arrays(*arm) for arm in arms)).estimate

    def without(code: int, i: int) -> float:
        left = [[(np.delete(n, i), None if d is None else np.delete(d, i)) for n, d in arms[code]], arms[1 - code]]
        pair = left if code == 0 else left[::-1]
        return cuped(*(JointMoments.from_arrays(*arm) for arm in pair)).estimate

    moved = {(code, i): abs(without(code, i) - whole) for code in (0, 1) for i in range(60)}
    assert max(moved, key=lambda k: moved[k]) == (1, 11)
    assert found.estimate == pytest.approx(without(1, 11), rel=1e-12)


def test_regression_adjustment_without_the_unit_that_moves_it_most() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(5, 2, (80, 2))
    arm = np.arange(80) % 2
    rows = rng.integers(1, 9, 80).astype(float)
    y = rows * (x @ [1.0, -2.0] + arm + rng.standard_t(3, 80))
    y[13] += 300.0
    whole = regression_adjusted(y, arm, x, rows).estimate
    found = leave_one_out_adjusted(y, arm, x, rows)

    def without(i: int) -> float:
        return regression_adjusted(*(np.delete(v, i, axis=0) for v in (y, arm, x, rows))).estimate

    moved = [abs(without(i) - whole) for i in range(80)]
    assert found.diagnostics["left_out"] == {"index": int(np.argmax(moved))} == {"index": 13}
    assert found.estimate == pytest.approx(without(13), rel=1e-12)
