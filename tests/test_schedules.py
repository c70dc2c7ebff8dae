"""Schedules of a switchback: drawn, written, read, redrawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from readout.errors import LogError
from readout.mechanisms import Mechanism
from readout.schedules import METADATA, Schedule, draw, read, redraws, write

FIRST = datetime(2026, 10, 5, tzinfo=UTC)  # a Monday
EVEN = {"old": 0.5, "new": 0.5}


def schedule(kind: str, *, split=EVEN, days: int = 14, hours: int = 2, together: bool = False, clusters=("eu", "us")):
    how = Mechanism(kind, split, 7, together)
    return draw(how, FIRST, FIRST + timedelta(days=days), timedelta(hours=hours), clusters=clusters)


def counts(plan: Schedule, *by: str) -> pl.DataFrame:
    start = pl.col("start")
    keys = {"cluster": pl.col("cluster"), "slot": start.dt.time(), "weekend": start.dt.weekday() > 5}
    return plan.blocks.group_by(*(keys[name].alias(name) for name in by), "arm").len().pivot("arm", values="len")


def test_a_balanced_schedule_gives_every_slot_of_weekdays_and_weekends_both_arms_alike():
    found = counts(schedule("balanced"), "cluster", "slot", "weekend")
    assert len(found) == 2 * 12 * 2
    assert (found["old"] == found["new"]).all()


def test_where_counts_do_not_divide_a_slot_is_off_by_one_at_most_and_the_total_too():
    plan = schedule("balanced", split={"old": 0.3, "new": 0.7}, days=9)
    found = counts(plan, "cluster", "slot", "weekend").fill_null(0)
    off = (found["new"] - 0.7 * (found["new"] + found["old"])).abs()
    assert off.max() < 1.0
    total = counts(plan, "cluster")
    assert ((total["new"] - 0.7 * 9 * 12).abs() < 1.0 + 1e-9).all()


def test_every_block_of_a_balanced_schedule_is_as_likely_in_an_arm_as_its_share():
    plan = schedule("balanced", split={"old": 0.3, "new": 0.7}, days=3, hours=8)
    share = redraws(plan, 40_000, 1).mean(axis=0)
    assert np.abs(share - 0.7).max() < 5 * np.sqrt(0.21 / 40_000)


def test_pairs_of_blocks_hold_each_arm_once():
    plan = schedule("paired")
    for name in plan.clusters:
        arms = plan.blocks.filter(pl.col("cluster") == name)["arm"].to_list()
        assert all({a, b} == {"old", "new"} for a, b in zip(arms[::2], arms[1::2], strict=True))
    first = redraws(plan, 20_000, 3)[:, plan.blocks["cluster"].to_numpy() == "eu"][:, 0]
    assert abs(first.mean() - 0.5) < 0.02


def test_three_arms_come_once_in_three_blocks():
    plan = schedule("paired", split={"a": 1, "b": 1, "c": 1}, clusters=())
    arms = plan.blocks["arm"].to_list()
    assert all(set(arms[i : i + 3]) == {"a", "b", "c"} for i in range(0, len(arms), 3))


@pytest.mark.parametrize("kind", ["bernoulli", "balanced", "paired"])
def test_clusters_that_switch_together_hold_one_arm_at_a_time(kind):
    plan = schedule(kind, together=True)
    assert plan.together
    drawn = redraws(plan, 50, 1)
    starts = plan.blocks["start"].rank("dense").to_numpy()
    for start in np.unique(starts)[:20]:
        assert (np.ptp(drawn[:, starts == start], axis=1) == 0).all()


def test_coins_fall_by_the_split_and_apart():
    drawn = redraws(schedule("bernoulli", split={"a": 0.2, "b": 0.5, "c": 0.3}, days=2), 20_000, 5)
    shares = [(drawn == code).mean(axis=0) for code in range(3)]
    for found, share in zip(shares, (0.2, 0.5, 0.3), strict=True):
        assert np.abs(found - share).max() < 0.02
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.03


def test_the_same_seed_draws_the_same_schedule_and_redraws_are_other_ones():
    one, two = schedule("balanced"), schedule("balanced")
    assert one.blocks.equals(two.blocks)
    again = redraws(one, 200, 7)
    assert (again == redraws(one, 200, 7)).all()
    assert not (again == one.codes).all(axis=1).any()


def test_blocks_stand_on_the_grid_of_their_offset():
    plan = draw(
        Mechanism("bernoulli", EVEN, 1), FIRST, FIRST + timedelta(days=1), timedelta(hours=6), offset=timedelta(hours=1)
    )
    assert [s.hour for s in plan.blocks["start"]] == [1, 7, 13, 19]
    assert plan.clusters == ("",)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("kind", ["bernoulli", "balanced", "paired"])
def test_a_file_holds_the_schedule_and_how_it_was_drawn(tmp_path: Path, suffix, kind):
    plan = schedule(kind, together=kind == "paired")
    path = tmp_path / f"plan{suffix}"
    write(plan, path)
    back = read(path)
    assert back.blocks.equals(plan.blocks)
    assert (back.length, back.offset, back.mechanism) == (plan.length, plan.offset, plan.mechanism)
    assert (redraws(back, 20, 1) == redraws(plan, 20, 1)).all()
    first = path.read_bytes()
    write(back, path)
    assert path.read_bytes() == first


def test_a_schedule_made_by_hand_is_read_without_a_mechanism(tmp_path: Path):
    path = tmp_path / "plan.csv"
    path.write_text("start,arm,note\n2026-10-05T00:00Z,1,a\n2026-10-05 04:00:00,0,\n2026-10-05T08:00+02:00,1,\n")
    plan = read(path)
    assert plan.mechanism is None
    assert [f"{s:%H}" for s in plan.blocks["start"]] == ["00", "04", "06"]
    assert plan.blocks["arm"].to_list() == ["1", "0", "1"]
    with pytest.raises(ValueError, match="does not record"):
        redraws(plan, 3, 1)


def refusal(path: Path) -> list[str]:
    with pytest.raises(LogError) as caught:
        read(path)
    return [p.message for p in caught.value.problems]


def test_a_file_that_is_no_schedule_is_refused_with_the_reason(tmp_path: Path):
    assert refusal(tmp_path / "none.csv") == ["no such file"]
    path = tmp_path / "plan.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert refusal(path)[0].startswith("cannot be read as a schedule")
    pl.DataFrame({"begin": [1]}).write_parquet(path)
    assert refusal(path) == ["has no column 'start'", "has no column 'arm'"]
    pl.DataFrame({"start": [1], "arm": [None]}).write_parquet(path)
    assert refusal(path) == ["1 of 1 rows have no arm", "column 'start' is Int64; expected times in UTC"]
    table = tmp_path / "plan.csv"
    table.write_text("start,arm\nsoon,old\n")
    assert refusal(table) == ["start of row 1: expected a time such as 2026-10-05T00:00Z, got 'soon'"]
    table.write_text("start,arm\n")
    assert refusal(table) == ["holds no block"]
    table.write_bytes(b"\xff\xfe\x00")
    assert refusal(table)[0].startswith("cannot be read as a schedule")


def test_a_record_that_contradicts_its_blocks_is_refused(tmp_path: Path):
    plan, path = schedule("balanced"), tmp_path / "plan.parquet"
    twice = pl.concat([plan.blocks, plan.blocks.head(1)])
    write(Schedule(twice, plan.length, plan.offset, plan.mechanism), path)
    assert refusal(path) == ["plans 1 block more than once, the first of them 2026-10-05T00:00Z in 'eu'"]
    write(
        Schedule(plan.blocks, timedelta(hours=4), plan.offset, Mechanism("balanced", {"old": 1, "other": 1}, 1)), path
    )
    found = refusal(path)
    assert found[0].startswith("168 blocks off the recorded grid, the first of them 2026-10-05T02:00Z")
    assert found[1] == "the recorded mechanism does not name the arm 'new'"
    plan.blocks.write_parquet(path, metadata={METADATA: '{"version": 1, "kind": "magic", "arms": [], "shares": []}'})
    assert "cannot be understood: kind must be one of bernoulli, balanced, paired, not 'magic'" in refusal(path)[0]
    plan.blocks.write_parquet(path, metadata={METADATA: "[]"})
    assert "cannot be understood" in refusal(path)[0]


@pytest.mark.parametrize(
    ("kind", "split", "words"),
    [
        ("magic", EVEN, "kind must be one of"),
        ("bernoulli", {"old": 1.0, "new": 0.0}, "two arms"),
        ("paired", {"old": 0.4, "new": 0.6}, "equal shares"),
    ],
)
def test_a_mechanism_that_cannot_be_is_refused(kind, split, words):
    with pytest.raises(ValueError, match=words):
        Mechanism(kind, split)
