"""Observations that do not change once they are in: units whose exposure is over, blocks that have ended.

A unit counts when ``decision.exposure`` has passed since its first moment (its assignment where that is logged, else
its first row in the window), and only with its rows inside that time. A block counts when it has ended. What is left
out of the estimates stays in the log's checks: assignment, execution and rollback triggers see every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.frame import AFTER_AS_OF, NO_TIME, REASONS
from readout.logs.treated import arms
from readout.reduce import Table, collect
from readout.samples import Blocks, Clusters, Sample, Units
from readout.samples.base import KEPT
from readout.samples.clusters import ITS_ARM
from readout.spec.designs import Switchback
from readout.spec.model import Spec
from readout.terms import UNIT_LEVEL

# Why a row does not count; its place here is its code in the column ``@wait``.
INCOMPLETE, AFTER, UNFINISHED = "exposure not complete", "after the {}'s exposure", "block not finished"
WAIT, WAITING, RUNNING = "@wait", "rows that do not count yet", "blocks that have not ended"
COUNTS = pl.col(WAIT).is_null()
ELIGIBLE = "eligible"
# Where the window is over, its last block has ended if the logs reach this part of it.
LAST_PART = 1 / 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Observed:
    """What of the logs counts at this look.

    Attributes:
        logs: The logs; with the column ``@wait`` where some rows may not count, null: counts.
        until: The end of observation, None where nothing waits for it.
        what: What an observation is of: ``unit``, ``request``, ``cluster``, ``row`` or ``block``; empty: as it is.
        units: Those met so far by arm, complete or not; None where they are not waited for.
    """

    logs: Logs
    until: datetime | None = None
    what: str = ""
    units: tuple[int, ...] | None = None

    def of(self, tables: Sequence[Table]) -> list[Table]:
        """A sample's tables, of what counts."""
        if not self.what:
            return list(tables)
        return [replace(t, where=COUNTS if t.where is None else t.where & COUNTS) for t in tables]

    def tables(self, spec: Spec) -> list[Table]:
        """Counts of what does not count yet."""
        if not self.what:
            return []
        sums = {}
        if spec.design.kind in UNIT_LEVEL and self.logs.has("eligible"):
            # Rows that are not eligible are left out as that already.
            sums[ELIGIBLE] = pl.col("@eligible").fill_null(False).cast(pl.Int8)
        found = [Table(WAITING, {"wait": pl.col(WAIT)}, KEPT & ~COUNTS, sums=sums)]
        if self.what == "block":
            cluster = pl.col("@cluster").cast(pl.String) if self.logs.has("cluster") else pl.lit("")
            found.append(Table(RUNNING, {"cluster": cluster, "arm": pl.col("@arm_code")}, KEPT & ~COUNTS))
        return found

    def left_out(self, reduced: Mapping[str, pl.DataFrame]) -> dict[str, int]:
        """Rows that do not count, by reason."""
        if not self.what:
            return {}
        frame = reduced[WAITING]
        n = ELIGIBLE if ELIGIBLE in frame.columns else "n"
        reasons = (INCOMPLETE, AFTER.format(self.what), UNFINISHED)
        return {reasons[row["wait"]]: int(row[n]) for row in frame.iter_rows(named=True) if row[n]}

    def met(self, sample: Sample, reduced: Mapping[str, pl.DataFrame]) -> tuple[int, ...] | None:
        """Independent assignments by arm so far, complete or not; None: those of the sample."""
        if not isinstance(sample, Blocks) or RUNNING not in reduced:
            return self.units
        # One block of each cluster is running, or one of them all; it is of the arm that most of its rows carry.
        by = [] if sample.together else ["cluster"]
        whole = reduced[RUNNING].group_by(*by, "arm").agg(pl.col("n").sum()).sort("n", "arm", descending=[True, False])
        running = (whole.unique(by, keep="first", maintain_order=True) if by else whole.head(1))["arm"].to_numpy()
        counts = np.array(sample.counts())
        return tuple(int(n) for n in counts + np.bincount(running, minlength=len(counts)))


def observe(spec: Spec, logs: Logs, sample: Sample, as_of: datetime) -> Observed:
    """What counts at ``as_of``: one more, narrow pass over the logs where units must be waited for.

    Raises:
        SpecError: Sequential looks at units that may still change, without ``decision.exposure``.
        LogError: An exposure without a column of times.
    """
    sequential, exposure = spec.decision.looks == "sequential", spec.decision.exposure
    if sequential and logs.has("time"):
        after = pl.col("@time") >= as_of
        logs = _dropping(logs, after, AFTER_AS_OF)
    if isinstance(spec.design, Switchback):
        return _blocks(spec.design, logs, as_of) if sequential else Observed(logs)
    role = sample.unit if isinstance(sample, Units | Clusters) else ""
    if exposure is None:
        if sequential and role and (role != "unit" or _repeated(logs)):
            raise SpecError([spec.source.problem(("decision", "exposure"), *_unstated(role))])
        return Observed(logs)
    if not logs.has("time"):
        message = "decision.exposure needs a column for the role 'time'"
        raise LogError([spec.source.problem(("logs", "columns", "time"), message)])
    logs = _dropping(logs, pl.col("@time").is_null(), NO_TIME)
    return _units(logs, role, exposure, as_of) if role else _rows(logs, exposure, as_of)


