"""The line from a spec to a readout, against computations of its own, and what it says of a sample."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from readout import pipeline
from readout.results import Readout

METRICS = {
    "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
    "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
    "cost": {"numerator": "ms", "denominator": "tokens", "role": "guardrail", "better": "lower", "margin": "10%"},
    "p90": {"column": "ms", "quantile": 0.9, "role": "guardrail", "better": "lower", "margin": "10%"},
    "total": {"column": "tokens", "per": "unit", "role": "secondary", "better": "higher"},
    "short": {"column": "ms", "where": "tokens < 100", "role": "mechanism", "better": "lower"},
    "calm": {"column": "ms", "on": "untreated", "role": "secondary", "better": "lower", "margin": "5%"},
    "fast": {"expr": "ms < 50", "role": "secondary", "better": "higher"},
}


def by_name(readout: Readout) -> dict[str, Any]:
    return {m.metric: m for m in readout.metrics}


def means(frame: pl.DataFrame, value: pl.Expr, weight: pl.Expr) -> dict[str, np.ndarray]:
    """Sums of value and weight by unit, (units, 2), by arm."""
    units = frame.group_by("user", "arm").agg(value.sum().alias("x"), weight.sum().alias("w")).sort("user")
    return {arm: units.filter(pl.col("arm") == arm).select("x", "w").to_numpy().astype(float) for arm in ("old", "new")}


def test_every_kind_of_mean_against_the_delta_method(world):
    frame = world.log()
    found = by_name(world.readout(frame, {"metrics": METRICS, "logs.columns.executed": "arm"}))
    ms, tokens = pl.col("ms"), pl.col("tokens").cast(pl.Float64)
    some = (pl.col("tokens") < 100).cast(pl.Float64)
    row = pl.col("ms").is_not_null().cast(pl.Float64)
    expected = {
        "latency": (ms, row),
        "errors": (pl.col("failed").cast(pl.Float64), row),
        "cost": (ms, tokens),
        "short": (ms * some, some),
        "fast": ((ms < 50).cast(pl.Float64), row),
    }
    for name, (value, weight) in expected.items():
        sums = means(frame, value, weight)
        point, variance = {}, {}
        for arm, xw in sums.items():
            xw = xw[xw[:, 1] > 0]
            point[arm] = xw[:, 0].sum() / xw[:, 1].sum()
            residual = (xw[:, 0] - point[arm] * xw[:, 1]) / xw[:, 1].mean()
            variance[arm] = residual.var(ddof=1) / len(xw)
        m = found[name]
        assert m.estimate == pytest.approx(point["new"] - point["old"], rel=1e-9), name
        assert m.std_error == pytest.approx(math.sqrt(sum(variance.values())), rel=1e-9), name
        assert (m.control_value, m.treatment_value) == pytest.approx((point["old"], point["new"]), rel=1e-12)


def test_a_sum_per_unit_is_welchs_test(world):
    frame = world.log()
    m = by_name(world.readout(frame, {"metrics": METRICS, "logs.columns.executed": "arm"}))["total"]
    units = frame.group_by("user", "arm").agg(pl.col("tokens").sum())
    old, new = (units.filter(pl.col("arm") == arm)["tokens"].to_numpy() for arm in ("old", "new"))
    welch = stats.ttest_ind(new, old, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert (m.statistic, m.p_value, m.df) == pytest.approx((welch.statistic, welch.pvalue, welch.df), rel=1e-9)
    assert (m.ci_low, m.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (m.n_control, m.n_treatment) == (60, 60)


def test_rows_as_units_are_welchs_test_and_its_relative_effect_a_log_ratio(world):
    frame = world.log()
    m = by_name(world.readout(frame, {"design.kind": "request_rct"}))["latency"]
    old, new = (frame.filter(pl.col("arm") == arm)["ms"].to_numpy() for arm in ("old", "new"))
    welch = stats.ttest_ind(new, old, equal_var=False)
    assert (m.statistic, m.p_value, m.df) == pytest.approx((welch.statistic, welch.pvalue, welch.df), rel=1e-9)
    assert m.relative == pytest.approx(new.mean() / old.mean() - 1, rel=1e-12)
    error = math.sqrt(sum(a.var(ddof=1) / len(a) / a.mean() ** 2 for a in (old, new)))
    half = (math.log1p(m.relative_ci_high) - math.log1p(m.relative_ci_low)) / 2
    assert half / error == pytest.approx(stats.t.ppf(0.975, m.df), rel=0.01)
    assert (math.log1p(m.relative_ci_high) + math.log1p(m.relative_ci_low)) / 2 == pytest.approx(math.log1p(m.relative))


def test_a_quantile_is_within_its_stated_error(world):
    frame = world.log(units=400)
    m = by_name(world.readout(frame, {"metrics": METRICS, "logs.columns.executed": "arm"}))["p90"]
    for value, arm in ((m.control_value, "old"), (m.treatment_value, "new")):
        exact = np.quantile(frame.filter(pl.col("arm") == arm)["ms"].to_numpy(), 0.9)
        assert value == pytest.approx(exact, rel=0.01)
    assert m.note == "from value buckets at most 1 % wide"
    units = frame.group_by("arm").agg(pl.col("user").n_unique())
    assert {"old": m.n_control, "new": m.n_treatment} == dict(units.rows())


def test_the_detectable_effect_is_what_a_test_finds_with_power_of_80_percent(world):
    m = by_name(world.readout(world.log()))["latency"]
    assert m.minimum_detectable_effect == pytest.approx(
        (stats.t.ppf(0.975, m.df) + stats.t.ppf(0.8, m.df)) * m.std_error, rel=1e-9
    )
    strict = by_name(world.readout(world.log(), {"decision.alpha": 0.01}))["latency"]
    assert strict.minimum_detectable_effect > m.minimum_detectable_effect
    assert strict.ci_high - strict.ci_low == pytest.approx(2 * stats.t.ppf(0.995, m.df) * m.std_error, rel=1e-9)


def test_every_role_is_reported_with_what_it_is_of(world):
    readout = world.readout(world.log(), {"metrics": METRICS, "logs.columns.executed": "arm"})
    assert [m.metric for m in readout.metrics] == list(METRICS)
    assert {m.metric: m.role for m in readout.metrics} == {name: keys["role"] for name, keys in METRICS.items()}
    assert {m.metric: m.estimand for m in readout.metrics} == {
        "latency": "difference of the mean over rows",
        "errors": "difference of the mean over rows",
        "cost": "difference of ms over tokens",
        "p90": "difference of the 90th percentile over rows",
        "total": "difference of the mean over units of the sum within a unit",
        "short": "difference of the mean over rows",
        "calm": "difference of the mean over rows, rows that were not treated",
        "fast": "difference of the mean over rows",
    }
    calm = by_name(readout)["calm"]
    assert (calm.estimate, calm.verdict, calm.guardrail) == (None, None, "inconclusive")
    assert calm.note == "not estimated: an arm has no value of it"


def test_primaries_stand_first_and_each_arm_has_its_row(world):
    metrics = {"errors": METRICS["errors"], "latency": METRICS["latency"]}
    readout = world.readout(
        world.log(arms=("old", "new", "plus")), {"metrics": metrics, "design.treatment": ["new", "plus"]}
    )
    assert [(m.metric, m.arm) for m in readout.metrics] == [
        ("latency", "new"), ("latency", "plus"), ("errors", "new"), ("errors", "plus"),
    ]  # fmt: skip
    assert {m.control for m in readout.metrics} == {"old"}


def test_nulls_are_left_out_and_counted(world):
    frame = world.log().with_columns(ms=pl.when(pl.int_range(pl.len()) % 5 != 0).then("ms"))
    m = by_name(world.readout(frame))["latency"]
    assert m.nulls == 96
    rows = {arm: frame.filter(pl.col("arm") == arm)["ms"].mean() for arm in ("old", "new")}
    assert m.estimate == pytest.approx(rows["new"] - rows["old"], rel=1e-12)


def test_values_missing_in_one_arm_more_often_are_named(world):
    gone = pl.int_range(pl.len()) % 5 == 0
    alike = world.log(units=400).with_columns(ms=pl.when(~gone).then("ms"))
    assert "no value on" not in by_name(world.readout(alike))["latency"].note
    frame = world.log(units=400).with_columns(ms=pl.when(~gone | (pl.col("arm") == "old")).then("ms"))
    note = by_name(world.readout(frame))["latency"].note
    assert "of the rows of 'new' and 0 % of 'old'" in note


def test_intervals_that_do_not_agree_on_zero_are_named(world):
    frame = world.log(units=60)
    assert "do not agree" not in by_name(world.readout(frame))["latency"].note
    whale = frame.with_columns(ms=pl.when((pl.col("arm") == "old").cum_sum() == 1).then(1e7).otherwise("ms"))
    m = by_name(world.readout(whale))["latency"]
    assert (m.verdict, m.ci_high > 0 > m.relative_ci_high) == ("inconclusive", True)
    assert "do not agree on zero" in m.note


@pytest.mark.parametrize(("margin", "named"), [(5, True), ("5%", False), (0.5, False)])
def test_a_margin_without_its_per_cent_sign_is_named(world, margin, named):
    m = by_name(world.readout(world.log(), {"metrics.errors": {**METRICS["errors"], "margin": margin}}))["errors"]
    assert m.control_value < 0.5
    assert ("its margin of 5 is no less than control's whole value" in m.note) == named


def test_rows_from_after_the_as_of_time_are_named(world):
    changes = {"logs.columns.time": "ts"}
    days = pl.datetime(2026, 10, 1) + pl.duration(days=pl.int_range(pl.len()) % 40)
    frame = world.log().with_columns(ts=days)
    later = int((frame["ts"] > datetime(2026, 11, 1)).sum())
    assert later > 10
    said = "kept rows are from after the time that this is read as of"
    readout, _ = pipeline.run(world.write(frame, changes), as_of=datetime(2026, 11, 1, tzinfo=UTC), out=world.out)
    assert any(note.startswith(f"{later} {said}") for note in readout.notes)
    readout, _ = pipeline.run(world.write(frame, changes), as_of=datetime(2026, 12, 1, tzinfo=UTC), out=world.out)
    assert not any(said in note for note in readout.notes)


@pytest.mark.parametrize("field", [f.name for f in fields(pipeline.CheckReport)])
def test_a_check_report_holds_no_effect(world, field):
    report = pipeline.check(world.write(world.log()))
    assert field in ("name", "rows", "checks", "notes")
    names = {c.name for c in report.checks}
    assert not names & {"fallback", "timeouts_and_retries", "untreated_outcomes", "tail_dominance", "economic_bar"}
    assert not names & {"rollback_trigger"}


def test_rows_are_accounted_for(world):
    frame = world.log().with_columns(
        arm=pl.when(pl.col("user") == 0).then(None).when(pl.col("user") == 1).then(pl.lit("beta")).otherwise("arm"),
        user=pl.when(pl.col("user") == 2).then(None).otherwise("user"),
        ok=pl.col("user") != 3,
    )
    changes = {"logs.where": "ok", "logs.end": "2026-10-07T00:00Z"}
    rows = world.readout(frame, changes).rows
    assert rows.read == 480
    assert rows.kept + sum(rows.dropped.values()) == 480
    assert dict(rows.dropped) == {
        "outside the window": 68, "logs.where": 4, "no arm": 4, "an arm the spec does not name": 4, "no unit": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("clusters", "together"), [(1, False), (3, True), (3, False)])
def test_how_blocks_were_assigned_is_said(world, clusters, together):
    frame = world.log(units=600).with_columns(region=pl.concat_str(pl.lit("r"), pl.col("user") % clusters))
    turn = pl.col("at").dt.epoch("s") // 7200 + (0 if together or clusters == 1 else pl.col("user") % clusters)
    frame = frame.with_columns(arm=pl.when(turn % 2 == 0).then(pl.lit("old")).otherwise(pl.lit("new")))
    changes = {
        "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h"},
        "logs.columns": {"time": "at", "arm": "arm"} | ({"cluster": "region"} if clusters > 1 else {}),
    }  # fmt: skip
    said = world.readout(frame, changes).assignment
    how = (
        "the system as a whole" if clusters == 1 else "all clusters together" if together else "each cluster on its own"
    )
    assert said.startswith(f"Blocks of time were assigned to {how}. ")


def test_the_as_of_time_may_stand_in_any_zone(world):
    east = datetime(2026, 10, 21, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    readout, folder = pipeline.run(world.write(world.log()), out=world.out, as_of=east, figures=False)
    assert readout.as_of == "2026-10-20T16:00:00+00:00"
    assert folder == world.out / "probe" / "2026-10-20"


def test_a_relative_margin_is_judged_on_the_relative_interval(world):
    frame = world.log(effect=1.0).with_columns(ms=pl.col("ms") / 1000)
    m = by_name(world.readout(frame, {"metrics.errors": {**METRICS["p90"], "quantile": 0.5, "margin": "60%"}}))[
        "errors"
    ]
    assert m.guardrail == "holds"
    assert m.relative_ci_high < 0.6


def test_the_readout_is_what_was_written(world):
    readout = world.readout(world.log(), {"metrics": METRICS, "logs.columns.executed": "arm"})
    written = json.loads((world.out / "probe" / "2026-10-20" / "readout.json").read_text(encoding="utf-8"))
    for metric, row in zip(readout.metrics, written["metrics"], strict=True):
        for name in ("estimate", "std_error", "ci_low", "relative", "n_control", "verdict", "note"):
            value = getattr(metric, name)
            assert row[name] == (pytest.approx(value, rel=1e-8) if isinstance(value, float) else value)


def test_net_value_counts_the_covariance_of_value_and_cost(world):
    frame = world.log()
    economics = {"economics": {"value": {"metric": "good", "usd": 0.01}, "cost": {"column": "tokens", "usd": 1e-5}}}
    good = {"metrics.good": {"expr": "not failed", "better": "higher"}}
    net = world.readout(frame, {**economics, **good}).economics["net_usd_per_1k_requests"]
    value = (~pl.col("failed")).cast(pl.Float64) * 0.01 - pl.col("tokens") * 1e-5
    sums = means(frame, value, pl.col("ms").is_not_null().cast(pl.Float64))
    expected = {arm: xw[:, 0].sum() / xw[:, 1].sum() for arm, xw in sums.items()}
    error = math.sqrt(
        sum(((xw[:, 0] - expected[arm] * xw[:, 1]) / xw[:, 1].mean()).var(ddof=1) / len(xw) for arm, xw in sums.items())
    )
    assert net["estimate"] == pytest.approx(1000 * (expected["new"] - expected["old"]), rel=1e-9)
    assert (net["ci_high"] - net["ci_low"]) / 2 / error / 1000 == pytest.approx(stats.t.ppf(0.975, 117), rel=0.01)
