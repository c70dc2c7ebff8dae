"""Difference in differences end to end: logs of rollouts whose truth is known, read as a user would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

START = datetime(2026, 10, 5, tzinfo=UTC)
DAYS = 12
EFFECT = -20.0


def log(
    *,
    seed: int = 1,
    units: int = 60,
    rows: int = 3,
    effect: float = EFFECT,
    slope: float = 0.0,
    starts: tuple[int, ...] = (5, 8),
    noise: float = 8.0,
) -> pl.DataFrame:
    """Rows of units over days; half of the units start in turn on the days ``starts``. ``slope`` adds a trend a day to
    those that will be treated."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), DAYS * rows)
    day = np.tile(np.repeat(np.arange(DAYS), rows), units)
    cohorts = np.array([starts[i // 2 % len(starts)] if i % 2 else DAYS + 90 for i in range(units)])
    first = cohorts[unit]
    level = rng.normal(0, 15, units)[unit] + rng.normal(0, 4, (units, DAYS))[unit, day]
    trend = slope * day * (first < DAYS)
    ms = 200 + level + 2.0 * day + trend + np.where(day >= first, effect, 0.0) + rng.normal(0, noise, len(unit))
    return pl.DataFrame(
        {
            "at": [
                START + timedelta(days=int(d), minutes=int(m))
                for d, m in zip(day, rng.integers(0, 1440, len(day)), strict=True)
            ],
            "user": [f"u{i:03d}" for i in unit],
            "site": [f"s{i // 4:02d}" for i in unit],
            "from": [None if f >= DAYS else (START + timedelta(days=int(f))).date() for f in first],
            "did": np.where(day >= first, "new", "old"),
            "ms": ms,
            "failed": rng.random(len(unit)) < 0.02,
            "cost": rng.gamma(4.0, 1.0, len(unit)),
            "tokens": rng.integers(1, 400, len(unit)),
            "tier": np.where(unit % 3 == 0, "pro", "free"),
        },
        schema_overrides={"from": pl.Date},
    )


DESIGN: dict[str, Any] = {
    "design": {"kind": "did", "rollout": "from", "control": "old", "treatment": "new", "period": "1d"},
    "logs.columns": {"time": "at", "unit": "user", "executed": "did"},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
        "unit_cost": {"numerator": "cost", "denominator": "tokens", "better": "lower"},
        "spent": {"column": "cost", "per": "unit", "better": "lower"},
    },
}


def run(world: Any, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None, *arguments: str) -> Any:
    world.write(frame, {**DESIGN, **(changes or {})})
    outcome = world.run("--format", "json", *arguments)
    return outcome.json if outcome.code in (0, 1) else outcome


def metric(document: Any, name: str) -> Any:
    return next(m for m in document["metrics"] if m["metric"] == name)


def check(document: Any, name: str) -> Any:
    return next(c for c in document["checks"] if c["name"] == name)


def wide(frame: pl.DataFrame, value: pl.Expr) -> tuple[np.ndarray, np.ndarray]:
    """``(n, T)`` means by user and day, sorted by user, and each user's first treated day."""
    cells = frame.with_columns(day=pl.col("at").dt.date()).group_by("user", "day").agg(value.alias("v"))
    table = cells.pivot("day", index="user", values="v", sort_columns=True).sort("user")
    first = frame.group_by("user").agg(pl.col("from").first()).sort("user")["from"]
    days = [date.fromisoformat(c) for c in table.columns[1:]]
    return table.drop("user").to_numpy().astype(float), np.array([99 if f is None else days.index(f) for f in first])


def simple_att(y: np.ndarray, first: np.ndarray) -> float:
    """Callaway and Sant'Anna's effects by hand, over treated unit-days alike."""
    total = weight = 0.0
    for g in sorted({int(f) for f in first if f < 99}):
        mine, never = first == g, first == 99
        for t in range(g, y.shape[1]):
            change = y[:, t] - y[:, g - 1]
            total += mine.sum() * (change[mine].mean() - change[never].mean())
            weight += mine.sum()
    return float(total / weight)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return log()


def test_effects_are_those_of_the_log_computed_by_hand(world: Any, frame: pl.DataFrame) -> None:
    document = run(world, frame)
    values = {
        "latency": pl.col("ms").mean(),
        "errors": pl.col("failed").mean(),
        "unit_cost": pl.col("cost").sum() / pl.col("tokens").sum(),
        "spent": pl.col("cost").sum(),
    }
    for name, value in values.items():
        assert metric(document, name)["estimate"] == pytest.approx(simple_att(*wide(frame, value)), rel=1e-8), name
    found = metric(document, "latency")
    assert found["ci_low"] < EFFECT < found["ci_high"]
    assert (found["n_control"], found["n_treatment"], found["method"]) == (30, 30, "callaway_santanna")
    assert document["design"]["estimand"] == "att"
    assert document["design"]["n_units"] == {"old": 30, "new": 30}
    assert document["design"]["rollouts"] == {"2026-10-10": 15, "2026-10-13": 15}
    assert document["decision"]["action"] == "ship"


def test_two_by_two_and_event_study_by_hand(world: Any) -> None:
    frame = log(starts=(6,))
    y, first = wide(frame, pl.col("ms").mean())
    treated = first == 6
    change = y[:, 6:].mean(axis=1) - y[:, :6].mean(axis=1)
    document = run(world, frame, {"estimator": "two_by_two"})
    assert metric(document, "latency")["estimate"] == pytest.approx(change[treated].mean() - change[~treated].mean())
    error = np.sqrt(sum(change[s].var(ddof=1) / s.sum() for s in (treated, ~treated)))
    assert metric(document, "latency")["std_error"] == pytest.approx(error, rel=1e-8)
    document = run(world, None, {"estimator": "event_study"})
    against = y[:, 6:].mean(axis=1) - y[:, 5]
    assert metric(document, "latency")["estimate"] == pytest.approx(against[treated].mean() - against[~treated].mean())
    rows = document["diagnostics"]["event_study"]
    assert [r["event_time"] for r in rows] == list(range(-6, 6))


def test_the_event_study_stands_at_the_top_of_the_diagnostics(world: Any, frame: pl.DataFrame) -> None:
    shown = run(world, frame)["diagnostics"]
    rows = shown["event_study"]
    assert [row["event_time"] for row in rows] == list(range(-7, 7))
    keys = {"event_time", "estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "p_value"}
    assert all(set(row) == keys and row["band_low"] < row["ci_low"] < row["ci_high"] < row["band_high"] for row in rows)
    (tested,) = shown["pre_trend"]
    assert tested["metric"] == "latency"
    assert 0 < tested["slope_seen_80"] < tested["slope_that_explains"]
    (broken,) = shown["breakdown"]
    assert broken["value"] > 0.5


@pytest.mark.parametrize("method", ["callaway_santanna", "two_by_two", "event_study"])
def test_the_same_bytes_whatever_the_order_of_the_rows(world: Any, method: str) -> None:
    frame = log(starts=(6,))
    first = run(world, frame, {"estimator": method})
    assert run(world, frame.sample(fraction=1.0, shuffle=True, seed=4), {"estimator": method}) == first


def test_integer_periods_are_the_same_panel(world: Any, frame: pl.DataFrame) -> None:
    numbered = frame.with_columns(
        at=(pl.col("at").dt.date() - START.date()).dt.total_days(),
        **{"from": (pl.col("from") - START.date()).dt.total_days()},
    )
    dated, whole = run(world, frame), run(world, numbered)
    for name in ("latency", "errors", "unit_cost", "spent"):
        assert metric(dated, name)["estimate"] == pytest.approx(metric(whole, name)["estimate"], rel=1e-8)
        assert metric(dated, name)["std_error"] == pytest.approx(metric(whole, name)["std_error"], rel=1e-8)
    assert whole["design"]["rollouts"] == {"5": 15, "8": 15}
    assert json.dumps(whole["diagnostics"]["event_study"]).count("event_time") == 14


def test_a_trend_before_the_rollout_is_found(world: Any) -> None:
    document = run(world, log(slope=3.0))
    assert check(document, "pre_trend")["status"] == "fail"
    assert document["decision"]["action"] == "stronger_design"
    assert "moved apart before the rollout" in check(document, "pre_trend")["message"]
    assert metric(document, "latency")["estimate"] is not None


def test_treatment_that_begins_elsewhere_than_the_rollout_says_pauses(world: Any, frame: pl.DataFrame) -> None:
    early = frame.with_columns(did=pl.when(pl.col("user") == "u000").then(pl.lit("new")).otherwise("did"))
    document = run(world, early)
    assert (check(document, "treatment_start")["status"], document["decision"]["action"]) == ("fail", "pause")
    late = frame.with_columns(did=pl.when(pl.col("user") == "u001").then(pl.lit("old")).otherwise("did"))
    found = check(run(world, late), "treatment_start")
    assert found["status"] == "fail"
    assert "'u001'" in found["message"]
    assert check(run(world, frame), "treatment_start")["status"] == "pass"


def refused(world: Any, frame: pl.DataFrame | None, changes: Mapping[str, Any]) -> tuple[int, str]:
    outcome = run(world, frame, changes)
    return outcome.code, " ".join(e["message"] for e in json.loads(outcome.out)["errors"])


def test_logs_that_carry_no_comparison_are_refused_in_words(world: Any, frame: pl.DataFrame) -> None:
    varying = frame.with_columns(
        pl.when((pl.col("user") == "u001") & (pl.col("ms") > 200)).then(None).otherwise("from").alias("from")
    )
    assert refused(world, varying, {})[0] == 3
    assert "varies within 1 of 60 units: 'u001', null on some rows" in refused(world, varying, {})[1]
    nobody = frame.with_columns(pl.lit(None, dtype=pl.Date).alias("from"))
    assert "no unit starts treatment" in refused(world, nobody, {})[1]
    everybody = frame.filter(pl.col("from").is_not_null())
    assert "no unit stays untreated" in refused(world, everybody, {})[1]
    assert run(world, everybody, {"design.controls": "not_yet"})["metrics"][0]["estimate"] is not None
    one = frame.filter(pl.col("user") == "u001")
    assert refused(world, one, {})[0] == 3
    assert "a change needs two periods" in refused(world, frame, {"design.period": "365d"})[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics.p99": {"column": "ms", "quantile": 0.99, "better": "lower"}}, "quantiles in this design"),
        ({"design.treatment": ["new", "newer"]}, "several treatments"),
        ({"estimator": "two_by_two", "design.controls": "not_yet"}, "not_yet does not combine with two_by_two"),
        ({"decision.looks": "sequential"}, "did has no always-valid intervals"),
    ],
)
def test_what_it_cannot_do_is_refused_at_its_key(world: Any, frame: pl.DataFrame, changes: Any, said: str) -> None:
    code, message = refused(world, frame, changes)
    assert code == 2
    assert said in message
