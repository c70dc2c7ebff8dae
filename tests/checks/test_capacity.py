"""The check of the pool's limit, alone and as it decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from readout import checks

HALF_HOUR = 30 * 60_000_000
START = np.datetime64("2026-10-05T00:00:00", "us")
COLUMNS = {"time": "at", "cluster": "region", "arm": "arm", "executed": "arm", "intended": "arm", "state": ["queue"]}
DESIGN = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "shared_state": True}
CLUSTERS = {"kind": "cluster_rct", "control": "old", "treatment": "new"}
CAPACITY = {"load": "queue", "limit": 100, "window": "30m", "margin": 0.05}


def pool(rise: float = 0.0, usual: float = 0.04, arms: int = 2, clusters: int = 0, seed: int = 1) -> pl.DataFrame:
    """Three regions in blocks of two hours over a fortnight, or so many that keep an arm for two days."""
    rng = np.random.default_rng(seed)
    regions, blocks = (clusters, 24) if clusters else (3, 168)
    coin = rng.integers(0, arms, (regions, blocks))
    if clusters:
        coin = np.repeat((np.arange(regions) % arms)[:, None], blocks, axis=1)
    arm = np.repeat(coin.ravel(), 4)
    windows = len(arm)
    over = rng.random(windows) < usual + rise * (arm > 0)
    window = np.repeat(np.arange(windows), 2)
    at = window % (4 * blocks) * HALF_HOUR + rng.integers(0, HALF_HOUR, len(window))
    return pl.DataFrame(
        {
            "at": START + at.astype("timedelta64[us]"),
            "region": [f"r{r}" for r in window // (4 * blocks)],
            "arm": np.array(["old", "new", "newer"])[arm[window]],
            "queue": np.where(over, 130.0, 50.0)[window],
            "ms": rng.normal(100, 10, len(window)) - 20 * (arm[window] > 0),
            "ok": np.arange(len(window)) % 10 > 0,
        }
    )


@pytest.fixture
def decided(world: Any):
    """The decision and the check's row for a log."""

    def of(frame: pl.DataFrame, **changes: Any):
        given = {
            "logs.columns": COLUMNS, "design": DESIGN, "capacity": CAPACITY,
            "metrics": {
                "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
                "ok": {"column": "ok", "role": "guardrail", "better": "higher", "margin": 0.1},
            },
            **{key.replace("__", "."): value for key, value in changes.items()},
        }  # fmt: skip
        readout = world.readout(frame, given)
        return readout.decision, next(c for c in readout.checks if c.name == "capacity_limit"), readout

    return of


def test_a_rise_past_the_margin_rolls_back_on_its_own(decided) -> None:
    decision, check, readout = decided(pool(rise=0.12))
    assert (decision.action, decision.rule) == ("rollback", "harmed")
    assert (check.status, check.action, check.threshold) == ("fail", "rollback", 0.05)
    share = readout.capacity["share_over"]
    assert (check.value, check.p_value) == (share["estimate"], share["p_value"])
    assert decision.reasons[0].startswith("capacity_limit: share of windows with queue over 100: 'new': ")
    assert [m.verdict for m in readout.metrics if m.role == "primary"] == ["better"]
    assert "the share of windows with queue over 100 rises by more than 5 points" in decision.stop_if


def test_a_share_that_stays_lets_it_ship(decided) -> None:
    decision, check, _ = decided(pool())
    assert (decision.action, check.status) == ("ship", "pass")


def test_a_rise_that_is_not_ruled_out_ramps(decided) -> None:
    decision, check, _ = decided(pool(rise=0.03, usual=0.2))
    assert (decision.action, decision.rule, check.status) == ("ramp", "not_clear_enough", "warn")


def test_without_a_margin_only_a_fall_passes(decided) -> None:
    capacity = {**CAPACITY, "margin": 0.0}
    assert decided(pool(), capacity=capacity)[1].status == "warn"
    assert decided(pool(rise=-0.1, usual=0.2), capacity=capacity)[1].status == "pass"
    assert decided(pool(rise=0.1), capacity=capacity)[1].status == "fail"


