"""Whether both arms of a switchback met the same days and hours."""

from __future__ import annotations

import numpy as np
import pytest

START = np.datetime64("2026-10-05T00:00:00", "us")  # a Monday
DESIGN = {"kind": "switchback", "block": "2h"}
COLUMNS = {"time": "at", "cluster": "region"}


def log(arm_of, days: int = 14, regions: int = 2, hours: int = 2, rows: int = 6, first: int = 0) -> dict[str, object]:
    """``arm_of(rng, day, hour)`` gives the arms (0 or 1) of blocks, ``(regions, n)``."""
    rng = np.random.default_rng(2)
    n = days * 24 // hours
    begin = np.arange(n) * hours + 24 * first
    arms = np.broadcast_to(arm_of(rng, begin // 24, begin % 24), (regions, n))
    block, region = np.tile(np.arange(n), regions * rows), np.repeat(np.arange(regions), n * rows)
    minute = begin[block] * 60 + rng.uniform(0, hours * 60, len(block))
    return {
        "at": START + (minute * 60e6).astype("timedelta64[us]"),
        "region": np.array(["eu", "us", "ap"])[region],
        "arm": np.array(["a", "b", "c"])[arms[region, block]],
    }


def coins(regions: int = 2):
    return lambda rng, day, hour: rng.integers(0, 2, (regions, len(day)))


def asked(said, frame, design=DESIGN, **sections):
    return said("block_balance", frame, columns=COLUMNS, design=design, **sections)


def test_coins_over_two_weeks_are_balanced(said):
    check = asked(said, log(coins()))
    assert (check.status, check.value, check.threshold) == ("pass", 0.0, 0.2)
    assert check.p_value > 0.05
    table = check.details["block_balance"]
    assert [row["when"] for row in table][:5] == [
        "weekday 00-06h", "weekday 06-12h", "weekday 12-18h", "weekday 18-24h", "weekend 00-06h",
    ]  # fmt: skip
    assert sum(row["blocks a"] + row["blocks b"] for row in table) == 336
    assert sum(row["rows"] for row in table) == 336 * 6


def test_an_arm_that_has_the_weekends_to_itself_fails(said):
    check = asked(said, log(lambda rng, day, hour: np.where(day % 7 >= 5, 1, rng.integers(0, 2, (2, len(day))))))
    assert (check.status, check.action) == ("fail", "stronger_design")
    assert check.value == pytest.approx(4 / 14)
    assert "the arm cannot be told from the time of day or week" in check.message


def test_an_arm_that_stands_mostly_by_day_fails(said):
    def by_day(rng, day, hour):
        return rng.random((2, len(day))) < np.where((hour >= 6) & (hour < 18), 0.8, 0.2)

    check = asked(said, log(lambda *given: by_day(*given).astype(int)))
    assert check.status == "fail"
    assert check.p_value < 0.001
    assert check.value == 0.0
    assert "other days and hours than chance gives" in check.message


def test_the_p_value_is_that_of_all_assignments_with_these_counts(said):
    """One region, one day of blocks of three hours: 8 units in 4 strata of 2, by hand."""
    arms = np.array([[0, 0, 0, 1, 0, 1, 1, 1]])
    check = asked(said, log(lambda rng, day, hour: arms, 1, 1, 3), design={"kind": "switchback", "block": "3h"})
    # Of the 70 assignments of four treated, 16 split every pair, 48 two of them, 6 none; two are split here.
    assert check.p_value == pytest.approx(54 / 70, abs=0.03)
    assert check.value == 0.5
    assert check.status == "fail"
    assert "no weekend in the window" in check.message


def test_one_hour_that_an_arm_never_held_is_named(said):
    check = asked(said, log(lambda rng, day, hour: np.where(hour == 4, 0, rng.integers(0, 2, (2, len(day))))))
    assert check.status == "warn"
    assert "'b' and 'a' did not both hold the blocks of 04h" in check.message


def test_clusters_that_switch_together_count_once(said):
    check = asked(said, log(coins(1)))
    assert sum(row["blocks a"] + row["blocks b"] for row in check.details["block_balance"]) == 168


def test_blocks_of_days_are_held_against_the_week(said):
    check = asked(said, log(coins(2), days=28, hours=24, rows=20), design={"kind": "switchback", "block": "1d"})
    assert [row["when"] for row in check.details["block_balance"]] == ["weekday", "weekend"]
    assert check.status in ("pass", "warn")


def test_of_several_arms_the_worst_counts(said):
    def arms(rng, day, hour):
        drawn = rng.integers(0, 3, (2, len(day)))
        return np.where((drawn == 2) & (day % 7 < 5), 1, drawn)

    check = asked(said, log(arms), design={**DESIGN, "treatment": ["b", "c"]})
    assert check.status == "fail"


def test_other_designs_and_lone_blocks_are_skipped(said):
    assert said("block_balance", {"arm": ["a", "b"] * 40}).status == "skip"
    lone = log(lambda rng, day, hour: (np.arange(len(day)) == 3).astype(int)[None, :], regions=1)
    assert asked(said, lone).message == "an arm has fewer than two cluster-blocks"


EVENT = {"at": "2026-10-07T10:00Z", "until": "2026-10-07T18:00Z", "name": "incident"}


def test_an_event_that_hit_one_arm_is_named(said):
    def held(rng, day, hour):
        drawn = rng.integers(0, 2, (2, len(day)))
        return np.where((day == 2) & (hour >= 10) & (hour < 18), 1, drawn)

    check = asked(said, log(held), events=[EVENT])
    assert check.status == "warn"
    assert "the event 'incident' hit 0 blocks of 'a' and 8 of 'b'" in check.message
    assert asked(said, log(held)).status == "pass"
    assert "hit 0 blocks of 'a' and 4 of 'b'" in asked(said, log(held), events=[{**EVENT, "clusters": ["us"]}]).message


def test_an_event_that_hit_both_alike_is_quiet(said):
    alternating = log(lambda rng, day, hour: np.array([(day + hour // 2) % 2, (day + hour // 2 + 1) % 2]))
    assert "incident" not in asked(said, alternating, events=[EVENT]).message
