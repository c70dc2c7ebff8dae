"""Rows to small tables in one streaming pass.

Everything that a check or an estimator needs is declared as a :class:`Table`: keys, and sums, counts, minima and
maxima by those keys. Declarations under one name are united, and one pass over the files answers all of them.
A table is computed as ``partial`` (rows to groups) and ``merge`` (groups to groups); both are associative and
commutative to the last bit, because floats are summed in fixed point: every addend becomes two whole numbers, a coarse
and a fine part, whose steps are chosen so that no sum over the whole log can overflow (the idea of Demmel & Nguyen
2015, "Parallel reproducible summation", in integers). The same logs therefore give the same bytes whatever the number
of threads, files or partial results.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import polars as pl

from readout.errors import LogError, Problem
from readout.text import visible

# The pilot's largest magnitude times this is the bound that the grids are made for.
HEADROOM = 2.0**12
PILOT_ROWS = 20_000
ROWS = "n"
# Sums of these are exact in 64 bits whatever the log; of the wide ones, as long as the largest times the rows fits.
NARROW = (pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
WIDE = (pl.Int64,)
LARGEST_SUM = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Table:
    """One group-by.

    Attributes:
        name: What asks for it; tables of one name must have the same keys and filter.
        keys: Key name to row expression (empty: one row for the whole log).
        where: Rows that count (None: all).
        sums: Name to numeric row expression; nulls are left out. Rows are always counted, as ``n``.
        minima, maxima: Name to row expression.
        finite: Name to numeric row expression that must hold neither NaN nor infinity (every sum must not, unasked).
        single: Every row is a group of its own, told apart by the keys. It costs memory by the row.
    """

    name: str
    keys: Mapping[str, pl.Expr]
    where: pl.Expr | None = None
    sums: Mapping[str, pl.Expr] = field(default_factory=dict)
    minima: Mapping[str, pl.Expr] = field(default_factory=dict)
    maxima: Mapping[str, pl.Expr] = field(default_factory=dict)
    finite: Mapping[str, pl.Expr] = field(default_factory=dict)
    single: bool = False

    def __post_init__(self) -> None:
        constant = [name for name, expr in self.sums.items() if not expr.meta.root_names()]
        if constant or ROWS in self.sums:
            raise ValueError(f"table {self.name!r}: {constant or ROWS!r} is no sum over a row's values")

    def __or__(self, other: Table) -> Table:
        """The union of two declarations of one table."""
        if self.name != other.name or list(self.keys) != list(other.keys):
            raise ValueError(f"tables {self.name!r} and {other.name!r} do not go together")
        for mine, theirs in ((self.sums, other.sums), (self.minima, other.minima), (self.maxima, other.maxima)):
            if differ := [n for n in mine.keys() & theirs.keys() if not mine[n].meta.eq(theirs[n])]:
                raise ValueError(f"table {self.name!r} means two things by {sorted(differ)}")
        return replace(
            self,
            sums={**self.sums, **other.sums},
            minima={**self.minima, **other.minima},
            maxima={**self.maxima, **other.maxima},
            finite={**self.finite, **other.finite},
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The fixed point of one sum.

    Attributes:
        step: The coarse step, a power of two.
        parts: Fine steps in a coarse one.
        bound: The largest magnitude of an addend that it has room for.
    """

    step: float
    parts: float
    bound: float

    @classmethod
    def for_values(cls, bound: float, rows: int) -> Grid:
        """The finest grid for up to ``rows`` addends of magnitude at most ``bound``."""
        exponent = math.frexp(min(max(bound, 1e-290), sys.float_info.max))[1]
        bits = 62 - max(rows, 4).bit_length()
        return cls(2.0 ** (exponent - bits), 2.0**bits, math.ldexp(1.0, exponent) if exponent < 1024 else math.inf)

    def split(self, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        """Coarse and fine steps of a value; what is left is below half a fine step's size and cut off."""
        steps = value.cast(pl.Float64) * (1.0 / self.step)
        coarse = steps.floor()
        fine = (steps - coarse) * self.parts
        # A value beyond the grid must not end the pass: it is found by its size, and the pass repeated.
        return coarse.cast(pl.Int64, wrap_numerical=True), fine.cast(pl.Int64, wrap_numerical=True)

    def join(self, coarse: pl.Expr, fine: pl.Expr) -> pl.Expr:
        """Sums of steps as the sum of the values, rounded once."""
        return coarse.cast(pl.Float64) * self.step + fine.cast(pl.Float64) * (self.step / self.parts)


def unite(tables: Iterable[Table]) -> list[Table]:
    """One table a name, in the order of first mention."""
    united: dict[str, Table] = {}
    for table in tables:
        united[table.name] = united[table.name] | table if table.name in united else table
    return list(united.values())


def partial(frame: pl.LazyFrame, table: Table, grids: Mapping[str, Grid]) -> pl.LazyFrame:
    """Rows to groups.

    Args:
        frame: Rows.
        table: What to sum.
        grids: A grid for each float sum, by its name; sums of whole numbers need none.
    """
    if table.where is not None:
        frame = frame.filter(table.where)
    aggregates = [pl.len().cast(pl.Int64).alias(ROWS)]
    twins = _twins(table.sums)
    for name, expr in table.sums.items():
        if name in twins:
            continue
        if name in grids:
            coarse, fine = grids[name].split(expr)
            aggregates += [coarse.sum().alias(f"{name}\0high"), fine.sum().alias(f"{name}\0low")]
        else:
            aggregates.append(expr.cast(pl.Int64).sum().alias(name))
    aggregates += [expr.min().alias(name) for name, expr in table.minima.items()]
    alike = _twins(table.maxima)
    aggregates += [expr.max().alias(name) for name, expr in table.maxima.items() if name not in alike]
    by = [expr.alias(key) for key, expr in table.keys.items()]
    if table.single:
        groups = frame.select(*by, *_row_parts(table, grids, twins))
    else:
        groups = frame.group_by(by).agg(aggregates) if by else frame.select(aggregates)
    copies = [*alike.items()]
    for name, first in twins.items():
        copies += zip(_columns(name, grids), _columns(first, grids), strict=True)
    return groups.with_columns(pl.col(first).alias(name) for name, first in copies)


def _row_parts(table: Table, grids: Mapping[str, Grid], twins: Mapping[str, str]) -> list[pl.Expr]:
    """What a row adds to each sum, as the group of it alone."""
    parts = [pl.lit(1, dtype=pl.Int64).alias(ROWS)]
    for name, expr in table.sums.items():
        if name in twins:
            continue
        if name in grids:
            halves = zip(_columns(name, grids), grids[name].split(expr), strict=True)
            parts += [half.fill_null(0).alias(column) for column, half in halves]
        else:
            parts.append(expr.cast(pl.Int64).fill_null(0).alias(name))
    parts += [expr.alias(name) for name, expr in table.minima.items()]
    return parts + [expr.alias(name) for name, expr in table.maxima.items() if name not in _twins(table.maxima)]


def _twins(exprs: Mapping[str, pl.Expr]) -> dict[str, str]:
    """Names whose expression another name, standing before them, has too: it is computed once."""
    first: dict[bytes, str] = {}
    named = {name: first.setdefault(expr.meta.serialize(), name) for name, expr in exprs.items()}
    return {name: twin for name, twin in named.items() if twin != name}


def merge(parts: Sequence[pl.DataFrame], table: Table, grids: Mapping[str, Grid]) -> pl.DataFrame:
    """Groups to groups: partial results of any split of the rows, in any order, to one table sorted by its keys."""
    together = pl.concat(parts)
    if len(parts) > 1 and not table.single:
        sums = [pl.col(c).sum() for c in (ROWS, *(c for n in table.sums for c in _columns(n, grids)))]
        ends = [pl.col(n).min() for n in table.minima] + [pl.col(n).max() for n in table.maxima]
        aggregates = [*sums, *ends]
        together = together.group_by(*table.keys).agg(aggregates) if table.keys else together.select(aggregates)
    return together.sort(*table.keys) if table.keys else together


def finish(merged: pl.DataFrame, table: Table, grids: Mapping[str, Grid]) -> pl.DataFrame:
    """The two halves of every float sum added, once; columns are the keys, sums, minima and maxima of the table."""
    columns = [*(pl.col(k) for k in table.keys), pl.col(ROWS)]
    for name in table.sums:
        if name in grids:
            columns.append(grids[name].join(pl.col(f"{name}\0high"), pl.col(f"{name}\0low")).alias(name))
        else:
            columns.append(pl.col(name))
    return merged.select(*columns, *(pl.col(n) for n in (*table.minima, *table.maxima)))


def run_pass(
    frame: pl.LazyFrame, tables: Iterable[Table], rows: int, *, one_scan: bool = False
) -> dict[str, pl.DataFrame]:
    """Answer all tables in one streaming pass.

    Args:
        frame: The scanned logs.
        tables: Declarations; those of one name are united.
        rows: Upper bound on the number of rows.
        one_scan: Read every byte once and hand the rows to all tables together. Right where reading is dear (an
            object store); local files are scanned for each table, which is as fast in a third of the memory.

    Returns:
        Table name to its groups, sorted by key.

    Raises:
        NotFinite: A sum met NaN or infinity.
        LogError: The files cannot be read to the end.
    """
    wanted = unite(tables)
    types = {t.name: frame.select(**t.sums).collect_schema() if t.sums else {} for t in wanted}
    bounds = _pilot(frame, wanted, {t: [n for n in of if of[n] not in NARROW + WIDE] for t, of in types.items()}, rows)
    while True:
        grids = {t.name: {n: Grid.for_values(b, rows) for n, b in bounds[t.name].items()} for t in wanted}
        limits = _limits(wanted, types, grids, rows)
        asked = _watching(wanted, limits)
        queries = [partial(frame, t, grids.get(t.name, {})) for t in asked]
        found = collect(queries) if one_scan else _each(queries)
        beyond = _beyond(found, limits)
        if not beyond:
            break
        # A value outgrew the pilot's grid, or a sum of whole numbers 64 bits: the pass is repeated with room for it.
        for (table_name, name), bound in beyond.items():
            bounds[table_name][name] = bound
    parts = dict(zip((t.name for t in asked), found, strict=True))
    done = {t.name: finish(merge([parts[t.name]], t, grids[t.name]), t, grids[t.name]) for t in wanted}
    if overflowed := {n for t in wanted for n in grids[t.name] if not done[t.name][n].is_finite().all()}:
        raise NotFinite(sorted(overflowed))
    return done


def _each(queries: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
    """Compute queries each with a scan of its own, some at a time: one alone leaves a processor idle."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda query: collect([query])[0], queries))


def collect(queries: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
    """Compute queries over the logs together, on the streaming engine.

    Raises:
        LogError: The files cannot be read to the end, or a value cannot be converted.
    """
    try:
        return pl.collect_all(queries, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        text = str(error).strip().splitlines()
        message = f"cannot be read to the end: {visible(text[0] if text else type(error).__name__)}"
        raise LogError([Problem("logs", message)]) from error


def _limits(
    tables: Sequence[Table],
    types: Mapping[str, Mapping[str, pl.DataType]],
    grids: Mapping[str, Mapping[str, Grid]],
    rows: int,
) -> dict[tuple[str, str], float]:
    """Table and name of every row expression whose largest magnitude must be known, and how large it may be."""
    limits = {}
    for table in tables:
        for name in table.sums:
            if name in grids[table.name]:
                limits[table.name, name] = grids[table.name][name].bound
            elif types[table.name][name] in WIDE:
                limits[table.name, name] = LARGEST_SUM / max(rows, 1)
        limits |= {(table.name, name): math.inf for name in table.finite}
    return limits


def _watching(tables: Sequence[Table], limits: Iterable[tuple[str, str]]) -> list[Table]:
    """The tables, the first unfiltered one also keeping the largest magnitudes; NaN counts as infinity."""
    by_name = {t.name: t for t in tables}
    largest = {}
    for owner, name in limits:
        table = by_name[owner]
        size = {**table.sums, **table.finite}[name].cast(pl.Float64).abs().fill_nan(math.inf)
        largest[f"{owner}\0{name}"] = size if table.where is None else pl.when(table.where).then(size)
    if not largest:
        return list(tables)
    host = next((t for t in tables if t.where is None), Table("\0largest", {}))
    watching = replace(host, maxima={**host.maxima, **largest})
    return [watching if t is host else t for t in tables] if host in tables else [*tables, watching]


def _beyond(found: Sequence[pl.DataFrame], limits: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Sums whose largest addend is over its limit, with a bound that has room; NaN and infinity are the log's."""
    largest = {c: frame[c].max() for frame in found for c in frame.columns}
    met = {key: float(v) for key in limits if isinstance(v := largest[f"{key[0]}\0{key[1]}"], float)}
    if broken := sorted({name for (_, name), value in met.items() if not math.isfinite(value)}):
        raise NotFinite(broken)
    return {key: 2 * value for key, value in met.items() if value > limits[key]}


def _columns(name: str, grids: Mapping[str, Grid]) -> tuple[str, ...]:
    return (f"{name}\0high", f"{name}\0low") if name in grids else (name,)


def pilot_means(frame: pl.LazyFrame, values: Mapping[str, pl.Expr], rows: int) -> dict[str, float]:
    """Rough means of row expressions from three slices of the log: constants to centre on, never results."""
    if not values:
        return {}
    means = [expr.cast(pl.Float64).fill_nan(None).mean().alias(name) for name, expr in values.items()]
    seen = pilot(frame, means, rows).mean().row(0, named=True)
    return {name: mean if mean is not None and math.isfinite(mean) else 0.0 for name, mean in seen.items()}


def pilot(frame: pl.LazyFrame, aggregates: Sequence[pl.Expr], rows: int) -> pl.DataFrame:
    """Aggregates of three slices of the log (start, middle, end), a row each: to choose constants, never results."""
    starts = sorted({0, max(rows // 2 - PILOT_ROWS // 2, 0), max(rows - PILOT_ROWS, 0)})
    # One by one: queries that are collected together share a scan of the whole log.
    return pl.concat([collect([frame.slice(s, PILOT_ROWS).select(aggregates)])[0] for s in starts])


def _pilot(
    frame: pl.LazyFrame, tables: Sequence[Table], floats: Mapping[str, Sequence[str]], rows: int
) -> dict[str, dict[str, float]]:
    """For each float sum, a bound on its magnitude from three slices of the log, with headroom."""
    wanted = [
        t.sums[n].cast(pl.Float64).abs().fill_nan(None).max().alias(f"{t.name}\0{n}")
        for t in tables
        for n in floats[t.name]
    ]
    if not wanted:
        return {t.name: {} for t in tables}
    seen = pilot(frame, wanted, rows).max().row(0, named=True)
    return {t.name: {n: _room(seen[f"{t.name}\0{n}"]) for n in floats[t.name]} for t in tables}


def _room(largest: float | None) -> float:
    return HEADROOM * largest if largest and math.isfinite(largest) else HEADROOM


class NotFinite(LogError):
    """A sum met NaN or infinity; ``names`` are the sums."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            [
                Problem(
                    visible(name),
                    "holds NaN or infinity; expected finite numbers or null",
                    "write null where there is no value, or leave such rows out with logs.where",
                )
                for name in names
            ]
        )
