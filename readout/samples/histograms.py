"""Counts by value bucket, for quantiles that need one pass and bounded memory.

Positive values fall into buckets whose edges grow by a factor, negative ones mirror them, zero has its own.
A bucket remembers the smallest and largest value it met, so a quantile's relative error is below the factor minus
one, and none where a bucket holds a single value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from estimators.quantiles import Histogram
from readout.reduce import Table
from readout.terms import Term

FACTOR = 1.01
WIDTH = math.log(FACTOR)
# Values nearer to zero than this share the bucket of zero.
SMALLEST = 1e-12
# More than the buckets of any finite value on either side of zero, twice.
SPAN = 1 << 18


def bucket(value: pl.Expr) -> pl.Expr:
    """The bucket's number, ordered as the values are."""
    value = value.cast(pl.Float64)
    size = (value.abs().clip(lower_bound=SMALLEST).log() - math.log(SMALLEST)) / WIDTH
    # NaN and infinity have no bucket; the table's ``finite`` finds them.
    place = size.floor().cast(pl.Int32, strict=False) + 1
    return (
        pl.when(value.abs() < SMALLEST)
        .then(pl.lit(0, dtype=pl.Int32))
        .otherwise(place * value.sign().cast(pl.Int32, strict=False))
    )


def table(term: Term, keys: Mapping[str, pl.Expr], where: pl.Expr) -> Table:
    """Counts of a term's values by ``keys`` and bucket.

    A single key ``group`` of small whole numbers is packed with the bucket into one integer, which groups faster.
    """
    value = term.num.cast(pl.Float64)
    packed = [*keys] == ["group"]
    return Table(
        f"histogram {term.source}",
        {"packed": keys["group"].cast(pl.Int64) * SPAN + bucket(term.num)}
        if packed
        else {**keys, "bucket": bucket(term.num)},
        where=where & term.num.is_not_null(),
        minima={"lower": value},
        maxima={"upper": value},
        finite={f"{term.name}|value": value},
    )


def read(tables: Mapping[str, pl.DataFrame], term: Term) -> pl.DataFrame:
    """The term's histogram table with its keys and ``bucket``."""
    frame = tables[f"histogram {term.source}"]
    if "packed" not in frame.columns:
        return frame
    group = (pl.col("packed") + SPAN // 2).floordiv(SPAN)
    return frame.with_columns(group.alias("group"), (pl.col("packed") - group * SPAN).alias("bucket"))


def edges(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buckets met anywhere in the table: their numbers, lower and upper edges, sorted by value."""
    both = frame.group_by("bucket").agg(pl.col("lower").min(), pl.col("upper").max()).sort("bucket")
    return both["bucket"].to_numpy(), both["lower"].to_numpy(), both["upper"].to_numpy()


def dense(frame: pl.DataFrame, group: np.ndarray, groups: int) -> Histogram:
    """A histogram with one row of counts a group.

    Args:
        frame: A histogram table.
        group: Row of counts for each row of ``frame``; negative: left out.
        groups: Number of groups.
    """
    numbers, lower, upper = edges(frame)
    place = np.searchsorted(numbers, frame["bucket"].to_numpy())
    counts = np.zeros((groups, len(numbers)), dtype=np.int64)
    keep = group >= 0
    np.add.at(counts, (group[keep], place[keep]), frame["n"].to_numpy()[keep])
    return Histogram(lower, upper, counts)
