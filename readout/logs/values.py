"""Values of a column as labels and as times."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def label(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Values as labels: strings as they are, whole numbers as integers, booleans as true and false; NaN is null."""
    if dtype == pl.String:
        return expr
    if dtype.is_float() or dtype.is_decimal():
        expr = expr.cast(pl.Float64).fill_nan(None)
        whole = expr.is_finite() & (expr == expr.floor()) & (expr.abs() < 2**53)
        return pl.when(whole).then(expr.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(expr.cast(pl.String))
    return expr.cast(pl.String)


def coded(text: pl.Expr, names: Sequence[str], other: int | None = None) -> pl.Expr:
    """Where each label stands in ``names``; ``other`` (None: null) where it is none of them, or null.

    A row at a time: replacing by a table would hold the whole column in memory where it feeds a sum.
    """
    code = text.cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int32)
    return code if other is None else code.fill_null(other)


def to_utc(expr: pl.Expr, dtype: pl.DataType, timezone: str) -> pl.Expr:
    """A timestamp or date column as UTC microseconds; without a zone it is read in ``timezone``."""
    if dtype == pl.Date:
        expr, dtype = expr.cast(pl.Datetime("us")), pl.Datetime("us")
    assert isinstance(dtype, pl.Datetime)
    if dtype.time_zone is None:
        expr = expr.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    return expr.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
