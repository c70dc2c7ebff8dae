"""Sums that do not depend on how the rows were split, and that are right."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from readout import reduce
from readout.errors import LogError
from readout.reduce import Grid, NotFinite, Table, finish, merge, partial, run_pass

WILD = st.one_of(
    st.none(),
    st.floats(-1e300, 1e300),
    st.floats(-1e-250, 1e-250),
    st.sampled_from([1e300, -1e300, 1e-300, -1e-300, 0.0, 1.0, 1e9, 1e9 + 1]),
    st.floats(1e9 - 3, 1e9 + 3),
)
ROW = st.tuples(st.sampled_from(["a", "b", None]), WILD, st.one_of(st.none(), st.integers(-(2**40), 2**40)))
TABLE = Table(
    "t",
    {"key": pl.col("key")},
    sums={"x": pl.col("x"), "i": pl.col("i")},
    minima={"low": pl.col("x")},
    maxima={"high": pl.col("x")},
)
SCHEMA = {"key": pl.String, "x": pl.Float64, "i": pl.Int64}


def reduced(parts: list[pl.DataFrame], table: Table, grids: dict[str, Grid]) -> pl.DataFrame:
    return finish(merge([partial(p.lazy(), table, grids).collect() for p in parts], table, grids), table, grids)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    st.lists(ROW, min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=5), st.randoms(use_true_random=False)
)
def test_any_split_in_any_order_gives_the_same_bits(rows, cuts, random) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    grids = {"x": Grid.for_values(1e300, len(rows))}
    whole = reduced([frame], TABLE, grids)
    ends = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    parts = [frame[a:b] for a, b in pairwise(ends)]
    random.shuffle(parts)
    assert_frame_equal(reduced(parts, TABLE, grids), whole, check_exact=True)
    for row in whole.iter_rows(named=True):
        mine = [(x, i) for key, x, i in rows if key == row["key"]]
        values = [x for x, _ in mine if x is not None]
        assert row["n"] == len(mine)
        assert row["i"] == sum(i for _, i in mine if i is not None)
        assert row["low"] == min(values, default=None)
        assert row["high"] == max(values, default=None)
        largest = max(map(abs, values), default=0.0)
        # The grid is made for the log's largest value: every addend keeps digits down to 2**-100 of it.
        assert abs(row["x"] - math.fsum(values)) <= 1e-15 * abs(math.fsum(values)) + 1e-30 * 1e300
        if largest == 0.0:
            assert row["x"] == 0.0


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.floats(1e9 - 3, 1e9 + 3), min_size=2, max_size=60))
def test_sums_of_close_values_agree_with_fsum(values) -> None:
    frame = pl.DataFrame({"x": values}).lazy()
    squares = (pl.col("x") - 1e9) * (pl.col("x") - 1e9)
    got = run_pass(frame, [Table("t", {}, sums={"x": pl.col("x"), "xx": squares})], len(values))["t"]
    assert got["x"][0] == math.fsum(values)
    assert got["xx"][0] == pytest.approx(math.fsum((v - 1e9) ** 2 for v in values), rel=1e-15)


@pytest.mark.parametrize(("outlier", "tolerance"), [(1e6, 1e-12), (1e9, 1e-9)])
def test_one_outlier_leaves_the_other_groups_right(outlier: float, tolerance: float) -> None:
    """Small values beside a huge one: a coarse grid would round a million of them alike."""
    n = 1_000_000
    frame = pl.DataFrame({"arm": np.arange(n) % 2, "x": np.where(np.arange(n) == 1, outlier, 0.001)}).lazy()
    got = run_pass(frame, [Table("t", {"arm": pl.col("arm")}, sums={"x": pl.col("x")})], n)["t"]
    assert got["x"][0] == pytest.approx(n // 2 * 0.001, rel=tolerance)


def test_the_pass_is_repeated_when_a_value_outgrows_the_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "PILOT_ROWS", 10)
    x = np.full(1000, 0.1)
    x[321] = 1e12
    passes = []
    kept = reduce.partial
    monkeypatch.setattr(reduce, "partial", lambda *given: passes.append(1) or kept(*given))
    got = run_pass(pl.DataFrame({"x": x}).lazy(), [Table("t", {}, sums={"x": pl.col("x")})], 1000)["t"]
    assert got["x"][0] == math.fsum(x)
    assert len(passes) == 2


@pytest.mark.parametrize("kind", [pl.Float32, pl.Decimal(20, 2), pl.UInt64, pl.Int8, pl.Boolean])
def test_every_numeric_type_is_summed(kind: pl.DataType) -> None:
    frame = pl.DataFrame({"x": [1, 0, None, 1]}).select(pl.col("x").cast(kind)).lazy()
    assert run_pass(frame, [Table("t", {}, sums={"x": pl.col("x")})], 4)["t"]["x"][0] == 2


def test_whole_numbers_that_outgrow_64_bits_do_not_wrap() -> None:
    frame = pl.DataFrame({"x": [4 * 10**18] * 10}).lazy()
    assert run_pass(frame, [Table("t", {}, sums={"x": pl.col("x")})], 10)["t"]["x"][0] == 4e19


def test_whole_numbers_are_exact_beyond_53_bits() -> None:
    frame = pl.DataFrame({"x": [2**53 + 1, 2**53 + 3]}).lazy()
    assert run_pass(frame, [Table("t", {}, sums={"x": pl.col("x")})], 2)["t"]["x"][0] == 2**54 + 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 70_000])
@pytest.mark.parametrize("where", [None, pl.col("k")])
def test_nan_and_infinity_are_found_and_named(bad: float, place: int, where: pl.Expr | None) -> None:
    x = np.ones(140_000)
    x[place] = bad
    frame = pl.DataFrame({"x": x}).with_columns(k=pl.lit(True)).lazy()
    for table in (
        Table("t", {}, where=where, sums={"m|num": pl.col("x")}),
        Table("t", {}, where=where, finite={"m|num": pl.col("x")}),
    ):
        with pytest.raises(NotFinite) as caught:
            run_pass(frame, [table], len(x))
        assert caught.value.names == ("m|num",)


def test_nan_in_rows_that_do_not_count_is_no_fault() -> None:
    frame = pl.DataFrame({"x": [1.0, math.nan, 2.0], "k": [True, False, True]}).lazy()
    got = run_pass(frame, [Table("t", {}, where=pl.col("k"), sums={"x": pl.col("x")})], 3)["t"]
    assert got["x"][0] == 3.0


def test_a_sum_too_large_for_a_number_is_an_error() -> None:
    frame = pl.DataFrame({"x": [1.7e308, 1.7e308]}).lazy()
    with pytest.raises(NotFinite):
        run_pass(frame, [Table("t", {}, sums={"x": pl.col("x")})], 2)


def test_empty_logs_give_empty_tables() -> None:
    frame = pl.DataFrame(schema={"x": pl.Float64, "k": pl.Int64}).lazy()
    tables = [
        Table("keyed", {"k": pl.col("k")}, sums={"x": pl.col("x")}),
        Table("whole", {}, sums={"x": pl.col("x"), "k": pl.col("k")}),
    ]
    got = run_pass(frame, tables, 1)
    assert len(got["keyed"]) == 0
    assert got["whole"].row(0, named=True) == {"n": 0, "x": 0.0, "k": 0}


def test_a_name_cannot_mean_two_sums() -> None:
    one = Table("t", {"k": pl.col("k")}, sums={"x": pl.col("x")})
    with pytest.raises(ValueError, match="two things"):
        one | Table("t", {"k": pl.col("k")}, sums={"x": pl.col("y")})
    with pytest.raises(ValueError, match="do not go together"):
        one | Table("t", {"j": pl.col("j")})


def test_a_damaged_file_is_the_logs_fault(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    pl.DataFrame({"x": np.random.default_rng(0).normal(size=5000)}).write_parquet(file)
    raw = bytearray(file.read_bytes())
    raw[50:20_000] = bytes(b ^ 0x5A for b in raw[50:20_000])
    file.write_bytes(raw)
    with pytest.raises(LogError, match="cannot be read to the end"):
        run_pass(pl.scan_parquet(file), [Table("t", {}, sums={"x": pl.col("x")})], 5000)


def test_agrees_with_duckdb(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    n = 30_000
    frame = pl.DataFrame(
        {
            "unit": rng.integers(0, 500, n),
            "x": pl.Series(rng.lognormal(3, 2, n)).set(pl.Series(rng.random(n) < 0.1), None),
            "i": rng.integers(-5, 50, n),
        }
    )
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=4000)
    table = Table(
        "t",
        {"unit": pl.col("unit")},
        where=pl.col("i") > 0,
        sums={"x": pl.col("x"), "i": pl.col("i"), "values": pl.col("x").is_not_null()},
        minima={"low": pl.col("x")},
        maxima={"high": pl.col("x")},
    )
    got = run_pass(pl.scan_parquet(tmp_path / "log.parquet"), [table], n)["t"]
    query = (
        "select unit, count(*) n, coalesce(fsum(x), 0) x, sum(i)::bigint i, count(x) as values, min(x) low, max(x) high"
        f" from '{tmp_path / 'log.parquet'}' where i > 0 group by unit order by unit"
    )
    want = duckdb.sql(query).pl()
    assert_frame_equal(got, want, check_dtypes=False, rel_tol=1e-14, abs_tol=0)
    assert got.drop("x").equals(want.drop("x").cast(dict(got.drop("x").schema)))


def test_same_bits_for_any_layout_and_number_of_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    n = 40_000
    frame = pl.DataFrame(
        {"unit": rng.integers(0, 200, n), "x": rng.standard_cauchy(n) * 1e3, "y": rng.lognormal(0, 3, n)}
    )
    layouts = {"one": (1, n), "groups": (1, 777), "files": (7, 3000)}
    for name, (files, group) in layouts.items():
        (tmp_path / name).mkdir()
        size = math.ceil(n / files)
        for k in range(files):
            frame[k * size : (k + 1) * size].write_parquet(tmp_path / name / f"{k}.parquet", row_group_size=group)
    script = (
        "import sys, polars as pl\n"
        "from readout.reduce import Table, run_pass\n"
        "x, y = pl.col('x'), pl.col('y')\n"
        "t = Table('t', {'u': pl.col('unit')}, sums={'x': x, 'y': y, 'xy': x * y})\n"
        "w = Table('w', {}, sums={'x': pl.col('x')})\n"
        "for name in sys.argv[1:]:\n"
        "    got = run_pass(pl.scan_parquet(name + '/*.parquet'), [t, w], 40_000)\n"
        "    print(got['t'].write_csv(float_precision=None), got['w'].item(0, 'x').hex())\n"
    )
    seen = set()
    for threads in ("1", "4"):
        out = subprocess.run(
            [sys.executable, "-c", script, *(str(tmp_path / name) for name in layouts)],
            env={**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            check=True,
        ).stdout
        third = len(out) // 3
        seen |= {hashlib.sha256(out[k * third : (k + 1) * third]).hexdigest() for k in range(3)}
    assert len(seen) == 1
