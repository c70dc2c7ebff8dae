"""What stands after the action is no control: refused by name, by role, by metric and by what the data tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import yaml

from readout import spec
from readout.checks import logging
from readout.checks.controls import bad_controls
from readout.checks.logging import completed_only, required_fields
from readout.controls import by_name, rows
from readout.decide import Facts, _worded
from readout.decide import rules as decision_rules
from readout.evidence import Evidence, rows_table
from readout.logs import open_logs
from readout.reduce import run_pass
from readout.results import Check

N = 800
ROLES = {"unit": "user", "executed": "ran", "intended": "chosen", "timeout": "late", "retries": "tried"}
STATE, FEATURES = ["queue_depth"], ["tier"]
DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "observational": {"control": "a", "treatment": "b"},
    "iv": {"control": "a", "treatment": "b", "instrument": "nudge"},
    "did": {"rollout": "first"},
    "rdd": {"running": "score", "cutoff": 0.5},
}
LEANS = {"observational": "adjust", "iv": "adjust", "did": "adjust", "rdd": "covariates"}
TEXT = ("ran", "chosen", "fell")
METRICS = {"speed": {"column": "ms", "role": "primary", "better": "lower"}}


def frame(seed: int = 0, **more: Any) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    ran = np.where(rng.random(N) < 0.4, "b", "a")
    return pl.DataFrame(
        {
            "user": np.arange(N) % 40,
            "time": np.arange(N) // 80,
            "ran": ran,
            "chosen": ran,
            "arm": ran,
            "nudge": rng.integers(0, 2, N),
            "first": pl.Series([5 if u % 2 else None for u in np.arange(N) % 40], dtype=pl.Int64),
            "score": rng.random(N),
            "late": rng.random(N) < 0.1,
            "tried": rng.integers(0, 2, N),
            "fell": np.where(rng.random(N) < 0.1, "full", ""),
            "p": np.where(ran == "b", 0.4, 0.6),
            "queue_depth": rng.poisson(3.0, N),
            "tier": rng.integers(0, 3, N),
            "queue_depth_after": rng.poisson(4.0, N),
            "ms": rng.lognormal(3.0, 1.0, N),
            "load": rng.random(N),
            **more,
        }
    )


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Evidence]:
    """What the checks of logging are given, for any kind of design: no sample stands behind it."""

    def gathered(kind: str, log: pl.DataFrame, design: Mapping[str, Any] | None = None, **given: Any) -> Evidence:
        log.write_parquet(tmp_path / "log.parquet")
        columns = {**ROLES, "state": STATE, "features": FEATURES, **given.pop("columns", {})}
        if kind == "did":
            columns["time"] = "time"
        else:
            log = log.drop("time")
            log.write_parquet(tmp_path / "log.parquet")
        text = {
            "logs": {"path": "log.parquet", "columns": columns, **given.pop("logs", {})},
            "design": {"kind": kind, **DESIGNS[kind], **(design or {})},
            "metrics": {**METRICS, **given.pop("metrics", {})},
            **given,
        }
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        read = spec.load(tmp_path / "spec.yaml")
        logs = open_logs(read, datetime(2026, 11, 1, tzinfo=UTC))
        tables = run_pass(logs.frame, [rows_table(), *logging.tables(read, logs)], N)
        return Evidence(read, logs, cast(Any, None), {}, tables, {})

    return gathered


Told = Callable[..., Evidence]


@pytest.mark.parametrize("kind", DESIGNS)
@pytest.mark.parametrize(
    ("column", "roles", "row"),
    [
        ("ms", {}, "an outcome"),
        ("queue_depth_after", {"after": ["queue_depth_after"]}, "the queue after"),
        ("queue_depth_after", {}, "the queue after"),
        ("ran", {}, "the action that ran"),
        ("chosen", {}, "the action that was chosen"),
        ("late", {}, "a timeout"),
        ("tried", {}, "retries"),
        ("fell", {"fallback": "fell"}, "a fallback"),
        ("p", {"propensity": "p"}, "the probability of the action that ran"),
        ("ttft_ms", {}, "latency"),
        ("is_error", {}, "errors"),
        ("completed", {}, "completion"),
        ("cache_hit", {}, "a cache hit"),
        ("retryCount", {}, "retries"),
        ("output_tokens", {}, "what the answer came to"),
    ],
)
def test_what_stands_after_the_action_is_refused_by_name_with_the_row_that_says_why(
    told: Told, kind: str, column: str, roles: dict[str, Any], row: str
) -> None:
    log = frame()
    if kind == "rdd" and column in TEXT:
        pytest.skip("covariates of an rdd are numbers")
    if column not in log.columns:
        log = log.with_columns(pl.lit(1.0).alias(column) + pl.int_range(N) % 7)
    check = bad_controls(told(kind, log, {LEANS[kind]: ["load", column]}, columns=roles))
    why = next(one.why for one in rows() if one.row == row)
    place = f"design.{LEANS[kind]}"
    assert (check.status, check.action, check.value) == ("fail", "instrument", 1)
    assert f"{column!r} ({place}) is " in check.message
    assert why in check.message
    assert check.short == repr(column)
    assert check.details["bad_controls"][0]["column"] == column


@pytest.mark.parametrize("kind", DESIGNS)
def test_the_queue_before_the_decision_is_adjusted_for(told: Told, kind: str) -> None:
    names = ["queue_depth", "load", "tier"]
    check = bad_controls(told(kind, frame(), {LEANS[kind]: names, "policy_inputs": ["queue_depth"]}))
    assert check.status == "pass", check.message


def test_state_and_features_are_adjusted_for_unasked_and_so_looked_at(told: Told) -> None:
    log = frame(cache_hit=np.arange(N) % 2)
    check = bad_controls(told("observational", log, columns={"features": ["tier", "cache_hit"]}))
    assert (check.status, "'cache_hit' (logs.columns.features) is by its name a cache hit" in check.message) == (
        "fail",
        True,
    )
    warned = bad_controls(told("did", log, columns={"features": ["tier", "cache_hit"]}))
    assert (warned.status, "'cache_hit' is by its name a cache hit" in warned.message) == ("warn", True)


def test_what_the_policy_reads_stood_before_whatever_its_name(told: Told) -> None:
    log, inputs = frame(cache_hit=np.arange(N) % 2), ["cache_hit", "queue_depth"]
    design = {"adjust": ["cache_hit", "queue_depth"], "policy_inputs": inputs}
    assert bad_controls(told("observational", log, design)).status == "pass"
    design["policy_inputs"] = ["ms"]
    assert (
        "'ms' (design.policy_inputs) is measured by the metric 'speed'"
        in bad_controls(told("observational", log, design)).message
    )


def test_state_that_is_an_outcome_too_cannot_be_adjusted_for(told: Told) -> None:
    metrics = {"queue": {"column": "queue_depth", "better": "lower"}}
    assert bad_controls(told("observational", frame(), metrics=metrics)).status == "fail"
    assert bad_controls(told("did", frame(), metrics=metrics)).status == "pass"
    control = {"negative_control": "queue"}
    assert bad_controls(told("observational", frame(), control, metrics=metrics)).status == "pass"


def test_a_fact_below_a_ratio_s_line_may_be_adjusted_for(told: Told) -> None:
    metrics = {"per_load": {"numerator": "ms", "denominator": "load", "better": "lower"}}
    columns = {"features": ["tier", "load"]}
    assert bad_controls(told("observational", frame(), columns=columns, metrics=metrics)).status == "pass"
    check = bad_controls(told("observational", frame(), {"adjust": ["tier", "load"]}, metrics=metrics))
    assert "'load' (design.adjust) is measured by the metric 'per_load'" in check.message


def test_the_arm_where_it_is_taken_for_the_action(told: Told) -> None:
    columns = {"executed": None, "arm": "arm"}
    check = bad_controls(told("observational", frame().drop("ran"), {"adjust": ["load", "arm"]}, columns=columns))
    assert "'arm' (design.adjust) is the arm itself" in check.message
    assert bad_controls(told("observational", frame(), {"adjust": ["load", "arm"]})).status == "fail"


def test_an_instrument_that_stands_after_the_action(told: Told) -> None:
    for column, status in (("nudge", "pass"), ("chosen", "pass"), ("ran", "fail"), ("ms", "fail"), ("late", "fail")):
        check = bad_controls(told("iv", frame(), {"instrument": column}))
        assert check.status == status, column
    assert "'late' (design.instrument)" in check.message


@pytest.mark.parametrize("slips", [0, 3])
@pytest.mark.parametrize("text", [True, False])
def test_an_adjuster_that_the_action_set(told: Told, slips: int, text: bool) -> None:
    log = frame()
    price = np.where((log["ran"] == "b").to_numpy(), 3.6, 3.0)
    price[:slips] = 3.3
    log = log.with_columns(price=pl.Series(price).cast(pl.String) if text else pl.Series(price))
    check = bad_controls(told("observational", log, {"adjust": ["queue_depth", "price"]}))
    assert check.status == "fail"
    assert "'price' (design.adjust) tells on " in check.message
    read = {"adjust": ["queue_depth", "price"], "policy_inputs": ["price"]}
    assert bad_controls(told("observational", log, read)).status == "pass"


@pytest.mark.parametrize("arm", ["a", "b"])
def test_an_adjuster_that_is_logged_under_one_action_only(told: Told, arm: str) -> None:
    log = frame().with_columns(slot=pl.when(pl.col("ran") == arm).then(pl.col("load")))
    check = bad_controls(told("observational", log, {"adjust": ["queue_depth", "slot"]}))
    assert f"'slot' (design.adjust) is there only where {arm!r} ran" in check.message
    assert bad_controls(told("iv", log, {"adjust": ["slot"]})).status == "fail"
    read = {"adjust": ["queue_depth", "slot"], "policy_inputs": ["slot"]}
    assert bad_controls(told("observational", log, read)).status == "fail"


def test_what_only_goes_along_with_the_action_is_let_pass(told: Told) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        log = frame(seed, level=rng.integers(0, 400, N), wide=rng.random(N))
        b = (log["ran"] == "b").to_numpy()
        log = log.with_columns(near=pl.Series(np.where(rng.random(N) < 0.97, b, ~b)), one=pl.lit(1))
        check = bad_controls(told("observational", log, {"adjust": ["near", "level", "wide", "one", "tier"]}))
        assert check.status == "pass", check.message


@pytest.mark.parametrize("where", ["completed", "status_code = 200", "not timed_out", "latency < 900", "done"])
@pytest.mark.parametrize("kind", ["observational", "did"])
def test_a_filter_on_how_requests_ended(told: Told, where: str, kind: str) -> None:
    more = {"completed": True, "status_code": 200, "timed_out": False, "latency": 5.0, "done": True}
    log = frame().with_columns(**{name: pl.lit(value) for name, value in more.items()})
    columns = {"after": ["done"]}
    check = completed_only(told(kind, log, logs={"where": where}, columns=columns))
    assert (check.status, check.action) == ("fail", "instrument")
    assert check.message.startswith("logs.where filters on ")
    metrics = {"other": {"column": "load", "where": where, "better": "lower"}}
    check = completed_only(told(kind, log, columns=columns, metrics=metrics))
    assert check.message.startswith("metrics.other.where filters on ")


def test_failures_that_another_filter_took_out(told: Told) -> None:
    log = frame().with_columns(tag=pl.when(pl.col("late")).then(pl.lit("x")).otherwise(pl.lit("y")))
    check = completed_only(told("observational", log, logs={"where": "tag = 'y'"}))
    assert (check.status, "failed rows were filtered out" in check.message) == ("fail", True)


@pytest.mark.parametrize(("lost", "status"), [(0.9, "fail"), (0.3, "warn"), (0.0, "pass")])
def test_an_adjuster_that_is_lost_where_requests_fail(told: Told, lost: float, status: str) -> None:
    draw = np.random.default_rng(1).random(N) < lost
    log = frame().with_columns(seen=pl.when(~(pl.col("late") & pl.Series(draw))).then(pl.col("load")))
    check = completed_only(told("observational", log, {"adjust": ["queue_depth", "seen"]}))
    assert check.status == status
    assert status == "pass" or "'seen' is null on " in check.message


@pytest.mark.parametrize("kind", DESIGNS)
def test_a_policy_input_that_was_not_logged_asks_for_it_in_every_design(told: Told, kind: str) -> None:
    check = required_fields(told(kind, frame(), {"policy_inputs": ["tier", "mood"]}))
    assert (check.status, check.action, check.short) == ("fail", "instrument", "'mood' is not logged")
    empty = frame().with_columns(mood=pl.lit(None, dtype=pl.Float64))
    check = required_fields(told(kind, empty, {"policy_inputs": ["tier", "mood"]}))
    assert (check.status, "'mood', null on every row" in check.message) == ("fail", True)


def test_a_policy_input_that_is_left_out_of_the_adjusters(told: Told) -> None:
    for method, adjust, left_out in (
        ("aipw", ["tier"], True),
        ("aipw", {"propensity": ["tier"], "outcome": ["queue_depth"]}, False),
        ("ipw", {"propensity": ["tier"], "outcome": ["queue_depth"]}, True),
        ("outcome_regression", {"propensity": ["queue_depth"], "outcome": ["tier"]}, True),
        ("aipw", ["tier", "queue_depth"], False),
    ):
        design = {"policy_inputs": ["queue_depth"], "adjust": adjust}
        check = required_fields(told("observational", frame(), design, estimator=method))
        assert (check.status, check.action) == (("fail", "stronger_design") if left_out else ("warn", None))
        assert ("'queue_depth', logged but left out of design.adjust" in check.message) is left_out


@pytest.mark.parametrize(
    ("kind", "status"), [("observational", "fail"), ("iv", "warn"), ("did", "warn"), ("rdd", "warn")]
)
def test_state_and_actions_are_needed_where_they_identify_the_effect(told: Told, kind: str, status: str) -> None:
    check = required_fields(told(kind, frame(), {"shared_state": kind != "observational"}, columns={"state": []}))
    assert (check.status, "no values for 'state'" in check.message) == (status, True)


def test_the_headline_names_what_is_missing(told: Told) -> None:
    evidence = told("observational", frame(), {"policy_inputs": ["mood"], "adjust": ["ms"]})
    for one, rule in ((required_fields, "missing_evidence"), (bad_controls, "later_facts_taken_for_earlier")):
        check: Check = one(evidence)
        found = Facts(evidence, [check], 1, [])
        row = next(r for r in decision_rules() if r.rule == rule)
        from readout.decide import MATCHES

        headline = _worded(found, row, [m for kind, value in row.when for m in MATCHES[kind](found, value)]).headline
        assert check.short in headline


@pytest.mark.parametrize(
    "name",
    [
        "queue_depth", "queue_depth_before", "recent_p99_latency", "error_rate_last_hour", "error_budget", "max_tokens",
        "max_output_tokens", "latency_class", "cache_warm", "tier", "prompt_tokens", "status", "plan",
        "kv_tokens_in_flight", "predicted_duration", "batch_size", "retry_policy", "terror", "active_requests",
        "expected_ttft",
    ],
)  # fmt: skip
def test_names_that_speak_of_the_time_before_or_of_nothing(name: str) -> None:
    assert by_name(name) is None
