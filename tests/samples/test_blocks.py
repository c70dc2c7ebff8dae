"""Switchback cells against DuckDB, and their regression against statsmodels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from readout.errors import LogError
from readout.evidence import Evidence
from readout.samples import Blocks
from readout.samples.block_time import WASHED_KINDS

START = datetime(2026, 10, 5, tzinfo=UTC)
HOUR = 3_600_000_000


def log(
    *, days: int = 28, hours: int = 6, clusters: int = 4, together: bool = False, offset: int = 0, seed: int = 1
) -> pl.DataFrame:
    """Rows at random times; the arm of a block is a coin, thrown by cluster or for all; ``block`` is its number."""
    rng = np.random.default_rng(seed)
    n = days * 24 // hours
    cell = rng.permutation(np.repeat(np.arange(n * clusters), rng.poisson(8, n * clusters) + 2))
    rows = len(cell)
    cluster, block = cell % clusters, cell // clusters
    at = block * hours * HOUR + rng.integers(0, hours * HOUR, rows) + offset * HOUR
    coin = rng.integers(0, 2, (1 if together else clusters, n))
    arm = coin[0, block] if together else coin[cluster, block]
    hour = block * hours % 24
    shock = rng.normal(0, 5, (clusters, n))[cluster, block]
    return pl.DataFrame(
        {
            "at": pl.Series(at).cast(pl.Duration("us")) + START,
            "region": np.array(["eu", "us", "ap", "sa"])[cluster],
            "user": rng.integers(0, 60, rows),
            "arm": np.array(["old", "new"])[arm],
            "block": block,
            "ms": pl.Series(100 + 3 * arm + 0.3 * hour + shock + rng.normal(0, 8, rows)).set(
                pl.Series(rng.random(rows) < 0.05), None
            ),
            "cost": rng.gamma(2, 1, rows),
            "tokens": rng.integers(1, 400, rows),
        }
    )


@pytest.fixture
def cells_of(gather):
    def of(frame: pl.DataFrame, metrics, **changes) -> Evidence:
        given = {
            "design__kind": "switchback",
            "design__block": "6h",
            "logs__columns__cluster": "region" if "region" in frame.columns else None,
            **changes,
        }
        evidence = gather(frame, metrics, **given)
        rows = evidence.rows()
        assert rows.kept + sum(rows.dropped.values()) == rows.read == frame.height
        return evidence

    return of


def regression(cells, *, by: str = "cell", weights: str = "rows") -> tuple[float, float]:
    """The arm's coefficient and its CR2 error: WLS on arm, cluster, hour and weekday."""
    y = cells.num / cells.den
    dummies = [(v[:, None] == np.unique(v)[1:]) for v in (cells.cluster, cells.hour, cells.weekday)]
    x = np.column_stack([np.ones(len(y)), cells.arm, *dummies]).astype(float)
    w = cells.den if weights == "rows" else np.ones(len(y))
    fit = sm.WLS(y, x, weights=w).fit(cov_type="HC2")
    if by == "cell":
        return float(fit.params[1]), float(fit.bse[1])
    # CR2 by hand: residuals of each group times (I - H_gg)**-1/2 in the weighted space.
    root = np.sqrt(w)
    q, r = np.linalg.qr(root[:, None] * x)
    e = root * (y - x @ fit.params)
    c = np.linalg.solve(r.T, np.eye(x.shape[1])[1])
    total = 0.0
    for g in np.unique(cells.block):
        mine = cells.block == g
        values, vectors = np.linalg.eigh(np.eye(mine.sum()) - q[mine] @ q[mine].T)
        total += float((q[mine] @ c) @ (vectors / np.sqrt(values)) @ vectors.T @ e[mine]) ** 2
    return float(fit.params[1]), float(np.sqrt(total))


def sql(frame: pl.DataFrame, query: str) -> list[tuple]:
    return duckdb.sql(query).fetchall()


def test_cells_are_the_sums_by_cluster_and_block(cells_of) -> None:
    frame = log()
    evidence = cells_of(frame, {"m": {"column": "ms"}})
    cells = evidence.sample.cells(evidence.terms["m"], 1)
    # 5 October 2026, the first day, is a Monday.
    want = sql(
        frame,
        "select dense_rank() over (order by region) - 1 c, dense_rank() over (order by block) - 1 b,"
        " (arm = 'new')::int a, fsum(ms) s, count(ms) n, block * 6 % 24 h, (block * 6 // 24) % 7 w"
        " from frame where ms is not null group by region, block, arm order by region, block",
    )
    got = zip(cells.cluster, cells.block, cells.arm, cells.num, cells.den, cells.hour, cells.weekday, strict=True)
    for mine, theirs in zip(got, want, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-13)
    assert evidence.sample.counts() == [sum(r[2] == a for r in want) for a in (0, 1)]


