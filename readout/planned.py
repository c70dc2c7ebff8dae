"""The schedule that a spec names, held against the design, and logged blocks held against the schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.inference import EstimationError
from readout.errors import LogError, Problem, SpecError
from readout.logs.treated import arms as arms_of
from readout.mechanisms import Mechanism
from readout.schedules import Schedule, read, redraws, said
from readout.spec.designs import Switchback
from readout.spec.model import Spec
from readout.spec.problems import KeyPath, listing
from readout.text import visible

AT: KeyPath = ("design", "schedule")


@dataclass(frozen=True, slots=True)
class Against:
    """Logged blocks against the planned ones.

    Attributes:
        rows: Rows in planned blocks, after the washout.
        off_rows, off_blocks: Rows and blocks whose arm is not the planned one.
        first: The first such block, in words; empty where there is none.
        unplanned: Logged blocks that are not planned; ``unplanned_rows`` in them.
        absent: Planned blocks without a row, between the window's start and the last logged block.
    """

    rows: int
    off_rows: int
    off_blocks: int
    first: str
    unplanned: int
    unplanned_rows: int
    absent: int


def schedule_of(spec: Spec, clustered: bool) -> Schedule | None:
    """The schedule that the spec names; None where it names none.

    ``clustered``: whether the logs say a row's cluster. Where the file does not record how it was drawn and the spec
    says ``design.assignment``, that is the mechanism.

    Raises:
        LogError: The file is no schedule.
        SpecError: It is one of another design: other blocks, arms, mechanism or split.
    """
    design = spec.design
    if not isinstance(design, Switchback) or design.schedule is None:
        return None
    path = Path(design.schedule)
    try:
        schedule = read(path if path.is_absolute() else spec.base / path)
    except LogError as error:
        problems = [spec.source.problem(AT, f"{visible(p.where)}: {p.message}", p.hint) for p in error.problems]
        raise LogError(problems) from error
    problems = [*_blocks_differ(spec, design, schedule, clustered), *_arms_differ(spec, schedule)]
    if problems:
        raise SpecError(problems)
    if schedule.mechanism is not None or not _is_said(spec, ("design", "assignment")):
        return schedule
    shares = {arm: 1.0 if design.split is None else design.split[arm] for arm in arms_of(spec)}
    try:
        return replace(schedule, mechanism=Mechanism(design.assignment, shares, None, schedule.together))
    except ValueError as error:
        raise SpecError([spec.source.problem(("design", "assignment"), str(error))]) from error


def against(schedule: Schedule, cells: pl.DataFrame, labels: Sequence[str], start: datetime | None) -> Against:
    """Holds logged cells against the schedule.

    Args:
        schedule: The planned blocks.
        cells: ``cluster``, ``block`` (start, microseconds since 1970), ``arm`` (code), ``n`` (rows).
        labels: Arms by code.
        start: Of the window; planned blocks before it do not count.
    """
    code = {arm: i for i, arm in enumerate(labels)}
    planned = pl.col("arm").replace_strict(code, return_dtype=pl.Int8).alias("planned")
    plan, keys = schedule.blocks.select(*_keyed(schedule), planned), _keys(schedule)
    met = cells.join(plan, on=keys, how="left").with_columns(off=pl.col("arm").cast(pl.Int8) != pl.col("planned"))
    inside = met.filter(pl.col("planned").is_not_null())
    outside = met.filter(pl.col("planned").is_null())
    off = inside.filter("off").sort("block", "cluster", "arm")
    last = cells["block"].max()
    due = plan.filter(pl.col("block") <= last)
    if start is not None:
        due = due.filter(pl.col("block") >= int(start.timestamp()) * 1_000_000)
    return Against(
        rows=int(inside["n"].sum()),
        off_rows=int(off["n"].sum()),
        off_blocks=off.select("block", "cluster").n_unique() if len(off) else 0,
        first=_deviation(off.row(0, named=True), labels) if len(off) else "",
        unplanned=outside.select("block", "cluster").n_unique() if len(outside) else 0,
        unplanned_rows=int(outside["n"].sum()),
        absent=due.join(cells, on=keys, how="anti").height,
    )


def redrawn(schedule: Schedule | None, cells: pl.DataFrame, treated: str, n: int, seed: int) -> NDArray[np.int8]:
    """``(n, n_cells)`` whether each of ``cells`` (``cluster``, ``block``) is treated under other schedules.

    Raises:
        EstimationError: No schedule, none that says how it was drawn, several treatments, or a cell not planned.
    """
    if schedule is None or schedule.mechanism is None:
        raise EstimationError("nothing says how the blocks were drawn: name a schedule or say design.assignment")
    if len(schedule.mechanism.arms) > 2:
        raise EstimationError("schedules of several treatments are not drawn anew for one of them")
    plan = schedule.blocks.with_row_index("place").select(*_keyed(schedule), "place")
    place = cells.join(plan, on=_keys(schedule), how="left", maintain_order="left")["place"]
    if missing := place.null_count():
        raise EstimationError(f"{missing:,} logged blocks are not in the schedule, so it cannot be drawn anew for them")
    code = schedule.mechanism.arms.index(treated)
    return np.asarray(redraws(schedule, n, seed)[:, place.to_numpy()] == code, dtype=np.int8)


def _keys(schedule: Schedule) -> list[str]:
    """How logged cells meet planned blocks: by time alone where a block is everybody's."""
    return ["block"] if schedule.clusters == ("",) else ["block", "cluster"]


