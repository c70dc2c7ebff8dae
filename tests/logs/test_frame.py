"""Roles, labels, times and the window: every row is kept, or dropped for a reason that is counted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

START = datetime(2026, 10, 5, tzinfo=UTC)


def told(rows) -> dict[str, int]:
    assert rows.kept + sum(rows.dropped.values()) == rows.read
    return dict(rows.dropped)


def test_every_missing_column_at_once_with_its_place(world, refused) -> None:
    changes = {
        "logs.columns.fallback": "tokenz",
        "logs.columns.state": ["tokens", "queue"],
        "logs.columns.arm": "amr",
    }
    problems = refused(world.log(), changes)
    assert sorted(p.message.split(": ", 1)[1] for p in problems) == [
        "the log has no column 'amr'",
        "the log has no column 'queue'",
        "the log has no column 'tokenz'",
    ]
    by_name = {p.message.split("'")[1]: p for p in problems}
    assert by_name["amr"].hint.startswith("did you mean 'arm'? the log has: at, user, arm, ms, failed, tokens")
    assert by_name["tokenz"].hint.startswith("did you mean 'tokens'?")
    assert "queue" in by_name["queue"].source
    assert "^" in by_name["queue"].source
    line = 1 + world.write(None, changes).read_text().splitlines().index("    - queue")
    assert f"spec.yaml:{line}:7" in by_name["queue"].where


def test_every_missing_metric_column_at_once(world, refused) -> None:
    problems = refused(world.log(), {"metrics.latency.column": "msec", "metrics.errors.column": "fail"})
    assert [p.message for p in problems] == [
        "metrics.latency.column: the log has no column 'msec'",
        "metrics.errors.column: the log has no column 'fail'",
    ]


@pytest.mark.parametrize(
    ("role", "column", "said"),
    [
        ("time", pl.lit("2026-10-05"), "column 'c' is String; expected a timestamp or a date"),
        ("time", pl.lit(5), "column 'c' is Int32; expected a timestamp or a date"),
        ("propensity", pl.lit("high"), "column 'c' is String; expected numbers"),
        ("eligible", pl.lit("yes"), "column 'c' is String; expected true/false or 0/1"),
        ("unit", pl.concat_list("user"), "column 'c' is List(Int64); expected text, whole numbers or booleans"),
        ("time", pl.lit(None), "column 'c' is null on every row; expected a timestamp or a date"),
    ],
)
def test_wrong_types(world, refused, role, column, said) -> None:
    (problem,) = refused(world.log().with_columns(c=column), {f"logs.columns.{role}": "c"})
    assert problem.message == f"logs.columns.{role}: {said}"


def test_a_column_that_only_bears_a_roles_name_is_left_alone_where_it_cannot_fit(world) -> None:
    frame = world.log().with_columns(time=pl.lit("noon"), cluster=pl.concat_list("user"), propensity=pl.lit("?"))
    readout = world.readout(frame.drop("at"), {"logs.columns.time": None})
    assert readout.mapped_unasked == ()
    assert readout.rows.kept == 480


def test_it_is_named_where_the_window_needs_it(world, refused) -> None:
    frame = world.log().drop("at").with_columns(time=pl.lit("noon"))
    (problem,) = refused(frame, {"logs.columns.time": None, "logs.start": "2026-10-05"})
    assert problem.message == "logs.columns.time: column 'time' is String; expected a timestamp or a date"
    (problem,) = refused(frame.drop("time"), {"logs.columns.time": None, "logs.start": "2026-10-05"})
    assert problem.message == "logs.columns.time: a window needs a column for the role 'time'"


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        ([0, 1], (0, 1)),
        ([0, 1], ("0", "1")),
        ([0.0, 1.0], (0, "1")),
        (["0", "1"], (0, 1.0)),
        ([False, True], (False, True)),
        ([False, True], ("false", "true")),
        (["false", "true"], (False, True)),
        ([b"old", b"new"], ("old", "new")),
        ([0.5, 1.5], ("0.5", 1.5)),
    ],
)
def test_arm_labels_compare_as_strings(world, values, spec) -> None:
    want = world.readout(world.log()).metrics[0]
    which = pl.col("arm") == "new"
    frame = world.log().with_columns(arm=pl.when(which).then(pl.lit(values[1])).otherwise(pl.lit(values[0])))
    got = world.readout(frame, {"design.control": spec[0], "design.treatment": spec[1]})
    assert got.metrics[0].estimate == want.estimate
    assert got.rows.kept == 480


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["new", "other", "old"])])
def test_categorical_arms_units_and_filters(world, dtype) -> None:
    want = world.readout(world.log()).metrics[0]
    frame = world.log().with_columns(pl.col("arm").cast(dtype), pl.col("user").cast(pl.String).cast(pl.Categorical))
    got = world.readout(frame, {"logs.where": "arm = 'old' or arm = 'new'"})
    assert got.metrics[0].estimate == want.estimate


def test_decimal_arms_and_metrics(world) -> None:
    frame = world.log().with_columns(
        arm=(pl.col("arm") == "new").cast(pl.Int8).cast(pl.Decimal(6, 2)), ms=pl.col("ms").cast(pl.Decimal(20, 3))
    )
    got = world.readout(frame, {"design.control": 0, "design.treatment": 1}).metrics[0]
    means = frame.group_by("arm", "user").agg(pl.col("ms").cast(pl.Float64).mean()).group_by("arm").agg(pl.mean("ms"))
    old, new = means.sort("arm")["ms"]
    assert got.estimate == pytest.approx(new - old, rel=1e-12)


def test_arms_that_the_spec_does_not_name_and_rows_without_one(world) -> None:
    frame = world.log(arms=("old", "new", "third")).with_columns(
        arm=pl.when(pl.col("user") < 6).then(None).otherwise(pl.col("arm"))
    )
    assert told(world.readout(frame).rows) == {"no arm": 24, "an arm the spec does not name": 152}


def test_a_float_arm_of_nan_is_no_arm(world) -> None:
    frame = world.log().with_columns(
        arm=pl.when(pl.col("user") < 4).then(float("nan")).otherwise((pl.col("arm") == "new").cast(pl.Float64))
    )
    rows = world.readout(frame, {"design.control": 0, "design.treatment": 1}).rows
    assert told(rows) == {"no arm": 16}


def test_one_arm_only_and_no_row_left(world, refused) -> None:
    (problem,) = refused(world.log().filter(arm="old"))
    assert problem.message == "design.treatment: no kept row of arm 'new'; an effect needs both arms"
    assert problem.hint.startswith("arms in the log: 'old';")
    (problem,) = refused(world.log(), {"logs.start": "2030-01-01"})
    assert problem.message == "no row is left of 480 read: 480 outside the window"
    at = world.log()["at"]
    assert problem.hint.endswith(f"the log's times run from {at.min()} to {at.max()}")
    (problem,) = refused(world.log().with_columns(arm=pl.lit(None, pl.String)))
    assert problem.message == "no row is left of 480 read: 480 no arm"
    (problem,) = refused(world.log().clear())
    assert problem.message == "the log has no rows"


@pytest.mark.parametrize(
    "cast",
    [
        pl.Datetime("ns", "UTC"),
        pl.Datetime("ms", "UTC"),
        pl.Datetime("us", "Asia/Tokyo"),
        pl.Datetime("ms", "America/New_York"),
    ],
)
def test_windows_are_half_open_in_any_unit_and_zone(world, cast) -> None:
    frame = world.log().with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("UTC").cast(cast))
    start, end = START + timedelta(minutes=70), START + timedelta(minutes=700)
    rows = world.readout(frame, {"logs.start": start.isoformat(), "logs.end": end.isoformat()}).rows
    assert rows.kept == 90
    assert told(rows) == {"outside the window": 390}


def test_last_counts_back_from_the_as_of_time(world) -> None:
    frame = world.log().with_columns(at=pl.col("at") + timedelta(days=14))
    readout = world.readout(frame, {"logs.last": "24h"})  # as of 2026-10-20T06:30Z
    low, high = datetime(2026, 10, 19, 6, 30, tzinfo=UTC), datetime(2026, 10, 20, 6, 30, tzinfo=UTC)
    assert readout.rows.kept == frame.filter((pl.col("at") >= low) & (pl.col("at") < high)).height
    assert (readout.window["start"], readout.window["end"]) == (low.isoformat(), high.isoformat())


def test_a_date_column_is_midnight_in_the_logs_timezone(world) -> None:
    days = [date(2026, 10, 5) + timedelta(days=i % 4) for i in range(480)]
    frame = world.log().with_columns(at=pl.Series(days))
    rows = world.readout(frame, {"logs.timezone": "America/New_York", "logs.start": "2026-10-06T04:00Z"}).rows
    assert told(rows) == {"outside the window": 120}
    rows = world.readout(frame, {"logs.timezone": "America/New_York", "logs.start": "2026-10-06T04:01Z"}).rows
    assert told(rows) == {"outside the window": 240}


def test_clock_changes_lose_no_row_silently(world) -> None:
    """Berlin, 2026: 02:00-03:00 is skipped on 29 March and comes twice on 25 October."""
    local = [datetime(2026, 3, 29, 1, 30), datetime(2026, 3, 29, 2, 30), datetime(2026, 3, 29, 3, 30)]
    fold = [datetime(2026, 10, 25, 2, 30)]
    frame = world.log().with_columns(at=pl.Series((local + fold) * 120))
    changes = {"logs.timezone": "Europe/Berlin", "logs.start": "2026-01-01", "logs.end": "2026-12-31"}
    assert told(world.readout(frame, changes).rows) == {"a local time that the clock skipped": 120}
    # An hour that comes twice is taken as the first: 02:30 summer time is 00:30 UTC.
    first = {**changes, "design.kind": "request_rct", "logs.end": "2026-10-25T00:31Z"}
    assert world.readout(frame, {**first, "logs.start": "2026-10-25T00:30Z"}).rows.kept == 120


def test_rows_without_a_time_are_dropped_only_where_time_matters(world) -> None:
    frame = world.log().with_columns(at=pl.when(pl.col("user") >= 2).then(pl.col("at")))
    assert told(world.readout(frame).rows) == {}
    assert told(world.readout(frame, {"logs.start": "2026-10-01"}).rows) == {"no time": 8}


def test_where_with_nulls_keeps_what_is_true(world) -> None:
    frame = world.log().with_columns(flag=pl.Series([True, False, None] * 160))
    assert told(world.readout(frame, {"logs.where": "flag"}).rows) == {"logs.where": 320}
    assert told(world.readout(frame, {"logs.where": "not flag"}).rows) == {"logs.where": 320}
    assert told(world.readout(frame, {"logs.where": "flag is null"}).rows) == {"logs.where": 320}


def test_the_first_reason_counts_once(world) -> None:
    frame = world.log().with_columns(
        arm=pl.when(pl.col("user") < 10).then(None).otherwise(pl.col("arm")),
        user=pl.when(pl.col("user").is_between(8, 13)).then(None).otherwise(pl.col("user")),
    )
    rows = world.readout(frame, {"logs.where": "tokens > 100", "logs.start": START.replace(hour=1).isoformat()}).rows
    outside = frame.filter(pl.col("at") < START.replace(hour=1))
    rest = frame.filter(pl.col("at") >= START.replace(hour=1))
    filtered = rest.filter(pl.col("tokens") <= 100)
    rest = rest.filter(pl.col("tokens") > 100)
    assert told(rows) == {
        "outside the window": outside.height,
        "logs.where": filtered.height,
        "no arm": rest["arm"].null_count(),
        "no unit": rest.filter(pl.col("arm").is_not_null())["user"].null_count(),
    }


def test_nan_in_a_flag_is_unknown_not_true(world) -> None:
    flag = np.where(np.arange(480) % 12 < 4, np.nan, 1.0)
    rows = world.readout(world.log().with_columns(ok=pl.Series(flag)), {"logs.columns.eligible": "ok"}).rows
    assert told(rows) == {"not eligible": 160}


@pytest.mark.parametrize(
    "sql",
    [
        "ms - avg(ms)",
        "ms > max(ms) - 5",
        "case when ms > median(ms) then 1 else 0 end",
        "sum(ms) over (partition by arm)",
        "rank() over (order by ms)",
        "lag(ms) over (order by at)",
        "ms / count(*)",
        "ms / count(*) over ()",
        "avg(ms)",
    ],
)
def test_sql_that_looks_across_rows_is_refused(world, refused, sql) -> None:
    (problem,) = refused(world.log(), {"metrics.latency": {"expr": sql, "role": "primary", "better": "lower"}}, code=2)
    assert problem.message == "metrics.latency.expr: looks across rows; expected a value that each row gives by itself"


@pytest.mark.parametrize(
    ("sql", "want"),
    [
        ("ms + tokens", pl.col("ms") + pl.col("tokens")),
        ("case when failed then 0 else ms end", pl.when("failed").then(0).otherwise(pl.col("ms"))),
        ("tokens between 10 and 99", pl.col("tokens").is_between(10, 99)),
        ("coalesce(nullif(tokens, 7), 0)", pl.col("tokens").replace(7, 0)),
        ("arm in ('agg', 'max(ms)', 'Len') or tokens > 50", pl.col("tokens") > 50),
    ],
)
def test_sql_over_a_row(world, sql, want) -> None:
    frame = world.log()
    got = world.readout(frame, {"metrics.latency": {"expr": sql, "role": "primary", "better": "lower"}}).metrics[0]
    old, new = (
        frame.with_columns(v=want.cast(pl.Float64)).group_by("arm").agg(pl.mean("v")).sort("arm", descending=True)["v"]
    )
    assert got.estimate == pytest.approx(new - old, rel=1e-9)


@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        ("ms +", 2, "not SQL that can be read"),
        ("msec > 5", 3, "the log has no column 'msec'"),
        ("user > 5", 2, "unsupported function 'user'"),
        ("ms + 1", 2, "must be true or false for each row; this is Float64"),
        ("1 = 1", 2, "must give a value for each row; this is the same for all"),
    ],
)
def test_sql_faults_have_their_place(world, refused, sql, code, said) -> None:
    (problem,) = refused(world.log(), {"logs.where": sql}, code=code)
    assert said in problem.message
    assert "spec.yaml:" in problem.where
    assert "^" in problem.source
    assert (problem.hint == 'write the column in double quotes: "user"') == (sql == "user > 5")


@pytest.mark.parametrize("metric", [{"column": "v"}, {"column": "v", "quantile": 0.5}, {"expr": "v * 2"}])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_nan_and_infinity_are_named_by_metric(world, refused, metric, bad, kind) -> None:
    frame = world.log().with_columns(v=pl.when(pl.col("user") == 5).then(bad).otherwise(pl.col("ms")))
    changes = {"metrics.speed": {**metric, "better": "lower"}, "design.kind": kind}
    (problem,) = refused(frame, changes)
    assert "metrics.speed" in problem.where + problem.message
    assert "NaN or infinity" in problem.message
    # Rows that the spec leaves out may hold anything.
    assert told(world.readout(frame, {**changes, "logs.where": '"user" <> 5'}).rows) == {"logs.where": 4}


def test_a_column_with_a_name_of_readouts_own_is_refused(world, refused) -> None:
    problems = refused(world.log().with_columns(pl.lit(None).alias("@drop")), {})
    assert [p.message for p in problems] == ["column '@drop' has a name that readout uses itself"]