def _unstated(role: str) -> tuple[str, str]:
    if role == "request":
        why = "request ids stand on several rows, so a request may still gain some"
        return f"needed for sequential looks: {why}", "the longest time from first to last try, such as exposure: 10m"
    why = f"a {role} that still gains rows changes after it was looked at"
    return f"needed for sequential looks: {why}", f"how long each {role} is observed, such as exposure: 7d"


def _dropping(logs: Logs, test: pl.Expr, reason: str) -> Logs:
    """The logs without the rows of a further reason."""
    drop = pl.when(KEPT & test).then(pl.lit(REASONS.index(reason), dtype=pl.Int8)).otherwise(pl.col("@drop"))
    return replace(logs, frame=logs.frame.with_columns(drop.alias("@drop")))


def _repeated(logs: Logs) -> bool:
    """Whether some unit stands on several rows."""
    rows = logs.frame.filter(KEPT).group_by(pl.col("@unit").hash(0).alias("unit")).agg(pl.len().alias("n"))
    most = collect([rows.select(pl.col("n").max())])[0].item()
    return most is not None and int(most) > 1


def _first(logs: Logs) -> pl.Expr:
    """A row's first moment: its assignment where that is logged."""
    return pl.coalesce("@assigned_at", "@time") if logs.has("assigned_at") else pl.col("@time")


def _until(logs: Logs, as_of: datetime, last: datetime | None) -> datetime:
    """The end of observation: of the window, of the look or of the logs, whichever is first."""
    return min(t for t in (logs.times[1], as_of.astimezone(UTC), last) if t is not None)


def _units(logs: Logs, role: str, exposure: timedelta, as_of: datetime) -> Observed:
    key = pl.col(f"@{role}") if role != "cluster" else pl.col("@cluster").cast(pl.String)
    begins = pl.col("@assigned_at").min() if logs.has("assigned_at") else pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    met = logs.frame.filter(KEPT & key.is_not_null()).group_by(key.hash(0).alias("@key"), pl.col("@arm_code"))
    by_arm = collect(
        [met.agg(begins.alias("assigned"), time=pl.col("@time").min(), last=pl.col("@time").max(), n=pl.len())]
    )[0]
    units = by_arm.group_by("@key").agg(
        pl.coalesce(pl.col("assigned").min(), pl.col("time").min()).alias("first"),
        pl.col("@arm_code").sort_by("n", "@arm_code", descending=[True, False]).first().alias("arm"),
        most=pl.col("n").max(),
        all=pl.col("n").sum(),
    )
    until = _until(logs, as_of, by_arm["last"].max())  # type: ignore[arg-type]
    whole = units.filter(pl.col("most") >= (ITS_ARM if role == "cluster" else 1.0) * pl.col("all"))
    ends = units.select("@key", (pl.col("first") + exposure).alias("@exposed until")).lazy()
    # In the order of the rows: pilots read slices of the log.
    frame = logs.frame.with_columns(key.hash(0).alias("@key"))
    frame = frame.join(ends, on="@key", how="left", maintain_order="left").drop("@key")
    wait = _wait((pl.col("@exposed until") > until, 0), (pl.col("@time") >= pl.col("@exposed until"), 1))
    logs = replace(logs, frame=frame.with_columns(wait).drop("@exposed until"))
    counts = np.bincount(whole["arm"].to_numpy(), minlength=len(arms(logs.expressions.spec)))
    return Observed(logs, until, role, tuple(int(n) for n in counts))


def _rows(logs: Logs, exposure: timedelta, as_of: datetime) -> Observed:
    """Each row an observation of its own."""
    by_arm = logs.frame.filter(KEPT).group_by("@arm_code").agg(n=pl.len(), last=pl.col("@time").max())
    found = collect([by_arm])[0]
    until = _until(logs, as_of, found["last"].max())  # type: ignore[arg-type]
    wait = _wait((_first(logs) + exposure > until, 0))
    n = dict(zip(found["@arm_code"].to_list(), found["n"].to_list(), strict=True))
    counts = tuple(int(n.get(code, 0)) for code in range(len(arms(logs.expressions.spec))))
    return Observed(replace(logs, frame=logs.frame.with_columns(wait)), until, "row", counts)


def _blocks(design: Switchback, logs: Logs, as_of: datetime) -> Observed:
    """Blocks end where the logs reach the next one, and at the end of a window that is over."""
    length = design.block.length
    assert length is not None
    last = collect([logs.frame.filter(KEPT).select(pl.col("@time").max())])[0].item()
    if last is None:
        return Observed(logs)
    offset = EPOCH + design.block.offset
    end = logs.times[1]
    if end is not None and end <= as_of and end - last <= length * LAST_PART:
        last = end
    until = last - (last - offset) % length
    wait = _wait((pl.col("@time") >= until, 2))
    return Observed(replace(logs, frame=logs.frame.with_columns(wait)), until, "block")


def _wait(*reasons: tuple[pl.Expr, int]) -> pl.Expr:
    """The first reason that holds, as the column ``@wait``."""
    wait: pl.Expr = pl.lit(None, dtype=pl.Int8)
    for test, code in reversed(reasons):
        wait = pl.when(test).then(pl.lit(code, dtype=pl.Int8)).otherwise(wait)
    return wait.alias(WAIT)