def _keyed(schedule: Schedule) -> list[pl.Expr]:
    start = pl.col("start").dt.epoch("us").alias("block")
    return [start, *(pl.col(key) for key in _keys(schedule)[1:])]


def _deviation(cell: Mapping[str, Any], labels: Sequence[str]) -> str:
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=cell["block"])
    planned, logged = (visible(repr(labels[cell[name]]), 60) for name in ("planned", "arm"))
    return f"{said({'start': start, 'cluster': cell['cluster']})}, planned {planned}, logged {logged}"


def _blocks_differ(spec: Spec, design: Switchback, schedule: Schedule, clustered: bool) -> list[Problem]:
    length, found = design.block.length, []
    if length is None:
        message = "needs blocks of a stated length, not a block column"
        return [spec.source.problem(AT, message, "give `block: {length: 2h}`")]
    if schedule.length not in (None, length) or (
        schedule.length is not None and schedule.offset != design.block.offset
    ):
        theirs = f"{_hours(schedule.length)} with an offset of {_hours(schedule.offset)}"
        message = f"is of blocks of {theirs}; design.block says {_hours(length)} and {_hours(design.block.offset)}"
        found.append(spec.source.problem(AT, message))
    size = length // timedelta(microseconds=1)
    since = pl.col("start").dt.epoch("us") - design.block.offset // timedelta(microseconds=1)
    if not found and len(off := schedule.blocks.filter(since % size != 0)):
        first = said(off.row(0, named=True))
        message = f"{len(off):,} blocks do not start where design.block does, the first of them {first}"
        found.append(spec.source.problem(AT, message))
    if schedule.clusters != ("",):
        if not clustered:
            hint = "map the role in logs.columns"
            found.append(spec.source.problem(AT, "plans clusters apart, and the logs have no role 'cluster'", hint))
        elif "" in schedule.clusters:
            found.append(spec.source.problem(AT, "some blocks are of a cluster and others are not"))
    return found


def _arms_differ(spec: Spec, schedule: Schedule) -> list[Problem]:
    arms, design = list(arms_of(spec)), spec.design
    assert isinstance(design, Switchback)
    found = []
    if unknown := sorted(set(schedule.blocks["arm"]) - set(arms)):
        shown = ", ".join(repr(visible(arm, 40)) for arm in unknown[:10])
        found.append(
            spec.source.problem(AT, f"plans the arm {shown}, which the design does not name", f"arms: {listing(arms)}")
        )
    how = schedule.mechanism
    if how is None or found:
        return found
    at: KeyPath = ("design", "assignment")
    if _is_said(spec, at) and how.kind != design.assignment:
        hint = "leave design.assignment out: the schedule records how it was drawn"
        found.append(spec.source.problem(at, f"the schedule was drawn as {how.kind}", hint))
    if design.split is not None:
        total = sum(design.split.values())
        apart = [a for a in arms if abs(design.split[a] / total - how.split.get(a, 0.0)) > 1e-6]
        if apart:
            shares = ", ".join(f"{visible(a, 40)} {how.split.get(a, 0.0):.4g}" for a in arms)
            found.append(spec.source.problem(("design", "split"), f"the schedule was drawn with {shares}", on_key=True))
    return found


def _is_said(spec: Spec, path: KeyPath) -> bool:
    """Whether the spec or ``--set`` gives a value that has a default."""
    return path in spec.source.marks or any(path[: len(given)] == given for given in spec.source.overridden)


def _hours(value: timedelta | None) -> str:
    minutes = 0 if value is None else value // timedelta(minutes=1)
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"
