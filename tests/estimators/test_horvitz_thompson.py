"""Horvitz-Thompson under carryover, against every assignment that there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from estimators.cells import Cells
from estimators.horvitz_thompson import _laid_out, horvitz_thompson, leave_one_out_paths
from estimators.inference import EstimationError

World = Callable[..., Cells]
HALF = (0.5, 0.5)


def small(arms: np.ndarray, order: int, seed: int = 0, flat: bool = False) -> Cells:
    """``(clusters, blocks)`` arms; outcomes depend on the arms of ``order + 1`` blocks in ways of their own."""
    rng = np.random.default_rng(seed)
    clusters, blocks = arms.shape
    base = np.full((clusters, blocks), 5.0) if flat else 5 + rng.normal(size=(clusters, blocks))
    slopes = np.zeros((order + 1, clusters, blocks)) if flat else rng.normal(size=(order + 1, clusters, blocks))
    for lag in range(order + 1):
        base[:, lag:] += slopes[lag][:, lag:] * arms[:, : blocks - lag]
    cluster, block = np.repeat(np.arange(clusters), blocks), np.tile(np.arange(blocks), clusters)
    den = np.random.default_rng(seed + 1).integers(1, 9, clusters * blocks).astype(float)
    zero = np.zeros_like(block)
    return Cells(base.ravel() * den, den, arms.ravel(), cluster, block, zero, zero, tuple("abc"[:clusters]))


def outcome(cells: Cells, order: int, together: bool) -> float:
    """Mean outcome of the blocks that have ``order`` blocks before them."""
    if together:
        sums = [np.bincount(cells.block, weights=x) for x in (cells.num, cells.den)]
        return float((sums[0] / sums[1])[order:].mean())
    return float((cells.num / cells.den)[cells.block >= order].mean())


@pytest.mark.parametrize(
    ("clusters", "blocks", "order", "share", "together"),
    [(1, 8, 0, 0.5, False), (1, 9, 1, 0.5, False), (1, 9, 2, 0.5, False), (1, 9, 1, 0.3, False),
     (2, 5, 1, 0.4, False), (2, 9, 1, 0.5, True), (1, 9, 3, 0.6, False)],
)  # fmt: skip
def test_it_is_unbiased_and_its_variance_is_not_too_small(
    clusters: int, blocks: int, order: int, share: float, together: bool
) -> None:
    rows = 1 if together else clusters
    by, probability = "block" if together else "cell", (1 - share, share)
    points, variances, weights = [], [], []
    for coins in itertools.product((0, 1), repeat=rows * blocks):
        arms = np.broadcast_to(np.reshape(coins, (rows, blocks)), (clusters, blocks))
        _, enters, paths = _laid_out(small(arms, order), probability, order, by)
        points.append((paths[1].weighted.sum() - paths[0].weighted.sum()) / enters.sum())
        variances.append(paths[0].variance + paths[1].variance)
        weights.append(share ** sum(coins) * (1 - share) ** (len(coins) - sum(coins)))
    always = [outcome(small(np.full((clusters, blocks), a), order), order, together) for a in (0, 1)]
    assert sum(weights) == pytest.approx(1.0)
    assert np.average(points, weights=weights) == pytest.approx(always[1] - always[0], abs=1e-10)
    true = np.average((np.array(points) - (always[1] - always[0])) ** 2, weights=weights)
    assert np.average(variances, weights=weights) >= true
    assert np.average(variances, weights=weights) < 1.5 * true


@pytest.mark.parametrize(("order", "share"), [(0, 0.5), (1, 0.5), (2, 0.4)])
def test_the_variance_is_exact_where_nothing_moves_the_outcome(order: int, share: float) -> None:
    points, variances, weights = [], [], []
    for coins in itertools.product((0, 1), repeat=8):
        cells = small(np.array(coins)[None, :], order, flat=True)
        _, enters, paths = _laid_out(cells, (1 - share, share), order, "cell")
        points.append((paths[1].weighted.sum() - paths[0].weighted.sum()) / enters.sum())
        variances.append(paths[0].variance + paths[1].variance)
        weights.append(share ** sum(coins) * (1 - share) ** (8 - sum(coins)))
    true = np.average(np.square(points), weights=weights)
    assert np.average(variances, weights=weights) == pytest.approx(true, rel=1e-10)


def test_the_formula_by_hand() -> None:
    arms = np.array([[1, 1, 0, 0, 0, 1, 1, 1]])
    cells = small(arms, 1)
    y = cells.num / cells.den
    ours = horvitz_thompson(cells, (0.4, 0.6), order=1)
    treatment, control = (y[1] + y[6] + y[7]) / 0.36 / 7, (y[3] + y[4]) / 0.16 / 7
    assert (ours.treatment_value, ours.control_value) == pytest.approx((treatment, control), rel=1e-12)
    assert ours.estimate == pytest.approx(treatment - control, rel=1e-12)
    assert (ours.n_control, ours.n_treatment) == (2, 3)
    hajek = (y[1] + y[6] + y[7]) / 3 - (y[3] + y[4]) / 2
    assert ours.diagnostics == {
        "order": 1,
        "n_blocks": 7,
        "n_clusters": 1,
        "blocks_left_out": 1,
        "smallest_path_probability": pytest.approx(0.16),
        "hajek_estimate": pytest.approx(hajek, rel=1e-12),
    }


def test_a_gap_an_unlogged_block_and_another_arm(switchback: World) -> None:
    cells = switchback(1, clusters=1)
    gap = horvitz_thompson(replace(cells, order=cells.block + 3 * (cells.block >= 40)), HALF)
    assert gap.diagnostics["n_blocks"] == 82
    # A block without rows has no outcome, and its arm still makes the next one's path.
    empty = cells.block == 40
    zeroed = replace(cells, num=np.where(empty, 0, cells.num), den=np.where(empty, 0, cells.den))
    assert horvitz_thompson(zeroed, HALF).diagnostics["n_blocks"] == 82
    # Blocks of another arm enter with nothing, as the path of neither arm goes through them.
    third = replace(cells, arm=np.where(cells.block % 5 == 0, 2, cells.arm))
    ours = horvitz_thompson(third, (0.4, 0.4))
    assert ours.diagnostics["n_blocks"] == 83
    y, arm = cells.num / cells.den, third.arm
    own = sum(y[t] / 0.16 for t in range(1, 84) if arm[t] == arm[t - 1] == 1) / 83
    assert ours.treatment_value == pytest.approx(own, rel=1e-12)


def test_probabilities_may_differ_between_blocks(switchback: World) -> None:
    cells = switchback(2, clusters=1)
    share = np.where(cells.hour < 12, 0.3, 0.6)
    ours = horvitz_thompson(cells, np.column_stack([1 - share, share]), order=1)
    y = cells.num / cells.den
    own = sum(y[t] / (share[t] * share[t - 1]) for t in range(1, 84) if cells.arm[t] == cells.arm[t - 1] == 1) / 83
    assert ours.treatment_value == pytest.approx(own, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "order", "share"),
    [({"clusters": 2}, 1, 0.5), ({"clusters": 1, "days": 14}, 2, 0.5), ({"clusters": 2, "split": 0.3}, 1, 0.3),
     ({"clusters": 3, "together": True}, 1, 0.5)],
)  # fmt: skip
def test_intervals_hold_the_whole_effect_under_carryover(
    switchback: World, options: dict[str, object], order: int, share: float
) -> None:
    by, sims, hits = "block" if "together" in options else "cell", 300, 0
    for seed in range(sims):
        cells = switchback(seed, effect=1.0, carryover=(0.5,), memory=0.5, **options)
        centred = replace(cells, num=cells.num - 8 * cells.den)
        found = horvitz_thompson(centred, (1 - share, share), order=order, clustered_by=by)
        hits += found.ci_low < 1.5 < found.ci_high
    assert hits / sims >= 0.94 - 2 * math.sqrt(0.05 * 0.95 / sims)


def test_the_block_that_moves_it_most_is_left_out(switchback: World) -> None:
    cells = switchback(3, clusters=1)
    cells = replace(cells, num=cells.num - 10 * cells.den)
    y = cells.num / cells.den
    on = np.flatnonzero(cells.arm[1:] == cells.arm[:-1]) + 1
    wild = replace(cells, num=np.where(cells.block == on[4], (y + 40) * cells.den, cells.num))
    ours = leave_one_out_paths(wild, HALF)
    assert ours.diagnostics["left_out"] == {"index": on[4]}
    assert ours.diagnostics["n_blocks"] == 82
    assert ours.diagnostics["smallest_path_probability"] == 0.25


def test_what_cannot_be_estimated_is_refused(switchback: World) -> None:
    cells = switchback(4, clusters=1, arms=np.arange(84)[None, :] % 2)
    with pytest.raises(EstimationError, match="control has 0 blocks with 1 of it before; two are needed"):
        horvitz_thompson(cells, HALF)
    with pytest.raises(EstimationError, match="between 0 and 1, and add up to at most 1"):
        horvitz_thompson(cells, (0.6, 0.6))
    with pytest.raises(EstimationError, match="holds both arms"):
        horvitz_thompson(switchback(4), HALF, clustered_by="block")
    with pytest.raises(EstimationError, match="not finite"):
        horvitz_thompson(replace(cells, num=np.full(84, np.nan)), HALF)
    with pytest.raises(EstimationError, match="another"):
        horvitz_thompson(replace(cells, arm=cells.arm + 2), HALF)
    with pytest.raises(ValueError, match="at least 0"):
        horvitz_thompson(cells, HALF, order=-1)
