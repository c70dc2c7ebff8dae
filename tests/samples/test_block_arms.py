"""Which arm blocks held, whether clusters switched together, and how often the arm was drawn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from readout.samples.block_arms import held, run_length


def sums(arms: np.ndarray, rows: int = 10) -> pl.DataFrame:
    """``rows`` by cell of ``(clusters, blocks)`` arms."""
    cluster, block = np.indices(arms.shape)
    return pl.DataFrame(
        {"cluster": [f"c{i}" for i in cluster.ravel()], "block": block.ravel(), "arm": arms.ravel()}
    ).with_columns(n=pl.lit(rows, dtype=pl.Int64))


def together(clusters: int = 4, blocks: int = 40, seed: int = 0, share: float = 0.5) -> np.ndarray:
    coins = (np.random.default_rng(seed).random(blocks) < share).astype(int)
    return np.tile(coins, (clusters, 1))


def test_a_cluster_that_missed_a_switch_leaves_the_block_what_was_randomized():
    arms = together()
    arms[2, 7] = 1 - arms[2, 7]
    found = held(sums(arms), None)
    assert found.together
    assert (found.mixed, found.units) == (1, 40)
    slipped = found.cells.filter((pl.col("cluster") == "c2") & (pl.col("block") == 7))
    assert slipped["arm"].item() == arms[0, 7]


@pytest.mark.parametrize("clusters", [2, 3, 8])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_clusters_that_switch_apart_are_not_taken_for_one(clusters, share):
    """Also where one arm holds nearly all blocks, so that clusters are mostly alike."""
    for seed in range(20):
        arms = (np.random.default_rng(seed).random((clusters, 60)) < share).astype(int)
        assert not held(sums(arms), None).together


def test_what_a_schedule_says_stands():
    arms = together()
    assert not held(sums(arms), False).together
    arms[:2, ::3] = 1 - arms[:2, ::3]
    assert not held(sums(arms), None).together
    assert held(sums(arms), True).together


def test_a_cell_holds_the_arm_of_most_of_its_rows():
    apart = np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    few = sums(1 - apart[:1, :1], rows=3)
    found = held(pl.concat([sums(apart), few]).group_by("cluster", "block", "arm").agg(pl.col("n").sum()), None)
    assert (found.mixed, found.units, found.together) == (1, 8, False)
    assert found.cells["arm"].to_list() == apart.ravel().tolist()


@pytest.mark.parametrize("longer", [2, 3, 4, 12])
@pytest.mark.parametrize("phase", [0, 1])
def test_the_run_between_which_arms_change_is_found(longer, phase):
    drawn = np.random.default_rng(longer).integers(0, 2, (5, 240 // longer))
    arms = np.repeat(drawn, longer, axis=1)[:, phase:]
    series, order = (x.ravel() for x in np.indices(arms.shape))
    assert run_length(order, series, arms.ravel()) == longer


def test_blocks_drawn_one_by_one_or_in_pairs_make_no_runs():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        blocks = int(rng.integers(2, 60))
        coins = (rng.random((int(rng.integers(1, 4)), blocks)) < rng.choice([0.5, 0.85])).astype(int)
        pairs = np.stack([rng.permutation(2) for _ in range(blocks)]).reshape(1, -1)
        for arms in (coins, pairs):
            series, order = (x.ravel() for x in np.indices(arms.shape))
            assert run_length(order, series, arms.ravel()) == 1


def test_an_arm_that_never_changes_is_not_this_checks_to_judge():
    assert run_length(np.arange(40), np.zeros(40, int), np.zeros(40, int)) == 1
    assert run_length(np.arange(1), np.zeros(1, int), np.zeros(1, int)) == 1
