"""Logs that carry little: nulls with their reason, never a fault and never a number that is not there."""

from __future__ import annotations

import polars as pl
import pytest


@pytest.mark.parametrize("units", [1, 2, 3, 4])
def test_a_log_of_a_few_rows_gives_nulls_or_an_error_never_a_fault(world, units):
    world.write(world.log(units=units, rows=1))
    outcome = world.run("--format", "json")
    assert outcome.code == (3 if units == 1 else 0)
    if units < 4:
        for metric in outcome.json.get("metrics", []):
            assert metric["estimate"] is metric["ci_low"] is metric["verdict"] is None
            assert metric["note"].startswith("not estimated: ")


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_a_constant_outcome_is_not_estimated_and_says_why(world, value, kind):
    readout = world.readout(world.log().with_columns(ms=pl.lit(value)), {"design.kind": kind})
    latency = readout.metrics[0]
    assert latency.estimate is None
    assert "does not vary" in latency.note
    assert readout.decision.rule == "primary_inconclusive"


def test_one_arm_without_a_value_is_not_estimated(world):
    frame = world.log().with_columns(ms=pl.when(pl.col("arm") == "old").then("ms"))
    readout = world.readout(frame)
    assert readout.metrics[0].estimate is None
    assert readout.metrics[0].note == "not estimated: an arm has no value of it"
    assert readout.metrics[1].estimate is not None


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, what) for kind in ("user_rct", "request_rct", "switchback") for what in ({}, {"quantile": 0.9})]
    + [("user_rct", {"per": "unit"})],
)
def test_a_metric_whose_rows_are_none_is_not_estimated(world, kind, what):
    metric = {"column": "ms", "where": "tokens < 0", "role": "guardrail", "better": "lower", "margin": "5%", **what}
    design = {"design": {"kind": kind, "control": "old", "treatment": "new", "shared_state": False}}
    if kind == "switchback":
        design["design"]["block"] = "2h"
    readout = world.readout(
        switching(world) if kind == "switchback" else world.log(), {**design, "metrics.none": metric}
    )
    none = readout.metrics[-1]
    assert (none.estimate, none.verdict, none.guardrail) == (None, None, "inconclusive")
    assert none.note.startswith("not estimated: ")


@pytest.mark.parametrize("power", [15, 16])
def test_huge_whole_numbers_keep_their_digits(world, power):
    frame = world.log().with_columns(ms=pl.col("tokens").cast(pl.Int64) * 10**power)
    plain = world.readout(world.log(), {"metrics.latency.column": "tokens"}).metrics[0]
    huge = world.readout(frame).metrics[0]
    assert huge.estimate == pytest.approx(plain.estimate * 10.0**power, rel=1e-9)
    assert huge.std_error == pytest.approx(plain.std_error * 10.0**power, rel=1e-9)


@pytest.mark.parametrize("scale", [1e200, 1e304])
def test_values_whose_squares_overflow_are_not_estimated(world, scale):
    world.write(world.log().with_columns(pl.col("ms") * scale))
    outcome = world.run("--format", "json")
    assert outcome.code in (0, 3)
    if outcome.code == 0:
        assert outcome.json["metrics"][0]["estimate"] is None


def test_booleans_and_their_zeros_and_ones_are_the_same_metric(world):
    frame = world.log()
    as_bool = world.readout(frame, {"metrics.latency.column": "failed"}).metrics[0]
    as_int = world.readout(frame.with_columns(pl.col("failed").cast(pl.Int8)), {"metrics.latency.column": "failed"})
    assert as_bool.estimate == as_int.metrics[0].estimate


def test_a_control_mean_that_is_not_positive_has_no_relative_effect_and_says_so(world):
    latency = world.readout(world.log().with_columns(-pl.col("ms"))).metrics[0]
    assert latency.relative is latency.relative_ci_low is latency.relative_ci_high is None
    assert latency.relative_reason == "control's value is not positive"
    assert latency.verdict == "worse"


SWITCHBACK = {
    "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h"},
    "logs.columns": {"time": "at", "arm": "arm", "intended": "arm", "executed": "arm", "state": ["tokens"]},
}


def switching(world, hours: int = 2) -> pl.DataFrame:
    turn = pl.col("at").dt.epoch("s") // (3600 * hours) % 2 == 0
    return world.log().with_columns(arm=pl.when(turn).then(pl.lit("old")).otherwise(pl.lit("new")))


@pytest.mark.parametrize("block", ["7d", "14d"])
def test_one_block_estimates_nothing(world, block):
    readout = world.readout(switching(world), {**SWITCHBACK, "design.block": block})
    assert all(m.estimate is None for m in readout.metrics)
    assert readout.decision.action == "pause"


def test_a_switchback_without_clusters_is_of_the_whole_system(world):
    readout = world.readout(switching(world), SWITCHBACK)
    assert readout.assignment.startswith("Blocks of time were assigned to the system as a whole. ")


def test_times_without_a_zone_are_in_logs_timezone(world):
    naive = world.log().with_columns(pl.col("at").dt.replace_time_zone(None))
    here = world.readout(naive, {"logs.end": "2026-10-05T12:00Z"})
    there = world.readout(naive, {"logs.end": "2026-10-05T12:00Z", "logs.timezone": "Europe/Rome"})
    assert here.rows.kept == 103  # every seven minutes of twelve hours
    assert there.rows.kept == 120  # Rome was two hours ahead
