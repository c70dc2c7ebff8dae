"""Parts of a plan that stand on their own."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from readout.planning.ask import next_monday
from readout.planning.carryover import Bin, Carryover, faded
from readout.planning.designs import said
from readout.planning.errors import Curve, matched
from readout.planning.series import UnitDays
from readout.planning.stated import alike
from tests.planning.conftest import Desk, past_log

TEN = timedelta(minutes=10)
QUIET = {"plan.simulations": 0}


def _bins(*values: tuple[float, float]) -> tuple[Bin, ...]:
    return tuple(Bin(i * TEN, (i + 1) * TEN, e, e - half, e + half) for i, (e, half) in enumerate(values))


def test_the_washout_is_where_every_later_interval_holds_zero() -> None:
    assert faded(_bins((9, 1), (4, 1), (0.5, 1), (0.2, 1))) == 2 * TEN
    assert faded(_bins((0.5, 1), (4, 1), (0.5, 1))) == 2 * TEN
    assert faded(_bins((0.5, 1), (0.1, 1))) == timedelta(0)
    assert faded(_bins((9, 1), (4, 1))) is None


def test_the_bias_is_the_mean_carryover_over_what_is_kept() -> None:
    found = Carryover("measured", washout=2 * TEN, bins=_bins((8, 1), (4, 1), (0.5, 1)))
    assert found.bias(3 * TEN, timedelta(0)) == pytest.approx(4.0)
    assert found.bias(6 * TEN, TEN) == pytest.approx(4 / 5)
    assert found.bias(6 * TEN, 2 * TEN) == 0.0
    lasting = Carryover("measured", washout=None, bins=_bins((8, 1), (4, 1)))
    assert lasting.bias(4 * TEN, timedelta(0)) == pytest.approx((8 + 4 + 4 + 4) / 4)
    assert Carryover("state").bias(3 * TEN, TEN) is None


def test_units_grow_on_as_in_the_second_half_and_never_faster_than_time() -> None:
    rng = np.random.default_rng(4)
    n = 6000
    day, unit = rng.integers(0, 8, n), rng.integers(0, 900, n)
    curve = Curve(UnitDays(unit, day, rng.normal(5, 1, n), np.ones(n), 1, 8, False))
    counts = [curve.at(d)[0] for d in (1, 4, 8, 16, 32)]
    assert counts[2] == pytest.approx(len(np.unique(unit)))
    assert counts == sorted(counts)
    assert counts[3] / counts[2] <= counts[2] / counts[1] + 1e-9
    errors = [math.sqrt(v / n_units) for n_units, v in (curve.at(d) for d in (8, 16, 32))]
    assert errors[0] > errors[1] > errors[2] > errors[0] / 2 - 1e-12


def test_pairs_leave_over_the_cluster_that_matches_worst() -> None:
    assert matched(np.array([1.0, 9.0, 1.1, 5.0, 9.1])).tolist() == [0, 1, 0, -1, 1]


def test_the_mean_of_a_state_varies_less_over_a_longer_stretch() -> None:
    hour = timedelta(hours=1)
    rng = np.random.default_rng(3)
    steps, rho = 60, math.exp(-1 / 60)
    x = np.zeros((4000, steps + 400))
    for t in range(1, x.shape[1]):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=4000)
    assert alike(hour, hour) == pytest.approx(float(x[:, -steps:].mean(axis=1).var()), rel=0.08)
    assert alike(timedelta(seconds=1), hour) == pytest.approx(1.0, abs=1e-3)
    assert alike(100 * hour, hour) == pytest.approx(0.0198, rel=1e-3)


def test_a_plan_starts_on_the_first_monday() -> None:
    assert next_monday(datetime(2026, 10, 19, tzinfo=UTC)) == datetime(2026, 10, 19, tzinfo=UTC)
    assert next_monday(datetime(2026, 10, 19, 0, 1, tzinfo=UTC)) == datetime(2026, 10, 26, tzinfo=UTC)
    assert [said(timedelta(minutes=m)) for m in (0, 30, 90, 120, 2880)] == ["0s", "30m", "90m", "2h", "2d"]


@pytest.fixture(scope="module")
def short() -> pl.DataFrame:
    return past_log(days=4, clusters=2, per_step=1)


def test_a_long_washout_brings_a_longer_block(desk: Desk, short: pl.DataFrame) -> None:
    plan = desk.plan(short, {**QUIET, "design.washout": "90m", "plan.block": "2h"}).json
    assert plan["recommended"]["block"] == "6h"
    assert plan["left_out"]["designs"] == {}


def test_one_cluster_switches_by_itself(desk: Desk, short: pl.DataFrame) -> None:
    plan = desk.plan(short, {**QUIET, "logs.columns.cluster": None}).json
    assert plan["recommended"]["design"] in ("switchback 2h", "switchback 4h")
    assert plan["recommended"]["unit"] == "block"
    assert not any("together" in d["design"] for d in plan["designs"])


def test_a_window_wider_than_the_log_does_not_stretch_it(desk: Desk, short: pl.DataFrame) -> None:
    plan = desk.plan(short, {**QUIET, "logs.last": "60d"}).json
    assert plan["past"]["days"] == pytest.approx(4, abs=0.1)


def test_a_sum_per_unit_is_that_of_the_planned_time(desk: Desk, short: pl.DataFrame) -> None:
    changes = {"design.kind": "user_rct", "design.block": None, "design.shared_state": False, "plan.duration": "2d"}
    per_unit = {"column": "ms", "per": "unit", "role": "primary", "better": "lower", "minimum_effect": "5%"}
    plan = desk.plan(short, {**QUIET, **changes, "metrics.latency": per_unit}).json
    seen = next(d for d in plan["designs"] if d["design"] == "user_rct")["metrics"][0]
    two = short.filter(pl.col("at") < pl.lit(short["at"].dt.truncate("1d").min()) + pl.duration(days=2))
    sums = two.group_by("user").agg(pl.col("ms").sum())["ms"]
    assert seen["past_value"] == pytest.approx(sums.mean(), rel=1e-6)
    assert seen["days_needed"] is None
    assert seen["std_error"] == pytest.approx(sums.std() * math.sqrt(4 / len(sums)), rel=1e-6)  # type: ignore[operator]


def test_a_unit_that_is_a_row_is_planned_by_rows(desk: Desk, short: pl.DataFrame) -> None:
    changes = {"design.kind": "user_rct", "design.block": None, "design.shared_state": False}
    plan = desk.plan(short, {**changes, "logs.columns.unit": None}).json
    assert plan["recommended"]["unit"] == "row"
    assert "not simulated" in plan["simulations"][0]["note"]


def test_another_estimator_than_the_planned_one_is_said(desk: Desk, short: pl.DataFrame) -> None:
    plan = desk.plan(short, {**QUIET, "estimator": "horvitz_thompson"}).json
    assert plan["assignment"]["mechanism"]["kind"] == "bernoulli"
    assert "errors are those of block_regression, not of horvitz_thompson" in plan["notes"]


def test_a_value_that_is_not_finite_is_refused_at_its_metric(desk: Desk, short: pl.DataFrame) -> None:
    told = desk.plan(short.with_columns(ms=pl.lit(float("nan"))))
    assert told.code == 3
    assert "metrics.latency" in told.json["errors"][0]["message"]
