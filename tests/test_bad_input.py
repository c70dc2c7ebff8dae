"""What a user may get wrong: one clear error, the right exit code, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest


def refused(world, code: int, *said: str, arguments: tuple[str, ...] = ()) -> str:
    """The error of ``readout run``, which must have the code, say each text, and leave nothing behind."""
    before = world.written
    outcome = world.run(*arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert world.written == before
    assert not world.out.exists()
    assert "Traceback" not in outcome.err
    for text in said:
        assert text in outcome.err, outcome.err
    return outcome.err


# Files


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone.parquet", "no such file or directory"),
        ("part-*.parquet", "no file matches this pattern"),
        ("empty", "holds no *.parquet file"),
        ("sample://gone", "no bundled sample log has this name"),
    ],
)
def test_no_file(world, path, said):
    (world.folder / "empty").mkdir()
    world.write(world.log(), {"logs.path": path})
    refused(world, 3, said)


def test_no_spec(world):
    outcome = world.run()
    assert (outcome.code, world.written) == (2, [])
    assert "spec.yaml" in outcome.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"a,b\n1,2\n", "not a Parquet file"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_no_parquet(world, content, said):
    world.write(world.log())
    (world.folder / "log.parquet").write_bytes(content)
    assert "log.parquet" in refused(world, 3, said)


def test_a_truncated_file(world):
    world.write(world.log())
    file = world.folder / "log.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    refused(world, 3, "log.parquet", "truncated", "write or copy it again")


@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
def test_a_file_that_lacks_part_of_its_data_pages(world, kind, compression):
    world.write(None, {"design.kind": kind, "logs.path": ["log-a.parquet", "log-b.parquet"]})
    frame = world.log(units=2000)
    for name in ("log-a.parquet", "log-b.parquet"):
        frame.write_parquet(world.folder / name, compression=compression, row_group_size=1000)
    broken = world.folder / "log-b.parquet"
    content = broken.read_bytes()
    third = len(content) // 3
    broken.write_bytes(content[:third] + content[third + 2000 :])
    said = refused(world, 3, "log-b.parquet", "cannot be read to the end", "write or copy it again")
    assert "log-a.parquet" not in said


def test_files_with_different_schemas(world):
    frame = world.log()
    world.write(None, {"logs.path": "log-*.parquet"})
    frame.write_parquet(world.folder / "log-1.parquet")
    frame.with_columns(pl.col("ms").cast(pl.Int64)).write_parquet(world.folder / "log-2.parquet")
    refused(world, 3, "log-2.parquet", "schema differs", "'ms' is Int64, in the first file Float64")


# Columns


def test_a_missing_column_names_its_role_and_what_there_is(world):
    world.write(world.log(), {"logs.columns.unit": "usr", "metrics.latency.column": "latency"})
    said = refused(world, 3, "logs.columns.unit: the log has no column 'usr'", "did you mean 'user'?", "spec.yaml:7:11")
    assert "the log has: at, user, arm, ms, failed, tokens" in said


def test_a_missing_metric_column(world):
    world.write(world.log(), {"metrics.latency.column": "latency"})
    refused(world, 3, "metrics.latency.column: the log has no column 'latency'", "column: latency\n")


def test_a_role_that_nothing_names(world):
    world.write(world.log().rename({"arm": "policy"}), {"logs.columns.arm": None})
    refused(world, 3, "needs a column for the role 'arm'", "policy")


@pytest.mark.parametrize(
    ("column", "changes", "said"),
    [
        (pl.lit("fast").alias("ms"), {}, "metrics.latency.column: column 'ms' is String; expected numbers"),
        (pl.lit("soon").alias("at"), {}, "logs.columns.time: column 'at' is String; expected a timestamp or a date"),
        (pl.concat_list("user").alias("user"), {}, "logs.columns.unit: column 'user' is List(Int64)"),
        (pl.lit("x").alias("tokens"), {"logs.columns.retries": "tokens"}, "logs.columns.retries: column 'tokens'"),
    ],
)
def test_a_wrong_type(world, column, changes, said):
    world.write(world.log().with_columns(column), changes)
    refused(world, 3, said, "^")


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("column", "said"), [("arm", "no arm"), ("user", "no unit"), ("at", "time"), ("ms", "metrics.latency")]
)
def test_all_null(world, column, said, typed):
    frame = world.log()
    nulls = pl.lit(None, dtype=frame.schema[column] if typed else pl.Null).alias(column)
    world.write(frame.with_columns(nulls), {"logs.start": "2026-10-05T00:00Z"})
    refused(world, 3, said)


# Rows


def test_no_row_in_the_window(world):
    world.write(world.log(), {"logs.start": "2027-01-01T00:00Z"})
    refused(world, 3, "no row is left of 480 read: 480 outside the window", "widen logs.start/end")


def test_one_arm_only(world):
    world.write(world.log().filter(pl.col("arm") == "old"))
    refused(world, 3, "no kept row of arm 'new'", "an effect needs both arms")


def test_rows_of_other_arms_are_dropped_counted_and_told(world):
    frame = world.log(units=240, arms=("old", "new", "beta"))
    readout = world.readout(frame)
    assert dict(readout.rows.dropped) == {"an arm the spec does not name": 320}
    assert readout.rows.kept == 640
    assert "rows left out (an arm the spec does not name): 320" in readout.notes
    alone = world.readout(frame.filter(pl.col("arm") != "beta"))
    assert [m.estimate for m in readout.metrics] == [m.estimate for m in alone.metrics]


def test_an_empty_log(world):
    world.write(world.log().clear())
    refused(world, 3, "the log has no rows")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({}, "metrics.latency"),
        ({"design.kind": "request_rct"}, "metrics.latency"),
        ({"metrics.latency.per": "unit"}, "metrics.latency"),
        ({"metrics.latency": {"expr": "ms / 2", "role": "primary", "better": "lower"}}, "metrics.latency"),
        ({"metrics.latency.column": None, "metrics.latency.numerator": "ms", "metrics.latency.denominator": "tokens"},
         "metrics.latency"),
        ({"metrics.latency.column": None, "metrics.latency.numerator": "tokens", "metrics.latency.denominator": "ms"},
         "metrics.latency"),
        ({"metrics.latency.column": "tokens", "metrics.a|b": {"column": "ms", "better": "lower"}}, "metrics.a|b"),
        ({"metrics.latency.column": "tokens", "logs.columns.features": ["tokens", "ms"]}, "logs.columns.features.1"),
        ({"metrics.latency.column": "tokens", "rollback": [{"expr": "ms", "above": 1}]}, "rollback.0"),
        ({"metrics.latency.column": "tokens", "economics": {"cost": {"column": "ms", "usd": 1}}}, "economics"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_finite(world, value, changes, at):
    frame = world.log()
    ms = pl.when(pl.int_range(pl.len()) == 7).then(value).otherwise("ms").alias("ms")
    world.write(frame.with_columns(ms), changes)
    said = refused(
        world, 3, f"{at}: holds NaN or infinity; expected finite numbers or null", "logs.where", "spec.yaml:"
    )
    assert "@" not in said
    world.write(frame.with_columns(ms), {**changes, "logs.where": "abs(ms) < 1e9"})
    assert world.run().code == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_a_quantile_of_values_that_are_not_finite(world, value, kind):
    frame = world.log().with_columns(ms=pl.when(pl.int_range(pl.len()) == 7).then(value).otherwise("ms"))
    world.write(frame, {"metrics.latency.quantile": 0.9, "design.kind": kind})
    refused(world, 3, "metrics.latency: holds NaN or infinity")


# The spec


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metrics:", "metrics:\n  latency: {column: ms, role: primary, better: lower}", "latency"),
        ("name: probe", "name: probe\nname: again", "name"),
        ("role: primary", "rol: primary", "metrics.latency.rol: unknown key; did you mean 'role'?"),
        ("kind: user_rct", "kind: user_rtc", "did you mean 'user_rct'?"),
        ("better: lower", "better: [", "spec.yaml:"),
        ("name: probe", "name: ../probe", "expected a name that can be a folder"),
    ],
)
def test_a_wrong_spec(world, old, new, said):
    path = world.write(world.log())
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    refused(world, 2, said, "spec.yaml:", "^")


def test_json_tells_the_same_errors(world):
    world.write(world.log().filter(pl.col("arm") == "old"))
    outcome = world.run("--format", "json")
    assert outcome.code == 3
    document = json.loads(outcome.out)
    assert (document["schema"], document["code"]) == ("readout-error/1", 3)
    (error,) = document["errors"]
    assert set(error) == {"where", "message", "hint"}
    assert error["message"] in outcome.err


def test_a_metric_may_not_take_the_name_of_readouts_own_quantity(world):
    named = {"@net value": {"column": "ms", "role": "primary", "better": "lower"}}
    economics = {"economics": {"cost": {"column": "tokens", "usd": 1e-6}}}
    world.write(world.log(), {"metrics": named, **economics})
    refused(world, 2, "metrics.@net value: the name of a quantity that readout computes itself")


@pytest.mark.parametrize(
    "name", ["n", "rows", "drop", "unit", "arm", "a|b", "a|null", "trigger 0", "srm", "x y", "é\"q'", "bucket", "@drop"]
)
def test_a_metric_may_be_named_anything_else(world, name):
    frame = world.log()
    economics = {"economics": {"cost": {"column": "tokens", "usd": 1e-6}}, "rollback": [{"expr": "ms", "above": 1e6}]}
    usual = world.readout(frame, economics).metrics[0]
    metric = {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"}
    found = world.readout(frame, {**economics, "metrics": {name: metric}}).metrics[0]
    assert (found.metric, found.estimate, found.ci_low) == (name, usual.estimate, usual.ci_low)


def test_a_washout_longer_than_the_block(world):
    design = {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "washout": "3h"}
    world.write(world.log(), {"design": design})
    refused(world, 2, "design.washout: expected less than the block's length", "^")


# Places


def test_a_spec_in_another_folder_and_relative_paths(world, monkeypatch):
    frame = world.log()
    nested = world.folder / "a" / "b"
    nested.mkdir(parents=True)
    frame.write_parquet(world.folder / "a" / "log.parquet")
    spec = world.write(None, {"logs.path": "../log.parquet"})
    spec.rename(nested / "spec.yaml")
    monkeypatch.chdir(world.folder)
    outcome = world.command(
        "run", "a/b/spec.yaml", "--out", "memos", "--as-of", "2026-10-20", "--no-figures", "--quiet"
    )
    assert outcome.code == 0, outcome.err
    assert (world.folder / "memos" / "probe" / "2026-10-20" / "memo.md").is_file()


@pytest.mark.parametrize("stands", ["out", "out/probe"])
def test_a_memo_folder_that_cannot_be(world, stands):
    world.write(world.log())
    place = world.folder / stands
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine", encoding="utf-8")
    outcome = world.run()
    assert outcome.code == 2, outcome.err
    assert str(world.out) in outcome.err
    assert place.read_text(encoding="utf-8") == "mine"


def test_a_memo_folder_that_holds_something_else_is_not_replaced(world):
    world.write(world.log())
    target = world.out / "probe" / "2026-10-20"
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine", encoding="utf-8")
    outcome = world.run()
    assert outcome.code == 2
    assert "is not replaced" in outcome.err
    assert [p.name for p in target.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("moment", ["0026-10-19", "9999-12-31T23:59-12:00", "now"])
def test_a_time_that_cannot_be_is_no_fault(world, moment):
    world.write(world.log(), {"logs.last": "7d"})
    outcome = world.command("run", world.folder / "spec.yaml", "--out", world.out, "--as-of", moment)
    assert outcome.code == 2
    assert f"'{moment}' is not a time; expected ISO 8601" in outcome.err


def test_as_of_ends_a_window_of_the_last_days(world):
    world.write(world.log(), {"logs.last": "1d"})
    outcome = world.command(
        "run", world.folder / "spec.yaml", "--out", world.out, "--as-of", "2026-10-06T02:00+02:00", "--no-figures",
        "--quiet", "--format", "json",
    )  # fmt: skip
    window = outcome.json["window"]
    assert (window["start"], window["end"]) == ("2026-10-05T00:00:00+00:00", "2026-10-06T00:00:00+00:00")
    assert outcome.json["rows"]["kept"] == 206


def test_a_native_fault_is_told_without_a_traceback(world):
    """A panic of a native library goes past ``except Exception``."""
    script = (
        "import sys, polars as pl\n"
        "from readout import pipeline\n"
        "def gather(*a):\n    raise pl.exceptions.PanicException('boom')\n"
        "pipeline.gather = gather\n"
        "from cli.main import run\n"
        f"sys.exit(run(['run', {str(world.write(world.log()))!r}, '--out', {str(world.out)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70
    assert "a fault of readout's own" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(world.out).exists()


def test_the_time_of_a_readout_is_in_utc(world):
    world.write(world.log())
    assert world.run("--format", "json").json["as_of"] == datetime(2026, 10, 20, 6, 30, tzinfo=UTC).isoformat()
