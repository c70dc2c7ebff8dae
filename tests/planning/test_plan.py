"""What a person gets from ``readout plan``."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout import schedules
from tests.planning.conftest import Desk, past_log

UNITS = {"design.kind": "user_rct", "design.block": None, "design.shared_state": False}


def _design(plan: Any, label: str) -> Any:
    return next(d for d in plan["designs"] if d["design"] == label)


def _primary(plan: Any, label: str) -> Any:
    return _design(plan, label)["metrics"][0]


def test_a_plan_compares_designs_and_recommends_one_that_is_valid(desk: Desk, usual: pl.DataFrame) -> None:
    told = desk.plan(usual, {"plan.simulations": 60})
    assert told.code == 0, told.err
    plan = told.json
    assert plan["schema"] == "readout-plan/1"
    labels = [d["design"] for d in plan["designs"]]
    assert plan["left_out"]["designs"] == {"switchback 30m": "a block is not longer than the washout of 40m"}
    assert {"user_rct", "request_rct", "cluster_rct", "switchback 1h", "switchback 4h, together"} <= set(labels)
    assert _design(plan, "user_rct")["reason"] == "not valid here: arms share capacity"
    chosen = plan["recommended"]
    assert chosen["kind"] == "switchback"
    assert chosen["enough"] is True
    valid = [d for d in plan["designs"] if d["valid"] and d["kind"] == "switchback"]
    power = {d["design"]: d["metrics"][0]["power"] for d in valid}
    assert power[chosen["design"]] >= 0.8
    (simulated,) = plan["simulations"]
    assert simulated["runs"] == 60
    assert abs(simulated["achieved_power"] - simulated["stated_power"]) < 0.15
    assert simulated["false_positive_rate"] < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)
    guard = _design(plan, chosen["design"])["metrics"][1]
    assert (guard["metric"], guard["margin"]) == ("errors", 0.02)
    assert guard["power"] > 0.8


def test_the_schedule_is_balanced_over_the_calendar_and_can_be_redrawn(desk: Desk, usual: pl.DataFrame) -> None:
    plan = desk.plan(usual).json
    schedule = schedules.read(desk.written / "schedule.parquet")
    assert schedule.mechanism is not None
    assert (schedule.mechanism.kind, schedule.mechanism.seed) == ("balanced", 0)
    blocks = schedule.blocks
    # The first Monday after the past log and the time of planning: nobody can follow a schedule of the past.
    assert blocks["start"].min() == datetime(2026, 11, 9, tzinfo=UTC)
    assert sorted(blocks["cluster"].unique()) == ["r00", "r01", "r02", "r03"]
    weekend = pl.col("start").dt.weekday() >= 6
    by = blocks.with_columns(weekend=weekend, hour=pl.col("start").dt.time())
    counts = by.group_by("cluster", "weekend", "hour").agg((pl.col("arm") == "new").sum(), pl.len().alias("n"))
    assert ((counts["arm"] - counts["n"] / 2).abs() <= 0.5).all()
    again = schedules.redraws(schedule, 20, 5)
    assert again.shape == (20, len(blocks))
    assert plan["assignment"]["counts"]["old"] + plan["assignment"]["counts"]["new"] == len(blocks)
    assert sum(plan["assignment"]["balance"]["new"].values()) == plan["assignment"]["counts"]["new"]
    other = desk.plan(None, {"plan.simulations": 0}, "--seed", "7").json
    assert other["assignment"]["mechanism"]["seed"] == 7
    assert schedules.read(desk.written / "schedule.parquet").blocks["arm"].to_list() != blocks["arm"].to_list()


def test_the_same_inputs_give_the_same_bytes(desk: Desk, usual: pl.DataFrame) -> None:
    desk.plan(usual)
    first = {p.name: p.read_bytes() for p in desk.written.iterdir()}
    desk.plan(usual)
    assert {p.name: p.read_bytes() for p in desk.written.iterdir()} == first
    assert sorted(first) == ["plan.json", "plan.md", "schedule.parquet"]
    text = first["plan.md"].decode()
    assert text.startswith("# Plan: coming\n\n**Run: switchback")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## What each design could see", "## Guardrails", "## Carryover", "## Assignment", "## Simulated", "## Notes",
    ]  # fmt: skip


def test_every_format_speaks(desk: Desk, usual: pl.DataFrame) -> None:
    spec = desk.write(usual, {"plan.simulations": 0, "plan.block": "2h"})
    fixed = ["plan", str(spec), "--out", str(desk.folder / "out"), "--as-of", "2026-11-05"]
    text = desk.call(fixed)
    assert "Run switchback" in text.out
    assert "plan: " in text.err
    assert desk.call([*fixed, "--format", "markdown"]).out.startswith("# Plan: coming")
    assert desk.call([*fixed, "--format", "github"]).out.startswith("::notice title=Plan coming::switchback")
    shown = json.loads(desk.call([*fixed, "--format", "json"]).out)
    assert shown == json.loads((desk.written / "plan.json").read_text())


def test_a_plan_and_a_readout_of_one_day_stand_beside_each_other(desk: Desk, usual: pl.DataFrame) -> None:
    from readout.memo.write import write

    write(desk.written, {"readout.json": "{}", "memo.md": "memo", "figures/a.svg": "x"})
    desk.plan(usual, {"plan.simulations": 0})
    names = {p.relative_to(desk.written).as_posix() for p in desk.written.rglob("*") if p.is_file()}
    assert names == {"readout.json", "memo.md", "figures/a.svg", "plan.md", "plan.json", "schedule.parquet"}
    write(desk.written, {"readout.json": "new"})
    names = {p.relative_to(desk.written).as_posix() for p in desk.written.rglob("*") if p.is_file()}
    assert names == {"readout.json", "plan.md", "plan.json", "schedule.parquet"}


def test_units_are_planned_with_the_growth_of_their_number(desk: Desk, usual: pl.DataFrame) -> None:
    plan = desk.plan(usual, UNITS).json
    assert plan["recommended"]["kind"] == "user_rct"
    seen = _primary(plan, "user_rct")
    assert seen["n_control"] + seen["n_treatment"] == 400
    rows = usual.group_by("user").agg(pl.col("ms").sum(), pl.len().alias("n"))
    r = usual["ms"].mean()
    assert isinstance(r, float)
    variance = (rows["ms"] - r * rows["n"]).var()
    assert isinstance(variance, float)
    mean_rows = rows["n"].mean()
    assert isinstance(mean_rows, float)
    expected = math.sqrt(variance / mean_rows**2 * (1 / 200 + 1 / 200))
    assert seen["std_error"] == pytest.approx(expected, rel=1e-6)
    assert plan["assignment"]["file"] is None
    assert plan["assignment"]["mechanism"]["kind"] == "hash"
    assert "salt 'coming/0'" in plan["assignment"]["use"]
    request = _primary(plan, "request_rct")
    spread = usual["ms"].std()
    assert isinstance(spread, float)
    assert request["std_error"] == pytest.approx(spread * math.sqrt(4 / len(usual)), rel=1e-4)


def test_half_the_traffic_enrols_half_the_units_and_whole_clusters(desk: Desk, usual: pl.DataFrame) -> None:
    whole, half = (desk.plan(usual, {**UNITS, "plan.traffic": t}).json for t in (1.0, 0.5))
    assert _primary(half, "user_rct")["n_control"] == pytest.approx(_primary(whole, "user_rct")["n_control"] / 2)
    assert _primary(half, "switchback 2h") == _primary(whole, "switchback 2h")


def test_clusters_are_paired_by_their_past_and_the_file_says_so(desk: Desk) -> None:
    frame = past_log(days=6, clusters=12, per_step=1)
    told = desk.plan(frame, {"design.kind": "cluster_rct", "design.block": None, "plan.duration": "6d"})
    plan = told.json
    assert plan["recommended"]["kind"] == "cluster_rct"
    drawn = pl.read_parquet(desk.written / "assignment.parquet")
    assert plan["recommended"]["pairs"] is True
    assert drawn.group_by("pair").agg(pl.col("arm").n_unique())["arm"].to_list() == [2] * 6
    means = frame.group_by("region").agg(pl.col("ms").mean()).sort("ms")["region"].to_list()
    pairs = {frozenset(group["cluster"]) for _, group in drawn.group_by("pair")}
    assert frozenset(means[:2]) in pairs
    record = json.loads(pl.read_parquet_metadata(desk.written / "assignment.parquet")["readout.assignment"])
    assert (record["kind"], record["seed"]) == ("pairs", 0)


def test_unequal_shares_are_kept_within_strata(desk: Desk) -> None:
    frame = past_log(days=4, clusters=12, per_step=1)
    split = {"old": 0.75, "new": 0.25}
    changes = {"design.kind": "cluster_rct", "design.block": None, "design.split": split, "plan.simulations": 0}
    changes["metrics.latency.minimum_effect"] = "40%"
    plan = desk.plan(frame, changes).json
    assert plan["simulations"] == []
    assert plan["assignment"]["counts"] == {"old": 9, "new": 3}
    assert "cluster_rct in pairs" not in [d["design"] for d in plan["designs"]]


def _switchback(days: int = 14, clusters: int = 4, seed: int = 2) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 2, (clusters, days * 12))
    return np.repeat(blocks, 12, axis=1)


def _carrying(left: float, size: float = 30.0) -> Any:
    def effect(arm: np.ndarray) -> np.ndarray:
        state = np.zeros(arm.shape)
        for t in range(1, arm.shape[1]):
            state[:, t] = left * state[:, t - 1] + (1 - left) * arm[:, t]
        return size * state

    return effect


def test_carryover_of_a_past_switchback_sets_the_washout(desk: Desk) -> None:
    frame = past_log(arm=_switchback(), effect=_carrying(0.5))
    plan = desk.plan(frame).json
    (found,) = plan["carryover"]["found"]
    assert (found["source"], found["past_block"]) == ("measured", "2h")
    # Half is left after ten minutes: 15 at the switch, under 2 of them after half an hour.
    assert found["washout"] in ("20m", "30m", "40m", "50m")
    first = found["since_switch"][0]
    assert first["ci_low"] < 15 < first["ci_high"]
    assert plan["carryover"]["washout"] == found["washout"]
    block = {"1h": 60, "2h": 120, "4h": 240}[plan["recommended"]["block"]]
    assert block >= 3 * int(found["washout"][:-1])
    assert plan["recommended"]["washout"] == found["washout"]


def test_a_past_switchback_without_carryover_asks_for_no_washout(desk: Desk) -> None:
    quiet = 0
    for seed in (1, 2, 3, 5):
        frame = past_log(arm=_switchback(seed=seed), effect=lambda arm: -20.0 * arm, seed=seed, per_step=1)
        plan = desk.plan(frame, {"plan.simulations": 0}).json
        quiet += plan["carryover"]["washout"] == "0s"
        assert plan["carryover"]["found"][0]["source"] == "measured"
    assert quiet >= 3
    # The arms' difference in level is not taken for noise between blocks.
    told = {"plan.simulations": 0, "design.washout": "20m"}
    plan, bare = desk.plan(frame, told).json, desk.plan(past_log(seed=5, per_step=1), told).json
    assert _primary(plan, "switchback 2h")["std_error"] == pytest.approx(
        _primary(bare, "switchback 2h")["std_error"], rel=0.03
    )


def test_without_past_arms_the_memory_of_the_state_stands_in_and_says_so(desk: Desk, usual: pl.DataFrame) -> None:
    plan = desk.plan(usual).json
    (found,) = plan["carryover"]["found"]
    assert (found["source"], found["of"]) == ("state", "queue")
    # 0.7 a step: a quarter is left after log(0.25) / log(0.7) = 3.9 steps of ten minutes.
    assert found["washout"] == "40m"
    assert plan["recommended"]["washout"] == "40m"
    assert "stand-in" in plan["carryover"]["why"]
    own = desk.plan(None, {"design.washout": "10m", "plan.simulations": 0}).json
    assert own["carryover"]["washout"] == "10m"
    assert own["carryover"]["why"] == "stated in the spec"


def test_stated_moments_need_no_logs(desk: Desk) -> None:
    moments = {
        "mean": 100, "std_dev": 50, "requests_per_day": 20_000, "units": 3000, "icc_unit": 0.2, "clusters": 8,
        "icc_cluster": 0.001, "icc_hour": 0.01,
    }  # fmt: skip
    told = desk.plan(None, {"plan.moments": {"latency": moments}})
    assert told.code == 0, told.err
    plan = told.json
    rows = 20_000 * 14 / 3000
    expected = math.sqrt(2500 * (1 + (rows - 1) * 0.2) / rows * 4 / 3000)
    assert _primary(plan, "user_rct")["std_error"] == pytest.approx(expected, rel=1e-9)
    whole = 20_000 * 14 / 8
    assert _primary(plan, "cluster_rct")["std_error"] == pytest.approx(
        math.sqrt(2500 * (1 + (whole - 1) * 0.001) / whole * 4 / 8), rel=1e-9
    )
    assert plan["recommended"]["kind"] == "switchback"
    assert plan["simulations"] == []
    assert plan["past"] is None
    assert plan["left_out"]["metrics"] == {"errors": "plan.moments does not state it"}


def test_what_cannot_be_planned_is_left_out_with_its_reason(desk: Desk, usual: pl.DataFrame) -> None:
    changes = {
        **UNITS,
        "logs.columns.cluster": None,
        "metrics.p99": {"column": "ms", "quantile": 0.99, "role": "guardrail", "better": "lower", "margin": "5%"},
        "metrics.gone": {"column": "nowhere", "role": "guardrail", "better": "lower", "margin": "5%"},
    }
    plan = desk.plan(usual.drop("at"), {**changes, "logs.columns.time": None}).json
    assert plan["left_out"]["designs"] == {
        "cluster_rct": "no column has the role 'cluster'",
        "switchback": "no column has the role 'time'",
    }
    assert "quantile" in plan["left_out"]["metrics"]["p99"]
    assert "nowhere" in plan["left_out"]["metrics"]["gone"]
    assert any("no times" in note for note in plan["notes"])


@pytest.mark.parametrize(
    ("changes", "code", "where", "said"),
    [
        ({"logs.columns.time": None}, 3, "design.kind", "no column has the role 'time'"),
        ({"design.kind": "cluster_rct", "design.block": None, "logs.columns.cluster": None}, 3, "design.kind",
         "no column has the role 'cluster'"),
        ({"logs.columns.cluster": "regions"}, 3, "logs.columns.cluster", "the log has no column 'regions'"),
        ({"logs.columns.time": "when", "logs.columns.unit": "usr"}, 3, "logs.columns.unit", "no column 'usr'"),
        ({"metrics.latency.column": "nowhere"}, 3, "metrics.latency.column", "nowhere"),
        ({"metrics.latency.quantile": 0.5}, 2, "metrics.latency", "cannot be planned for"),
        ({"logs.end": "2020-01-01"}, 3, "past.parquet", "no row is left"),
        ({"plan.power": 2}, 2, "plan.power", "below 1"),
        ({"plan.duration": "1h"}, 3, "design.kind", "would be too few"),
        ({"plan.moments": {"errors": {"mean": 1, "std_dev": 1, "requests_per_day": 5}}}, 2, "plan.moments",
         "none of the primary metrics"),
        ({"design.assignment": "paired", "design.split": {"old": 0.9, "new": 0.1}}, 2, "design.", "shares"),
    ],
)  # fmt: skip
def test_errors_are_for_people(
    desk: Desk, usual: pl.DataFrame, changes: dict[str, Any], code: int, where: str, said: str
) -> None:
    told = desk.plan(usual, changes)
    assert told.code == code
    problems = told.json["errors"]
    assert any(said in p["message"] for p in problems), problems
    assert any(where in p["where"] + p["message"] for p in problems), problems
    assert not (desk.folder / "out").exists()


def test_a_design_that_cannot_read_every_primary_is_not_recommended(desk: Desk, usual: pl.DataFrame) -> None:
    calls = {"column": "failed", "per": "unit", "role": "primary", "better": "lower", "minimum_effect": "50%"}
    changes = {**UNITS, "metrics.latency.minimum_effect": "0.2%", "metrics.calls": calls, "plan.simulations": 0}
    alone = desk.plan(usual, {**changes, "metrics.calls": None}).json
    assert alone["recommended"]["kind"] != "user_rct"
    both = desk.plan(usual, changes).json
    assert both["recommended"]["kind"] == "user_rct"
    text = (desk.written / "plan.md").read_text()
    assert "cannot read calls" in text
    # The sentence under the headline speaks of the primary that is seen worst.
    assert "power for 0.2% on latency" in text.splitlines()[2]


def test_a_guardrail_that_will_not_be_shown_to_hold_is_said_beside_the_headline(
    desk: Desk, usual: pl.DataFrame
) -> None:
    spec = desk.write(usual, {"metrics.errors.margin": 0.004, "plan.simulations": 0, "plan.block": "2h"})
    fixed = ["plan", str(spec), "--out", str(desk.folder / "out"), "--as-of", "2026-11-05", "--quiet"]
    seen = json.loads(desk.call([*fixed, "--format", "json"]).out)
    guard = _design(seen, seen["recommended"]["design"])["metrics"][1]
    assert guard["power"] < 0.8
    said = f"{100 * guard['power']:.2g} % power to show that it holds within its margin of 0.004"
    assert said in " ".join(desk.call(fixed).out.replace("│", " ").split())
    assert said in desk.call([*fixed, "--format", "markdown"]).out.partition("## What")[0]
    assert "::warning" in desk.call([*fixed, "--format", "github"]).out


def test_days_are_left_open_where_no_log_says_how_the_error_falls_with_time(desk: Desk, usual: pl.DataFrame) -> None:
    desk.plan(usual.drop("at"), {**UNITS, "logs.columns.time": None, "metrics.latency.minimum_effect": "0.1%"})
    row = next(line for line in (desk.written / "plan.md").read_text().splitlines() if line.startswith("| user_rct"))
    assert row.split("|")[5].strip() == "–"
    moments = {"mean": 100, "std_dev": 50, "requests_per_day": 20_000, "units": 3000, "icc_unit": 0.2}
    desk.plan(None, {"plan.moments": {"latency": moments}, **UNITS})
    rows = (desk.written / "plan.md").read_text().splitlines()
    days = {line.split("|")[1].strip(): line.split("|")[5].strip() for line in rows if line.startswith("| ")}
    assert days["user_rct"] == "–"
    assert int(days["request_rct"]) == 1


def test_the_simulation_holds_the_wanted_power_at_the_smallest_effect_too(desk: Desk, usual: pl.DataFrame) -> None:
    plan = desk.plan(usual, {"plan.simulations": 200, "metrics.latency.minimum_effect": "40%"}).json
    (simulated,) = plan["simulations"]
    assert simulated["stated_power"] > 0.999
    assert simulated["achieved_power_at_minimum_detectable_effect"] == pytest.approx(0.8, abs=0.1)
    assert not simulated["differs"]
    assert "for the smallest effect that it sees" in (desk.written / "plan.md").read_text()


def test_designs_that_are_not_randomized_are_no_plans(desk: Desk, usual: pl.DataFrame) -> None:
    told = desk.plan(usual, {"design": {"kind": "observational", "control": "old", "treatment": "new"}})
    assert told.code == 2
    assert "randomized designs" in told.json["errors"][0]["message"]


def test_names_from_data_are_shown_as_text(desk: Desk) -> None:
    frame = past_log(days=3, clusters=2, per_step=1).with_columns(
        region=pl.when(pl.col("region") == "r00").then(pl.lit("::error::<b>|x")).otherwise(pl.lit("\x1b[31mred"))
    )
    spec = desk.write(frame, {"plan.simulations": 0, "plan.duration": "3d", "name": "coming"})
    for shown in ("text", "markdown", "github"):
        out = desk.call(["plan", str(spec), "--out", str(desk.folder / "out"), "--format", shown, "--quiet"]).out
        assert "\x1b[31m" not in out
        assert "<b>" not in out
    assert set(schedules.read(next(desk.folder.rglob("schedule.parquet"))).blocks["cluster"]) == {
        "::error::<b>|x", "\x1b[31mred",
    }  # fmt: skip
