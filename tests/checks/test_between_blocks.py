"""What one block still does to the next, and what the checks advise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from readout.evidence import Evidence

START = np.datetime64("2026-10-05T00:00:00", "us")
DESIGN = {"kind": "switchback", "block": "2h"}
COLUMNS = {"time": "at", "cluster": "region"}
EFFECT = -10.0


def log(
    *, carry: float = 0.0, fades: float = math.inf, days: int = 14, back: int = 1, seed: int = 3,
    together: bool = False, arms: int = 2, noise: float = 6.0,
) -> dict[str, object]:  # fmt: skip
    """Two regions in blocks of two hours; the arm ``back`` blocks before adds ``carry`` at the start of a block."""
    rng = np.random.default_rng(seed)
    n, rows = days * 12, 600 * days
    coin = rng.integers(0, arms, (1 if together else 2, n)).repeat(2 if together else 1, axis=0)
    minute, region = rng.uniform(0, 120 * n, rows), rng.integers(0, 2, rows)
    block = (minute // 120).astype(int)
    before = np.where(block >= back, coin[region, block - back] > 0, 0)
    own = coin[region, block]
    y = 100 + EFFECT * (own > 0) + carry * before * np.exp(-(minute % 120) / fades) + noise * rng.normal(size=rows)
    return {
        "at": START + (minute * 60e6).astype("timedelta64[us]"),
        "region": np.array(["eu", "us"])[region],
        "arm": np.array(["a", "b", "c"])[own],
        "y": y,
        "block": block,
    }


def asked(said, name="carryover", design=DESIGN, **world):
    return said(name, log(**world), columns=COLUMNS, design=design)


def test_without_carryover_the_interval_lies_inside_a_quarter_of_the_effect(said):
    check = asked(said)
    assert check.status == "pass"
    assert check.threshold == 0.25
    (lag,) = check.details["carryover"]
    assert (lag["lag"], lag["metric"], lag["arm"]) == (1, "y", "b")
    assert abs(lag["estimate"]) < 2.5
    assert check.p_value == pytest.approx(lag["p_value_holm"])


def test_a_carryover_that_fades_is_found_and_the_washout_it_names_takes_it_away(said):
    check = asked(said, carry=60.0, fades=12.0)
    assert (check.status, check.action) == ("fail", "stronger_design")
    assert check.message.startswith("the arm of the block before moves y by +")
    washout = check.message.partition("leave out at least ")[2].split()[0]
    assert 30 <= int(washout.removesuffix("m")) <= 60
    assert asked(said, carry=60.0, fades=12.0, design={**DESIGN, "washout": washout}).status == "pass"


def test_the_effect_by_minutes_since_the_switch_shows_how_it_fades(said):
    rows = asked(said, carry=60.0, fades=12.0).details["since_switch"]
    assert [row["minutes"] for row in rows] == [10.0 * k for k in range(12)]
    for row in rows:
        middle = 60 * 12 / 10 * (math.exp(-row["minutes"] / 12) - math.exp(-(row["minutes"] + 10) / 12))
        assert row["carryover"] == pytest.approx(middle, abs=4.5 * row["carryover_std_error"])
        assert row["effect"] == pytest.approx(EFFECT, abs=4.5 * row["std_error"])


def test_the_washouts_own_rows_are_in_the_course_and_not_in_the_lag(said):
    check = asked(said, carry=60.0, fades=12.0, design={**DESIGN, "washout": "1h"})
    assert check.details["since_switch"][0]["carryover"] > 30
    assert abs(check.details["carryover"][0]["estimate"]) < 2.5


def test_where_no_washout_helps_longer_blocks_are_asked_for(said):
    check = asked(said, carry=5.0)
    assert check.status == "fail"
    assert check.message.endswith("no washout within half of the block takes it away: take longer blocks")


def test_a_lag_that_cannot_be_seen_sharply_only_warns(said):
    check = asked(said, noise=80.0)
    assert check.status == "warn"
    assert "is not ruled out" in check.message


def test_where_no_effect_is_estimated_the_minimum_effect_says_what_matters(said, monkeypatch):
    monkeypatch.setattr(Evidence, "effect", lambda *_: None)
    metrics = {"y": {"column": "y", "role": "primary", "better": "lower", "minimum_effect": "12%"}}
    check = said("carryover", log(), columns=COLUMNS, design=DESIGN, metrics=metrics)
    assert check.status == "pass"
    band = float(check.message.partition("inside ±")[2].partition(",")[0])
    assert band == pytest.approx(0.25 * 12.0, rel=0.02)


def test_more_lags_are_tested_where_the_design_says_so(said):
    check = asked(said, carry=5.0, back=2, design={**DESIGN, "carryover_blocks": 2})
    assert [row["lag"] for row in check.details["carryover"]] == [1, 2]
    assert check.status == "fail"
    assert "the arm of 2 blocks before moves y" in check.message


def test_blocks_named_by_a_column_follow_in_the_order_of_their_rows(said):
    by_length = asked(said, carry=5.0)
    by_name = asked(said, carry=5.0, design={"kind": "switchback", "block": {"column": "block"}})
    assert by_name.status == "fail"
    assert "since_switch" not in by_name.details
    one, two = (c.details["carryover"][0]["estimate"] for c in (by_length, by_name))
    assert two == pytest.approx(one, rel=0.1)


def test_another_arm_before_is_no_control(said):
    check = asked(said, carry=5.0, arms=3, days=21, design={**DESIGN, "treatment": ["b", "c"]})
    assert {row["arm"] for row in check.details["carryover"]} == {"b", "c"}
    assert all(abs(row["estimate"] - 5.0) < 3 * row["std_error"] for row in check.details["carryover"])


def test_clusters_that_switch_together_are_one_unit(said):
    check = asked(said, carry=5.0, together=True)
    assert check.status == "fail"


def test_a_gap_in_time_is_not_a_switch(said):
    frame = log(carry=5.0)
    kept = ~np.isin(frame["block"], np.arange(1, 168, 2))
    check = said("carryover", {k: v[kept] for k, v in frame.items()}, columns=COLUMNS, design=DESIGN)
    assert check.status == "skip"
    assert "no block follows another one whose arm is known" in check.message


def test_a_quantile_alone_says_why_it_is_not_judged(said):
    metrics = {"p90": {"column": "y", "quantile": 0.9, "role": "primary", "better": "lower"}}
    check = said("carryover", log(), columns=COLUMNS, design=DESIGN, metrics=metrics)
    assert (check.status, check.message) == ("skip", "p90 is a quantile")


def test_other_designs_have_no_blocks(said):
    for name in ("carryover", "block_length"):
        assert said(name, {"arm": ["a", "b"] * 40}).status == "skip"


def test_blocks_are_too_short_where_carryover_fills_them(said):
    assert asked(said, "block_length").status == "pass"
    filled = asked(said, "block_length", carry=5.0)
    assert (filled.status, filled.action) == ("fail", "stronger_design")
    assert "too short for the carryover that is seen" in filled.message
    assert "take longer blocks" in asked(said, "block_length", carry=5.0, back=2).message


def test_blocks_are_long_enough_where_a_washout_is_all_that_is_needed(said):
    check = asked(said, "block_length", carry=60.0, fades=12.0)
    assert (check.status, check.value) == ("warn", check.value)
    assert "a washout takes it away" in check.message


def test_blocks_are_too_long_where_an_arm_has_few(said):
    check = asked(said, "block_length", days=4, design={"kind": "switchback", "block": "1d"})
    assert (check.status, check.action) == ("fail", "stronger_design")
    assert "too few to tell an effect from swings of demand" in check.message


def test_days_on_which_one_arm_stood_are_named(said):
    frame = log(days=14, together=True)
    day = frame["block"] // 12
    frame["arm"] = np.where((day % 7 % 2 == 0) | ((day > 6) & (day % 7 != 1)), "a", "b")
    frame["arm"] = np.where(day % 7 == 3, np.where(day > 6, "a", "b"), frame["arm"])
    check = said(
        "block_length",
        frame,
        columns=COLUMNS,
        design={"kind": "switchback", "block": "1d"},
        checks={"block_length": {"threshold": 2}},
    )
    assert check.status == "warn"
    assert "Monday" in check.message


def test_its_threshold_can_be_set(said):
    loose = said("carryover", log(carry=5.0), columns=COLUMNS, design=DESIGN, checks={"carryover": {"threshold": 2.0}})
    assert loose.status == "pass"


def test_a_primary_that_could_not_be_looked_at_does_not_pass(said):
    metrics = {
        "y": {"column": "y", "role": "primary", "better": "lower"},
        "p90": {"column": "y", "quantile": 0.9, "role": "primary", "better": "lower"},
    }
    for name, carry in (("carryover", 0.0), ("block_length", 0.0), ("carryover", 5.0), ("block_length", 5.0)):
        check = said(name, log(carry=carry), columns=COLUMNS, design=DESIGN, metrics=metrics)
        assert (check.status, "p90 is a quantile" in check.message) == (("fail", False) if carry else ("skip", True))


def test_how_fast_a_carryover_fades_is_not_made_up(said):
    check = asked(said, "block_length", carry=5.0, design={"kind": "switchback", "block": {"column": "block"}})
    assert (check.status, "not how fast it fades" in check.message) == ("warn", True)


def test_a_carryover_larger_than_the_effect_is_seen_and_not_called_unseen(said):
    check = asked(said, "block_length", carry=200.0, fades=10.0)
    assert (check.status, "could not be seen" in check.message) == ("warn", False)
