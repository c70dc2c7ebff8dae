"""Every method of a switchback, from rows to the number that the estimator gives for the cells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

from estimators.block_regression import block_regression
from estimators.leave_one_out import leave_one_out_blocks
from readout import spec
from readout.errors import SpecError
from readout.evidence import Evidence
from readout.mechanisms import Mechanism, draws
from readout.schedules import Schedule, draw, write

START = datetime(2026, 10, 5, tzinfo=UTC)
HOUR = 3_600_000_000


def log(
    kind: str = "bernoulli", *, days: int = 14, clusters: int = 2, arms: int = 2, together: bool = False, seed: int = 1
) -> pl.DataFrame:
    """Five rows or so in every two-hour block of two regions; the arms are drawn by a mechanism."""
    rng = np.random.default_rng(seed)
    n = 12 * days
    block, cluster = np.tile(np.arange(n), clusters), np.repeat(np.arange(clusters), n)
    starts = np.datetime64("2026-10-05", "us") + block * np.timedelta64(2, "h")
    names = ["old", "new", "third"][:arms]
    how = Mechanism(kind, dict.fromkeys(names, 1.0), 7, together)  # type: ignore[arg-type]
    arm = draws(how, starts, cluster, 1, rng)[0]
    shock = rng.normal(0, 2, n * clusters)
    rows = rng.permutation(np.repeat(np.arange(n * clusters), rng.poisson(4, n * clusters) + 1))
    at = block[rows] * 2 * HOUR + rng.integers(0, 2 * HOUR, len(rows))
    return pl.DataFrame(
        {
            "at": pl.Series(at).cast(pl.Duration("us")) + START,
            "region": np.array(["eu", "us", "ap"])[cluster[rows]],
            "arm": np.array(names)[arm[rows]],
            "ms": 20 + 2.0 * (arm[rows] == 1) + cluster[rows] + shock[rows] + rng.normal(0, 3, len(rows)),
        }
    )


@pytest.fixture
def ask(gather):
    def of(frame: pl.DataFrame, estimator: object, metric: dict | None = None, **design: object) -> Evidence:
        given = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", **design}
        columns = {"time": "at", "arm": "arm", "cluster": "region"}
        metrics = {"ms": {"column": "ms"}, "p90": {"column": "ms", "quantile": 0.9}}
        return gather(frame, {**metrics, **(metric or {})}, design=given, logs__columns=columns, estimator=estimator)

    return of


def paths_by_sql(frame: pl.DataFrame, order: int, treatment: str, share: float) -> float:
    """Horvitz-Thompson in SQL: means of blocks, arms of the blocks before by self-joins."""
    log_rows = frame.with_columns(b=((pl.col("at") - START).dt.total_hours() // 2))
    paths = " and ".join(f"lag(arm, {j}) over w is not distinct from arm" for j in range(1, order + 1)) or "true"
    known = " and ".join(f"lag(b, {j}) over w = b - {j}" for j in range(1, order + 1)) or "true"
    chance = share ** (order + 1)
    query = (
        f"with cell as (select region, b, any_value(arm) arm, avg(ms) y from log_rows group by all),"
        f" path as (select *, {paths} stays, {known} known from cell window w as (partition by region order by b))"
        f" select sum(case when stays and arm = '{treatment}' then y when stays and arm = 'old' then -y else 0 end)"
        f" / {chance} / count(*) from path where known"
    )
    connection = duckdb.connect()
    connection.register("log_rows", log_rows)
    return float(connection.execute(query).fetchall()[0][0])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_horvitz_thompson_by_sql(ask, order) -> None:
    frame = log()
    evidence = ask(frame, "horvitz_thompson", carryover_blocks=order)
    found = evidence.effect("ms", 1)
    assert found.estimate == pytest.approx(paths_by_sql(frame, order, "new", 0.5), rel=1e-9)
    assert found.method == evidence.sample.method == "horvitz_thompson"
    assert found.diagnostics["n_blocks"] == 2 * (168 - order)
    assert found.diagnostics["smallest_path_probability"] == pytest.approx(0.5 ** (order + 1))
    rest = evidence.sample.without_most_influential(evidence.terms["ms"], 1, 0.05)
    assert rest.diagnostics["n_blocks"] == 2 * (168 - order) - 1


def test_horvitz_thompson_of_several_arms_and_of_blocks_without_a_value(ask) -> None:
    frame = log(arms=3, days=28)
    evidence = ask(frame, "horvitz_thompson", treatment=["new", "third"])
    for code, arm in ((1, "new"), (2, "third")):
        assert evidence.effect("ms", code).estimate == pytest.approx(paths_by_sql(frame, 1, arm, 1 / 3), rel=1e-9)
    # A metric that is null in a block has no outcome there, and the block's arm still makes the next one's path.
    frame = log()
    gap = frame.with_columns(ms=pl.when(pl.col("at") >= START + timedelta(hours=2)).then("ms"))
    found = ask(gap, "horvitz_thompson").effect("ms", 1)
    assert found.diagnostics["n_blocks"] == 2 * 167


def test_horvitz_thompson_where_all_switch_together(ask) -> None:
    frame = log(together=True)
    found = ask(frame, "horvitz_thompson").effect("ms", 1)
    assert found.estimate == pytest.approx(
        paths_by_sql(frame.with_columns(region=pl.lit("all")), 1, "new", 0.5), rel=1e-9
    )
    assert found.diagnostics["n_blocks"] == 167


@pytest.mark.parametrize("kind", ["balanced", "paired"])
def test_horvitz_thompson_refuses_unknown_paths(ask, world, kind) -> None:
    with pytest.raises(SpecError) as caught:
        ask(log(kind), "horvitz_thompson", assignment=kind)
    (problem,) = caught.value.problems
    assert problem.message == (
        "design.assignment: horvitz_thompson needs the probabilities of paths of arms, and those of "
        f"{kind} blocks are unknown"
    )
    plan = Schedule(draw(Mechanism(kind, {"old": 1, "new": 1}, 1), START, START + timedelta(days=14),
                         timedelta(hours=2), clusters=("eu", "us")).blocks)  # fmt: skip
    write(plan, world.folder / "plan.parquet")
    with pytest.raises(SpecError, match="nothing says how the schedule was drawn"):
        ask(log(kind), "horvitz_thompson", schedule="plan.parquet")


@pytest.mark.parametrize("kind", ["bernoulli", "balanced", "paired"])
def test_randomization_inference_redraws_what_the_spec_says(ask, kind) -> None:
    evidence = ask(log(kind), {"method": "randomization_inference", "draws": 999}, assignment=kind)
    found = evidence.effect("ms", 1)
    plain = block_regression(evidence.sample.cells(evidence.terms["ms"], 1))
    assert (found.estimate, found.std_error) == pytest.approx((plain.estimate, plain.std_error), rel=1e-9)
    assert found.method == "randomization_inference"
    assert (found.diagnostics["mechanism"], found.diagnostics["draws"]) == (kind, 999)
    # An effect of two where the error is a quarter is beyond all draws.
    assert found.p_value == pytest.approx(0.001)
    assert found.ci_low < 2.0 < found.ci_high
    assert evidence.effect("p90", 1).method == "block_regression"
    rest = evidence.sample.without_most_influential(evidence.terms["ms"], 1, 0.05)
    assert rest.method == "randomization_inference"
    again = ask(log(kind), {"method": "randomization_inference", "draws": 999}, assignment=kind).effect("ms", 1)
    assert again == found


def test_randomization_inference_redraws_the_schedule_of_the_file(ask, world) -> None:
    frame = log("balanced")
    first = frame.group_by("region", pl.col("at").dt.truncate("2h").alias("start")).agg(pl.col("arm").first())
    planned = first.rename({"region": "cluster"}).select("start", "cluster", "arm").sort("start", "cluster")
    how = Mechanism("balanced", {"old": 1, "new": 1}, 7)
    write(Schedule(planned, timedelta(hours=2), timedelta(0), how), world.folder / "plan.parquet")
    estimator = {"method": "randomization_inference", "draws": 499}
    found = ask(frame, estimator, schedule="plan.parquet").effect("ms", 1)
    assert (found.diagnostics["mechanism"], found.diagnostics["draws"]) == ("balanced", 499)
    assert found.p_value == pytest.approx(0.002)
    longer = pl.concat([frame, frame.with_columns(at=pl.col("at") + timedelta(days=14))])
    evidence = ask(longer, estimator, schedule="plan.parquet")
    assert evidence.effect("ms", 1) is None
    assert "336 logged blocks are not in the schedule" in evidence.why_not("ms", 1)


@pytest.mark.parametrize("kind", ["balanced", "paired"])
def test_arms_that_the_stated_mechanism_cannot_have_drawn_are_refused(ask, kind) -> None:
    evidence = ask(log("bernoulli"), "randomization_inference", assignment=kind)
    assert evidence.effect("ms", 1) is None
    assert f"in the log are not as {kind} blocks are drawn; give design.schedule" in evidence.why_not("ms", 1)


def test_randomization_inference_of_several_arms(ask) -> None:
    estimator = {"method": "randomization_inference", "draws": 499}
    evidence = ask(log(arms=3, days=28), estimator, treatment=["new", "third"])
    assert evidence.effect("ms", 1).p_value == pytest.approx(0.002)
    assert evidence.effect("ms", 2).p_value > 0.01
    balanced = ask(log("balanced", arms=3, days=28), estimator, treatment=["new", "third"], assignment="balanced")
    assert balanced.effect("ms", 1) is None
    assert "several treatments are not drawn anew" in balanced.why_not("ms", 1)


@pytest.mark.parametrize("together", [False, True])
def test_lagged_errors_are_those_of_the_estimator(ask, together) -> None:
    evidence = ask(log(together=together), {"method": "block_regression", "hac": 6})
    cells = evidence.sample.cells(evidence.terms["ms"], 1)
    by = "block" if together else "cell"
    assert evidence.effect("ms", 1) == block_regression(cells, clustered_by=by, hac=6)
    rest = evidence.sample.without_most_influential(evidence.terms["ms"], 1, 0.05)
    assert rest == leave_one_out_blocks(cells, clustered_by=by, hac=6)
    long = ask(log(days=7), {"method": "block_regression", "hac": 42})
    assert long.effect("ms", 1) is None
    assert long.why_not("ms", 1).startswith("hac: 42 is too long for 84 blocks")


@pytest.mark.parametrize(
    ("estimator", "primary", "quantile"),
    [("block_regression", None, None),
     ({"method": "block_regression", "hac": 3}, "its error lets blocks up to 3 apart", "errors by cluster-block"),
     ("horvitz_thompson", "a block counts where it and the one before it had one arm", "errors by cluster-block"),
     ({"method": "randomization_inference", "draws": 99}, "drawn anew (a coin for every cluster-block)",
      "its interval is block_regression's")],
)  # fmt: skip
def test_notes_say_what_the_method_did(ask, estimator, primary, quantile) -> None:
    evidence = ask(log(), estimator)
    metrics = evidence.spec.metrics
    for name, said in (("ms", primary), ("p90", quantile)):
        notes = evidence.sample.notes(metrics[name])
        assert notes == [] if said is None else said in notes[0]


@pytest.mark.parametrize("estimator", ["block_regression", "horvitz_thompson", "randomization_inference"])
def test_few_blocks_are_said_to_be_few(ask, estimator) -> None:
    few = ask(log(days=2, clusters=1), estimator)
    notes = few.sample.notes(few.spec.metrics["ms"])
    said = any("it rests on 24 cluster-blocks, fewer than 40" in note for note in notes)
    assert said == (estimator != "randomization_inference")
    many = ask(log(days=2, clusters=2), estimator)
    assert not any("it rests on" in note for note in many.sample.notes(many.spec.metrics["ms"]))


def test_the_memo_names_the_method(world) -> None:
    design = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "shared_state": False}
    changes = {
        "design": design,
        "logs.columns": {"time": "at", "arm": "arm", "cluster": "region"},
        "metrics": {"ms": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"}},
        "estimator": {"method": "randomization_inference", "draws": 499},
    }
    readout = world.readout(log(), changes)
    assert readout.design["method"] == readout.metrics[0].method == "randomization_inference"
    assert "schedules were drawn anew" in readout.metrics[0].note
    paths = world.readout(log(), {**changes, "estimator": "horvitz_thompson"})
    assert paths.metrics[0].estimand == "difference of the mean over rows; blocks count alike"
    assert paths.diagnostics["ms (new)"]["order"] == 1
    hajek = paths.diagnostics["ms (new)"]["hajek_estimate"]
    assert abs(hajek - 2.0) < 1.0 < abs(paths.metrics[0].estimate - 2.0)
    assert f"the same blocks give {hajek:+.3g}: what lies between the two" in paths.metrics[0].note
    assert spec.load(world.folder / "spec.yaml").estimator.method == "horvitz_thompson"
