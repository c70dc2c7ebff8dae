"""Schedules of a switchback: which arm each block of time was to have, how it was drawn, and the file that says so.

A file has the columns ``start`` (UTC), ``arm`` and, where clusters switch apart, ``cluster``; other columns are left
alone. Block length and mechanism travel with it as JSON: in a Parquet file's metadata under ``readout.schedule``, in a
CSV file in a first line ``# mechanism: {…}``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from readout.errors import LogError, Problem
from readout.logs.values import label, to_utc
from readout.mechanisms import Arms, Mechanism, draws
from readout.text import visible

METADATA = "readout.schedule"
COMMENT = "# mechanism:"
FORMAT = 1
CSV = (".csv", ".txt")
_START = pl.Datetime("us", "UTC")
_MOST = 10  # names in one message
_EXAMPLE = "2026-10-05T00:00Z"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The planned arm of every block.

    Attributes:
        blocks: ``start`` (UTC), ``cluster`` (empty: all clusters), ``arm``; sorted by start, then cluster.
        length: Of a block; None where the file does not say.
        offset: Shift of the first block from 00:00 UTC.
        mechanism: How the arms were drawn; None where the file does not say.
    """

    blocks: pl.DataFrame
    length: timedelta | None = None
    offset: timedelta = timedelta(0)
    mechanism: Mechanism | None = None

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters by name; one empty name where a block is everybody's."""
        return tuple(self.blocks["cluster"].unique().sort())

    @property
    def together(self) -> bool:
        """Whether all clusters hold one arm at a time; where a block is everybody's, they do."""
        if self.mechanism is not None:
            return self.mechanism.together or self.clusters == ("",)
        by_start = self.blocks.group_by("start").agg(pl.col("arm").n_unique())
        return bool((by_start["arm"] == 1).all())

    @property
    def codes(self) -> Arms:
        """``(n_blocks,)`` arms as places in ``mechanism.arms``."""
        assert self.mechanism is not None
        place = {arm: code for code, arm in enumerate(self.mechanism.arms)}
        return np.array([place[arm] for arm in self.blocks["arm"]], np.int8)


