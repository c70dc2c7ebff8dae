"""Segments from end to end: what is refused, what is shown, and when a decision is for a segment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout.results import SegmentResult
from readout.segments.allocation import AS_FAR, EXPLORED, UNSHOWN, Level, fill
from readout.segments.targeting import levels

START = datetime(2026, 10, 5, tzinfo=UTC)
MONEY = {
    "economics.value": {"metric": "good", "usd": 0.01},
    "economics.cost": {"column": "gpu_seconds", "usd": 0.002},
}
METRICS = {
    "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": 3},
    "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.05},
    "good": {"column": "quick", "better": "higher"},
}


def log(gain: float = 8.0, seed: int = 1, users: int = 1200, rows: int = 5, spread: bool = True) -> pl.DataFrame:
    """A log in which the treatment takes ``gain`` off the latency of the tier top alone, or of everybody."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    n = len(user)
    tier = np.array(["free", "pro", "top"])[rng.choice(3, users, p=[0.6, 0.25, 0.15])][user]
    on = rng.integers(0, 2, users)[user]
    ms = 100 + rng.normal(0, 4, users)[user] + rng.normal(0, 10, n) - gain * on * ((tier == "top") | (not spread))
    return pl.DataFrame(
        {
            "at": [START + timedelta(minutes=int(m)) for m in rng.integers(0, 14 * 24 * 60, n)],
            "user": user,
            "arm": np.array(["old", "new"])[on],
            "tier": tier,
            "prompt_tokens": rng.integers(1, 16000, n),
            "ms": ms,
            "quick": ms < 95,
            "failed": rng.random(n) < 0.02,
            "gpu_seconds": rng.gamma(2.0, 1.0, n) * (1 + 0.02 * on),
            "depth": rng.integers(0, 9, n),
        }
    )


def run(world: Any, frame: pl.DataFrame, **changes: Any) -> tuple[dict[str, Any], str]:
    given = {"metrics": METRICS, **{key.replace("__", "."): value for key, value in changes.items()}}
    world.write(frame, given)
    outcome = world.run()
    assert outcome.code == 0, outcome.err
    document = json.loads(next(world.out.rglob("readout.json")).read_text())
    return document, next(world.out.rglob("memo.md")).read_text()


def test_a_segment_that_clears_the_bar_is_targeted(world) -> None:
    document, memo = run(world, log(), segments=["tier", {"name": "long", "where": "prompt_tokens >= 8000"}])
    decision = document["decision"]
    assert (decision["action"], decision["rule"]) == ("target", "segment_clears_the_bar")
    assert decision["headline"].startswith("Ship 'new' to tier = top only: latency ")
    assert decision["reasons"][0].startswith("On average: latency ")
    assert any(text.startswith("in tier = top, errors rises") for text in decision["stop_if"])
    rows = {(s["level"], s["metric"]): s for s in document["segments"]}
    assert {level for level, _ in rows} == {"free", "pro", "top", "long", "not long"}
    top, free = rows["top", "latency"], rows["free", "latency"]
    assert (top["segment"], top["recommended"], top["stable"]) == ("tier", True, True)
    assert top["difference_p_value"] < 0.001 < free["estimate"] ** 2
    assert top["estimate"] < top["pooled"] < 0
    assert (free["recommended"], free["why_not"]) == (False, "latency moves by less than its minimum effect")
    tier, long = (h for h in document["diagnostics"]["heterogeneity"] if h["metric"] == "latency")
    assert tier["p_value_holm"] < 0.001 < long["p_value"]
    assert memo.index("## Effects") < memo.index("## Segments") < memo.index("## Guardrails")
    assert "effects differ between the 3 levels" in memo
    assert "no difference between the 2 levels is shown" in memo


