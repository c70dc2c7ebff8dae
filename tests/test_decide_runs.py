"""Decisions of whole runs, from a log to the rule that fired."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from readout.memo.markdown import memo


def test_a_run_ships_what_is_clear(world):
    decision = world.readout(world.log()).decision
    assert (decision.action, decision.rule) == ("ship", "all_clear")


def test_a_run_rolls_back_on_a_trigger_although_the_average_is_better(world):
    readout = world.readout(world.log(), {"rollback": [{"metric": "errors", "above": 0.01}]})
    assert readout.metrics[0].verdict == "better"
    assert (readout.decision.action, readout.decision.rule) == ("rollback", "rollback_trigger_fired")


def test_a_run_pauses_on_a_broken_split(world):
    frame = world.log(units=300).filter((pl.col("arm") == "old") | (pl.col("user") % 3 == 0))
    decision = world.readout(frame).decision
    assert (decision.action, decision.rule) == ("pause", "broken_assignment")
    assert "srm failed" in decision.headline


@pytest.mark.parametrize("missing", ["state", "intended", "executed"])
def test_a_run_without_state_or_intended_action_asks_for_instruments(world, missing):
    roles = {"state": ["queue"], "intended": "arm", "executed": "arm"}
    frame = world.log().with_columns(queue=pl.col("tokens"))
    changes = {f"logs.columns.{r}": name for r, name in roles.items() if r != missing} | {"design.shared_state": True}
    decision = world.readout(frame, changes).decision
    assert (decision.action, decision.rule) == ("instrument", "missing_evidence")
    assert any(repr(missing) in reason for reason in decision.reasons)


def test_a_run_with_a_shared_pool_asks_for_a_stronger_design(world):
    frame = world.log().with_columns(queue=pl.col("tokens"))
    changes = {
        "design.shared_state": True, "logs.columns.state": ["queue"], "logs.columns.intended": "arm",
        "logs.columns.executed": "arm",
    }  # fmt: skip
    decision = world.readout(frame, changes).decision
    assert (decision.action, decision.rule) == ("stronger_design", "shared_capacity")


def test_a_run_rolls_back_harm_and_no_gain_and_ramps_the_unclear(world):
    frame = world.log()
    assert world.readout(world.log(effect=1.4)).decision.rule == "harmed"
    nothing = {"metrics.latency.minimum_effect": "60%"}
    assert world.readout(frame, nothing).decision.rule == "nothing_gained"
    poor = {"economics": {"value": {"metric": "errors", "usd": 1e-6}, "bar": {"net_usd_per_1k_requests": 5}}}
    readout = world.readout(frame, poor)
    decision = readout.decision
    assert "## What would stop a ramp" in memo(readout)
    assert (decision.action, decision.rule) == ("rollback", "nothing_gained")
    assert decision.headline == "Roll back 'new': it does not gain enough to keep (economic_bar failed)."
    assert world.readout(frame, {"metrics.errors.margin": 0.001}).decision.rule == "not_clear_enough"
    noise = frame.with_columns(ms=pl.Series(np.random.default_rng(3).lognormal(4, 0.4, len(frame))))
    assert world.readout(noise).decision.rule == "primary_inconclusive"


def test_a_run_with_several_arms_decides_each(world):
    frame = world.log(units=240, arms=("old", "new", "plus"), effect=0.7)
    harm = frame.with_columns(ms=pl.when(pl.col("arm") == "plus").then(pl.col("ms") * 3).otherwise("ms"))
    readout = world.readout(harm, {"design.treatment": ["plus", "new"]})
    assert readout.decision.by_arm == {"plus": "rollback", "new": "ship"}
    assert (readout.decision.action, readout.decision.treatment) == ("ship", "new")
    triggered = world.readout(harm, {"design.treatment": ["plus", "new"], "rollback": [{"expr": "ms", "above": 100}]})
    assert triggered.decision.by_arm == {"plus": "rollback", "new": "ship"}


def test_arms_that_read_as_words_or_numbers_are_quoted_and_reasons_name_the_arm_of_several(world):
    third = world.log()
    third = third.with_columns(arm=pl.when(pl.col("user") % 3 == 0).then(pl.lit("1")).otherwise("arm"))
    third = third.with_columns(pl.col("arm").replace({"old": "off", "new": "on"}))
    decision = world.readout(third, {"design.control": "off", "design.treatment": ["on", "1"]}).decision
    assert decision.treatment == "on"
    assert decision.headline.startswith("Ship 'on': ")
    assert decision.reasons[0].startswith("latency under 'on' ")
    assert any(reason.startswith("guardrail errors under 'on' holds") for reason in decision.reasons)


def test_a_readout_without_a_window_says_what_time_its_rows_span(world):
    from readout.memo.words import window

    frame = world.log()
    at = np.datetime64("2026-10-05T01:30", "us") + np.arange(len(frame)) * np.timedelta64(60, "s")
    timed = frame.with_columns(at=pl.Series(at).dt.replace_time_zone("UTC"))
    readout = world.readout(timed, {"logs.columns.time": "at"})
    last = at[-1].astype("datetime64[m]").item()
    assert window(readout) == f"all rows of the logs, 2026-10-05 01:30 UTC to {last:%Y-%m-%d %H:%M} UTC"
    assert (readout.window["start"], readout.window["first"]) == (None, "2026-10-05T01:30:00+00:00")
    readout = world.readout(timed, {"logs.columns.time": "at", "logs.start": "2026-10-05T02:00Z"})
    assert window(readout) == f"2026-10-05 02:00 UTC to the last row ({last:%Y-%m-%d %H:%M} UTC)"