def test_one_cluster_that_missed_a_switch_does_not_shrink_the_error(cells_of) -> None:
    """All clusters switched together but for one block of one of them: its rows are left out, the unit stays."""
    frame = log(together=True)
    slip = (pl.col("region") == "us") & (pl.col("block") == 30)
    other = pl.when(pl.col("arm") == "old").then(pl.lit("new")).otherwise(pl.lit("old"))
    slipped = frame.with_columns(arm=pl.when(slip).then(other).otherwise("arm"))
    clean, found = (cells_of(f, {"m": {"column": "ms"}}) for f in (frame, slipped))
    assert found.sample.unit == clean.sample.unit == "block"
    assert found.sample.counts() == clean.sample.counts()
    assert found.sample.mixed() == (1, 112)
    assert found.rows().dropped == {"arm differs from its block's": frame.filter(slip).height}
    assert found.effect("m", 1).std_error == pytest.approx(clean.effect("m", 1).std_error, rel=0.03)


@pytest.mark.parametrize("weights", ["rows", "units"])
@pytest.mark.parametrize("together", [False, True])
def test_effect_and_error_by_statsmodels(cells_of, together, weights) -> None:
    """Where all clusters switch together the block was randomized, and errors are clustered by it."""
    estimator = {"method": "block_regression", "weights": weights}
    evidence = cells_of(log(together=together, days=56), {"m": {"column": "ms"}}, estimator=estimator)
    found = evidence.effect("m", 1)
    assert found.diagnostics["dropped_levels"] == []
    by = "block" if together else "cell"
    assert evidence.sample.unit == ("block" if together else "cluster-block")
    cells = evidence.sample.cells(evidence.terms["m"], 1)
    estimate, error = regression(cells, by=by, weights=weights)
    assert found.estimate == pytest.approx(estimate, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    assert found.n_control + found.n_treatment == (224 if together else 896) == sum(evidence.sample.counts())


def test_one_cluster_needs_no_cluster_column(cells_of) -> None:
    frame = log(clusters=1, days=56).drop("region")
    evidence = cells_of(frame, {"m": {"column": "ms"}})
    estimate, error = regression(evidence.sample.cells(evidence.terms["m"], 1))
    found = evidence.effect("m", 1)
    assert (found.estimate, found.std_error) == pytest.approx((estimate, error), rel=1e-9)


def test_an_offset_moves_every_block(cells_of) -> None:
    frame = log(offset=2)
    evidence = cells_of(frame, {"m": {"column": "ms"}}, design__block={"length": "6h", "offset": "2h"})
    assert evidence.sample.mixed() == (0, 448)
    assert set(evidence.sample.cells(evidence.terms["m"], 1).hour) == {2, 8, 14, 20}
    # Without it every block straddles two, and rows of the smaller part's arm are left out and counted.
    shifted = cells_of(frame, {"m": {"column": "ms"}})
    (straddling,) = sql(
        frame,
        'with cell as (select region, epoch_us("at") // 21600000000 b, arm, count(*) n from frame group by all)'
        " select sum(n) - (select sum(n) from (select max(n) n from cell group by region, b)) from cell",
    )[0]
    assert shifted.rows().dropped == {"arm differs from its block's": straddling}
    assert straddling > 500


def test_washout_drops_the_start_of_every_block(cells_of) -> None:
    frame = log()
    evidence = cells_of(frame, {"m": {"column": "ms"}, "q": {"column": "ms", "quantile": 0.5}}, design__washout="45m")
    late = frame.filter((pl.col("at") - START).dt.total_microseconds() % (6 * HOUR) >= 0.75 * HOUR)
    cells = evidence.sample.cells(evidence.terms["m"], 1)
    assert cells.den.sum() == late["ms"].count()
    assert cells.num.sum() == pytest.approx(late["ms"].sum(), rel=1e-13)
    assert evidence.rows().dropped == {"washout at the start of a block": frame.height - late.height}
    assert set(cells.hour) == {0, 6, 12, 18}
    _, histogram = evidence.sample._cells_and_histogram(evidence.terms["q"], 1)
    assert histogram.counts.sum() == late["ms"].count()


def test_a_block_column_gives_the_same_cells(cells_of) -> None:
    frame = log()
    plain = cells_of(frame, {"m": {"column": "ms"}}).effect("m", 1)
    for column in (
        pl.col("block"),
        "b" + pl.col("block").cast(pl.String),
        START + pl.col("block") * pl.duration(hours=6),
    ):
        evidence = cells_of(
            frame.with_columns(period=column), {"m": {"column": "ms"}}, design__block={"column": "period"}
        )
        found = evidence.effect("m", 1)
        assert found.estimate == pytest.approx(plain.estimate, rel=1e-12)
        assert found.std_error == pytest.approx(plain.std_error, rel=1e-12)


def test_rows_of_no_block_and_no_cluster_are_dropped_and_counted(cells_of) -> None:
    frame = log().with_columns(
        block=pl.when(pl.col("user") > 2).then("block"), region=pl.when(pl.col("user") != 9).then("region")
    )
    evidence = cells_of(frame, {"m": {"column": "ms"}}, design__block={"column": "block"})
    assert evidence.rows().dropped == {
        "no cluster": frame.filter(user=9).height,
        "no block": frame.filter(pl.col("user") <= 2).height,
    }
    kept = frame.filter((pl.col("user") > 2) & (pl.col("user") != 9))
    assert evidence.sample.cells(evidence.terms["m"], 1).den.sum() == kept["ms"].count()


def test_a_missing_block_column_is_named_with_the_others(cells_of) -> None:
    with pytest.raises(LogError) as caught:
        cells_of(log(), {"m": {"column": "ms"}}, design__block={"column": "blok"}, logs__columns__unit="usr")
    assert [p.message.split(": ")[1] for p in caught.value.problems] == [
        "the log has no column 'usr'",
        "the log has no column 'blok'",
    ]
    assert "did you mean 'block'?" in caught.value.problems[1].hint


def test_rows_of_the_smaller_arm_of_a_block_are_left_out(cells_of) -> None:
    rng = np.random.default_rng(8)
    flip = pl.Series(rng.random(log().height) < 0.02)
    frame = log().with_columns(real="arm", arm=pl.when(flip).then(pl.lit("new")).otherwise("arm"))
    evidence = cells_of(frame, {"m": {"column": "ms"}})
    stray = frame.filter(pl.col("arm") != pl.col("real")).height
    assert evidence.rows().dropped == {"arm differs from its block's": stray}
    mixed = frame.group_by("region", "block").agg(pl.col("arm").n_unique())
    assert evidence.sample.mixed() == (mixed.filter(pl.col("arm") > 1).height, 448)
    clean = cells_of(frame.filter(pl.col("arm") == pl.col("real")), {"m": {"column": "ms"}})
    assert evidence.effect("m", 1) == clean.effect("m", 1)


def test_sums_within_a_unit_are_per_unit_and_block(cells_of) -> None:
    frame = log(days=56).with_columns(user=pl.when(pl.col("user") > 4).then("user"))
    evidence = cells_of(frame, {"m": {"column": "tokens", "per": "unit"}})
    cells = evidence.sample.cells(evidence.terms["m"], 1)
    want = sql(
        frame,
        'select sum(tokens), count(distinct "user") from frame where "user" is not null'
        " group by region, block order by region, block",
    )
    assert list(zip(cells.num, cells.den, strict=True)) == want
    estimate, error = regression(cells)
    found = evidence.effect("m", 1)
    assert (found.estimate, found.std_error) == pytest.approx((estimate, error), rel=1e-9)
    # Rows of no unit belong to no unit's sum; they are counted with the nulls.
    assert evidence.total("m|null") == frame["user"].null_count()


def test_ratios_weigh_cells_by_their_denominator(cells_of) -> None:
    evidence = cells_of(log(days=56), {"m": {"numerator": "cost", "denominator": "tokens"}})
    estimate, error = regression(evidence.sample.cells(evidence.terms["m"], 1))
    found = evidence.effect("m", 1)
    assert (found.estimate, found.std_error) == pytest.approx((estimate, error), rel=1e-9)


def test_a_cell_of_costs_without_a_success_is_not_left_out_silently(cells_of) -> None:
    frame = log().with_columns(success=(pl.col("block") != 7) | (pl.col("region") != "eu"))
    evidence = cells_of(frame, {"m": {"column": "ms"}, "r": {"numerator": "cost", "denominator": "success"}})
    assert evidence.effect("r", 1) is None
    assert "a numerator but no positive denominator" in evidence.why_not("r", 1)


def test_cells_without_a_row_of_a_metric_do_not_enter_it(cells_of) -> None:
    frame = log(days=56).with_columns(ms=pl.when((pl.col("block") % 9 != 4) | (pl.col("region") != "us")).then("ms"))
    metrics = {"t": {"column": "tokens"}, "m": {"column": "ms"}, "q": {"column": "ms", "quantile": 0.5}}
    evidence = cells_of(frame, metrics)
    empty = frame.filter((pl.col("block") % 9 == 4) & (pl.col("region") == "us"))["block"].n_unique()
    assert len(evidence.sample.cells(evidence.terms["t"], 1).num) == 896
    cells = evidence.sample.cells(evidence.terms["m"], 1)
    assert len(cells.num) == 896 - empty
    estimate, error = regression(cells)
    found = evidence.effect("m", 1)
    assert (found.estimate, found.std_error) == pytest.approx((estimate, error), rel=1e-9)
    assert evidence.effect("q", 1).diagnostics["n_cells"] == 896 - empty


def test_several_arms_use_their_own_blocks_and_controls(cells_of) -> None:
    frame = log(days=84)
    third = (pl.col("block") * 7 + pl.col("region").str.len_bytes()) % 3 == 0
    frame = frame.with_columns(arm=pl.when(third).then(pl.lit("third")).otherwise("arm"))
    evidence = cells_of(frame, {"m": {"column": "ms"}}, design__treatment=["new", "third"])
    for code, arm in ((1, "new"), (2, "third")):
        cells = evidence.sample.cells(evidence.terms["m"], code)
        want = frame.filter(pl.col("arm").is_in(["old", arm]) & pl.col("ms").is_not_null())
        assert len(cells.num) == want.select("region", "block").unique().height
        assert cells.arm.sum() == want.filter(arm=arm).select("region", "block").unique().height
        assert cells.num.sum() == pytest.approx(want["ms"].sum(), rel=1e-13)


def test_points_are_cell_means_in_time(cells_of) -> None:
    frame = log()
    evidence = cells_of(frame, {"m": {"column": "ms"}})
    assert isinstance(evidence.sample, Blocks)
    points = {(p.cluster, p.start): (p.arm, p.value) for p in evidence.sample.points(evidence.terms["m"])}
    means = frame.group_by("region", "block", "arm").agg(pl.mean("ms"))
    assert len(points) == means.height
    for region, block, arm, mean in means.iter_rows():
        start = (START + timedelta(hours=6 * block)).isoformat()
        assert points[region, start] == (arm, pytest.approx(mean, rel=1e-12))


def test_sums_of_its_cells_go_the_same_way_as_a_metrics_own(cells_of) -> None:
    frame = log()
    evidence = cells_of(frame, {"m": {"column": "ms"}})
    table = evidence.tables["cells"].rename({"m|num": "num", "m|den": "den"}).with_columns(rows=pl.col("den"))
    stray = table.head(1).with_columns(arm=1 - pl.col("arm"), num=pl.lit(1e6))
    own = evidence.sample.belonging(pl.concat([table, stray], how="vertical_relaxed"))
    assert (len(own), own["unit"].n_unique()) == (len(table), len(table))
    assert evidence.sample.effect_of(own, 1, 0.05) == evidence.effect("m", 1)


def test_the_washout_takes_the_start_of_every_block_whatever_stood_before(cells_of) -> None:
    frame = log()
    evidence = cells_of(frame, {"m": {"column": "ms"}}, design__washout="1h")
    found = {row["blocks"]: row for row in evidence.sample.washed_out()}
    switched, kept, first = (found[k] for k in ("after a switch", "without a switch", WASHED_KINDS[2]))
    wanted = duckdb.sql("""
        WITH cells AS (
            SELECT region, block, any_value(arm) AS arm, count(*) FILTER (minute < 60) AS washed
            FROM (SELECT *, epoch("at")::BIGINT // 60 % 360 AS minute FROM frame)
            GROUP BY region, block
        ), pairs AS (SELECT *, lag(arm) OVER (PARTITION BY region ORDER BY block) AS before FROM cells)
        SELECT before IS NULL, before = arm, count(*), sum(washed) FROM pairs GROUP BY ALL
    """).fetchall()
    by_kind = {(alone, same): (n, rows) for alone, same, n, rows in wanted}
    assert (first["n"], first["rows"]) == by_kind[True, None] == (4, by_kind[True, None][1])
    assert (switched["n"], switched["rows"]) == by_kind[False, False]
    assert (kept["n"], kept["rows"]) == by_kind[False, True]
    assert sum(row["rows"] for row in found.values()) == evidence.left_out["washout at the start of a block"]


def test_a_block_after_a_gap_has_no_known_arm_before(cells_of) -> None:
    frame = log().filter(pl.col("block") != 10)
    evidence = cells_of(frame, {"m": {"column": "ms"}}, design__washout="1h")
    assert {r["blocks"]: r["n"] for r in evidence.sample.washed_out()}[WASHED_KINDS[2]] == 8
    assert evidence.sample.earlier(evidence.terms["m"], 1, 1).min() == -1