def test_with_economics_net_value_decides_and_compute_goes_where_it_is_worth_most(world) -> None:
    budget = {"gpu_hours": 0.3, "explore": 0.1}
    document, memo = run(world, log(10.0), segments=["tier"], **MONEY, economics__budget=budget)
    assert document["decision"]["action"] == "target"
    top = next(s for s in document["segments"] if (s["level"], s["metric"]) == ("top", "latency"))
    assert top["net_ci_low"] > 0
    assert "net +" in document["decision"]["headline"]
    rows = document["diagnostics"]["allocation"]
    assert rows[0]["level"] == "top"
    assert sum(row["requests"] for row in rows) == document["rows"]["kept"]
    assert all(0.1 - 1e-9 <= row["share_treated"] <= 0.9 + 1e-9 for row in rows)
    assert sum(row["gpu_hours"] for row in rows) <= 0.3 + 1e-9
    assert "Who gets scarce compute first (tier)" in memo


def test_a_stricter_margin_of_a_segment_holds_it_back(world) -> None:
    strict = {"name": "top_tier", "where": "tier = 'top'", "margin": {"errors": 0.001}}
    document, _ = run(world, log(), segments=[strict])
    row = next(s for s in document["segments"] if (s["level"], s["metric"]) == ("top_tier", "errors"))
    assert (row["margin"], row["guardrail"]) == ("0.001", "inconclusive")
    assert (row["recommended"], row["why_not"]) == (False, "errors is not shown safe")
    assert document["decision"]["action"] != "target"
    other = next(s for s in document["segments"] if (s["level"], s["metric"]) == ("not top_tier", "errors"))
    assert other["margin"] == "0.05"


def test_a_segment_of_which_every_level_pays_picks_nobody(world) -> None:
    """Levels differ, and each is worth its compute: nothing is left to keep it from."""
    rng = np.random.default_rng(4)
    frame = log(0.0)
    gain = pl.when(pl.col("tier") == "top").then(0.6).otherwise(0.3)
    more = pl.Series(rng.random(len(frame))) < gain
    frame = frame.with_columns(quick=pl.col("quick") | (more & (pl.col("arm") == "new")))
    document, _ = run(world, frame, segments=["tier"], **MONEY)
    assert all(s["recommended"] and s["stable"] for s in document["segments"])
    test = next(h for h in document["diagnostics"]["heterogeneity"] if h["metric"] == "net value")
    assert test["p_value_holm"] < 0.001
    assert document["decision"]["action"] != "target"


def test_a_level_that_pays_and_cannot_be_targeted_ships_nobody_else(world) -> None:
    """Under the frame target a level above the bar passes it for itself alone."""
    frame = log(20.0).with_columns(ms=pl.col("ms") - 6 * (pl.col("arm") == "new"))
    frame = frame.with_columns(
        gpu_seconds=pl.col("gpu_seconds") * pl.when(pl.col("arm") == "new").then(1.6).otherwise(1)
    )
    strict = {"name": "top_tier", "where": "tier = 'top'", "margin": {"errors": 0.0001}}
    document, _ = run(world, frame, segments=[strict], **MONEY, decision__frame="target")
    top = next(s for s in document["segments"] if (s["level"], s["metric"]) == ("top_tier", "latency"))
    assert (top["net_ci_low"] > 0, top["recommended"]) == (True, False)
    assert document["economics"]["net_usd_per_1k_requests"]["ci_low"] < 0
    assert next(c for c in document["checks"] if c["name"] == "economic_bar")["status"] == "warn"
    assert document["decision"]["action"] not in ("ship", "target")
    assert any("top_tier gains (net +" in text and "errors is not shown safe" in text
               for text in document["decision"]["reasons"])  # fmt: skip


def test_a_decision_about_everybody_says_who_gets_worse(world) -> None:
    frame = log(8.0, spread=False).with_columns(
        ms=pl.col("ms") + 14 * ((pl.col("arm") == "new") & (pl.col("tier") == "top"))
    )
    document, memo = run(world, frame, segments=["tier"])
    assert document["decision"]["action"] in ("ship", "ramp")
    assert any(text.startswith("tier = top gets worse: latency +") for text in document["decision"]["reasons"])
    assert "tier = top gets worse" in memo[: memo.index("## What was compared")]


