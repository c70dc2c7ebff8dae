"""Schedules drawn anew, against every one that there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from estimators.block_regression import block_regression
from estimators.cells import Cells
from estimators.inference import EstimationError
from estimators.randomization_blocks import leave_one_out_schedule, randomization_blocks
from estimators.randomization_inference import Assignments

World = Callable[..., Cells]


def coins(cells: Cells, draws: int, seed: int, together: bool = False) -> Assignments:
    rng = np.random.default_rng(seed)
    if together:
        return Assignments(rng.integers(0, 2, (draws, cells.block.max() + 1), np.int8)[:, cells.block], False)
    return Assignments(rng.integers(0, 2, (draws, len(cells.arm)), np.int8), False)


def small(clusters: int, blocks: int, seed: int = 1) -> Cells:
    rng = np.random.default_rng(seed)
    n = clusters * blocks
    cluster, block = np.repeat(np.arange(clusters), blocks), np.tile(np.arange(blocks), clusters)
    arm = np.tile([0, 1, 1, 0, 1, 0, 0, 1, 1], clusters)[:n] if clusters == 1 else rng.permutation(np.arange(n) % 2)
    den = rng.integers(1, 9, n).astype(float)
    y = 5 + cluster + arm + rng.normal(size=n)
    zero = np.zeros(n, dtype=int)
    return Cells(y * den, den, arm, cluster, block, zero, zero, tuple("abc"[:clusters]))


def statistic(y: np.ndarray, arm: np.ndarray, cells: Cells, by_block: bool, null: float = 0.0) -> float:
    """The studentized effect by plain least squares; nan where there is none."""
    root = np.sqrt(cells.den)
    x = root[:, None] * np.column_stack([np.ones(len(y)), arm, cells.cluster[:, None] == np.unique(cells.cluster)[1:]])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return math.nan
    inverse = np.linalg.pinv(x)
    beta = inverse @ (root * y)
    scores = inverse[1] * (root * y - x @ beta)
    if by_block:
        return float(abs(beta[1] - null) / np.sqrt((np.bincount(cells.block, weights=scores) ** 2).sum()))
    left = 1 - (x * inverse.T).sum(axis=1)
    if (left < 1e-9).any():
        return math.nan
    return float(abs(beta[1] - null) / np.sqrt((scores**2 / left).sum()))


def brute(cells: Cells, every: np.ndarray, weight: np.ndarray, null: float, by_block: bool) -> float:
    y = cells.num / cells.den
    observed = statistic(y, cells.arm, cells, by_block, null)
    found = np.array([statistic(y + null * (z - cells.arm), z, cells, by_block, null) for z in every])
    some = np.isfinite(found)
    return float(np.average(found[some] >= observed * (1 - 1e-9), weights=weight[some]))


@pytest.mark.parametrize(("clusters", "blocks", "together"), [(1, 9, False), (2, 5, False), (2, 9, True)])
@pytest.mark.parametrize("share", [0.5, 0.3])
def test_all_schedules_give_the_exact_p_value_and_interval(
    clusters: int, blocks: int, together: bool, share: float
) -> None:
    cells = small(clusters, blocks)
    if together:
        cells = replace(cells, arm=np.tile(small(1, blocks).arm, clusters))
    n = blocks if together else clusters * blocks
    units = np.array(list(itertools.product((0, 1), repeat=n)), dtype=np.int8)
    every = units[:, cells.block] if together else units
    weight = np.where(units == 1, share, 1 - share).prod(axis=1)
    ours = randomization_blocks(
        cells, Assignments(every, True, weight, "bernoulli"), alpha=0.2, clustered_by="block" if together else "cell"
    )
    assert ours.p_value == pytest.approx(brute(cells, every, weight, 0.0, together), abs=1e-12)
    step = 1e-5 * ours.std_error
    for bound, outwards in ((ours.ci_low, -step), (ours.ci_high, step)):
        assert brute(cells, every, weight, bound + outwards, together) <= 0.2
        assert brute(cells, every, weight, bound - outwards, together) > 0.2
    assert (ours.diagnostics["exact"], ours.diagnostics["mechanism"]) == (True, "bernoulli")


def test_the_point_and_its_error_are_those_of_block_regression(switchback: World) -> None:
    cells = switchback(1, effect=0.6)
    plain = block_regression(cells)
    assert plain.diagnostics["dropped_levels"] == []
    ours = randomization_blocks(cells, coins(cells, 1999, 2))
    for name in ("estimate", "std_error", "df", "control_value", "treatment_value", "relative", "n_control"):
        assert getattr(ours, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    assert ours.method == "randomization_inference"
    assert ours.diagnostics["draws"] == 1999
    # With hundreds of cells the schedules' answer is close to Student's.
    assert (ours.ci_low, ours.ci_high) == pytest.approx((plain.ci_low, plain.ci_high), abs=0.25 * plain.std_error)
    assert ours.relative_ci_low is not None
    assert ours.relative_ci_high is not None
    assert (ours.relative_ci_low, ours.relative_ci_high) == pytest.approx(
        (plain.relative_ci_low, plain.relative_ci_high), abs=0.01
    )


@pytest.mark.parametrize("together", [False, True])
def test_size_and_cover_with_few_blocks_and_a_long_memory(switchback: World, together: bool) -> None:
    """24 blocks of AR(1) noise and skewed shocks, where a t interval leans on approximations."""
    sims, covered = 200, 0
    by = "block" if together else "cell"
    for seed in range(sims):
        cells = switchback(seed, days=2, clusters=2 if together else 1, effect=1.0, memory=0.8, together=together)
        shock = np.random.default_rng(seed + 9000).lognormal(0, 1.5, 24)[cells.block]
        cells = replace(cells, num=cells.num + shock * cells.den)
        found = randomization_blocks(cells, coins(cells, 199, seed + 5000, together), clustered_by=by)
        # The interval is the test turned round, so that its cover is the test's size too.
        covered += found.ci_low <= 1.0 <= found.ci_high
    assert covered / sims == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / sims))


def test_a_schedule_that_compares_nothing_is_not_counted() -> None:
    cells = small(1, 9)
    arms = np.vstack([np.zeros((5, 9), np.int8), np.ones((5, 9), np.int8), coins(cells, 400, 1).arms])
    ours = randomization_blocks(cells, Assignments(arms, False), alpha=0.2)
    assert 380 < ours.diagnostics["draws"] <= 400


def test_leaving_out_takes_the_unit_out_of_the_schedules(switchback: World) -> None:
    cells = switchback(3)
    y = cells.num / cells.den
    wild = replace(cells, num=np.where(np.arange(len(y)) == 17, y + 60, y) * cells.den)
    schedules = coins(cells, 499, 4)
    ours = leave_one_out_schedule(wild, schedules)
    assert ours.diagnostics["left_out"] == {"index": 17}
    keep = np.arange(len(y)) != 17
    rest = randomization_blocks(cells.take(keep), Assignments(schedules.arms[:, keep], False))
    assert (ours.estimate, ours.p_value) == (rest.estimate, rest.p_value)


def test_what_cannot_be_tested_is_refused(switchback: World) -> None:
    cells = small(1, 9)
    with pytest.raises(EstimationError, match="one column per cell"):
        randomization_blocks(cells, Assignments(np.zeros((3, 8), np.int8), False))
    with pytest.raises(EstimationError, match="arms of schedules"):
        randomization_blocks(cells, Assignments(np.full((3, 9), 2, np.int8), False))
    with pytest.raises(EstimationError, match="no schedule that could be drawn"):
        randomization_blocks(cells, Assignments(np.zeros((3, 9), np.int8), False))
    with pytest.raises(EstimationError, match="too few draws for an interval at level"):
        randomization_blocks(cells, coins(cells, 9, 1))
    with pytest.raises(EstimationError, match="does not vary"):
        randomization_blocks(replace(cells, num=0.1 * cells.den), coins(cells, 99, 1))
