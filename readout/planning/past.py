"""Past logs as a plan reads them: rows, units by day, and a fine grid of cluster × time, from one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from readout import energy
from readout.errors import LogError, Problem, SpecError
from readout.evidence import count, rows_table
from readout.faults import reading
from readout.logs import Logs, open_logs
from readout.logs.expressions import Expressions
from readout.logs.frame import OUTSIDE, REASONS, SINGLE_ROLES
from readout.logs.sources import find_source
from readout.logs.values import label
from readout.reduce import Table, collect, pilot_means, run_pass
from readout.results import Rows
from readout.samples.base import KEPT, den_sum, term_sums
from readout.spec.designs import Block, ClusterRCT, Switchback, UserRCT
from readout.spec.model import Spec
from readout.terms import Term, metric_terms
from readout.text import visible

GRID, UNITS, MOMENTS, SPAN = "grid", "units by day", "row moments", "span"
ARMS = 20  # more labels than this are no arms
MOST_ROWS = 5_000_000  # of units by day: beyond it, a share of the units stands for all
FINEST = timedelta(minutes=10)
DAY_US = 86_400_000_000
PLANNED = ("primary", "guardrail")
SYSTEM = ("time", "unit", "cluster")  # roles that stand in a log whether an experiment runs or not


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What one pass over the past logs gave.

    Attributes:
        logs: The opened logs.
        rows: Read, kept, dropped.
        start, end: First and last moment that the log speaks of; None without times.
        step: Step of the grid, in microseconds.
        keep_units: One in so many units stands in the table of units.
        labels: Arms of an earlier experiment; empty: none.
        tables: The reduced tables.
        shifts: What single rows' values are centred on.
        terms: Metric to what is summed of it; those of units may leave out ineligible rows.
        left_out: Metric to why it is not planned for.
        absent: Roles that the spec maps and the past log does not have.
    """

    logs: Logs
    rows: Rows
    start: datetime | None
    end: datetime | None
    step: int
    keep_units: int
    labels: tuple[str, ...]
    tables: Mapping[str, pl.DataFrame]
    shifts: Mapping[str, float]
    terms: Mapping[str, Term]
    left_out: Mapping[str, str]
    absent: tuple[str, ...]

    @property
    def days(self) -> float:
        """Length of the log in days; 0 without times."""
        return 0.0 if self.start is None or self.end is None else (self.end - self.start) / timedelta(days=1)


