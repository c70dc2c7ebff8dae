"""The levels of the spec's segments: found before the pass, and refused where they could not be acted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from readout.controls import by_name, decided_after, declared
from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.logs.values import label
from readout.reduce import collect, pilot
from readout.samples.base import KEPT
from readout.spec.fields import Effect
from readout.spec.metrics import Metric, Segment
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import OF_ELIGIBLE
from readout.text import visible

# More levels than a decision is made over.
MOST = 30
# Designs in which live state is downstream of earlier treatment.
STATE_FOLLOWS = ("switchback", "cluster_rct")
LIVE_STATE = "live state, downstream of earlier treatment in this design: descriptive, nobody can be picked by it"


@dataclass(frozen=True, slots=True)
class Level:
    """Rows that belong together.

    Attributes:
        label: What the memo calls it.
        rows: Whether a row belongs to it; never null.
        n: Kept rows that do.
        margins: Margins of guardrails that are stricter here, by metric.
    """

    label: str
    rows: pl.Expr
    n: int
    margins: Mapping[str, Effect] = field(default_factory=dict)

    def here(self, metric: Metric) -> Metric:
        """The metric with the margin that holds here."""
        margin = self.margins.get(metric.name)
        return metric if margin is None else replace(metric, margin=margin)


@dataclass(frozen=True, slots=True)
class Group:
    """One segment of the spec: levels of which no row has two.

    Attributes:
        name: As the spec has it.
        levels: In the order of their labels; of a condition, the rows where it holds and then the others.
        n_null: Kept rows of no level.
        descriptive: Why nobody can be picked by it, in words; empty where they can.
        where: Whether it is a condition: its levels then speak for themselves.
    """

    name: str
    levels: tuple[Level, ...]
    n_null: int = 0
    descriptive: str = ""
    where: bool = False

    def said(self, level: str) -> str:
        """A level as a sentence names it."""
        if self.where:
            return level
        return f"{self.name} = {level if level.strip() == level and level else repr(level)}"


@dataclass(frozen=True, slots=True)
class Groups:
    """All segments of a spec; ``middle`` is halfway through the window, None where the log has no times."""

    all: tuple[Group, ...] = ()
    middle: datetime | None = None


def find(spec: Spec, logs: Logs) -> Groups:
    """The levels of every segment, by one light query over the log.

    Raises:
        SpecError: A segment that stands after the decision, or that has more levels than a decision is made over.
        LogError: A column that the log does not have or that has no levels.
    """
    if not spec.segments:
        return Groups()
    values = [_value(segment, index, logs) for index, segment in enumerate(spec.segments)]
    _refuse(spec, _later(spec, logs, values))
    _refuse(spec, _endless(spec, logs, values))
    kept = logs.frame.filter(KEPT)
    if spec.design.kind in OF_ELIGIBLE and logs.has("eligible"):
        kept = kept.filter(pl.col("@eligible").fill_null(False))
    queries = [kept.group_by(value.alias("level")).agg(pl.len().alias("n")) for value in values]
    if logs.has("time"):
        queries.append(kept.select(first=pl.col("@time").min(), last=pl.col("@time").max()))
    found = collect(queries)
    groups = [
        _group(spec, logs, segment, value, counts)
        for segment, value, counts in zip(spec.segments, values, found, strict=False)
    ]
    _refuse(
        spec,
        (
            (i, f"{len(group.levels):,} levels are more than a decision is made over ({MOST})", NAME_SOME)
            for i, group in enumerate(groups)
            if len(group.levels) > MOST
        ),
    )
    return Groups(tuple(groups), _middle(logs, found[-1]) if logs.has("time") else None)


MOVED = "the action may move it, and with it who is in the segment"
NAME_SOME = "name the ones that matter: {name: long_context, where: 'prompt_tokens >= 8000'}"


def _value(segment: Segment, index: int, logs: Logs) -> pl.Expr:
    """The level of every row, as text; null for none."""
    at: KeyPath = ("segments", index)
    if segment.where is not None:
        return logs.expressions.condition(segment.where, (*at, "where"))
    name = str(segment.column)
    value = logs.expressions.column(name, at)
    dtype = logs.dtype(name)
    if dtype.is_nested() or dtype == pl.Null:
        found = "null on every row" if dtype == pl.Null else str(dtype)
        message = f"column {visible(name)!r} is {found}; expected text, whole numbers or booleans"
        raise LogError([logs.expressions.spec.source.problem(at, message)])
    return label(value, dtype)


def columns(segment: Segment) -> list[str]:
    """The columns that decide who belongs to a segment."""
    if segment.where is not None:
        return list(dict.fromkeys(pl.sql_expr(segment.where).meta.root_names()))
    return [str(segment.column)]


def _later(spec: Spec, logs: Logs, values: Iterable[pl.Expr]) -> Iterable[tuple[int, str, str]]:
    """Segments on what the action may have moved, or on the arm itself."""
    before = declared(spec, logs)
    after = _after(spec, logs, before)
    below = {metric.denominator for metric in spec.metrics.values()}
    told = {str(logs.columns[role]): role for role in ("arm", "intended") if logs.has(role)}
    hint = "a segment is of facts from before the decision, by which one can pick whom to treat"
    features = "where it stood before, declare it under logs.columns.features or state"
    for index, segment in enumerate(spec.segments):
        for name in columns(segment):
            shown = visible(name)
            if name in told and name not in before:
                yield index, f"{shown!r} tells the arm ({told[name]}), so it holds no comparison of the arms", hint
            elif name in after:
                mendable = name in below or name in _parts(spec)
                yield index, f"{shown!r} is {after[name]}: {MOVED}", features if mendable else hint
            elif name not in before and (row := by_name(name)) is not None:
                yield index, f"{shown!r} is by its name {row.row}: {MOVED}", features


def _after(spec: Spec, logs: Logs, before: Iterable[str]) -> dict[str, str]:
    """Columns that stand after the action by the spec's own word, and what they are."""
    found = {name: later.said for name, later in decided_after(spec, logs).items()}
    parts = {name: f"part of the metric {metric!r}" for name, metric in _parts(spec).items() if name not in before}
    cost = spec.economics.cost.column if spec.economics is not None and spec.economics.cost is not None else None
    priced = {cost: "what economics.cost prices"} if cost is not None else {}
    return parts | priced | found