def test_clusters_that_keep_an_arm_are_compared_as_wholes(decided) -> None:
    decision, check, readout = decided(pool(rise=0.15, clusters=16), design=CLUSTERS)
    assert (decision.action, check.status) == ("rollback", "fail")
    frame = pool(rise=0.15, clusters=16)
    shares = (
        frame.with_columns(w=pl.col("at").dt.epoch("us") // HALF_HOUR)
        .group_by("region", "arm", "w").agg(pl.col("queue").max() > 100)
        .group_by("region", "arm").agg(pl.col("queue").mean())
    )  # fmt: skip
    old, new = (shares.filter(pl.col("arm") == arm)["queue"].to_numpy() for arm in ("old", "new"))
    welch = stats.ttest_ind(new, old, equal_var=False)
    found = readout.capacity["share_over"]
    assert found["estimate"] == pytest.approx(new.mean() - old.mean(), rel=1e-9)
    assert (found["p_value"], found["df"]) == (pytest.approx(welch.pvalue, rel=1e-9), pytest.approx(welch.df, rel=1e-9))


@pytest.mark.parametrize(("kind", "shared"), [("user_rct", True), ("request_rct", True), ("user_rct", False)])
def test_units_that_share_a_pool_cannot_be_compared_by_it(decided, kind, shared) -> None:
    frame = pool().with_columns(user=pl.int_range(pl.len()) % 400)
    frame = frame.with_columns(
        arm=pl.when(pl.col("user") % 2 == 0).then(pl.lit("old")).otherwise(pl.lit("new")),
        ms=pl.col("ms") - 20.0 * (pl.col("user") % 2),
    )
    design = {"kind": kind, "control": "old", "treatment": "new", "shared_state": shared}
    unit = {"unit": "user"} if kind == "user_rct" else {}
    decision, check, readout = decided(frame, design=design, logs__columns={**COLUMNS, **unit})
    assert check.status == "skip"
    assert "both arms draw on the same windows" in check.message
    assert decision.action == ("stronger_design" if shared else "ramp")
    found = readout.capacity
    assert (found["windows"], found["share_over"]) == ({}, None)
    assert found["pool"]["windows"] == 3 * 168 * 4
    assert found["pool"]["share_over"] == pytest.approx(0.04, abs=0.02)
    assert {row["arm"] for row in found["cost_by_state"]} == {"old", "new"}


def test_where_no_window_is_over_the_blocks_bound_the_share(decided) -> None:
    frame = pool(usual=0.0)
    decision, check, readout = decided(frame)
    n = readout.design["n_units"]["new"]
    assert check.status == "pass"
    assert f"0 of {n} cluster-blocks have one" in check.message
    bound = 1 - 0.025 ** (1 / n)
    assert decided(frame, capacity={**CAPACITY, "margin": bound * 0.999})[1].status == "warn"
    assert decided(frame, capacity={**CAPACITY, "margin": bound * 1.001})[1].status == "pass"
    assert readout.capacity["share_over"]["estimate"] is None
    assert readout.capacity["share_over"]["reason"].startswith("the outcome does not vary")
    assert decision.action == "ship"


def test_a_few_blocks_over_the_limit_do_not_pass_for_none(decided) -> None:
    """Four treated blocks over it throughout: the regression's interval ends near 3 points, the bound at 4."""
    frame = pool(usual=0.0)
    block = pl.struct("region", pl.col("at").dt.truncate("2h"))
    four = frame.filter(pl.col("arm") == "new").select(block.alias("b"))["b"].unique().sort().head(4)
    frame = frame.with_columns(queue=pl.when(block.is_in(four.implode())).then(130.0).otherwise("queue"))
    _, check, readout = decided(frame, capacity={**CAPACITY, "margin": 0.035})
    assert readout.capacity["share_over"]["ci_high"] < 0.035
    assert check.status == "warn"


def test_every_arm_is_judged_on_its_own(decided) -> None:
    frame = pool(arms=3)
    over = pl.when((pl.col("arm") == "newer") & (pl.col("at").dt.hour() % 4 < 2)).then(130.0).otherwise("queue")
    design = {**DESIGN, "treatment": ["new", "newer"]}
    decision, check, readout = decided(frame.with_columns(queue=over), design=design)
    assert dict(check.details["by_arm"]) == {"new": "pass", "newer": "fail"}
    assert dict(decision.by_arm) == {"new": "ship", "newer": "rollback"}
    assert set(readout.capacity["share_over"]["effects"]) == {"new", "newer"}


def test_it_is_skipped_where_nobody_asked(said) -> None:
    check = said("capacity_limit", {"arm": ["a", "b"] * 20, "unit": range(40)})
    assert (check.status, check.message) == ("skip", "the spec states no capacity")


def test_it_looks_at_an_effect() -> None:
    assert "capacity_limit" not in {one.__name__ for one in checks.before_effects("switchback")}


def test_repeated_looks_have_wider_intervals_and_no_bound(decided) -> None:
    frame = pool(usual=0.2)
    _, _, once = decided(frame)
    _, _, again = decided(frame, decision__looks="sequential")
    fixed, always = (r.capacity["share_over"] for r in (once, again))
    assert always["ci_high"] - always["ci_low"] > 1.2 * (fixed["ci_high"] - fixed["ci_low"])
    assert always["by_arm"]["new"]["ci_low"] is None
    _, check, _ = decided(pool(usual=0.0), decision__looks="sequential")
    assert check.status == "warn"
    assert "so few can be judged at a single look only" in check.message
