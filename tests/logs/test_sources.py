"""Which files a path means, and what is said of those that cannot be read."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from readout.logs.sources import find_source


def write(frame: pl.DataFrame, *files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(file)


@pytest.fixture
def halves(world, folder):
    """Two halves of one log in two files, and the estimate of the whole."""
    frame = world.log()
    whole = world.readout(frame).metrics[0]
    (folder / "log.parquet").unlink()
    write(frame[:200], folder / "days/1.parquet")
    write(frame[200:], folder / "days/2.parquet")
    return whole


@pytest.mark.parametrize(
    "path",
    [
        "days",
        "days/",
        "./days/*.parquet",
        "**/*.parquet",
        "day?",
        ["days/1.parquet", "days/2.parquet"],
        ["days/1.parquet", "days", "days/../days/2.parquet"],
    ],
)
def test_a_log_in_two_files_is_one_log(world, halves, path) -> None:
    readout = world.readout(None, {"logs.path": path})
    assert readout.metrics[0] == halves
    assert readout.rows.read == 480


def test_absolute_path_and_file_address(world, folder, halves) -> None:
    for path in (str(folder / "days"), f"file://{folder}/days/*.parquet"):
        assert world.readout(None, {"logs.path": path}).metrics[0] == halves


def test_unfinished_files_of_other_programs_are_not_read(world, folder, halves) -> None:
    write(world.log(), folder / "days/_temporary/0.parquet", folder / "days/.hidden.parquet")
    assert world.readout(None, {"logs.path": "days"}).rows.read == 480


@pytest.mark.parametrize("path", ["parts", "parts/*", "parts/*/*.parquet"])
def test_hive_folders_are_columns_and_may_be_roles(world, folder, path) -> None:
    frame = world.log()
    want = world.readout(frame).metrics[0]
    for arm in ("old", "new"):
        write(frame.filter(arm=arm).drop("arm"), folder / f"parts/arm={arm}/0.parquet")
    readout = world.readout(None, {"logs.path": path, "logs.where": "arm in ('old', 'new')"})
    assert readout.metrics[0] == want
    assert readout.rows.read == readout.rows.kept == 480


def test_partition_folders_above_the_spec_are_no_columns(world, tmp_path) -> None:
    write(world.log(), tmp_path / "arm=wrong/log.parquet")
    source = find_source(["log.parquet"], tmp_path / "arm=wrong")
    assert not source.hive
    assert source.scan().collect()["arm"].unique().sort().to_list() == ["new", "old"]


def test_a_name_with_brackets_means_itself(world, folder) -> None:
    """A glob of ``a[1].parquet`` would read ``a1.parquet``, another log."""
    write(world.log(units=40), folder / "a[1].parquet")
    write(world.log(units=80), folder / "a1.parquet")
    assert world.readout(None, {"logs.path": "a[1].parquet"}).rows.read == 160


def test_a_folder_with_brackets_above_the_spec(world, tmp_path) -> None:
    write(world.log(), tmp_path / "run[1]/log/1.parquet")
    assert find_source(["log/*.parquet"], tmp_path / "run[1]").rows == 480


def test_bundled_samples(tmp_path) -> None:
    assert find_source(["sample://router_rct"], tmp_path).rows > 1000
    from readout.errors import LogError

    with pytest.raises(LogError) as caught:
        find_source(["sample://router"], tmp_path)
    assert "sample://router_rct" in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.parquet", "no such file or directory"),
        ("*.csv", "no file matches this pattern"),
        ("hollow", "this directory holds no *.parquet file"),
        ("hdfs://host/log.parquet", "hdfs:// is no store that can be read"),
    ],
)
def test_nothing_there(world, folder, refused, path, message) -> None:
    (folder / "hollow").mkdir()
    write(world.log(), folder / "other.parquet")
    (problem,) = refused(None, {"logs.path": path})
    assert problem.message == message
    if path == "nothing.parquet":
        assert "other.parquet" in problem.hint


def test_not_parquet_empty_and_truncated_are_told_apart_and_at_once(world, folder, refused) -> None:
    write(world.log(), folder / "d/good.parquet")
    raw = (folder / "d/good.parquet").read_bytes()
    for name, content in {"text": b"at,user\n1,2\n", "void": b"", "cut": raw[: len(raw) // 2]}.items():
        (folder / f"d/{name}.parquet").write_bytes(content)
    (folder / "d/scrap.parquet").write_bytes(raw[:-60] + b"\x11" * 50 + raw[-10:])
    problems = {Path(p.where).stem: p.message for p in refused(None, {"logs.path": "d"})}
    assert problems == {
        "text": "not a Parquet file (it does not begin with PAR1)",
        "void": "the file is empty; expected Parquet",
        "cut": "a truncated Parquet file (its footer is missing)",
    }
    for name in ("text", "void", "cut"):
        (folder / f"d/{name}.parquet").unlink()
    (problem,) = refused(None, {"logs.path": "d"})
    assert Path(problem.where).name == "scrap.parquet"
    assert problem.message.startswith("cannot be read as Parquet")


@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_damaged_pages(world, folder, refused, kind) -> None:
    write(world.log(), folder / "log.parquet")
    raw = bytearray((folder / "log.parquet").read_bytes())
    raw[60:5000] = bytes(b ^ 0x5A for b in raw[60:5000])
    (folder / "log.parquet").write_bytes(raw)
    (problem,) = refused(None, {"design.kind": kind})
    assert problem.message.startswith("cannot be read to the end")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pl.col("tokens").cast(pl.Float64), "column 'tokens' is Float64, in the first file Int64"),
        (pl.col("arm").cast(pl.Categorical), "column 'arm' is Categorical, in the first file String"),
        (pl.lit(1).alias("extra"), "column 'extra' is Int32, in the first file absent"),
    ],
)
def test_files_of_different_schemas(world, folder, refused, change, said) -> None:
    write(world.log(), folder / "d/1.parquet")
    write(world.log().with_columns(change), folder / "d/2.parquet")
    (problem,) = refused(None, {"logs.path": "d"})
    assert problem.where.endswith("2.parquet")
    assert "1.parquet" in problem.message
    assert said in problem.message


def test_the_order_of_columns_does_not_matter(world, folder) -> None:
    frame = world.log()
    want = world.readout(frame).metrics[0]
    write(frame[:100], folder / "d/1.parquet")
    write(frame[100:].select(reversed(frame.columns)), folder / "d/2.parquet")
    assert world.readout(None, {"logs.path": "d"}).metrics[0] == want


def test_many_bad_files_are_not_all_listed(folder, refused) -> None:
    for k in range(30):
        (folder / f"{k}.parquet").write_bytes(b"no")
    problems = refused(None, {"logs.path": "*.parquet"})
    assert len(problems) == 11
    assert problems[-1].message == "20 more files have such problems"


@pytest.mark.parametrize("path", ["s3://no-such-bucket-of-readout/log.parquet", "az://container/log.parquet"])
def test_a_store_that_cannot_be_reached_is_said_soon(refused, path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = time.monotonic()
    (problem,) = refused(None, {"logs.path": path})
    assert time.monotonic() - start < 20
    assert problem.where == path
    assert problem.message.startswith("cannot be read: ")
    assert "credentials" in problem.hint


def test_local_files_and_a_store_do_not_mix(world, folder, refused) -> None:
    write(world.log(), folder / "log.parquet")
    (problem,) = refused(None, {"logs.path": ["log.parquet", "s3://bucket/log.parquet"]})
    assert "mixes local files and an object store" in problem.message
