"""Events of the spec: whom they hit, and what is left without them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from readout.errors import LogError

START = datetime(2026, 10, 5, tzinfo=UTC)
EVENT = {"at": "2026-10-07T10:00Z", "until": "2026-10-07T18:00Z", "name": "incident"}
METRICS = {"ms": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "1%"}}
DESIGN = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "shared_state": False}
COLUMNS = {"time": "at", "arm": "arm", "cluster": "region"}


def blocks(harm: float = 0.0, effect: float = -3.0) -> pl.DataFrame:
    """Two weeks, two regions, coins; on the third day 10-18h everything treated is slower by ``harm``."""
    rng = np.random.default_rng(4)
    coin = rng.integers(0, 2, (2, 168))
    minute, region = rng.integers(0, 168 * 120, 9000), rng.integers(0, 2, 9000)
    arm = coin[region, minute // 120]
    hit = (minute >= 2 * 1440 + 600) & (minute < 2 * 1440 + 1080)
    return pl.DataFrame(
        {
            "at": [START + timedelta(minutes=int(m)) for m in minute],
            "region": np.array(["eu", "us"])[region],
            "arm": np.array(["old", "new"])[arm],
            "ms": 100 + effect * arm + harm * arm * hit + rng.normal(0, 5, 9000),
        }
    )


def of(world, frame, *events, columns=COLUMNS, design=DESIGN):
    changes = {"design": design, "logs.columns": columns, "metrics": METRICS, "events": list(events)}
    return world.readout(frame, changes)


def test_its_rows_and_blocks_are_counted_by_arm(world):
    frame = blocks()
    (found,) = of(world, frame, {**EVENT, "clusters": ["us"]}).diagnostics["events"]
    at = [datetime(2026, 10, 7, h, tzinfo=UTC) for h in (10, 18)]
    inside = frame.filter(pl.col("at").is_between(*at, closed="left") & (pl.col("region") == "us"))
    assert found["name"] == "incident"
    assert found["at"] == "2026-10-07T10:00:00+00:00"
    assert found["rows"] == len(inside)
    assert found["rows new"] == len(inside.filter(pl.col("arm") == "new"))
    assert found["blocks old"] + found["blocks new"] == 4


def test_the_effect_without_it_is_that_of_a_log_without_its_blocks(world):
    frame = blocks(harm=60.0)
    (found,) = of(world, frame, EVENT).diagnostics["events"]
    whole = of(world, frame)
    at = [datetime(2026, 10, 7, h, tzinfo=UTC) for h in (10, 18)]
    rest = of(world, frame.filter(~pl.col("at").is_between(*at, closed="left")))
    assert found["estimate"] == pytest.approx(whole.metrics[0].estimate, rel=1e-12)
    assert found["estimate_without"] == pytest.approx(rest.metrics[0].estimate, rel=1e-12)
    assert found["ci_low_without"] == pytest.approx(rest.metrics[0].ci_low, rel=1e-12)


def test_a_verdict_that_hangs_on_it_is_said_beside_the_effect(world):
    readout = of(world, blocks(harm=60.0), EVENT)
    (found,) = readout.diagnostics["events"]
    assert readout.metrics[0].verdict == "inconclusive"
    assert (found["verdict_without"], found["verdict_changes"]) == ("better", True)
    assert "without the blocks of the event 'incident' it is better" in readout.metrics[0].note
    assert "event" not in of(world, blocks(), EVENT).metrics[0].note


def test_an_event_outside_the_window_hits_nothing(world):
    (found,) = of(world, blocks(), {"at": "2026-12-01T00:00Z", "name": "later"}).diagnostics["events"]
    assert (found["rows"], found["blocks old"], found["blocks new"]) == (0, 0, 0)
    assert found["estimate_without"] == found["estimate"]


def test_a_moment_is_of_the_block_that_holds_it(world):
    (found,) = of(world, blocks(), {"at": "2026-10-07T11:00Z", "name": "deploy"}).diagnostics["events"]
    assert found["blocks old"] + found["blocks new"] == 2


def test_where_nothing_is_left_the_reason_stands_instead(world):
    (found,) = of(
        world, blocks(), {"at": "2026-10-01T00:00Z", "until": "2026-11-01T00:00Z", "name": "all"}
    ).diagnostics["events"]
    assert found["estimate_without"] is None
    assert found["reason"]


def test_blocks_named_by_a_column_are_hit_by_their_rows(world):
    frame = blocks().with_columns(
        block=pl.col("region") + ((pl.col("at") - START).dt.total_minutes() // 120).cast(pl.String)
    )
    named = of(world, frame, EVENT, design={**DESIGN, "block": {"column": "block"}})
    (found,) = named.diagnostics["events"]
    assert found["blocks old"] + found["blocks new"] == 8


def test_in_other_designs_its_rows_are_counted_and_no_more(world):
    frame = world.log().with_columns(region=pl.lit("eu"))
    columns = {"time": "at", "unit": "user", "arm": "arm", "cluster": "region"}
    event = {"at": "2026-10-05T00:00Z", "until": "2026-10-06T00:00Z", "name": "launch", "clusters": ["eu"]}
    readout = world.readout(frame, {"logs.columns": columns, "events": [event]})
    (found,) = readout.diagnostics["events"]
    inside = frame.filter(pl.col("at") < datetime(2026, 10, 6, tzinfo=UTC))
    assert found["rows"] == len(inside)
    assert found["rows old"] == len(inside.filter(pl.col("arm") == "old"))
    assert "estimate_without" not in found
    assert any("computed for switchbacks and did only" in note for note in readout.notes)


def test_events_need_what_places_them(world):
    with pytest.raises(LogError, match=r"events\.0\.clusters: needs the role 'cluster'"):
        world.readout(world.log(), {"events": [{**EVENT, "clusters": ["eu"]}]})
    with pytest.raises(LogError, match="events: needs the role 'time'"):
        world.readout(world.log(), {"logs.columns": {"unit": "user", "arm": "arm"}, "events": [EVENT]})


def test_the_memo_shows_what_it_hit(world):
    of(world, blocks(harm=60.0), EVENT)
    memo = next(world.out.rglob("memo.md")).read_text(encoding="utf-8")
    assert "### `events`" in memo
    assert "without the blocks of the event" in memo
