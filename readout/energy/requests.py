"""The file of shares: one row a request, in the order of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from attribution.sampling import method_name
from readout.energy.files import receipt_urls
from readout.energy.model import CARBON, ENERGY, asked, role_column
from readout.energy.rows import COLD, GRID, ROW, RULES, SHARE, Attributed, rule_column
from readout.logs import Source
from readout.logs.values import label
from readout.spec.model import Spec

REQUEST, BATCH, ARM = "request_id", "batch_id", "arm"
LABEL = "@request label"
COMPONENT = "component "


def names(spec: Spec, source: Source) -> dict[str, pl.Expr]:
    """Ids and arm of a row, as expressions over the raw columns: ids as the log has them, the arm as a label."""
    found = {REQUEST: role_column(spec, source, "request"), BATCH: asked(spec).columns.batch}
    exprs = {name: _plain(source, column) for name, column in found.items() if column is not None}
    if (request := found[REQUEST]) is not None:
        exprs[LABEL] = label(pl.col(request), source.schema[request])
    if (arm := role_column(spec, source, "arm")) is not None:
        exprs[ARM] = label(pl.col(arm), source.schema[arm])
    return exprs


def rows(attributed: Attributed, frame: pl.DataFrame, seed: int, game: str | None = None) -> pl.DataFrame:
    """A range of `Attributed.ranges` with `names`, as the file has it; `game` was asked in place of the model."""
    model, has = attributed.model, pl.col(SHARE).is_not_null()
    terms = [name for name in frame.columns if name.startswith(COMPONENT)]
    request = pl.col(REQUEST) if REQUEST in frame.columns else pl.lit(None, dtype=pl.String)
    arm = pl.col(ARM) if ARM in frame.columns else pl.lit(None, dtype=pl.String)
    found = frame.select(
        pl.col(ROW).cast(pl.Int64).alias("row"),
        request.alias(REQUEST),
        BATCH,
        arm.alias(ARM),
        pl.when(has).then("batch_size").cast(pl.Int64),
        "batch_total_wh",
        pl.col(SHARE).alias("this_request_share_wh"),
        pl.when(has).then(_method()).alias("attribution_method"),
        pl.when(pl.col("samples") > 0).then("samples").cast(pl.Int64).alias("shapley_sample_count"),
        pl.when(has).then("std_error").alias("shapley_std_error_wh"),
        pl.lit(game, dtype=pl.String).alias("game"),
        pl.lit(model.name).alias("energy_model"),
        pl.lit(model.sha256).alias("energy_model_sha256"),
        pl.when(has).then(pl.when(pl.col("calibration_factor").is_null()).then(2).otherwise(3)).cast(pl.Int8).alias(
            "tier"
        ),
        "calibration_factor",
        pl.when(has).then(COLD).alias("cold_start_share_wh"),
        ENERGY,
        CARBON,
        pl.col(GRID).alias("grid_g_per_kwh"),
        pl.lit(model.pue).alias("pue"),
        pl.when(has).then(pl.struct(pl.col(name).alias(name.removeprefix(COMPONENT)) for name in terms)).alias(
            "components"
        ),
        pl.lit(seed, dtype=pl.Int64).alias("seed"),
        *(pl.col(rule_column(rule)).alias(f"{rule}_wh") for rule in RULES),
        "leave_one_out_wh",
        pl.col("concurrency").alias("mean_active_requests"),
    )  # fmt: skip
    ids = frame[LABEL] if LABEL in frame.columns else pl.Series([None] * len(frame), dtype=pl.String)
    return found.with_columns(receipt_urls(ids).alias("lineage_url"))


def _method() -> pl.Expr:
    """`attribution.sampling.method_name` of a row."""
    drawn = pl.concat_str(pl.lit(method_name(1).removesuffix("1")), pl.col("samples"))
    return pl.when(pl.col("samples") > 0).then(drawn).otherwise(pl.lit(method_name(0)))


def write_rows(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Frames of one schema as one Parquet file, a row group each."""
    import pyarrow.parquet as pq

    with ExitStack() as open_files:
        writer: Any = None
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = open_files.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)


def _plain(source: Source, column: str) -> pl.Expr:
    """A column of ids in a type of its own: categories as text."""
    categories = source.schema[column] in (pl.Categorical, pl.Enum)
    return pl.col(column).cast(pl.String) if categories else pl.col(column)