def draw(
    mechanism: Mechanism,
    first: datetime,
    last: datetime,
    length: timedelta,
    *,
    offset: timedelta = timedelta(0),
    clusters: Sequence[str] = (),
) -> Schedule:
    """Draws a schedule from ``mechanism.seed``.

    Args:
        mechanism: How; its seed must be known.
        first, last: The blocks that start in ``[first, last)`` are planned; whole blocks, from 00:00 UTC plus offset.
        length: Of a block; it divides 24 h or is whole days.
        offset: Shift from 00:00 UTC.
        clusters: Names; none: a block is everybody's.

    Raises:
        ValueError: A mechanism without a seed, or no block that fits.
    """
    if mechanism.seed is None:
        raise ValueError("a schedule is drawn from a seed")
    size, shift = _us(length), _us(offset)
    begin, end = (_us(t.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) for t in (first, last))
    starts = np.arange(-(-(begin - shift) // size), -(-(end - shift) // size)) * size + shift
    if not len(starts):
        raise ValueError("no block starts in the time that is planned")
    names = sorted(set(clusters)) or [""]
    blocks = pl.DataFrame({"start": np.repeat(starts, len(names)), "cluster": names * len(starts)})
    blocks = blocks.with_columns(pl.col("start").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    arms = draws(mechanism, *_places(blocks), 1, np.random.default_rng([0, mechanism.seed]))[0]
    named = pl.Series("arm", [mechanism.arms[code] for code in arms], dtype=pl.String)
    return Schedule(blocks.with_columns(named), length, offset, mechanism)


def redraws(schedule: Schedule, n: int, seed: int) -> Arms:
    """``(n, n_blocks)`` arms (places in ``mechanism.arms``) of ``n`` other schedules that the mechanism might have
    drawn, in the order of ``schedule.blocks``.

    Raises:
        ValueError: The schedule records no mechanism.
    """
    if schedule.mechanism is None:
        raise ValueError("the schedule does not record how it was drawn")
    return draws(schedule.mechanism, *_places(schedule.blocks), n, np.random.default_rng([1, seed]))


def to_bytes(schedule: Schedule, suffix: str = ".parquet") -> bytes:
    """The schedule as a file's content, with its mechanism: Parquet, or CSV for ``.csv``."""
    said = json.dumps(_recorded(schedule), sort_keys=True)
    out = io.BytesIO()
    if suffix.lower() in CSV:
        out.write(f"{COMMENT} {said}\n".encode())
        schedule.blocks.write_csv(out, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        schedule.blocks.write_parquet(out, metadata={METADATA: said})
    return out.getvalue()


def write(schedule: Schedule, path: Path) -> None:
    """Writes the schedule as the kind of file that ``path`` ends with."""
    path.write_bytes(to_bytes(schedule, path.suffix))


def read(path: Path) -> Schedule:
    """Reads a schedule from Parquet or CSV.

    Raises:
        LogError: Nothing to read, missing columns, starts that are no times, blocks without an arm or planned twice,
            starts off the recorded grid, or a record that cannot be understood; all of it at once.
    """
    where = visible(str(path))
    try:
        frame, record = _open(path)
    except FileNotFoundError:
        raise LogError([Problem(where, "no such file", "a schedule is a Parquet or CSV file")]) from None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = visible(str(error).partition("\n")[0], 200)
        raise LogError([Problem(where, f"cannot be read as a schedule: {reason}")]) from error
    problems: list[Problem] = []
    recorded = _understand(record, where, problems)
    blocks = _blocks(frame, where, problems)
    if not problems:
        problems += _faults(blocks, where, Schedule(blocks, *recorded))
    if problems:
        raise LogError(problems)
    return Schedule(blocks.sort("start", "cluster"), *recorded)


def _open(path: Path) -> tuple[pl.DataFrame, str | None]:
    if path.suffix.lower() in CSV:
        text = path.read_text(encoding="utf-8-sig")
        first, _, rest = text.partition("\n")
        said = first.removeprefix(COMMENT).strip() if first.startswith(COMMENT) else None
        content = (rest if said is not None else text).encode()
        return pl.read_csv(io.BytesIO(content), infer_schema=False, comment_prefix="#"), said
    content = path.read_bytes()
    return pl.read_parquet(io.BytesIO(content)), pl.read_parquet_metadata(io.BytesIO(content)).get(METADATA)


def _blocks(frame: pl.DataFrame, where: str, problems: list[Problem]) -> pl.DataFrame:
    """The file's columns as a schedule's; what is wrong with them goes to ``problems``."""
    if lacking := [name for name in ("start", "arm") if name not in frame.columns]:
        has = visible(", ".join(frame.columns), 200)
        hint = f"columns of a schedule: start, arm, and cluster where clusters switch apart; the file has: {has}"
        problems += [Problem(where, f"has no column {name!r}", hint) for name in lacking]
        return frame
    if frame.is_empty():
        problems.append(Problem(where, "holds no block"))
        return frame
    for name in ("start", "arm"):
        if n := int(frame[name].null_count()):
            problems.append(Problem(where, f"{n:,} of {len(frame):,} rows have no {name}"))
    if frame.schema["start"] == pl.String:
        frame = frame.with_columns(_times(frame["start"], where, problems))
    dtype = frame.schema["start"]
    if not isinstance(dtype, pl.Datetime | pl.Date):
        problems.append(Problem(where, f"column 'start' is {dtype}; expected times in UTC"))
        return frame
    named = "cluster" in frame.columns
    cluster = label(pl.col("cluster"), frame.schema["cluster"]).fill_null("") if named else pl.lit("")
    arm = label(pl.col("arm"), frame.schema["arm"])
    return frame.select(
        to_utc(pl.col("start"), dtype, "UTC").alias("start"), cluster.alias("cluster"), arm.alias("arm")
    )


def _times(texts: pl.Series, where: str, problems: list[Problem]) -> pl.Series:
    """Times of a text column; the first that is none is said."""
    found: list[datetime | None] = []
    for row, text in enumerate(texts, start=1):
        try:
            time = None if text is None else datetime.fromisoformat(text)
        except ValueError:
            shown = visible(repr(text), 60)
            problems.append(Problem(where, f"start of row {row:,}: expected a time such as {_EXAMPLE}, got {shown}"))
            break
        found.append(time if time is None or time.tzinfo else time.replace(tzinfo=UTC))
    found += [None] * (len(texts) - len(found))
    return pl.Series("start", found, dtype=_START)


def _faults(blocks: pl.DataFrame, where: str, made: Schedule) -> list[Problem]:
    """What is wrong with blocks that can be read."""
    found = []
    twice = blocks.filter(pl.struct("start", "cluster").is_duplicated()).sort("start", "cluster")
    if len(twice):
        n = twice.select("start", "cluster").n_unique()
        found.append(
            Problem(
                where, f"plans {_blocks_said(n)} more than once, the first of them {said(twice.row(0, named=True))}"
            )
        )
    if made.length is not None:
        since = pl.col("start").dt.epoch("us") - _us(made.offset)
        off = blocks.filter(since % _us(made.length) != 0).sort("start", "cluster")
        if len(off):
            first = said(off.row(0, named=True))
            found.append(Problem(where, f"{_blocks_said(len(off))} off the recorded grid, the first of them {first}"))
    if made.mechanism is not None:
        others = sorted(set(blocks["arm"].drop_nulls()) - set(made.mechanism.arms))
        if others:
            shown = ", ".join(repr(visible(arm, 40)) for arm in others[:_MOST])
            found.append(Problem(where, f"the recorded mechanism does not name the arm {shown}"))
        by_start = blocks.group_by("start").agg(pl.col("arm").n_unique())
        if made.mechanism.together and (by_start["arm"] > 1).any():
            found.append(Problem(where, "records that all clusters switch together, and blocks hold two arms"))
    return found


def said(block: Mapping[str, Any]) -> str:
    """A block as a message names it: ``2026-10-05T02:00Z in 'eu'``."""
    where = f" in {visible(block['cluster'], 60)!r}" if block["cluster"] else ""
    return f"{block['start']:%Y-%m-%dT%H:%MZ}{where}"


def _recorded(schedule: Schedule) -> dict[str, Any]:
    record: dict[str, Any] = {"version": FORMAT, "offset_seconds": schedule.offset.total_seconds()}
    if schedule.length is not None:
        record["length_seconds"] = schedule.length.total_seconds()
    if (how := schedule.mechanism) is not None:
        record |= {"kind": how.kind, "arms": list(how.arms), "shares": list(how.split.values())}
        record |= {"together": how.together, "seed": how.seed}
    return record


def _understand(
    said: str | None, where: str, problems: list[Problem]
) -> tuple[timedelta | None, timedelta, Mechanism | None]:
    """Length, offset and mechanism from the record."""
    nothing = (None, timedelta(0), None)
    if said is None:
        return nothing
    try:
        record = json.loads(said)
        if record["version"] != FORMAT:
            raise ValueError(f"version {record['version']!r}")
        length = timedelta(seconds=float(record["length_seconds"])) if "length_seconds" in record else None
        if length is not None and length <= timedelta(0):
            raise ValueError("a length of nothing")
        offset = timedelta(seconds=float(record.get("offset_seconds", 0)))
        if "kind" not in record:
            return length, offset, None
        split = dict(zip(map(str, record["arms"]), map(float, record["shares"]), strict=True))
        seed = record.get("seed")
        how = Mechanism(record["kind"], split, None if seed is None else int(seed), bool(record.get("together", False)))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        hint = "write schedules with `readout plan`, or take the record out and say design.assignment"
        why = f"lacks {error}" if isinstance(error, KeyError) else visible(str(error), 120)
        problems.append(Problem(where, f"its record of the mechanism cannot be understood: {why}", hint))
        return nothing
    return length, offset, how


def _blocks_said(n: int) -> str:
    return f"{n:,} block{'s' * (n != 1)}"


def _places(blocks: pl.DataFrame) -> tuple[NDArray[np.datetime64], NDArray[np.intp]]:
    starts = blocks["start"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    return starts, blocks["cluster"].rank("dense").cast(pl.Int64).to_numpy().astype(np.intp) - 1


def _us(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