def test_a_segment_without_values_is_said_and_odd_labels_can_be_seen(world) -> None:
    frame = log().with_columns(
        blank=pl.lit(None, dtype=pl.String),
        odd=pl.when(pl.col("user") % 2 == 0).then(pl.lit("")).otherwise(pl.lit(" a")),
    )
    document, memo = run(world, frame, segments=["blank", "odd"])
    assert "blank has no value on any row: nothing is read by it" in memo
    assert "odd = ''" in memo
    assert "odd = ' a'" in memo
    assert {s["level"] for s in document["segments"]} == {"", " a"}
    _, memo = run(world, frame, segments=["blank"])
    assert "blank has no value on any row: nothing is read by it" in memo


def test_levels_of_one_segment_are_named_together() -> None:
    def row(segment: str, said: str) -> SegmentResult:
        return SegmentResult(segment, "", said, None, 1)  # type: ignore[arg-type]

    assert levels([row("tier", "tier = a")]) == "tier = a"
    three = [row("tier", f"tier = {one}") for one in "abc"]
    assert levels(three) == "tier = a, b or c"
    assert levels([*three[:2], row("long", "long")]) == "tier = a or b or long"


def test_segments_that_share_traffic_are_said_to(world) -> None:
    document, _ = run(world, log(), segments=["tier", {"name": "best", "where": "tier = 'top'"}])
    assert document["decision"]["headline"].startswith("Ship 'new' to tier = top or best only: ")
    assert any(text.startswith("tier and best may share traffic") for text in document["decision"]["reasons"])
    assert "in tier = top or best, errors holds" in document["decision"]["reasons"]


def test_the_frame_target_judges_the_bar_by_segment(world) -> None:
    document, _ = run(world, log(10.0), segments=["tier"], **MONEY, decision__frame="target")
    bar = next(c for c in document["checks"] if c["name"] == "economic_bar")
    assert bar["status"] == "pass"
    assert bar["message"].startswith("judged by segment")
    assert document["decision"]["action"] == "target"


def test_live_state_is_described_and_never_recommended(world) -> None:
    rng = np.random.default_rng(2)
    frame = log()
    block = frame["at"].dt.epoch("s").to_numpy() // 7200
    frame = frame.with_columns(arm=pl.Series(np.array(["old", "new"])[rng.integers(0, 2, block.max() + 1)[block]]))
    frame = frame.with_columns(ms=pl.col("ms") - 20 * ((pl.col("arm") == "new") & (pl.col("depth") > 4)))
    document, memo = run(
        world, frame, design={"kind": "switchback", "control": "old", "treatment": "new", "block": "2h"},
        logs__columns__state=["depth"], segments=[{"name": "busy", "where": "depth > 4"}, "tier"],
    )  # fmt: skip
    busy = [s for s in document["segments"] if s["segment"] == "busy"]
    assert busy
    assert all(s["descriptive"] and not s["recommended"] for s in busy)
    assert not any(s["descriptive"] for s in document["segments"] if s["segment"] == "tier")
    assert "downstream of earlier treatment" in memo
    assert document["decision"]["rule"] != "segment_clears_the_bar"


def test_without_times_nothing_is_targeted(world) -> None:
    columns = {"unit": "user", "arm": "arm"}
    document, memo = run(world, log().drop("at"), segments=["tier"], logs__columns=columns)
    assert {s["stable"] for s in document["segments"]} == {None}
    assert document["decision"]["action"] != "target"
    assert "nothing shows whether an effect is stable" in memo


