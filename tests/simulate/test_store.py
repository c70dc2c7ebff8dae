"""The prefix store: what it holds, what it saves, and what a switchback makes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout import pipeline
from readout.simulate import simulate
from readout.simulate.store import PrefixStore, found_in, written_by_premium

COINS = np.array([[True, False, False, True], [False, False, True, True]])


def written(region: int, t_s: list[float], turnover_s: float = 50.0) -> np.ndarray:
    codes = np.full(len(t_s), region)
    return written_by_premium(COINS, 100.0, codes, np.array(t_s), turnover_s)


def test_the_store_is_written_over_in_a_straight_line_after_a_switch() -> None:
    assert written(0, [0.0, 25.0, 50.0, 99.0]) == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert written(0, [100.0, 110.0, 150.0, 250.0]) == pytest.approx([1.0, 0.8, 0.0, 0.0])
    assert written(1, [199.0, 210.0, 250.0, 399.0, 400.0]) == pytest.approx([0.0, 0.2, 1.0, 1.0, 1.0])


def test_a_turnover_longer_than_a_block_remembers_more_than_one() -> None:
    assert written(0, [250.0, 400.0], turnover_s=200.0) == pytest.approx([0.25, 0.5])


def test_more_requests_find_their_prefix_where_the_store_was_written_for_them() -> None:
    store = PrefixStore(turnover_s=60.0, found_current=0.1, found_premium=0.9, saves=0.7)
    shares = [found_in(store, np.full(4000, s), seed=1) for s in (0.0, 0.5, 1.0)]
    assert [set(held) for held in shares] == [{0.0, 0.7}] * 3
    assert [held.mean() / 0.7 for held in shares] == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    # The same request finds it earlier or never: one latent draw serves every run.
    assert (shares[0] <= shares[1]).all()
    assert (shares[1] <= shares[2]).all()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("router_cache", tmp_path_factory.mktemp("cache"), seed=3, requests=60_000)


def read(world: Path, washout: str | None = None) -> dict[str, Any]:
    given = [] if washout is None else [f"design.washout={washout}"]
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    out = world.parent / f"memos {washout}"
    readout, _ = pipeline.run(world, overrides=given, out=out, as_of=moment, figures=False)
    (ttft,) = (m for m in readout.metrics if m.metric == "ttft")
    return {"ttft": ttft, "checks": {c.name: c for c in readout.checks}}


def truth(world: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.parent / "truth.json").read_text())
    return found


def test_warmth_drifts_after_a_switch_and_stands_still_once_the_store_is_written_over(world: Path) -> None:
    since = pl.col("decision_ts").dt.epoch("s") % 7200 // 1800
    block = pl.col("decision_ts").dt.truncate("2h")
    log = pl.read_parquet(world.parent / "logs.parquet").sort("region", "decision_ts")
    arms = log.group_by("region", block.alias("block"), maintain_order=True).agg(pl.col("arm").first())
    arms = arms.with_columns(before=pl.col("arm").shift(1).over("region"))
    log = log.with_columns(block=block, quarter=since).join(arms.drop("arm"), on=["region", "block"])
    switched = log.filter(pl.col("arm") == "premium", pl.col("before") == "current")
    warm = switched.group_by("quarter").agg(pl.col("cache_warm").mean()).sort("quarter")["cache_warm"].to_list()
    assert warm[0] + 0.15 < warm[1] < warm[2] - 0.1
    assert warm[3] == pytest.approx(0.95, abs=0.02)
    assert truth(world)["prefix_store"]["turnover_s"] == 5400.0


def test_without_a_washout_the_effect_is_missed_and_the_carryover_found(world: Path) -> None:
    total, naive = truth(world)["global_effect"]["ttft"]["effect"], read(world, "0m")
    assert total < naive["ttft"].ci_low
    assert naive["checks"]["carryover"].status == "fail"


def test_the_washout_of_the_ready_spec_repairs_it(world: Path) -> None:
    total, repaired = truth(world)["global_effect"]["ttft"]["effect"], read(world)
    assert repaired["ttft"].ci_low <= total <= repaired["ttft"].ci_high
    assert repaired["ttft"].ci_high < 0.0
    assert repaired["checks"]["carryover"].status != "fail"


@pytest.mark.slow
def test_naive_intervals_miss_and_washed_ones_cover_over_seeds(tmp_path: Path) -> None:
    missed = found = covered = 0
    for seed in range(10):
        spec = simulate("router_cache", tmp_path / str(seed), seed=seed)
        total = truth(spec)["global_effect"]["ttft"]["effect"]
        naive, repaired = read(spec, "0m"), read(spec)
        missed += not naive["ttft"].ci_low <= total <= naive["ttft"].ci_high
        found += naive["checks"]["carryover"].status == "fail"
        covered += repaired["ttft"].ci_low <= total <= repaired["ttft"].ci_high
    assert missed >= 8
    assert found >= 8
    assert covered >= 8
