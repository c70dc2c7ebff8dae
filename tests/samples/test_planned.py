"""A schedule beside the logs: held against them, redrawn for them, refused where it is of another design."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from readout.errors import LogError, ReadoutError, SpecError
from readout.mechanisms import Mechanism
from readout.planned import redrawn
from readout.samples import Blocks
from readout.schedules import Schedule, draw, write

FIRST = datetime(2026, 10, 5, tzinfo=UTC)
METRIC = {"ms": {"column": "ms"}}
DESIGN = {
    "kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "schedule": "plan.parquet",
    "shared_state": False,
}  # fmt: skip
COLUMNS = {"time": "at", "unit": None, "arm": "arm", "cluster": "region"}


def plan(
    kind: str = "balanced", clusters: tuple[str, ...] = ("eu", "us"), days: int = 7, together: bool = False
) -> Schedule:
    how = Mechanism(kind, {"old": 1, "new": 1}, 3, together)
    return draw(how, FIRST, FIRST + timedelta(days=days), timedelta(hours=2), clusters=clusters)


def log(schedule: Schedule, rows: int = 6) -> pl.DataFrame:
    """Rows spread over the planned blocks, with the planned arm."""
    rng = np.random.default_rng(1)
    blocks = schedule.blocks.select(pl.all().repeat_by(rows).explode())
    minute = pl.Series(rng.integers(0, 7200, len(blocks))) * 1_000_000
    return pl.DataFrame(
        {
            "at": blocks["start"] + minute.cast(pl.Duration("us")),
            "region": blocks["cluster"],
            "arm": blocks["arm"],
            "ms": rng.normal(100, 5, len(blocks)) - 5 * (blocks["arm"] == "new").to_numpy(),
        }
    )


@pytest.fixture
def ask(world):
    def given(frame: pl.DataFrame, schedule: Schedule | None, file: str = "plan.parquet", **changes):
        if schedule is not None:
            write(schedule, world.folder / file)
        metrics = {"ms": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "1%"}}
        design = {**DESIGN, "schedule": file, **changes.pop("design", {})}
        return world.readout(frame, {"design": design, "logs.columns": COLUMNS, "metrics": metrics, **changes})

    return given


def check(readout, name: str = "treatment_start"):
    return next(c for c in readout.checks if c.name == name)


def test_logs_that_follow_the_schedule_pass(ask):
    schedule = plan()
    readout = ask(log(schedule), schedule)
    assert check(readout).status == "pass"
    assert check(readout).message == "0 of 1,008 rows carry another arm than the schedule's (0 %)"
    assert check(readout, "srm").status == "skip"


@pytest.mark.parametrize("kind", ["balanced", "paired"])
def test_shares_are_not_tested_where_the_file_says_they_are_fixed(ask, kind):
    readout = ask(log(plan(kind)), plan(kind), "plan.csv")
    assert "fixed, not drawn" in check(readout, "srm").message
    assert check(ask(log(plan("bernoulli")), plan("bernoulli")), "srm").status == "pass"


def test_a_block_in_another_arm_is_named(ask):
    schedule = plan()
    frame = log(schedule)
    first = schedule.blocks.filter((pl.col("cluster") == "us") & (pl.col("arm") == "old")).row(0, named=True)
    end = first["start"] + timedelta(hours=2)
    here = (pl.col("at") >= first["start"]) & (pl.col("at") < end) & (pl.col("region") == "us")
    frame = frame.with_columns(arm=pl.when(here).then(pl.lit("new")).otherwise("arm"))
    warned = check(ask(frame, schedule))
    assert (warned.status, warned.value) == ("warn", pytest.approx(6 / 1008))
    assert warned.message == (
        "6 of 1,008 rows carry another arm than the schedule's (0.595 %), in 1 block; the first is "
        f"{first['start']:%Y-%m-%dT%H:%MZ} in 'us', planned 'old', logged 'new'"
    )


def test_another_schedule_than_the_one_that_ran_fails_and_pauses(ask):
    schedule = plan()
    flipped = schedule.blocks.with_columns(arm=pl.col("arm").replace({"old": "new", "new": "old"}))
    readout = ask(log(schedule), Schedule(flipped, schedule.length, schedule.offset, schedule.mechanism))
    assert (check(readout).status, check(readout).value) == ("fail", 1.0)
    assert readout.decision.action == "pause"


def test_blocks_that_only_one_of_them_has_are_counted(ask):
    schedule = plan(days=7)
    frame = log(schedule)
    day = timedelta(days=1)
    late = frame.filter(pl.col("at") >= FIRST + 6 * day).with_columns(at=pl.col("at") + day)
    moved = pl.concat([frame.filter(~pl.col("at").is_between(FIRST + 2 * day, FIRST + 3 * day, closed="left")), late])
    warned = check(ask(moved, schedule))
    assert warned.status == "warn"
    assert "24 logged blocks (144 rows) are not in the schedule; 24 planned blocks have no row" in warned.message


def test_a_schedule_of_the_past_holds_none_of_the_blocks(ask):
    schedule = plan()
    frame = log(schedule).with_columns(at=pl.col("at") + timedelta(days=30))
    assert check(ask(frame, schedule)).status == "fail"


def test_one_schedule_for_all_clusters_means_that_they_switch_together(ask):
    everybody = plan(clusters=())
    frame = pl.concat([log(everybody).with_columns(region=pl.lit(name)) for name in ("eu", "us")])
    readout = ask(frame, everybody)
    assert check(readout).status == "pass"
    assert readout.design["unit"] == "block"


def test_cells_are_redrawn_by_the_schedules_mechanism(world, gather):
    schedule = plan("paired")
    write(schedule, world.folder / "plan.parquet")
    evidence = gather(log(schedule), METRIC, design=DESIGN, logs__columns=COLUMNS)
    sample = evidence.sample
    assert isinstance(sample, Blocks)
    assert sample.assignment == "paired"
    logged, cells = sample.logged(), sample.cells(evidence.terms["ms"], 1)
    drawn = redrawn(sample.schedule, pl.DataFrame({"cluster": logged.cluster, "block": logged.block}), "new", 200, 5)
    assert drawn.shape == (200, len(cells.arm))
    for cluster in (0, 1):
        mine = drawn[:, cells.cluster == cluster]
        assert (mine[:, ::2] + mine[:, 1::2] == 1).all()


def test_without_a_record_the_specs_own_word_is_the_mechanism(world, gather):
    schedule = plan("paired")
    write(Schedule(schedule.blocks), world.folder / "plan.parquet")
    silent = gather(log(schedule), METRIC, design=DESIGN, logs__columns=COLUMNS).sample
    assert silent.schedule.mechanism is None
    told = gather(log(schedule), METRIC, design={**DESIGN, "assignment": "paired"}, logs__columns=COLUMNS).sample
    assert told.schedule.mechanism.kind == "paired"
    assert told.schedule.mechanism.split == {"old": 0.5, "new": 0.5}


def refused(ask, schedule, kind=SpecError, **changes) -> str:
    with pytest.raises(kind) as caught:
        ask(log(plan()), schedule, **changes)
    problem = caught.value.problems[0]
    assert "spec.yaml" in problem.where
    return problem.message


def test_a_schedule_of_another_design_is_refused(ask):
    good = plan()
    hourly = draw(good.mechanism, FIRST, FIRST + timedelta(days=1), timedelta(hours=1), clusters=("eu",))
    assert refused(ask, hourly) == (
        "design.schedule: is of blocks of 1h with an offset of 0h; design.block says 2h and 0h"
    )
    assert "do not start where design.block does" in refused(ask, Schedule(hourly.blocks))
    others = Schedule(good.blocks.with_columns(arm=pl.lit("newer")))
    assert refused(ask, others) == "design.schedule: plans the arm 'newer', which the design does not name"
    assert refused(ask, good, design={"assignment": "bernoulli"}) == (
        "design.assignment: the schedule was drawn as balanced"
    )
    assert refused(ask, good, design={"split": {"old": 0.8, "new": 0.2}}) == (
        "design.split: the schedule was drawn with old 0.5, new 0.5"
    )
    assert "not a block column" in refused(ask, good, design={"block": {"column": "region"}})
    uneven = {"split": {"old": 0.8, "new": 0.2}, "assignment": "paired"}
    assert "equal shares" in refused(ask, Schedule(good.blocks), design=uneven)


def test_a_file_that_cannot_be_read_is_said_at_its_key(ask, world):
    (world.folder / "broken.csv").write_text("start;arm\n")
    assert "has no column 'start'" in refused(ask, None, LogError, file="broken.csv")
    assert "no such file" in refused(ask, None, LogError, file="nowhere.parquet")
    assert not issubclass(SpecError, LogError)
    assert issubclass(LogError, ReadoutError)


def test_clusters_apart_need_clusters_in_the_logs(ask):
    columns = {k: v for k, v in COLUMNS.items() if k != "cluster"}
    assert refused(ask, plan(), **{"logs.columns": columns}) == (
        "design.schedule: plans clusters apart, and the logs have no role 'cluster'"
    )


def test_a_name_that_is_no_text_is_shown_harmless(ask, tmp_path: Path):
    odd = Schedule(plan().blocks.with_columns(arm=pl.lit("\x1b[31mred")))
    assert "\\x1b[31mred" in refused(ask, odd)