def test_a_level_of_one_arm_is_said(world) -> None:
    frame = log().with_columns(
        tier=pl.when((pl.col("tier") == "top") & (pl.col("arm") == "new")).then(pl.lit("pro")).otherwise(pl.col("tier"))
    )
    document, memo = run(world, frame, segments=["tier"])
    top = next(s for s in document["segments"] if (s["level"], s["metric"]) == ("top", "latency"))
    assert top["estimate"] is None
    assert top["note"].startswith("not estimated")
    assert "(without an effect: top)" in memo


def test_the_same_bytes_twice(world) -> None:
    changes = {"metrics": METRICS, "segments": ["tier"], **MONEY}
    found = []
    for _ in range(2):
        world.write(log(), changes)
        assert world.run().code == 0
        found.append(next(world.out.rglob("readout.json")).read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        ({"segments": ["late"], "logs.columns.after": ["late"]}, "segments.0", "'late' is declared under"),
        ({"segments": ["quick"]}, "segments.0", "'quick' is measured by the metric 'good'"),
        ({"segments": ["arm"]}, "segments.0", "'arm' tells the arm"),
        ({"segments": [{"name": "slow", "where": "ms > 100"}]}, "segments.0", "'ms' is measured by"),
        ({**MONEY, "segments": ["gpu_seconds"]}, "segments.0", "'gpu_seconds' is what economics.cost prices"),
        (
            {"metrics.errors": {"expr": "failed or prompt_tokens < 9", "role": "guardrail", "better": "lower"},
             "segments": [{"name": "x", "where": "prompt_tokens > 9"}]},
            "segments.0", "'prompt_tokens' is part of the metric 'errors'",
        ),
        ({"segments": ["cache_hit"]}, "segments.0", "'cache_hit' is by its name a cache hit"),
        ({"segments": ["user"]}, "segments.0", "levels and more are more than a decision is made over (30)"),
        ({"segments": ["tier", "nowhere"]}, "segments.1", "the log has no column 'nowhere'"),
        ({"segments": [{"name": "x", "where": "sum(ms) > 3"}]}, "segments.0.where", "looks across rows"),
        ({"decision.frame": "target"}, "decision.frame", "target needs segments"),
        (
            {"segments": [{"name": "tier", "column": "tier", "margin": {"errors": 0.2}}]},
            "segments.0.margin.errors",
            "0.2 is looser than the metric's own margin of 0.05",
        ),
        (
            {"segments": [{"name": "tier", "column": "tier", "margin": {"good": 0.2}}]},
            "segments.0.margin.good",
            "'good' is no guardrail",
        ),
        (
            {"segments": [{"name": "tier", "column": "tier", "margin": {"nothing": 0.2}}]},
            "segments.0.margin.nothing",
            "no metric is named 'nothing'",
        ),
        ({"economics": {"budget": {"gpu_hours": 3}}, "segments": ["tier"]}, "economics.budget", "needs economics.cost"),
        ({**MONEY, "economics.budget": {"gpu_hours": 3}}, "economics.budget", "needs segments"),
        (
            {**MONEY, "economics.budget": {"gpu_hours": 3, "explore": 0.6}, "segments": ["tier"]},
            "economics.budget.explore",
            "expected at most 0.5",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_acted_on_is_refused_at_its_place(world, changes, where, said) -> None:
    frame = log(users=60).with_columns(late=pl.lit(1), cache_hit=pl.lit(True))
    world.write(frame, {"metrics": METRICS, **changes})
    outcome = world.run()
    assert outcome.code in (2, 3)
    assert f"{where}: " in outcome.err
    assert said in " ".join(outcome.err.split())


# The allocation


def test_compute_goes_first_where_it_is_worth_most() -> None:
    given = [Level("a", 100, 0.02, 0.01, shown=False), Level("b", 100, 0.03, 0.01), Level("c", 100, -0.01, 0.01)]
    rows = fill(given, 1.5, 0.1)
    assert [r["level"] for r in rows] == ["b", "a", "c"]
    assert [r["share_treated"] for r in rows] == pytest.approx([0.9, 0.5, 0.1])
    assert sum(r["gpu_hours"] for r in rows) == pytest.approx(1.5)
    assert [r["net_usd_per_gpu_hour"] for r in rows] == pytest.approx([3.0, 2.0, -1.0])
    assert [r["note"] for r in rows] == [
        "", f"{AS_FAR}; {UNSHOWN}", EXPLORED,
    ]  # fmt: skip


def test_exploration_comes_first_and_shrinks_to_the_budget() -> None:
    given = [Level("a", 100, 0.02, 0.01), Level("b", 100, 0.01, 0.01)]
    rows = fill(given, 0.1, 0.1)
    assert [r["share_treated"] for r in rows] == pytest.approx([0.05, 0.05])
    assert sum(r["gpu_hours"] for r in rows) == pytest.approx(0.1)


def test_what_saves_compute_needs_no_budget_and_harm_gets_none() -> None:
    given = [Level("a", 100, 0.02, -0.01), Level("b", 100, 0.05, 0.01, barred="harmed"), Level("c", 10, None, None)]
    rows = fill(given, 0.5, 0.05)
    assert [(r["level"], r["share_treated"]) for r in rows] == [("a", 0.95), ("b", 0.0), ("c", 0.0)]
    assert rows[0]["net_usd_per_gpu_hour"] is None
    assert rows[1]["note"] == "harmed"


def test_levels_stand_in_their_own_order_and_too_few_are_said(world) -> None:
    frame = log().with_columns(size=pl.col("user") % 12, alone=pl.lit("x"))
    document, memo = run(world, frame, segments=["size", "alone"])
    assert [s["level"] for s in document["segments"] if s["metric"] == "latency"] == [*map(str, range(12)), "x"]
    assert "alone, latency: not tested, one level alone has an effect" in memo
    assert "alone has one level, so there is nothing to compare" in memo


def test_levels_are_not_compared_where_their_errors_are_not_known_together(world) -> None:
    rng = np.random.default_rng(2)
    frame = log()
    block = frame["at"].dt.epoch("s").to_numpy() // 7200
    frame = frame.with_columns(arm=pl.Series(np.array(["old", "new"])[rng.integers(0, 2, block.max() + 1)[block]]))
    design = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "assignment": "bernoulli"}
    document, memo = run(world, frame, design=design, estimator="horvitz_thompson", segments=["tier"])
    assert all(h["p_value"] is None for h in document["diagnostics"]["heterogeneity"])
    assert "levels are not compared under it" in memo
    assert document["decision"]["rule"] != "segment_clears_the_bar"


def test_several_arms_are_read_by_segment_each(world) -> None:
    frame = log().with_columns(
        arm=pl.when(pl.col("user") % 5 == 0).then(pl.lit("newer")).otherwise(pl.col("arm")),
    )
    split = {"old": 0.4, "new": 0.4, "newer": 0.2}
    document, memo = run(world, frame, segments=["tier"], design__treatment=["new", "newer"], design__split=split)
    assert {(s["level"], s["arm"]) for s in document["segments"]} == {
        (level, arm) for level in ("free", "pro", "top") for arm in ("new", "newer")
    }
    assert document["decision"]["by_arm"]["new"] == "target"
    assert document["decision"]["by_arm"]["newer"] != "target"
    assert "tier, latency under newer" in memo


def test_the_figure_names_every_level(world) -> None:
    world.write(log(), {"metrics": METRICS, "segments": ["tier"]})
    arguments = ("--out", world.out, "--as-of", "2026-11-01", "--quiet")
    outcome = world.command("run", world.folder / "spec.yaml", *arguments)
    assert outcome.code == 0
    assert "tier = top" in outcome.out
    drawn = next(world.out.rglob("figures/segments.svg")).read_text()
    assert all(f">tier = {level}</text>" in drawn for level in ("free", "pro", "top"))
    assert "tier = top -" in drawn
    assert "recommended</desc>" in drawn
    assert "line and band: the average; bold: recommended<" in drawn
