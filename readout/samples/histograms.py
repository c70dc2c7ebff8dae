"""Counts by value bucket, for quantiles that need one pass and bounded memory.

Positive values fall into buckets whose edges grow by a factor, negative ones mirror them, zero has its own.
A bucket remembers the smallest and largest value it met, so a quantile's relative error is below the factor minus
one, and none where a bucket holds a single value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from estimators.quantiles import Histogram
from readout.logs import Logs
from readout.reduce import Table, pilot
from readout.terms import Term

FACTOR = 1.01
WIDTH = math.log(FACTOR)
# Values nearer to zero than this share the bucket of zero.
SMALLEST = 1e-12
# More than the buckets of any finite value on either side of zero, twice.
SPAN = 1 << 18
# Rows from which it pays to look at slices of the log first.
LONG = 1_000_000


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


def tables(terms: Sequence[Term], keys: Mapping[str, pl.Expr], where: pl.Expr) -> list[Table]:
    """Counts by ``keys`` and bucket, one table for the terms of each source."""
    return [_table(term, {**keys, "bucket": bucket(term.num)}, where) for term in {t.source: t for t in terms}.values()]


def packed(terms: Sequence[Term], group: pl.Expr, where: pl.Expr, logs: Logs, *, whole: bool = False) -> list[Table]:
    """As :func:`tables`, for groups that are small whole numbers: packed with the bucket into one integer.

    In a long log only the buckets around the quantiles are told apart, as far as slices of the log show where those
    lie; :func:`missed` says where they did not, and ``whole`` then asks for every bucket.
    """
    found = []
    for source, term in {t.source: t for t in terms}.items():
        number = bucket(term.num)
        if logs.source.rows >= LONG and not whole:
            low, high = _window([t for t in terms if t.source == source], logs)
            number = number.clip(low, high)
        found.append(_table(term, {"packed": group.cast(pl.Int64) * SPAN + number}, where))
    return found


def missed(
    terms: Sequence[Term], reduced: Mapping[str, pl.DataFrame], arm_of: Callable[[pl.Expr], pl.Expr]
) -> list[Term]:
    """The terms whose quantile, in some arm, lies too near the end of the buckets that were told apart."""
    found = []
    for term in terms:
        frame = read(reduced, term).with_columns(arm_of(pl.col("group")).alias("arm"))
        if frame.is_empty():
            continue
        number = pl.col("bucket")
        ends = frame.group_by("arm").agg(
            (pl.col("n").filter(number == frame["bucket"].min()).sum() / pl.col("n").sum()).alias("below"),
            (pl.col("n").filter(number == frame["bucket"].max()).sum() / pl.col("n").sum()).alias("above"),
        )
        level, room = float(term.quantile or 0.5), _room(term) / 2
        low, high = level - room, level + room
        if (low > 0 and (ends["below"] > low).any()) or (high < 1 and (1 - ends["above"] < high).any()):
            found.append(term)
    return found


def _table(term: Term, keys: Mapping[str, pl.Expr], where: pl.Expr) -> Table:
    value = term.num.cast(pl.Float64)
    return Table(
        f"histogram {term.source}",
        keys,
        where,
        minima={"lower": value},
        maxima={"upper": value},
        finite={f"{term.name}|value": term.num},
    )


def _room(term: Term) -> float:
    """How far around its level a quantile's distribution is told apart, as a share of rows."""
    level = float(term.quantile or 0.5)
    return min(0.25, 5 * min(level, 1 - level))


def _window(terms: Sequence[Term], logs: Logs) -> tuple[int | None, int | None]:
    """First and last bucket that these terms need; None: no end."""
    low = min(float(t.quantile or 0.5) - _room(t) for t in terms)
    high = max(float(t.quantile or 0.5) + _room(t) for t in terms)
    number = bucket(terms[0].num)
    seen = pilot(
        logs.frame,
        [number.quantile(max(low, 0.0)).alias("low"), number.quantile(min(high, 1.0)).alias("high")],
        logs.source.rows,
    )
    least, most = seen["low"].min(), seen["high"].max()
    first = int(least) if low > 0 and isinstance(least, float) else None
    last = int(most) if high < 1 and isinstance(most, float) else None
    return first, last


def read(tables: Mapping[str, pl.DataFrame], term: Term) -> pl.DataFrame:
    """The term's histogram table with its keys and ``bucket``."""
    # Rows without a value make a group of their own.
    frame = tables[f"histogram {term.source}"].drop_nulls("upper")
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
