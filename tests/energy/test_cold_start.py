"""Energy of model loads, spread over the requests that follow: by an oracle that walks row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from .logged import COLUMNS, logged, shares


def oracle(frame: pl.DataFrame, n: int, scope: str | None, carries: np.ndarray) -> tuple[np.ndarray, float]:
    """Wh of loads by row, and what nobody carries."""
    spread, unused = np.zeros(len(frame)), 0.0
    by = frame[scope].to_list() if scope else [0] * len(frame)
    for level in dict.fromkeys(by):
        rows = [i for i in np.argsort(frame["at"].to_numpy(), kind="stable").tolist() if by[i] == level]
        marks = [k for k, i in enumerate(rows) if (frame["load"][i] or 0) > 0]
        for mark, end in zip(marks, [*marks[1:], len(rows)], strict=True):
            first = [i for i in rows[mark:end] if carries[i]][:n]
            if not first:
                unused += frame["load"][rows[mark]]
            for i in first:
                spread[i] += frame["load"][rows[mark]] / len(first)
    return spread, unused


def run(world, frame: pl.DataFrame, requests: int, by: str | None = None, **changes: Any) -> tuple[Any, pl.DataFrame]:
    cold = {"column": "load", "requests": requests} | ({"by": by} if by else {})
    world.write(frame, {"attribution": {"columns": COLUMNS, "cold_start": cold}, **changes})
    outcome = world.command(
        "attribute", world.folder / "spec.yaml", "--out", world.out, "--quiet", "--format", "json"
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return outcome.json, pl.read_parquet(world.out / "probe" / "attribution" / "shares.parquet")


@pytest.mark.parametrize("requests", [1, 4, 1000])
@pytest.mark.parametrize("by", [None, "pod"])
def test_loads_are_spread_in_the_order_of_time(world, requests, by):
    rng = np.random.default_rng(requests)
    frame = logged(world).with_columns(pod=pl.Series(rng.integers(0, 3, 240)))
    frame = frame.with_columns(
        load=pl.Series(np.where(rng.random(240) < 0.06, rng.gamma(2, 5, 240), 0.0)),
        batch=pl.when(pl.int_range(pl.len()) % 9 > 0).then("batch"),
    ).sample(fraction=1, shuffle=True, seed=2)  # fmt: skip
    carries = frame["batch"].is_not_null().to_numpy()
    document, found = run(world, frame, requests, by)
    expected, unused = oracle(frame, requests, by, carries)
    np.testing.assert_allclose(found["cold_start_share_wh"].fill_null(0.0), expected, rtol=1e-12)
    cold = document["cold_start"]
    assert cold["loads"] == (frame["load"] > 0).sum()
    assert cold["unused_wh"] == pytest.approx(unused)
    assert cold["carried_wh"] + cold["unused_wh"] == pytest.approx(cold["wh"])
    assert cold["wh"] == pytest.approx(frame["load"].sum())
    assert found["cold_start_share_wh"].sum() == pytest.approx(cold["carried_wh"], rel=1e-8)
    np.testing.assert_allclose(
        found["energy_wh"].drop_nulls(),
        (found["this_request_share_wh"] + found["cold_start_share_wh"]).drop_nulls(),
        rtol=1e-15,
    )  # fmt: skip


def test_those_that_come_before_the_next_load_carry_it_all(world):
    row = pl.int_range(pl.len())
    frame = logged(world).with_columns(load=pl.when(row == 10).then(6.0).when(row == 13).then(8.0).otherwise(None))
    document, found = run(world, frame, 4)
    assert found["cold_start_share_wh"].to_list()[9:18] == pytest.approx([0, 2, 2, 2, 2, 2, 2, 2, 0])
    assert document["cold_start"]["short_loads"] == 1
    assert (
        "model loads that fewer requests followed than they are spread over; those carry it all: 1" in document["notes"]
    )


def test_a_load_that_nobody_follows_is_told_and_one_that_cannot_be_is_none(world):
    row = pl.int_range(pl.len())
    frame = logged(world).with_columns(
        load=pl.when(row == 239).then(5.0).when(row == 3).then(-1.0).when(row == 4).then(float("inf")),
        batch=pl.when(row < 239).then("batch"),
    )
    document, found = run(world, frame, 4)
    assert found["cold_start_share_wh"].sum() == 0
    cold = document["cold_start"]
    assert (cold["loads"], cold["unused_loads"], cold["unused_wh"], cold["invalid"]) == (1, 1, 5.0, 2)
    assert any(note.startswith("model loads whose energy nobody carries") for note in document["notes"])


def test_without_a_replica_the_cluster_is_what_is_loaded(world):
    frame = logged(world).with_columns(
        region=pl.col("user") % 2, load=pl.when(pl.int_range(pl.len()) == 4).then(3.0).otherwise(None)
    )
    _, found = run(world, frame, 3, **{"logs.columns": {"time": "at", "cluster": "region"}})
    carriers = found.filter(pl.col("cold_start_share_wh") > 0)["row"].to_list()
    assert carriers == [4, 5, 6]  # four rows a user: rows 8 … are of user 2, in the region of user 0


def test_the_memos_energy_holds_it_and_the_batches_do_not(world):
    frame = logged(world).with_columns(load=pl.when(pl.int_range(pl.len()) % 24 == 0).then(1.5))
    cold = {"column": "load", "requests": 10}
    found = world.readout(frame, {"attribution": {"columns": COLUMNS, "cold_start": cold}}).attribution
    wh, naive = shares(frame)
    spread, _ = oracle(frame, 10, None, np.ones(240, dtype=bool))
    assert found["total_wh"] == pytest.approx(wh.sum(), rel=1e-9)
    assert found["cold_start"]["carried_wh"] == pytest.approx(15.0)
    for arm in ("old", "new"):
        mine = (frame["arm"] == arm).to_numpy()
        assert found["per_arm"][arm]["wh"] == pytest.approx((wh + spread)[mine].sum(), rel=1e-9)
        assert found["per_arm"][arm]["cold_start_wh"] == pytest.approx(spread[mine].sum(), rel=1e-9)
        assert found["naive"]["per_token"][arm] == pytest.approx((naive["per_token"] + spread)[mine].mean(), rel=1e-9)
