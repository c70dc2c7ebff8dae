"""The first and the last moment of the kept rows, which say what a readout without a window speaks of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from readout.evidence import Evidence
from readout.logs import Logs
from readout.logs.frame import Moment
from readout.reduce import Table
from readout.samples.base import KEPT

NAME = "span"


def tables(logs: Logs) -> list[Table]:
    """First and last time in microseconds since 1970; nothing without a column of times, or with one of periods."""
    if not logs.has("time") or not logs.dtype(str(logs.columns["time"])).is_temporal():
        return []
    at = pl.col("@time").dt.epoch("us")
    return [Table(NAME, {}, KEPT & at.is_not_null(), minima={"first": at}, maxima={"last": at})]


def window(evidence: Evidence) -> dict[str, str | None]:
    """``start`` and ``end`` as the spec states them, ``first`` and ``last`` of the kept rows; periods as they are."""
    stated = dict(zip(("start", "end"), evidence.logs.window, strict=True))
    seen = evidence.tables.get(NAME)
    met = {end: None if seen is None or not len(seen) else _moment(seen[end][0]) for end in ("first", "last")}
    return {name: None if at is None else _text(at) for name, at in {**stated, **met}.items()}


def _text(at: Moment) -> str:
    return at.isoformat() if isinstance(at, datetime) else str(at)


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