def read_past(spec: Spec, as_of: datetime) -> Past:
    """One pass over the past logs.

    Raises:
        LogError: Files, columns or types that cannot support a plan; no rows in the window.
        SpecError: SQL that does not parse, or no metric that can be planned for.
    """
    spec, absent = _without_absent(spec)
    source = energy.joined_if_asked(spec, find_source(spec.logs.path, spec.base))
    logs = open_logs(_plain(spec), as_of, past=True, source=source)
    terms, left_out = _terms(spec, logs)
    with reading(spec, logs):
        arm, labels = _arm(spec, logs)
        keep = max(1, -(-logs.source.rows // MOST_ROWS))
        step = grid_step(spec)
        shifts = _shifts(logs, terms[1])
        wanted = [*_tables(spec, logs, terms, arm, step, keep), _row_moments(terms[1], arm, shifts)]
        tables = run_pass(logs.frame, wanted, max(logs.source.rows, 1), one_scan=not logs.source.local)
    rows = _rows(tables)
    _require_rows(spec, rows)
    system, _ = terms
    for name, term in system.items():
        if not float(tables[MOMENTS][den_sum(term)].sum() or 0.0) > 0.0:
            left_out[name] = "no past row has a value of it"
    _require_primary(spec, left_out)
    start, end = _span(logs, tables)
    kept = {name: term for name, term in system.items() if name not in left_out}
    return Past(logs, rows, start, end, step, keep, labels, tables, shifts, kept, left_out, absent)


def grid_step(spec: Spec) -> int:
    """Step of the grid in microseconds: it divides every block, its offset and the washout that the spec states."""
    lengths = [*spec.plan.block, FINEST]
    if isinstance(spec.design, Switchback):
        lengths += [spec.design.block.length or FINEST, spec.design.block.offset, spec.design.washout]
    step = math.gcd(*(round(length / timedelta(seconds=1)) for length in lengths))
    return max(step, 60) * 1_000_000


def _without_absent(spec: Spec) -> tuple[Spec, tuple[str, ...]]:
    """The spec without roles that the coming log will have and the past one has not."""
    schema = find_source(spec.logs.path, spec.base).schema
    given = spec.logs.columns
    _require_system(spec, schema)
    changes: dict[str, object] = {}
    for f in fields(given):
        value = getattr(given, f.name)
        if f.name in SINGLE_ROLES:
            if value is not None and value not in schema:
                changes[f.name] = None
        elif kept := tuple(name for name in value if name in schema):
            changes[f.name] = kept
        else:
            changes[f.name] = ()
    lost = tuple(n for n in changes if n in SINGLE_ROLES) + tuple(
        n
        for n in ("state",)
        if len(getattr(given, n)) > len(changes.get(n, ()))  # type: ignore[arg-type]
    )
    columns = replace(given, **changes)  # type: ignore[arg-type]
    return replace(spec, logs=replace(spec.logs, columns=columns)), lost


def _require_system(spec: Spec, schema: Mapping[str, pl.DataType]) -> None:
    """Time, unit and cluster are no doing of an experiment: a name that the log lacks is a slip, and without the
    role the plan would be another one."""
    named = {role: getattr(spec.logs.columns, role) for role in SYSTEM}
    seen = Expressions(spec, schema)
    problems = [
        seen.missing(name, ("logs", "columns", role))
        for role, name in named.items()
        if name is not None and name not in schema
    ]
    if problems:
        more = "leave the role out if past logs do not have it"
        raise LogError([replace(p, hint=f"{p.hint}; {more}") for p in problems])


def _plain(spec: Spec) -> Spec:
    """The spec with a design that asks nothing of the past log."""
    design = spec.design
    if isinstance(design, ClusterRCT):
        return replace(spec, design=replace(design, strata=(), pairs=None, pre_period=None))
    if isinstance(design, UserRCT):
        return replace(spec, design=replace(design, pre_period=None))
    if isinstance(design, Switchback) and design.block.column is not None:
        return replace(spec, design=replace(design, block=Block(length=timedelta(hours=1))))
    return spec


def _terms(spec: Spec, logs: Logs) -> tuple[tuple[dict[str, Term], dict[str, Term]], dict[str, str]]:
    """Terms over all rows and over the rows that a unit-level design counts, and why a metric has none."""
    d = spec.design
    assert d.control is not None
    arms = {"control": d.control, "treatment": d.treatment}
    whole = replace(spec, design=Switchback(**arms, block=Block(length=timedelta(hours=1))))  # type: ignore[arg-type]
    units = replace(spec, design=UserRCT(**arms, shared_state=False))  # type: ignore[arg-type]
    system: dict[str, Term] = {}
    eligible: dict[str, Term] = {}
    left_out: dict[str, str] = {}
    for name, metric in spec.metrics.items():
        if metric.role not in PLANNED:
            continue
        if metric.quantile is not None:
            left_out[name] = "power for a quantile is not planned; its mean's stands nearest"
            continue
        try:
            (system[name],) = metric_terms(replace(whole, metrics={name: metric}), logs)
            (eligible[name],) = metric_terms(replace(units, metrics={name: metric}), logs)
        except LogError as error:
            if metric.role == "primary":
                raise
            system.pop(name, None)
            left_out[name] = error.problems[0].message
    return (system, eligible), left_out


def _arm(spec: Spec, logs: Logs) -> tuple[pl.Expr, tuple[str, ...]]:
    """The arm of an earlier experiment as a label, and its labels; an empty one where there was none."""
    name = spec.logs.columns.arm or "arm"
    if name not in logs.source.schema or logs.dtype(name).is_nested():
        return pl.lit(""), ()
    expr = label(pl.col(name), logs.dtype(name)).fill_null("")
    found = collect([logs.frame.filter(KEPT).select(expr.unique().alias("arm"))])[0]["arm"]
    labels = tuple(sorted(str(a) for a in found if a))
    return (expr, labels) if 1 < len(labels) <= ARMS else (pl.lit(""), ())


def _tables(
    spec: Spec,
    logs: Logs,
    terms: tuple[dict[str, Term], dict[str, Term]],
    arm: pl.Expr,
    step: int,
    keep: int,
) -> list[Table]:
    system, eligible = terms
    tables = [rows_table({})]
    if not logs.has("time"):
        day: pl.Expr = pl.lit(0)
    else:
        at = pl.col("@time").dt.epoch("us")
        day = at.floordiv(DAY_US)
        timed = KEPT & pl.col("@time").is_not_null()
        cluster = pl.col("@cluster").cast(pl.String) if logs.has("cluster") else pl.lit("")
        keys = {"cluster": cluster, "step": at.floordiv(step), "arm": arm}
        sums = _united([t for t in system.values() if not t.per_unit])
        for name in state_columns(spec, logs):
            value = logs.expressions.number(name, ("logs", "columns", "state")).cast(pl.Float64).fill_nan(None)
            sums |= {f"state {name}": value, f"state {name}|n": count(value.is_not_null())}
        tables.append(Table(GRID, keys, timed & cluster.is_not_null(), sums=sums))
        tables.append(Table(SPAN, {}, timed, minima={"low": at}, maxima={"high": at}))
    if logs.has("unit"):
        hashed = pl.col("@unit").hash(0)
        where = KEPT & pl.col("@unit").is_not_null() & (hashed % keep == 0)
        tables.append(
            Table(UNITS, {"unit": hashed, "day": day, "arm": arm}, where,
                  sums=_united(eligible.values()))
        )  # fmt: skip
    return tables


def _united(terms: Iterable[Term]) -> dict[str, pl.Expr]:
    return {name: expr for term in terms for name, expr in term_sums(term).items()}


def state_columns(spec: Spec, logs: Logs) -> list[str]:
    """Numeric columns of live state."""
    schema = logs.source.schema
    return [n for n in spec.logs.columns.state if n in schema and (schema[n].is_numeric() or schema[n] == pl.Boolean)]


def _shifts(logs: Logs, terms: Mapping[str, Term]) -> dict[str, float]:
    pairs = {f"{t.name}|num": t.num for t in terms.values()} | {f"{t.name}|den": t.weight for t in terms.values()}
    return pilot_means(logs.frame, pairs, logs.source.rows)


def _row_moments(terms: Mapping[str, Term], arm: pl.Expr, shifts: Mapping[str, float]) -> Table:
    """Centred sums and products of single rows by arm."""
    sums: dict[str, pl.Expr] = {}
    for term in terms.values():
        x = term.num.cast(pl.Float64) - shifts[f"{term.name}|num"]
        sums |= term_sums(term) | {f"{term.name}|x": x, f"{term.name}|xx": x * x}
        if term.den is not None:
            d = term.den.cast(pl.Float64) - shifts[f"{term.name}|den"]
            sums |= {f"{term.name}|d": d, f"{term.name}|dd": d * d, f"{term.name}|xd": x * d}
    return Table(MOMENTS, {"arm": arm}, KEPT, sums=sums)


def _rows(tables: Mapping[str, pl.DataFrame]) -> Rows:
    by = tables["rows"].group_by("drop").agg(pl.col("n").sum()).sort("drop")
    dropped = {REASONS[r["drop"]]: int(r["n"]) for r in by.iter_rows(named=True) if r["drop"] is not None}
    read = int(by["n"].sum())
    return Rows(read, read - sum(dropped.values()), dropped)


def _require_rows(spec: Spec, rows: Rows) -> None:
    path = visible(", ".join(spec.logs.path))
    if rows.read == 0:
        raise LogError([Problem(path, "the log has no rows", "state plan.moments where there are no past logs")])
    if rows.kept == 0:
        why = "; ".join(f"{n:,} {reason}" for reason, n in sorted(rows.dropped.items(), key=lambda kv: -kv[1]))
        hint = "the window is that of past logs: widen logs.start/end or logs.last" if OUTSIDE in rows.dropped else ""
        raise LogError([Problem(path, f"no row is left of {rows.read:,} read: {why}", hint)])


def _require_primary(spec: Spec, left_out: Mapping[str, str]) -> None:
    primaries = [m.name for m in spec.metrics.values() if m.role == "primary"]
    if all(name in left_out for name in primaries):
        problems = [spec.source.problem(("metrics", n), f"cannot be planned for: {left_out[n]}") for n in primaries]
        raise SpecError(problems)


def _span(logs: Logs, tables: Mapping[str, pl.DataFrame]) -> tuple[datetime | None, datetime | None]:
    """The time that the log covers: its first to its last row, or the window's end that lies within a day of it."""
    if SPAN not in tables or tables[SPAN]["low"][0] is None:
        return None, None
    low, high = (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(tables[SPAN][end][0])) for end in ("low", "high")
    )
    start, end = logs.times
    first = start if start is not None and low - start < timedelta(days=1) else low
    last = end if end is not None and end - high < timedelta(days=1) else high + timedelta(microseconds=1)
    return first, last