def _parts(spec: Spec) -> dict[str, str]:
    """The columns of metrics' expressions, with the metric."""
    return {
        name: metric.name
        for metric in spec.metrics.values()
        if metric.expr is not None
        for name in pl.sql_expr(metric.expr).meta.root_names()
    }


def _endless(spec: Spec, logs: Logs, values: Iterable[pl.Expr]) -> Iterable[tuple[int, str, str]]:
    """Columns of which slices of the log alone show too many levels: counting them all would take room for nothing."""
    named = {str(i): value for i, value in enumerate(values) if spec.segments[i].where is None}
    if not named:
        return
    seen = pilot(logs.frame, [value.n_unique().alias(i) for i, value in named.items()], logs.source.rows)
    for i in named:
        if (n := int(seen[i].max() or 0)) > MOST + 1:  # type: ignore[arg-type]
            yield int(i), f"{n:,} levels and more are more than a decision is made over ({MOST})", NAME_SOME


def _refuse(spec: Spec, findings: Iterable[tuple[int, str, str]]) -> None:
    """Raise all findings, each at its segment."""
    problems: list[Problem] = [
        spec.source.problem(("segments", index), message, hint) for index, message, hint in findings
    ]
    if problems:
        raise SpecError(problems)


def _group(spec: Spec, logs: Logs, segment: Segment, value: pl.Expr, counts: pl.DataFrame) -> Group:
    n_null = int(counts.filter(pl.col("level").is_null())["n"].sum())
    state = spec.design.kind in STATE_FOLLOWS and set(columns(segment)) & set(logs.columns.get("state", ()))
    descriptive = LIVE_STATE if state else ""
    if segment.where is not None:
        by = {bool(level): int(n) for level, n in counts.drop_nulls().iter_rows()}
        holds = Level(segment.name, value, by.get(True, 0), segment.margin)
        others = Level(f"not {segment.name}", ~value, by.get(False, 0))
        return Group(segment.name, (holds, others), n_null, descriptive, where=True)
    numeric = logs.dtype(str(segment.column)).is_numeric()
    order = pl.col("level").cast(pl.Float64, strict=False) if numeric else pl.col("level")
    known = counts.drop_nulls().sort(order, "level")
    levels = tuple(
        Level(str(name), (value == name).fill_null(False), int(n), segment.margin) for name, n in known.iter_rows()
    )
    return Group(segment.name, levels, n_null, descriptive)


def _middle(logs: Logs, ends: pl.DataFrame) -> datetime | None:
    """Halfway through the window: from its start, else the first kept row, to its end, else the last."""
    first, last = ends.row(0)
    start, end = logs.times
    start, end = start or first, end or last
    return None if start is None or end is None else start + (end - start) / 2
