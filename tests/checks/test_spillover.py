"""Do the arms share what the treatment changes?"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from readout.checks import spillover

START = datetime(2026, 10, 5)
ROLES = {"time": "time", "cluster": "region", "executed": "arm"}
METRICS = {"y": {"column": "y", "role": "primary", "better": "lower", "minimum_effect": "20%"}}


def traffic(
    seed: int, *, spill: float = 0.0, effect: float = 0.0, bursts: float = 0.0, users: int = 200, rows: int = 16_000
) -> pl.DataFrame:
    """Sessions of heavy users in four regions over eight days, busy by day; ``spill`` slows everybody by the share
    of treated requests in region and window; ``bursts``: how uneven sessions are, larger ones being slower."""
    rng = np.random.default_rng(seed)
    weight = 1 + rng.pareto(1.5, users)
    arm, region, own = rng.random(users) < 0.5, rng.integers(0, 4, users), np.exp(0.5 * rng.normal(size=users))
    n = rows // 20
    who = rng.choice(users, n, p=weight / weight.sum())
    busy = 1 + 0.8 * np.sin(2 * np.pi * (np.arange(24) - 8) / 24)
    start = (rng.integers(0, 8, n) * 24 + rng.choice(24, n, p=busy / busy.sum()) + rng.random(n)) * 3600.0
    size = rng.poisson(20 * np.exp(bursts * rng.normal(size=n)))
    unit, seconds = np.repeat(who, size), np.repeat(start, size) + rng.random(size.sum()) * 1800
    slow = np.repeat(((size + 1) / 20) ** (0.5 if bursts else 0.0), size)
    place = (seconds // 300).astype(int) * 4 + region[unit]
    share = (np.bincount(place, arm[unit]) / np.maximum(np.bincount(place), 1))[place]
    hour = 1 + 0.3 * np.sin(2 * np.pi * (seconds / 3600 - 8) / 24)
    y = 100 * own[unit] * slow * hour * np.exp(0.4 * rng.normal(size=len(unit))) * (1 + spill * share)
    y = np.where(arm[unit], y * (1 + effect), y)
    queue = np.floor(10 * hour * (1 + spill * share) + rng.poisson(5, len(unit)))
    times = [START + timedelta(seconds=float(s)) for s in seconds]
    return pl.DataFrame(
        {"time": times, "unit": unit, "region": region[unit].astype(str), "y": y, "queue": queue}
    ).with_columns(arm=pl.Series(np.where(arm[unit], "b", "a")))


def statuses(said, seeds: int, columns=None, **world) -> list[str]:
    return [
        said("untreated_outcomes", traffic(s, **world), {**ROLES, **(columns or {})}, metrics=METRICS).status
        for s in range(seeds)
    ]


@pytest.mark.parametrize(
    "world",
    [{"effect": -0.3}, {"bursts": 0.8}, {"users": 15}],
    ids=["the treatment works", "a burst slows itself and lowers the share", "few heavy users"],
)
def test_quiet_without_spillover(said, world):
    found = statuses(said, 15, {"state": ["queue"]}, **world)
    assert found.count("fail") <= 1


def test_fails_where_the_untreated_suffer_with_the_share_of_treated_traffic(said):
    assert statuses(said, 8, {"state": ["queue"]}, spill=0.3).count("fail") == 8


def test_what_it_says_when_it_fails(said):
    check = said("untreated_outcomes", traffic(1, spill=1.0), ROLES, metrics=METRICS)
    assert (check.status, check.action, check.family) == ("fail", "stronger_design", "spillover")
    assert check.value == check.p_value
    assert check.message.startswith("from no to all neighbours treated, untreated y changes by +")
    assert {r["outcome"] for r in check.details["untreated_outcomes"]} == {"y"}


def test_skips_where_the_margin_could_not_be_seen(said):
    tight = {"y": {**METRICS["y"], "minimum_effect": "1%"}}
    check = said("untreated_outcomes", traffic(2), ROLES, metrics=tight)
    assert check.status == "skip"
    assert "too little to see an effect of the margin's size on y (it would see " in check.message
    wide = {"y": {**METRICS["y"], "minimum_effect": "200%"}}
    assert said("untreated_outcomes", traffic(2), ROLES, metrics=wide).status == "pass"


def test_the_slope_is_that_of_the_regression_with_all_the_dummies(evidence):
    found = evidence(traffic(3, rows=8000, users=60), ROLES, metrics=METRICS)
    cells = spillover._cells(found).filter(pl.col("y|n") > 0)
    slope = spillover._slope(cells, "y", 0.01)
    traffic_ = cells["traffic"].to_numpy()
    columns = [cells["share"].to_numpy(), traffic_, (traffic_ - traffic_.mean()) ** 2]
    for name in ("who", "at hour", "on day"):
        codes = spillover._codes(cells[name])
        columns += list(np.eye(codes.max() + 1)[codes].T)
    want = np.linalg.lstsq(np.column_stack(columns), (cells["y|num"] / cells["y|n"]).to_numpy(), rcond=None)[0]
    assert slope.estimate == pytest.approx(want[0], rel=1e-6)


def test_the_own_requests_are_left_out_of_the_share(evidence):
    frame = traffic(4, rows=3000, users=30)
    cells = spillover._cells(evidence(frame, ROLES, metrics=METRICS))
    window = pl.col("time").dt.epoch("us") // 300_000_000
    rows = frame.with_columns(window=window)
    one = cells.row(len(cells) // 2, named=True)
    here = rows.filter((pl.col("region") == one["cluster"]) & (pl.col("window") == one["window"]))
    own = one["n"]
    assert own > 0
    assert one["share"] == pytest.approx((here["arm"] == "b").sum() / (len(here) - own))


def test_large_logs_are_sampled(said, monkeypatch):
    monkeypatch.setattr(spillover, "MOST_CELLS", 8_000)
    check = said("untreated_outcomes", traffic(5, spill=1.0), {**ROLES, "state": ["queue"]}, metrics=METRICS)
    assert check.status == "fail"
    assert check.details["untreated_outcomes"][0]["cells"] < 3_000


def test_requests_that_are_randomized_need_no_unit(said):
    # Quiet windows are slow windows, and hold few neighbours: each request is left out of its own share.
    found = []
    for seed in range(12):
        frame = traffic(seed, bursts=0.8, rows=6000).drop("unit")
        arm = np.where(np.random.default_rng(seed + 90).random(len(frame)) < 0.5, "b", "a")
        frame = frame.with_columns(arm=pl.Series(arm))
        found.append(said("untreated_outcomes", frame, ROLES, {"kind": "request_rct"}, METRICS).status)
    assert found.count("fail") <= 1


def test_what_it_needs(said):
    frame = traffic(7, rows=2000)
    assert said("untreated_outcomes", frame.drop("region"), {"time": "time"}, metrics=METRICS).status == "skip"
    blocks = {"kind": "switchback", "block": "2h"}
    assert said("untreated_outcomes", frame, {"time": "time"}, blocks, METRICS).status == "skip"
    one_arm_a_window = frame.with_columns(arm=pl.Series(["a", "b"] * len(frame))[: len(frame)]).with_columns(
        unit=pl.int_range(pl.len())
    )
    assert said("untreated_outcomes", one_arm_a_window.head(60), ROLES, metrics=METRICS).status == "skip"


def test_the_unit_of_randomization(said):
    rows = {"arm": ["a", "b"] * 50}
    check = said("unit_of_randomization", rows, design={"shared_state": True})
    assert (check.status, check.action) == ("fail", "stronger_design")
    assert said("unit_of_randomization", rows).status == "pass"
    frame = traffic(8, rows=2000)
    assert (
        said("unit_of_randomization", frame, {"time": "time"}, {"kind": "switchback", "block": "2h"}).status == "skip"
    )


@pytest.mark.parametrize(("mixed", "shared", "status"), [(5, True, "pass"), (6, True, "fail"), (6, False, "warn")])
def test_batches_that_mix_arms(said, mixed, shared, status):
    arm = [x for i in range(100) for x in (("a", "b") if i < mixed else ("a", "a") if i % 2 else ("b", "b"))]
    rows = {"arm": arm, "batch": [i // 2 for i in range(200)], "p": [10] * 200, "o": [10] * 200}
    columns = {"batch": "batch", "prompt_tokens": "p", "output_tokens": "o"}
    attribution = {"columns": columns, "energy_model": "h100_dense_8b"}
    check = said("mixed_batches", rows, design={"shared_state": shared}, attribution=attribution)
    assert (check.status, check.value) == (status, mixed / 100)
    assert said("mixed_batches", rows).status == "skip"
